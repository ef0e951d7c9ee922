"""For authors of environment injectors."""

from deployer.core.contract.kube import KubeReader
from deployer.core.contract.providers import EnvContext, EnvInjector

__all__ = [
    "EnvContext",
    "EnvInjector",
    "KubeReader",
]
