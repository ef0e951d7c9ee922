"""Blue-green deployments for Kubernetes. The parts live in sub-packages: `deployer.core` is what a plugin imports."""

__version__ = "0.1.0"
