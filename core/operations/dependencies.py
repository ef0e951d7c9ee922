"""What every operation needs, made once for the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deployer.core.clock import SteadyClock
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import Problem
from deployer.core.model.records import Document
from deployer.core.ports.cluster import Cluster
from deployer.core.ports.redactor import Redactor
from deployer.core.ports.settings import CoreSettings
from deployer.core.ports.store import Store
from deployer.core.ports.versions import Versions
from deployer.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The store, the ports, and the plugins.

    policy  what a descriptor asks for and may not have, as the settings are now
    clock   counts seconds since the epoch evenly
    """

    store: Store
    deployment_log: DeploymentLog
    redactor: Redactor
    registry: Registry
    settings: CoreSettings
    policy: Callable[[Document], list[Problem]]
    cluster: Cluster
    versions: Versions
    clock: SteadyClock = field(default_factory=SteadyClock)
