"""What plugin authors may rely on: every name of the public door. Whoever changes this list changes the interface."""

import importlib
import subprocess
import sys

EXPORTS = {
    "environment": """
        EnvContext EnvInjector KubeReader
    """,
    "errors": """
        Cancelled Conflict DeadlineExceeded DeployerError Fenced ForeignObject Interrupted KubeAlreadyExists
        KubeConflict KubeError KubeForbidden KubeNotFound KubeRejected KubeUnavailable OperatorNeeded
        PluginError Revoked SettingsError StepFailed
    """,
    "health": """
        HealthChecker HealthTarget HttpAnswer PodUnreachable Verdict
    """,
    "ingress": """
        Address Answer Backend Capability DataPlane IngressProvider ORIGINAL_ANNOTATIONS Objection
        PREVIEW_OPTIONS PodAnswers Preview REVISION_HEADER RequestMatch Route RouteContext RouteState Share ask
        backends_behind claimants data_plane data_plane_schema ingress_hosts redirect_name require_only
        shares_of www_twin www_twin_is_free
    """,
    "kube": """
        CONFIG_MAP CONTROLLER Changed ENDPOINT_SLICE EVENT HTTP_ROUTE INGRESS INGRESS_CLASS Kind KubeAccess
        NAMESPACE NotReady POD SECRET SERVICE annotation_of deployment_of objects_of_app role_of
    """,
    "plugin": """
        CancelScope Document INTERFACE PluginSettings Problem Provider Schema hookimpl http_exchange
    """,
    "strategy": """
        AwaitEndpoints AwaitReady CheckPreview CheckUnused ConfirmRoute DisplaceRoute Done MoveService Outcome
        Park Phase PinnedSettings Plan PlannedStep PrepareRoute Previous ProviderRef ReleaseRoute RemoveRoute
        RemoveService RemoveWorkload StartWorkload Step Strategy SwitchRoute VerifyHealth Work Workload
        WorkloadContext await_endpoints await_pods_gone await_return controlled_by grace_of has_controller in_time
        is_ready name_of own_controller remove_orphans render_workload require_ready retire_steps undeploy_steps
        workload_labels
    """,
}


def test_the_door_exports_this_and_nothing_else() -> None:
    found = {kind: set(importlib.import_module(f"deployer.sdk.{kind}").__all__) for kind in EXPORTS}
    assert found == {kind: set(names.split()) for kind, names in EXPORTS.items()}


def test_what_is_exported_is_there() -> None:
    for kind, names in EXPORTS.items():
        module = importlib.import_module(f"deployer.sdk.{kind}")
        assert [name for name in names.split() if not hasattr(module, name)] == []


def test_settings_load_neither_kubernetes_nor_falcon() -> None:
    code = "import sys, deployer.core.settings; print(*sorted(m for m in ('kubernetes', 'falcon') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
