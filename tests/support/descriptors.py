"""Descriptors to try, made by Hypothesis: good ones by construction, and good ones in which something was changed."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from deployer.core.model.records import Document

LOWER, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)


def label(most: int = 63, first: str = LOWER + DIGITS) -> st.SearchStrategy[str]:
    """An RFC 1123 label; with `first` as letters alone an RFC 1035 one."""
    inner = st.text(LOWER + DIGITS + "-", max_size=most - 2)
    one, last = st.sampled_from(first), st.sampled_from(LOWER + DIGITS)
    return st.one_of(one, st.builds(lambda a, b, c: a + b + c, one, inner, last))


def dotted(part: st.SearchStrategy[str], most: int = 4) -> st.SearchStrategy[str]:
    return st.lists(part, min_size=1, max_size=most).map(".".join)


HOST = dotted(label(20), 5).filter(lambda host: not host.replace(".", "").isdigit())
OBJECT = dotted(label(20), 3)
VARIABLE = st.text(PRINTABLE.filter(lambda c: c != "="), min_size=1, max_size=20) | st.sampled_from(
    ["APP_NAME", "APP_VERSION", "POD_NAME", "POD_NAMESPACE", "A.b-c", "PATH", "9", "a b"]
)
QUANTITY = st.sampled_from(["100m", "1", "0.5", "64Mi", "1e3", "1G", 2])
PORT_NAME = st.from_regex(r"\A(?=[a-z0-9-]{1,15}\Z)([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*\Z") | st.sampled_from(
    ["http", "healthcheck", "port-1", "port-2-tcp", "port-53-udp"]
)
PATH = st.builds(lambda text: "/" + text, st.text(LOWER + DIGITS + "-_/.", max_size=20))


PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.integers(1, 65535) | st.sampled_from([1, 2, 53, 80, 8080, 9999])},
        optional={"name": PORT_NAME, "protocol": st.sampled_from(["TCP", "UDP", "SCTP"])},
    ),
    max_size=5,
    unique_by=lambda p: p.get("name") or object(),
)


SOURCE = st.one_of(
    st.sampled_from(
        ["metadata.name", "metadata.namespace", "metadata.labels['app']", "status.podIP", "spec.nodeName"]
    ).map(lambda path: {"fieldRef": {"fieldPath": path}}),
    st.builds(lambda name, key: {"secretKeyRef": {"name": name, "key": key}}, OBJECT, label(20)),
    st.builds(lambda name, key: {"configMapKeyRef": {"name": name, "key": key, "optional": True}}, OBJECT, label(20)),
    st.just({"resourceFieldRef": {"resource": "limits.cpu"}}),
)
ENV = st.lists(
    st.one_of(
        st.fixed_dictionaries({"name": VARIABLE}, optional={"value": st.text(max_size=40)}),
        st.fixed_dictionaries({"name": VARIABLE, "valueFrom": SOURCE}),
    ),
    max_size=5,
)
ACTION = st.one_of(
    st.fixed_dictionaries({"path": PATH, "port": st.integers(1, 65535)}).map(lambda get: {"httpGet": get}),
    st.integers(1, 65535).map(lambda port: {"tcpSocket": {"port": port}}),
    st.lists(st.text(LOWER, min_size=1), min_size=1, max_size=3).map(lambda command: {"exec": {"command": command}}),
)
TIMES = {name: st.integers(1, 60) for name in ("timeoutSeconds", "periodSeconds", "failureThreshold")}
PROBE = st.builds(lambda action, times: {**action, **times}, ACTION, st.fixed_dictionaries({}, optional=TIMES))
SECURITY = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.integers(1, 65535),
        "runAsNonRoot": st.booleans(),
        "readOnlyRootFilesystem": st.booleans(),
        "allowPrivilegeEscalation": st.just(False),
        "capabilities": st.just({"drop": ["ALL"]}),
        "seccompProfile": st.just({"type": "RuntimeDefault"}),
    },
)


IMAGES = ["lab/demo:1", "a", "r.example:5000/a/b@sha256:" + "0" * 64]


@st.composite
def container(draw: st.DrawFn, name: str, volumes: list[str], *, init: bool = False) -> Document:
    made: Document = {
        "name": name,
        "image": draw(st.sampled_from(["lab/demo:1", "a", "r.example:5000/a/b@sha256:" + "0" * 64])),
    }
    optional: dict[str, Any] = {
        "ports": PORTS,
        "env": ENV | st.none(),
        "command": st.lists(st.text(max_size=10), max_size=3),
        "args": st.lists(st.text(max_size=10), max_size=3),
        "workingDir": PATH,
        "imagePullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "limits": st.fixed_dictionaries({}, optional={"cpu": QUANTITY, "memory": st.just("1Gi")}),
                "requests": st.fixed_dictionaries({}, optional={"memory": st.sampled_from(["1Mi", "1Gi"])}),
            },
        ),
        "securityContext": SECURITY,
        "tty": st.booleans(),
        "terminationMessagePolicy": st.sampled_from(["File", "FallbackToLogsOnError"]),
    }
    if not init:
        optional |= {"livenessProbe": PROBE, "readinessProbe": PROBE, "startupProbe": PROBE}
        optional["lifecycle"] = st.fixed_dictionaries({}, optional={"preStop": ACTION, "postStart": ACTION})
    for field in draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=6)):
        made[field] = draw(optional[field])
    if volumes and draw(st.booleans()):
        paths = draw(st.lists(label(8), max_size=2, unique=True))
        made["volumeMounts"] = [{"name": draw(st.sampled_from(volumes)), "mountPath": f"/{path}"} for path in paths]
    return made


VOLUME = st.one_of(
    st.fixed_dictionaries({}, optional={"sizeLimit": st.just("10Mi")}).map(lambda v: {"emptyDir": v}),
    OBJECT.map(lambda name: {"configMap": {"name": name, "optional": True}}),
    OBJECT.map(lambda name: {"secret": {"secretName": name, "optional": True}}),
    st.just({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
    OBJECT.map(lambda name: {"persistentVolumeClaim": {"claimName": name}}),
)
POD: dict[str, Any] = {
    "terminationGracePeriodSeconds": st.integers(0, 300),
    "nodeSelector": st.dictionaries(label(20), label(20), max_size=2),
    "tolerations": st.lists(
        st.sampled_from([{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]), max_size=2
    ),
    "hostname": label(),
    "dnsPolicy": st.sampled_from(["ClusterFirst", "Default"]),
    "automountServiceAccountToken": st.booleans(),
    "enableServiceLinks": st.booleans(),
    "restartPolicy": st.just("Always"),
    "securityContext": st.fixed_dictionaries(
        {}, optional={"fsGroup": st.integers(1, 65535), "runAsUser": st.integers(1, 65535)}
    ),
    "imagePullSecrets": st.lists(OBJECT.map(lambda name: {"name": name}), max_size=2) | st.none(),
    "hostAliases": st.just([{"ip": "127.0.0.2", "hostnames": ["a.example"]}]),
}


@st.composite
def podspec(draw: st.DrawFn) -> Document:
    """One that Kubernetes takes."""
    names = draw(st.lists(label(), min_size=1, max_size=4, unique=True))
    volumes = draw(st.lists(label(), max_size=2, unique=True))
    count = draw(st.integers(1, len(names)))
    made: Document = {"containers": [draw(container(name, volumes)) for name in names[:count]]}
    if names[count:]:
        made["initContainers"] = [draw(container(name, volumes, init=True)) for name in names[count:]]
    if volumes:
        made["volumes"] = [{"name": name, **draw(VOLUME)} for name in volumes]
    for field in draw(st.lists(st.sampled_from(sorted(POD)), unique=True, max_size=4)):
        made[field] = draw(POD[field])
    return made


def _fits(document: Document) -> bool:
    version = "1" if document["newVersion"] == "#" else document["newVersion"]
    return len(f"{document['appName']}-{version}") <= 63


@st.composite
def good(draw: st.DrawFn, namespace: str) -> Document:
    """One that must be accepted, and what is rendered of it too."""
    made: Document = {
        "namespace": namespace,
        "appName": draw(dotted(label(30, LOWER), 2) | label(40, LOWER).map(str.upper)),
        "newVersion": draw(st.just("#") | dotted(label(10), 2) | st.integers(0, 10**6).map(str)),
        "podspec": draw(podspec()),
    }
    optional: dict[str, Any] = {
        "replicas": st.integers(0, 1000) | st.just(2.0),
        "redirectWww": st.booleans() | st.sampled_from(["true", "false"]),
        "useCompression": st.booleans(),
        "useStickySessions": st.booleans(),
        "additionHttpHeaders": st.lists(
            st.fixed_dictionaries(
                {
                    "Header": st.text(LOWER + DIGITS + "-_", min_size=1, max_size=20),
                    "Value": st.text(PRINTABLE.filter(lambda c: c not in '"\\$'), min_size=1, max_size=40),
                }
            ),
            max_size=3,
            unique_by=lambda header: header["Header"],
        ),
        "tlsSecretName": OBJECT,
        "ignoreHealthCheck": st.booleans(),
        "timeoutSeconds": st.integers(1, 3600),
        "imagePullSecrets": st.lists(OBJECT.map(lambda name: {"name": name}), max_size=3),
        "webhooks": st.lists(st.fixed_dictionaries({"key": st.text(min_size=1)}), max_size=2),
        "email": st.text(),
        "password": st.text(),
    }
    for field in draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=6)):
        made[field] = draw(optional[field])
    if draw(st.booleans()):
        segments = st.text(LOWER + DIGITS + "-_~!&*+,=?()[]:%", min_size=1, max_size=30)
        made |= {
            "useHealthCheck": True,
            "healthCheckPort": draw(st.integers(1, 65535)),
            "healthCheckPath": "/" + draw(segments),
            "healthCheckType": draw(st.sampled_from(["probe", "simple"])),
        }
    exposed = [p for c in made["podspec"]["containers"] for p in c.get("ports") or ()]
    if any(p.get("protocol", "TCP") == "TCP" and p.get("name") != "healthcheck" for p in exposed) and draw(
        st.booleans()
    ):
        made["frontend"] = draw(HOST)
    tcp = [p for p in exposed if p.get("protocol", "TCP") == "TCP"]
    if tcp and draw(st.booleans()):
        chosen = draw(st.sampled_from(tcp))
        made["frontendPort"] = draw(st.sampled_from([chosen["containerPort"], chosen.get("name") or "", None]))
        made["frontendPath"] = draw(PATH.filter(lambda path: "//" not in path and ".." not in path))
    if not _fits({**made, "newVersion": made["newVersion"]}):
        made |= {"appName": "shop", "newVersion": "1"}
    return made


ODD: list[Any] = [
    None, True, -1, 0, 1.5, 70000, 2**62, "", " ", "\n", "A b", "a_b", "-a", "a-", "x" * 300, "8080", "ä", "\x00",
    "true", "../x", [], {}, [None], [{}], {"a": 1}, [1], ["a", "a"],
    "a", "1", "2.0", "a.b-c", "a" * 40, 1, 2, 80, False,
]  # fmt: skip


def _places(thing: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    steps = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for step, inner in steps:
        found += _places(inner, (*here, step))
    return found


@st.composite
def changed(draw: st.DrawFn, namespace: str, *, below: str = "") -> Document:
    """A good one with a few values replaced, doubled or taken away.

    below   only in that field; with a `-` before it only outside of it
    """
    made = copy.deepcopy(draw(good(namespace)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = [p for p in _places(made) if p[0] != "namespace"]
        if below.startswith("-"):
            places = [p for p in places if p[0] != below[1:]]
        elif below:
            places = [p for p in places if p[0] == below and len(p) > 1]
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        holder: Any = made
        for step in path:
            holder = holder[step]
        match draw(st.sampled_from(["replace", "replace", "double", "remove", "add"])):
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
            case "remove" if isinstance(holder, dict):
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "name", "kind", "labels"]))] = copy.deepcopy(
                    draw(st.sampled_from(ODD))
                )
            case _:
                holder[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return made
