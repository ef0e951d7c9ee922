"""For authors of strategies: what they implement and get, and the steps that ship with the Deployer."""

from deployer.core.contract.kube import is_ready
from deployer.core.contract.strategy import Done, Duty, Outcome, Park, Phase, Step, Strategy, Work, WorkloadContext
from deployer.core.model.plan import PinnedSettings, PlannedStep, Previous, ProviderRef, Workload, grace_of
from deployer.core.model.records import Plan
from deployer.kube.pods import controlled_by, has_controller, name_of
from deployer.toolkit.health.step import VerifyHealth
from deployer.toolkit.manifests import render as render_workload
from deployer.toolkit.readiness.diagnose import await_endpoints, await_pods_gone, in_time
from deployer.toolkit.steps.removal import CheckUnused, RemoveWorkload, retire_steps, undeploy_steps
from deployer.toolkit.steps.rollback import rollback_steps
from deployer.toolkit.steps.route import (
    CheckPreview,
    ConfirmRoute,
    DisplaceRoute,
    PrepareRoute,
    ReleaseRoute,
    RemoveRoute,
    SwitchRoute,
    await_return,
)
from deployer.toolkit.steps.service import MoveService, RemoveService
from deployer.toolkit.steps.start import AwaitEndpoints, AwaitReady, StartWorkload
from deployer.toolkit.workload import own_controller, remove_orphans, require_ready, workload_labels

__all__ = [
    "AwaitEndpoints",
    "AwaitReady",
    "CheckPreview",
    "CheckUnused",
    "ConfirmRoute",
    "DisplaceRoute",
    "Done",
    "Duty",
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
    "WorkloadContext",
    "await_endpoints",
    "await_pods_gone",
    "await_return",
    "controlled_by",
    "grace_of",
    "has_controller",
    "in_time",
    "is_ready",
    "name_of",
    "own_controller",
    "remove_orphans",
    "render_workload",
    "require_ready",
    "retire_steps",
    "rollback_steps",
    "undeploy_steps",
    "workload_labels",
]
