"""For authors of observers that tell several others, each on its own."""

from deployer.core.contract.observer import HOOKS, Notification, Observer
from deployer.core.model.occurrence import Occurrence

__all__ = [
    "HOOKS",
    "Notification",
    "Observer",
    "Occurrence",
]
