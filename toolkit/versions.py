"""`Versions` on Services, ReplicationControllers and Secrets: what the planner asks about versions in the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.core.contract.kube import KubeAccess
from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import KubeError, KubeForbidden
from deployer.core.model.kind import CONTROLLER, SECRET, SERVICE
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.plan import Workload
from deployer.core.model.records import Document
from deployer.kube.ownership import is_original
from deployer.planning.versions import Running, SecretSearch, Selection, Versions
from deployer.toolkit import manifests, own_manifests

TLS = "kubernetes.io/tls"
"""The type of Secrets that hold a certificate and its key."""


class KubernetesVersions(Versions):
    """Has no state: one is enough for the service."""

    def selection(self, kube: KubeAccess, app: str) -> Selection | None:
        service = kube.get(SERVICE, service_name(app))
        if service is None:
            return None
        original = is_original(service, app)
        if not original and not kube.is_ours(service):
            raise kube.foreign(SERVICE, service)
        version = (service["spec"].get("selector") or {}).get("version", "")
        return Selection(version, original, _our_fields(service))

    def running(self, kube: KubeAccess, app: str, version: str) -> Running | None:
        controller = kube.get(CONTROLLER, versioned_name(app, version))
        if controller is None:
            return None
        return Running(int(controller["spec"].get("replicas", 1)), is_original(controller, app))

    def highest(self, kube: KubeAccess, app: str) -> int:
        # From the informer: those of a moment ago are our own, and in the store; should one be missed, the POST that
        # finds the name taken is the test.
        labels = (c["metadata"].get("labels") or {} for c in kube.items(CONTROLLER, {"app": app}))
        versions = (found.get("version", "") for found in labels)
        return max((int(version) for version in versions if version.isdigit()), default=0)

    def tls_secret(self, kube: KubeAccess, names: Sequence[str], kept: str) -> SecretSearch:
        failed = ""
        for name in names:
            try:
                secret = kube.get(SECRET, name)
            except KubeError as error:
                failed = f"looking for a secret named {name} failed: {error}"
                if isinstance(error, KubeForbidden) and name != kept:
                    continue  # the right may be given for other names
                break
            if secret is not None and (name == kept or secret.get("type") == TLS):
                return SecretSearch(name)
        return SecretSearch(failed=failed)

    def check_name(self, app: str, version: str) -> None:
        manifests.check_name(app, version)

    def render(self, context: WorkloadContext) -> Workload:
        return manifests.render(context)

    def checked(self, workload: object, context: WorkloadContext) -> Workload:
        return own_manifests.checked(workload, context)

    def overridden_names(self, descriptor: Document, environment: Sequence[Document]) -> list[str]:
        return manifests.overridden_names(descriptor, environment)


def _our_fields(service: Document) -> Document:
    """What moving the unversioned Service back needs."""
    metadata = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": metadata["name"], "labels": dict(metadata.get("labels") or {})},
        "spec": {"selector": service["spec"].get("selector"), "ports": service["spec"].get("ports")},
    }
