"""What every operation needs, made once for the service."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployer.core.clock import SteadyClock
from deployer.core.contract.cluster import Cluster
from deployer.core.contract.store import Store
from deployer.core.contract.versions import Versions
from deployer.core.deployment_log import DeploymentLog
from deployer.core.model.activity import Activities
from deployer.core.plugin_manager.registry import Registry
from deployer.core.redaction import Redactor
from deployer.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The store, the ports, and the plugins. `clock` counts seconds since the epoch evenly."""

    store: Store
    deployment_log: DeploymentLog
    redactor: Redactor
    registry: Registry
    settings: Settings
    cluster: Cluster
    versions: Versions
    clock: SteadyClock = field(default_factory=SteadyClock)
    activities: Activities = field(default_factory=Activities)
