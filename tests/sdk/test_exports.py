"""What plugin authors may rely on: every name of the public door. Whoever changes this list changes the interface."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

EXPORTS = {
    "environment": """
        EnvContext EnvInjector KubeReader
    """,
    "errors": """
        Cancelled Conflict DeadlineExceeded DeployerError Fenced ForeignObject Interrupted KubeAlreadyExists
        KubeConflict KubeError KubeForbidden KubeNotFound KubeRejected KubeUnavailable NotDelivered OperatorNeeded
        PluginError Revoked SettingsError StepFailed
    """,
    "gate": """
        Decision Failed Gate GateContext HealthTarget HttpAnswer Inconclusive JobPods Measurement Missing Outcome Passed
        Pending Point Signal Verdict VersionAccess VersionUnreachable failed_pod how_it_failed
    """,
    "health": """
        HealthChecker HealthTarget HttpAnswer PodUnreachable Verdict
    """,
    "ingress": """
        Address AddressAnswer Answer Backend Capability DataPlane IngressProvider ORIGINAL_ANNOTATIONS Objection
        PREVIEW_OPTIONS PodAnswers Preview REVISION_HEADER RequestMatch Requests Route RouteAnswers RouteClaim
        RouteContext RouteReader RouteState Share ask
        backends_behind claimants data_plane data_plane_schema ingress_hosts redirect_name require_only
        shares_of www_twin www_twin_is_free
    """,
    "kube": """
        CONFIG_MAP CONTROLLER Changed ENDPOINT_SLICE EVENT HTTP_ROUTE INGRESS INGRESS_CLASS JOB Kind KubeAccess
        NAMESPACE NotReady POD SECRET SERVICE annotation_of controlled_by deployment_of name_of objects_of_app
        role_of uid_of
    """,
    "observer": """
        HOOKS Notification Observer Occurrence
    """,
    "plugin": """
        CancelScope Document INTERFACE PluginSettings Problem Provider Schema hookimpl http_exchange
    """,
    "strategy": """
        AwaitEndpoints AwaitReady CheckPreview CheckUnused ConfirmRoute DisplaceRoute Done Duty MoveService Outcome
        Park Phase PinnedSettings Plan PlannedStep PrepareRoute Previous ProviderRef ReleaseRoute RemoveRoute
        RemoveService RemoveWorkload StartWorkload Step Strategy SwitchRoute VerifyHealth Work Workload
        WorkloadContext await_endpoints await_pods_gone await_return controlled_by grace_of has_controller in_time
        is_ready name_of own_controller remove_orphans render_workload require_ready retire_steps rollback_steps
        undeploy_steps workload_labels
    """,
    "webhook": """
        NoAnswer RECEIVER_SCHEMA Receiver Server parse_keys receiver_of signature status_text
    """,
}

TESTING = {
    "descriptors": "HEALTHY IMAGE describe plan_of",
    "environment": "CHECKS Check InjectorBench",
    "fakes": "FakeEnvironment FakeKube FakeWork",
    "gates": "CHECKS Check FakeGate FakeVersion GateBench",
    "health": "CHECKS Check HealthBench WRONG",
    "ingress": "Bench CHECKS open_bench",
    "plugins": "load problems_of require_options",
    "pods": "FakePod Talk answer drip drip_headers hang replying",
    "service": "HEALTHY IMAGE NGINX PATIENCE SandboxedService describe open_service",
    "strategies": "CHECKS CRASH_CHECKS Check StrategyBench",
}


@pytest.mark.parametrize(("room", "exports"), [("sdk", EXPORTS), ("testing", TESTING)], ids=["sdk", "testing"])
def test_the_door_exports_this_and_nothing_else(room: str, exports: dict[str, str]) -> None:
    modules = {kind: importlib.import_module(f"deployer.{room}.{kind}") for kind in exports}
    assert {kind: set(module.__all__) for kind, module in modules.items()} == {
        kind: set(names.split()) for kind, names in exports.items()
    }
    missing = {
        f"{kind}.{name}" for kind, module in modules.items() for name in module.__all__ if not hasattr(module, name)
    }
    assert not missing


def test_every_module_of_the_door_is_listed() -> None:
    for room, exports in (("sdk", EXPORTS), ("testing", TESTING)):
        found = importlib.import_module(f"deployer.{room}")
        assert {module.name for module in pkgutil.iter_modules(found.__path__)} == exports.keys(), room


def test_settings_load_neither_kubernetes_nor_falcon() -> None:
    code = "import sys, deployer.settings; print(*sorted(m for m in ('kubernetes', 'falcon') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
