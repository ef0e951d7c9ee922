"""For authors of environment injectors."""

from deployer.core.contract.environment import EnvContext, EnvInjector
from deployer.core.contract.kube import KubeReader

__all__ = [
    "EnvContext",
    "EnvInjector",
    "KubeReader",
]
