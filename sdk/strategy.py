"""For authors of strategies: what they implement and get, and the steps that ship with the Deployer."""

from deployer.core.contract.providers import Done, Outcome, Park, Phase, Step, Strategy, Work
from deployer.core.model.plan import PinnedSettings, PlannedStep, Previous, ProviderRef, Workload
from deployer.core.model.records import Plan
from deployer.toolkit.health.step import VerifyHealth
from deployer.toolkit.steps import (
    AwaitEndpoints,
    AwaitReady,
    CheckPreview,
    CheckUnused,
    ConfirmRoute,
    DisplaceRoute,
    MoveService,
    PrepareRoute,
    ReleaseRoute,
    RemoveRoute,
    RemoveService,
    RemoveWorkload,
    StartWorkload,
    SwitchRoute,
    deploy_steps,
    retire_steps,
    undeploy_steps,
)
from deployer.toolkit.workload import require_ready

__all__ = [
    "AwaitEndpoints",
    "AwaitReady",
    "CheckPreview",
    "CheckUnused",
    "ConfirmRoute",
    "DisplaceRoute",
    "Done",
    "MoveService",
    "Outcome",
    "Park",
    "Phase",
    "PinnedSettings",
    "Plan",
    "PlannedStep",
    "PrepareRoute",
    "Previous",
    "ProviderRef",
    "ReleaseRoute",
    "RemoveRoute",
    "RemoveService",
    "RemoveWorkload",
    "StartWorkload",
    "Step",
    "Strategy",
    "SwitchRoute",
    "VerifyHealth",
    "Work",
    "Workload",
    "deploy_steps",
    "require_ready",
    "retire_steps",
    "undeploy_steps",
]
