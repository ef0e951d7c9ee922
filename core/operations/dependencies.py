"""What every operation needs, made once for the service."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployer.core.clock import SteadyClock
from deployer.core.deployment_log import DeploymentLog
from deployer.core.operations.activity import Activities
from deployer.core.operations.execution.invocation import Hung
from deployer.core.ports.cluster import Cluster
from deployer.core.ports.leases import Leases
from deployer.core.ports.planning import Planning
from deployer.core.ports.redactor import Redactor
from deployer.core.ports.replicas import Replicas
from deployer.core.ports.settings import CoreSettings
from deployer.core.ports.store import Store
from deployer.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The store, the ports, and the plugins. `clock` counts seconds since the epoch evenly."""

    store: Store
    deployment_log: DeploymentLog
    redactor: Redactor
    registry: Registry
    settings: CoreSettings
    cluster: Cluster
    planning: Planning
    leases: Leases
    replicas: Replicas
    clock: SteadyClock = field(default_factory=SteadyClock)
    activities: Activities = field(default_factory=Activities)
    hung: Hung = field(default_factory=Hung)
