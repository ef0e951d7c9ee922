"""Validation of objects as the API server validates them."""

import ipaddress
import re
from typing import Any

from deployer.sandbox import status
from deployer.sandbox.kinds import (
    CONFIG_MAP,
    CRD,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INGRESS,
    JOB,
    NAMESPACE,
    POD,
    RC,
    SECRET,
    SERVICE,
    Kind,
    Object,
    selects,
)
from deployer.sandbox.objects.problems import LABEL, LABEL_1035, LABEL_VALUE, QUALIFIED, SUBDOMAIN, Problems, text_of

FIELD_PATH = re.compile(
    r"metadata\.(name|namespace|uid|labels|annotations|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(hostIPs?|podIPs?)"
)
SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    **{letter: 1000.0 ** (i + 2) for i, letter in enumerate("MGTPE")},
    **{f"{letter}i": 1024.0 ** (i + 1) for i, letter in enumerate("KMGTPE")},
}
FILTERS = ("RequestRedirect", "ResponseHeaderModifier")
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")


def validate(kind: Kind, obj: Object, old: Object | None = None) -> None:
    """Checks an object with its defaults; `old` for an update. Raises a 422, or a 501 for what the sandbox lacks."""
    problems = Problems()
    _metadata(kind, obj["metadata"], problems)
    if kind is SERVICE:
        _service(obj.get("spec") or {}, problems)
    elif kind is POD:
        pod_spec(obj.get("spec") or {}, "spec", problems)
    elif kind is RC:
        _replication_controller(obj.get("spec") or {}, problems)
    elif kind is JOB:
        _job(obj["spec"], problems)
    elif kind is INGRESS:
        _ingress(obj.get("spec") or {}, problems)
    elif kind is CRD:
        _definition(obj, problems)
    elif kind is HTTP_ROUTE:
        _http_route(obj["spec"], problems)
    elif kind is ENDPOINT_SLICE and obj.get("addressType") not in ("IPv4", "IPv6", "FQDN"):
        problems.unsupported("addressType", obj.get("addressType", ""), ("FQDN", "IPv4", "IPv6"))
    if old is not None:
        _unchanged(kind, obj, old, problems)
    problems.raise_for(kind, obj["metadata"]["name"])


def _metadata(kind: Kind, meta: Object, problems: Problems) -> None:
    pattern = {SERVICE: LABEL_1035, NAMESPACE: LABEL}.get(kind, SUBDOMAIN)
    problems.name("metadata.name", meta["name"], pattern)
    labels(meta.get("labels") or {}, "metadata.labels", problems)
    for key in meta.get("annotations") or {}:
        _qualified(key.lower(), "metadata.annotations", problems)
    if sum(len(key) + len(value) for key, value in (meta.get("annotations") or {}).items()) > 256 * 1024:
        problems._add("TooLong", "metadata.annotations", "Too long: may not be more than 262144 bytes")
    for reference in meta.get("ownerReferences") or ():
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                what = "version must not be empty" if field == "apiVersion" else "must not be empty"
                problems.invalid(f"metadata.ownerReferences.{field}", "", what)
    for i, name in enumerate(meta.get("finalizers") or ()):
        if "/" not in name and name not in ("orphan", "foregroundDeletion", "kubernetes"):
            sentence = "name is neither a standard finalizer name nor is it fully qualified"
            problems.invalid(f"metadata.finalizers[{i}]", name, sentence)


def labels(found: dict[str, str], field: str, problems: Problems) -> None:
    for key, value in found.items():
        _qualified(key, field, problems)
        problems.name(field, value, LABEL_VALUE)


def _qualified(key: str, field: str, problems: Problems) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and not prefix:
        problems.invalid(field, key, "prefix part must be non-empty")
    elif slash:
        problems.name(field, prefix, SUBDOMAIN)
    problems.name(field, name, QUALIFIED)


def _definition(obj: Object, problems: Problems) -> None:
    """A CustomResourceDefinition, as far as it decides what is served."""
    spec = obj["spec"] if isinstance(obj.get("spec"), dict) else {}
    names = spec["names"] if isinstance(spec.get("names"), dict) else {}
    given = spec["versions"] if isinstance(spec.get("versions"), list) else []
    versions = [version if isinstance(version, dict) else {} for version in given]
    for field, value in [("group", spec.get("group")), *((f"names.{n}", names.get(n)) for n in ("plural", "kind"))]:
        if not value or not isinstance(value, str):
            problems.required(f"spec.{field}")
    if obj["metadata"]["name"] != f"{names.get('plural')}.{spec.get('group')}":
        problems.invalid("metadata.name", obj["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        problems.unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    for i, version in enumerate(versions):
        if not version.get("name") or not isinstance(version.get("served"), bool):
            problems.required(f"spec.versions[{i}].{'served' if version.get('name') else 'name'}")
        schema = version.get("schema")
        if not isinstance(schema, dict) or not schema.get("openAPIV3Schema"):
            problems.required(f"spec.versions[{i}].schema.openAPIV3Schema")
    if sum(version.get("storage") is True for version in versions) != 1:
        problems.invalid("spec.versions", versions, "must have exactly one version marked as storage version")


def _service(spec: Object, problems: Problems) -> None:
    kind = spec["type"]
    if kind not in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"):
        problems.unsupported("spec.type", kind, ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"))
    elif kind != "ClusterIP":
        raise status.not_supported(f"Services of type {kind}, only ClusterIP")
    labels(spec.get("selector") or {}, "spec.selector", problems)
    if spec["sessionAffinity"] not in ("ClientIP", "None"):
        problems.unsupported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None"))
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        problems.required("spec.ports")
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for i, port in enumerate(ports):
        at, name = f"spec.ports[{i}]", port.get("name", "")
        if name:
            problems.name(f"{at}.name", name, LABEL)
        elif len(ports) > 1:
            problems.required(f"{at}.name")
        if name and name in names:
            problems.duplicate(f"{at}.name", name)
        problems.port(f"{at}.port", port.get("port", 0))
        _protocol(at, port, problems)
        _target(f"{at}.targetPort", port.get("targetPort"), problems)
        number = (port.get("port", 0), port["protocol"])
        if number in numbers:
            problems.duplicate(at, {"port": number[0], "protocol": number[1]})
        names.add(name)
        numbers.add(number)


def _protocol(at: str, port: Object, problems: Problems) -> None:
    if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
        problems.unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))


def _target(field: str, target: Any, problems: Problems) -> None:
    if isinstance(target, str):
        _port_name(field, target, problems)
    elif target is not None:
        problems.port(field, target)


def _port_name(field: str, name: str, problems: Problems) -> None:
    if len(name) > 15:
        problems.invalid(field, name, "must be no more than 15 characters")
    if not re.fullmatch(r"[a-z0-9-]*", name):
        problems.invalid(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", name):
        problems.invalid(field, name, "must contain at least one letter (a-z)")
    elif "--" in name:
        problems.invalid(field, name, "must not contain consecutive hyphens")
    elif name[0] == "-" or name[-1] == "-":
        problems.invalid(field, name, "must not begin or end with a hyphen")


def _replication_controller(spec: Object, problems: Problems) -> None:
    if spec["replicas"] < 0:
        problems.invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    if not spec.get("selector"):
        problems.required("spec.selector")
    template = spec.get("template")
    if template is None:
        problems.required("spec.template")
        return
    found = template.get("metadata", {}).get("labels") or {}
    labels(found, "spec.template.metadata.labels", problems)
    if spec.get("selector") and not selects(spec["selector"], found):
        problems.invalid("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
    pod = template.get("spec") or {}
    pod_spec(pod, "spec.template.spec", problems)
    if pod.get("restartPolicy") in ("OnFailure", "Never"):
        problems.unsupported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",))


def _job(spec: Object, problems: Problems) -> None:
    for field in ("completions", "parallelism", "backoffLimit", "activeDeadlineSeconds"):
        if spec.get(field, 0) < 0:
            problems.invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")
    if spec["podReplacementPolicy"] not in ("Failed", "TerminatingOrFailed"):
        known = ("Failed", "TerminatingOrFailed")
        problems.unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], known)
    labels(spec["template"]["metadata"]["labels"], "spec.template.metadata.labels", problems)
    pod = spec["template"]["spec"]
    pod_spec(pod, "spec.template.spec", problems)
    if pod["restartPolicy"] == "Always":
        problems.required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    apart = {"podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy", "ttlSecondsAfterFinished"}
    if found := sorted(apart & spec.keys()) or ["manualSelector"] * spec["manualSelector"]:
        raise status.not_supported(f"the field {found[0]} of Jobs")
    if spec["completionMode"] != "NonIndexed" or spec.get("completions") != 1 or spec["parallelism"] != 1:
        raise status.not_supported("Jobs with more than one completion")
    if pod["restartPolicy"] == "OnFailure":
        raise status.not_supported("Jobs that restart their containers, only those with restartPolicy Never")


def pod_spec(spec: Object, at: str, problems: Problems) -> None:
    if not spec.get("containers"):
        problems.required(f"{at}.containers")
    if spec["restartPolicy"] not in ("Always", "OnFailure", "Never"):
        problems.unsupported(f"{at}.restartPolicy", spec["restartPolicy"], ("Always", "OnFailure", "Never"))
    names: set[str] = set()
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for group in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(group) or ()):
            here, name = f"{at}.{group}[{i}]", container.get("name", "")
            if not name:
                problems.required(f"{here}.name")
            elif name in names:
                problems.duplicate(f"{here}.name", name)
            else:
                problems.name(f"{here}.name", name, LABEL)
            names.add(name)
            _container(container, here, volumes, problems)


def _container(container: Object, at: str, volumes: set[str], problems: Problems) -> None:
    _image(container, at, problems)
    _container_ports(container, at, problems)
    known = ("File", "FallbackToLogsOnError")
    if container["terminationMessagePolicy"] not in known:
        problems.unsupported(f"{at}.terminationMessagePolicy", container["terminationMessagePolicy"], known)
    for hook, handler in (container.get("lifecycle") or {}).items():
        if hook in ("preStop", "postStart") and not handler:
            problems.required(f"{at}.lifecycle.{hook}", "must specify a handler type")
    for source in container.get("envFrom") or ():
        if not {"configMapRef", "secretRef"} & source.keys():
            problems.invalid(f"{at}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
    for i, variable in enumerate(container.get("env") or ()):
        _variable(variable, f"{at}.env[{i}]", problems)
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            problems._add("NotFound", f"{at}.volumeMounts[{i}].name", f"Not found: {text_of(mount.get('name', ''))}")
    _resources(container.get("resources") or {}, f"{at}.resources", problems)
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if name in container:
            _probe(container[name], f"{at}.{name}", problems)


def _resources(resources: Object, at: str, problems: Problems) -> None:
    limits = resources.get("limits") or {}
    for name, wanted in (resources.get("requests") or {}).items():
        if name in limits and _amount(wanted) > _amount(limits[name]):
            most = f"must be less than or equal to {name} limit of {limits[name]}"
            problems.invalid(f"{at}.requests", str(wanted), most)


def _amount(quantity: Any) -> float:
    """A quantity as a number, good enough to compare two."""
    text = str(quantity)
    number = text.rstrip("numkKMGTPEi")
    return float(number) * SUFFIXES.get(text[len(number) :], 1.0)


def _image(container: Object, at: str, problems: Problems) -> None:
    image = container.get("image", "")
    if not image:
        problems.required(f"{at}.image")
    elif image != image.strip() and at.startswith("spec.containers"):  # in a template nobody looks
        problems.invalid(f"{at}.image", image, "must not have leading or trailing whitespace")
    if container["imagePullPolicy"] not in ("Always", "IfNotPresent", "Never"):
        problems.unsupported(f"{at}.imagePullPolicy", container["imagePullPolicy"], ("Always", "IfNotPresent", "Never"))


def _container_ports(container: Object, at: str, problems: Problems) -> None:
    names: set[str] = set()
    for i, port in enumerate(container.get("ports") or ()):
        here, name = f"{at}.ports[{i}]", port.get("name", "")
        if name:
            _port_name(f"{here}.name", name, problems)
            if name in names:
                problems.duplicate(f"{here}.name", name)
        names.add(name)
        if not port.get("containerPort"):
            problems.required(f"{here}.containerPort")
        else:
            problems.port(f"{here}.containerPort", port["containerPort"])
        _protocol(here, port, problems)


def _variable(variable: Object, at: str, problems: Problems) -> None:
    name = variable.get("name", "")
    if not name:
        problems.required(f"{at}.name")
    elif not re.fullmatch(r"[ -<>-~]+", name):
        problems.invalid(
            f"{at}.name",
            name,
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
        )
    source = variable.get("valueFrom")
    if source is not None and variable.get("value"):
        problems.invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
    if source is not None and len(source) != 1:
        problems.invalid(
            f"{at}.valueFrom",
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        )
    for field in ("configMapKeyRef", "secretKeyRef"):
        if source is not None and field in source and not source[field].get("key"):
            problems.required(f"{at}.valueFrom.{field}.key")
    path = (source or {}).get("fieldRef", {}).get("fieldPath")
    if path is not None and not FIELD_PATH.fullmatch(path):
        sentence = f"error converting fieldPath: field label not supported: {path}"
        problems.invalid(f"{at}.valueFrom.fieldRef.fieldPath", path, sentence)


def _probe(probe: Object, at: str, problems: Problems) -> None:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if not handlers:
        problems.required(at, "must specify a handler type")
    for extra in handlers[1:]:
        problems.forbidden(f"{at}.{extra}", "may not specify more than 1 handler type")
    for name in ("httpGet", "tcpSocket"):
        if name in probe:
            _target(f"{at}.{name}.port", probe[name].get("port", 0), problems)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(field, 0) < 0:
            problems.invalid(f"{at}.{field}", probe[field], "must be greater than or equal to 0")


def _ingress(spec: Object, problems: Problems) -> None:
    if not spec.get("rules") and not spec.get("defaultBackend"):
        problems.invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    if "defaultBackend" in spec:
        _backend(spec["defaultBackend"], "spec.defaultBackend", problems)
    for i, rule in enumerate(spec.get("rules") or ()):
        at, host = f"spec.rules[{i}]", rule.get("host", "")
        if _is_address(host):
            problems.invalid(f"{at}.host", host, "must be a DNS name, not an IP address")
        elif host:
            problems.name(f"{at}.host", host.removeprefix("*."), SUBDOMAIN)
        if "http" in rule and not rule["http"].get("paths"):
            problems.required(f"{at}.http.paths")
        for j, path in enumerate(rule.get("http", {}).get("paths") or ()):
            _path(path, f"{at}.http.paths[{j}]", problems)


def _path(path: Object, at: str, problems: Problems) -> None:
    kind, value = path.get("pathType"), path.get("path", "")
    if kind is None:
        problems.required(f"{at}.pathType", "pathType must be specified")
    elif kind not in PATH_TYPES:
        problems.unsupported(f"{at}.pathType", kind, PATH_TYPES)
    elif not value.startswith("/") and (value or kind != "ImplementationSpecific"):
        problems.invalid(f"{at}.path", value, "must be an absolute path")
    elif kind != "ImplementationSpecific":
        for part in ("//", "/./", "/../", "%2f", "%2F"):
            if part in value:
                problems.invalid(f"{at}.path", value, f"must not contain '{part}'")
    _backend(path.get("backend") or {}, f"{at}.backend", problems)


def _backend(backend: Object, at: str, problems: Problems) -> None:
    if "resource" in backend:
        raise status.not_supported("Ingress backends other than Services")
    service = backend.get("service")
    if service is None:
        problems.invalid(at, "", "resource or service backend is required")
        return
    if not service.get("name"):
        problems.required(f"{at}.service.name")
    else:
        problems.name(f"{at}.service.name", service["name"], LABEL_1035)
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        problems.invalid(at, "", "cannot set both port name & port number")
    elif port.get("name"):
        _port_name(f"{at}.service.port.name", port["name"], problems)
    elif port.get("number"):
        problems.port(f"{at}.service.port.number", port["number"])
    else:
        problems.required(at, "port name or number is required")


def _http_route(spec: Object, problems: Problems) -> None:
    """The rules of the CRD's schema that a deployer can break."""
    for i, rule in enumerate(spec["rules"]):
        for j, backend in enumerate(rule.get("backendRefs") or ()):
            at = f"spec.rules[{i}].backendRefs[{j}]"
            weight, bound = backend["weight"], ""
            if weight < 0:
                bound = "greater than or equal to 0"
            elif weight > 1_000_000:
                bound = "less than or equal to 1000000"
            if bound:
                problems.invalid(f"{at}.weight", weight, f"{at}.weight in body should be {bound}")
            if backend["kind"] == "Service" and "port" not in backend:
                problems.invalid(at, "object", "Must have port for Service reference")
        for j, part in enumerate(rule.get("filters") or ()):
            if part.get("type") not in FILTERS:
                raise status.not_supported(f"filters of type {part.get('type')} (spec.rules[{i}].filters[{j}])")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unchanged(kind: Kind, obj: Object, old: Object, problems: Problems) -> None:
    immutable = "field is immutable"
    if kind is SERVICE and obj["spec"].get("clusterIP") != old["spec"].get("clusterIP"):
        problems.invalid("spec.clusterIPs[0]", [obj["spec"].get("clusterIP")], "may not change once set")
    elif kind is JOB and any(obj["spec"][field] != old["spec"][field] for field in ("selector", "template")):
        for field in ("selector", "template"):
            if obj["spec"][field] != old["spec"][field]:
                problems.invalid(f"spec.{field}", obj["spec"][field], immutable)
    elif kind is POD and _fixed(obj["spec"]) != _fixed(old["spec"]):
        problems.forbidden("spec", "pod updates may not change fields other than the containers' images")
    elif kind in (CONFIG_MAP, SECRET) and old.get("immutable"):
        for field in ("data", "binaryData", "immutable"):
            if obj.get(field) != old.get(field):
                problems.forbidden(field, f"{immutable} when `immutable` is set")
    elif kind is SECRET and obj["type"] != old["type"]:
        problems.invalid("type", obj["type"], immutable)
    elif kind is ENDPOINT_SLICE and obj["addressType"] != old["addressType"]:
        problems.invalid("addressType", obj["addressType"], immutable)


def _fixed(spec: Object) -> Object:
    """The part of a pod spec that an update may not touch."""
    containers = [{key: value for key, value in c.items() if key != "image"} for c in spec["containers"]]
    return {**spec, "containers": containers, "nodeName": None}
