"""What the API server fills in where an object leaves it open (the parts that readers notice)."""

import base64

from deployer.sandbox.kinds import (
    CRD,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    JOB,
    NAMESPACE,
    POD,
    RC,
    SECRET,
    SERVICE,
    Kind,
    Object,
)
from deployer.sandbox.objects import custom
from deployer.sandbox.status import ApiError


def fill(kind: Kind, obj: Object) -> None:
    """Fills the defaults in, in place."""
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.name
    if kind is POD:
        _pod_spec(obj.setdefault("spec", {}))
        # As the real server reads a negative one.
        if obj["spec"]["terminationGracePeriodSeconds"] < 0:
            obj["spec"]["terminationGracePeriodSeconds"] = 1
    elif kind is RC:
        _replication_controller(obj)
    elif kind is JOB:
        _job(obj)
    elif kind is SERVICE:
        _service(obj.setdefault("spec", {}))
    elif kind is NAMESPACE:
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    elif kind is SECRET:
        _secret(obj)
    elif kind is CRD:
        custom.fill(obj)
    elif kind is ENDPOINT_SLICE:
        for port in obj.get("ports") or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")
    elif kind is HTTP_ROUTE:
        _http_route(obj.setdefault("spec", {}), obj["apiVersion"].partition("/")[0])


def _http_route(spec: Object, group: str) -> None:
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    for parent in spec.get("parentRefs") or ():
        parent.setdefault("group", group)
        parent.setdefault("kind", "Gateway")
    for rule in spec.setdefault("rules", [{}]):
        for match in rule.setdefault("matches", [dict(everything)]):
            path = match.setdefault("path", {})
            path.setdefault("type", "PathPrefix")
            path.setdefault("value", "/")
            for header in match.get("headers") or ():
                header.setdefault("type", "Exact")
        for backend in rule.get("backendRefs") or ():
            for field, value in {"group": "", "kind": "Service", "weight": 1}.items():
                backend.setdefault(field, value)
        for part in rule.get("filters") or ():
            if part.get("type") == "RequestRedirect":
                part.setdefault("requestRedirect", {}).setdefault("statusCode", 302)


def _replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    template = spec.get("template")
    if template is None:
        return
    labels = template.setdefault("metadata", {}).get("labels") or {}
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)
    _pod_spec(template.setdefault("spec", {}))


def _job(obj: Object) -> None:
    meta, spec = obj["metadata"], obj.setdefault("spec", {})
    if "parallelism" not in spec:
        spec.setdefault("completions", 1)
    usual = {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
    for field, value in {**usual, "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": False}.items():
        spec.setdefault(field, value)
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    if labels and not meta.get("labels"):
        meta["labels"] = dict(labels)
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}job-name", meta["name"])
        labels.setdefault(f"{prefix}controller-uid", meta["uid"])
    selected = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selected.setdefault("batch.kubernetes.io/controller-uid", meta["uid"])
    _pod_spec(template.setdefault("spec", {}))


def _service(spec: Object) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if "port" in port and not port.get("targetPort"):
            port["targetPort"] = port["port"]


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    data = obj.setdefault("data", {})
    data |= {key: base64.b64encode(text.encode()).decode() for key, text in (obj.pop("stringData", None) or {}).items()}
    for key, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            message = f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in data.{key}'
            raise ApiError(400, "BadRequest", message) from None


def _pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        _container(container)


def _container(container: Object) -> None:
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition(":")[2]
    moving = "@" not in image and tag in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if moving else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        if field := (variable.get("valueFrom") or {}).get("fieldRef"):
            field.setdefault("apiVersion", "v1")
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := container.get(name):
            for field, value in {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1}.items():
                probe.setdefault(field, value)
            probe.setdefault("failureThreshold", 3)
            if get := probe.get("httpGet"):
                get.setdefault("scheme", "HTTP")
                get.setdefault("path", "/")
