"""What must be in the API server: the contract's chapter on Kubernetes objects, read independently of the product.

Nothing here calls the code that renders the objects. Every field of every object in the namespace is compared: those
that we set must be as the contract says, those that we do not set must have the API server's defaults, and whatever
else there is, a field or an object, is a difference.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from deployer.core.errors import KubeExpired, KubeUnavailable
from deployer.core.model.kind import (
    CONFIG_MAP,
    CONTROLLER,
    ENDPOINT_SLICE,
    INGRESS,
    POD,
    SECRET,
    SERVICE,
    Kind,
)
from deployer.kube.client import KubeClient

Document = dict[str, Any]
Problems = list[str]

PATIENCE = 20.0
"""Seconds for what other controllers write after the Deployer is done: EndpointSlices."""

OWN = ("APP_NAME", "APP_VERSION", "POD_NAMESPACE", "POD_NAME")
MANAGED = {"app.kubernetes.io/managed-by": "deployer"}
ROUTE_NOTES = "nginx.ingress.kubernetes.io/"
SERVICE_OF = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Running:
    """A version that must be there.

    descriptor   as the user sent it
    deployment   as REST shows it: `id`, `version`, `created`
    live         what the unversioned Service and the route lead to; else it is held
    replicas     when somebody scaled it; else the descriptor's
    environment  what injectors gave, by name
    """

    descriptor: Document
    deployment: Document
    live: bool = True
    replicas: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def app(self) -> str:
        return re.sub(r"[._]", "-", str(self.descriptor["appName"])).lower()

    @property
    def version(self) -> str:
        return str(self.deployment["version"])

    @property
    def name(self) -> str:
        return f"{self.app}-{self.version}"

    @property
    def labels(self) -> dict[str, str]:
        return {"name": self.name, "app": self.app, "version": self.version}

    @property
    def pods(self) -> int:
        return self.replicas or self.descriptor.get("replicas") or 1

    @property
    def container_ports(self) -> list[Document]:
        """Of all containers in their order; a number and protocol that come twice count once."""
        found = [
            port for container in self.descriptor["podspec"]["containers"] for port in container.get("ports") or ()
        ]
        return list({(p["containerPort"], p.get("protocol", "TCP")): p for p in reversed(found)}.values())[::-1]


@dataclass(frozen=True)
class Contract:
    """Compares a namespace with what must be in it.

    instance   the setting of the Deployer that is looked at
    pull       what an absent imagePullPolicy becomes
    routes     whether an ingress provider is configured
    besides    plurals and names of objects that are there for another reason
    """

    eyes: KubeClient
    namespace: str
    instance: str = "deployer"
    pull: str = "Always"
    routes: bool = False
    besides: frozenset[tuple[str, str]] = frozenset({("configmaps", "kube-root-ca.crt")})

    def check(self, *running: Running, asking: bool = True) -> None:
        """All of these are there as they must be, and nothing else. `asking`: ask the pods for their environment."""
        problems: Problems = []
        for kind in (CONTROLLER, SERVICE, INGRESS, CONFIG_MAP, SECRET):
            problems += self._compare(kind, self._wanted(kind, running))
        uids = {name: found["metadata"]["uid"] for name, found in self._objects(CONTROLLER).items()}
        # Those of a version that failed end beside what comes next.
        problems += self._settled(POD, lambda found: [f"Pod {_name(pod)} does not end" for pod in found if _ends(pod)])
        pods = self._objects(POD)
        problems += self._pods(running, uids, pods)
        if asking and not problems:
            for each in running:
                problems += self._ask(each, [p for p in pods.values() if _controller(p) == uids[each.name]])
        if not problems:
            problems += self._settled(ENDPOINT_SLICE, lambda slices: self._slices(running, pods, slices))
        assert not problems, "\n".join(problems)

    def nothing_left(self) -> None:
        """There is nothing of a Deployer in the namespace."""
        self.check()

    # --- objects by name --------------------------------------------------------------------------------------------

    def _objects(self, kind: Kind) -> dict[str, Document]:
        """All of them, those that are on their way out included."""
        found = self.eyes.list(kind, self.namespace)[0]
        return {o["metadata"]["name"]: o for o in found if (kind.plural, o["metadata"]["name"]) not in self.besides}

    def _compare(self, kind: Kind, wanted: Mapping[str, Document]) -> Problems:
        found = self._objects(kind)
        problems = [f"{kind.kind} {name} is missing" for name in wanted if name not in found]
        for name, there in found.items():
            about = f"{kind.kind} {name}"
            if there["metadata"].get("deletionTimestamp"):
                problems.append(f"{about} is on its way out")
            elif name not in wanted:
                problems.append(f"{about} is left over, or nobody's: {there['metadata'].get('annotations')}")
            else:
                expected = {**wanted[name], "apiVersion": Maybe(kind.api_version), "kind": Maybe(kind.kind)}
                problems += differences(about, expected, there)
        return problems

    def _wanted(self, kind: Kind, running: Sequence[Running]) -> dict[str, Document]:
        out: dict[str, Document] = {}
        for each in running:
            if kind is CONTROLLER:
                out[each.name] = self._controller(each)
            if kind is SERVICE and each.container_ports:
                out[each.name] = self._versioned_service(each)
                if each.live:
                    out[each.app] = self._service(each)
            if kind is INGRESS and each.live and self.routes and each.descriptor.get("frontend"):
                out[each.app] = self._ingress(each)
        return out

    def _metadata(self, each: Running, name: str, labels: Mapping[str, str], notes: Mapping[str, Any]) -> Document:
        owner = {
            "kube-deployer/instance": self.instance,
            "kube-deployer/app": each.app,
            "kube-deployer/deployment": each.deployment["id"],
            "kube-deployer/role": Like(r"[a-z-]+"),
            "kube-deployer/epoch": Like(r"\d+"),
        }
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": {**labels, **MANAGED},
            "annotations": {**owner, **notes},
            "uid": SERVER,
            "resourceVersion": SERVER,
            "creationTimestamp": SERVER,
            "generation": Maybe(),
            "managedFields": Maybe(),
        }

    # --- ReplicationController ----------------------------------------------------------------------------------------

    def _controller(self, each: Running) -> Document:
        template = {
            "metadata": {"labels": each.labels, "creationTimestamp": Maybe(None)},
            "spec": self._podspec(each),
        }
        return {
            "metadata": self._metadata(each, each.name, each.labels, _notes(each)),
            "spec": {"replicas": each.pods, "selector": each.labels, "template": template},
            "status": Maybe(),
        }

    def _podspec(self, each: Running) -> Document:
        spec: Document = copy.deepcopy(each.descriptor["podspec"])
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            container["env"] = Environment(each, container.get("env") or [])
            container.setdefault("imagePullPolicy", self.pull)
            _container_defaults(container)
        names = [s["name"] for s in [*spec.get("imagePullSecrets", ()), *each.descriptor.get("imagePullSecrets", ())]]
        if names:
            spec["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(names)]
        defaults = {
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        }
        return {**defaults, **spec}

    # --- Services -----------------------------------------------------------------------------------------------------

    def _versioned_service(self, each: Running) -> Document:
        metadata = self._metadata(each, each.name, each.labels, {})
        return {"metadata": metadata, "spec": _service_spec(each, each.labels), "status": Maybe()}

    def _service(self, each: Running) -> Document:
        labels = {"app": each.app, "name": each.app, "persistent": "true"}
        selector = {"app": each.app, "version": each.version}
        metadata = self._metadata(each, each.app, labels, {})
        return {"metadata": metadata, "spec": _service_spec(each, selector), "status": Maybe()}

    # --- Ingress ------------------------------------------------------------------------------------------------------

    def _ingress(self, each: Running) -> Document:
        port = next(p["containerPort"] for p in each.container_ports if _is_public(p))
        service = {"name": each.name, "port": {"number": port}}
        path = {"path": "/", "pathType": "Prefix", "backend": {"service": service}}
        rule = {"host": each.descriptor["frontend"], "http": {"paths": [path]}}
        metadata = self._metadata(each, each.app, {}, {f"{ROUTE_NOTES}*": Maybe()})
        spec = {"ingressClassName": "nginx", "rules": [rule]}
        return {"metadata": metadata, "spec": spec, "status": Maybe()}

    # --- pods ---------------------------------------------------------------------------------------------------------

    def _pods(self, running: Sequence[Running], uids: Mapping[str, str], pods: Mapping[str, Document]) -> Problems:
        problems: Problems = []
        left = dict(pods)
        for each in running:
            own = {name: pod for name, pod in pods.items() if _controller(pod) == uids.get(each.name, "?")}
            left = {name: pod for name, pod in left.items() if name not in own}
            if len(own) != each.pods:
                problems.append(f"{each.name} has {len(own)} pods instead of {each.pods}")
            for name, pod in own.items():
                problems += differences(f"Pod {name}", self._pod(each, name, uids[each.name]), pod)
                if not _is_ready(pod):
                    problems.append(f"Pod {name} is not ready: {pod['status']}")
        return problems + [f"Pod {name} is left over: {pod['metadata']}" for name, pod in left.items()]

    def _pod(self, each: Running, name: str, uid: str) -> Document:
        owner = {"apiVersion": "v1", "kind": "ReplicationController", "name": each.name, "uid": uid}
        spec = self._podspec(each)
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            # The service account's token.
            container.setdefault("volumeMounts", Maybe())
        for admitted in ("volumes", "imagePullSecrets", "tolerations"):
            spec.setdefault(admitted, Maybe())
        for admitted in ("enableServiceLinks", "preemptionPolicy", "priority", "serviceAccount", "serviceAccountName"):
            spec.setdefault(admitted, Maybe())
        return {
            "apiVersion": Maybe(),
            "kind": Maybe(),
            "metadata": {
                "name": name,
                "generateName": f"{each.name}-",
                "namespace": self.namespace,
                "labels": each.labels,
                "annotations": Maybe(),
                "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
                **dict.fromkeys(("uid", "resourceVersion", "creationTimestamp"), SERVER),
                **{key: Maybe() for key in ("generation", "managedFields")},
            },
            "spec": {**spec, "nodeName": SERVER},
            "status": SERVER,
        }

    def _ask(self, each: Running, pods: Iterable[Document]) -> Problems:
        """What the processes in the pods say of their environment, container by container."""
        problems: Problems = []
        for pod in pods:
            facts = {"APP_NAME": each.app, "APP_VERSION": each.version}
            facts |= {"POD_NAMESPACE": self.namespace, "POD_NAME": pod["metadata"]["name"], **each.environment}
            for container in each.descriptor["podspec"]["containers"]:
                own = {v["name"]: v["value"] for v in container.get("env") or () if "value" in v}
                there = environment_of(pod["status"]["podIP"], int(own.get("PORT", 8080)))
                for name, value in {**facts, **own}.items():
                    if there.get(name) != value:
                        about = f"container {container['name']} of Pod {pod['metadata']['name']}"
                        problems.append(f"{about} has {name}={there.get(name)!r} instead of {value!r}")
        return problems

    # --- EndpointSlices -----------------------------------------------------------------------------------------------

    def _slices(self, running: Sequence[Running], pods: Mapping[str, Document], slices: list[Document]) -> Problems:
        """Each Service's hold exactly its version's pods, all ready, with the Service's ports; there are no others."""
        problems: Problems = []
        wanted = {each.name: each for each in running if each.container_ports}
        wanted |= {each.app: each for each in running if each.container_ports and each.live}
        for found in slices:
            if _service_of(found) not in wanted and ("services", _service_of(found)) not in self.besides:
                problems.append(f"EndpointSlice {found['metadata']['name']} is left over")
        for service, each in wanted.items():
            own = [found for found in slices if _service_of(found) == service]
            endpoints = [e for found in own for e in found.get("endpoints") or ()]
            ips = {p["metadata"]["uid"]: p["status"]["podIP"] for p in pods.values() if _is_of(p, each)}
            if {e["targetRef"]["uid"]: e["addresses"][0] for e in endpoints} != ips:
                problems.append(f"the endpoints of {service} are {endpoints} instead of {sorted(ips.values())}")
            if not all(e["conditions"]["ready"] and not e["conditions"].get("terminating") for e in endpoints):
                problems.append(f"not all endpoints of {service} are ready: {endpoints}")
            ports = {(p["port"], p["protocol"]) for found in own for p in found.get("ports") or ()}
            if ports != {(p["containerPort"], p.get("protocol", "TCP")) for p in each.container_ports}:
                problems.append(f"the ports of {service}'s EndpointSlices are {ports}")
        return problems

    def _settled(self, kind: Kind, problems: Callable[[list[Document]], Problems]) -> Problems:
        """What is still wrong once others had the time to follow; woken by the kind's changes."""
        end = time.monotonic() + PATIENCE
        while True:
            found, revision = self.eyes.list(kind, self.namespace)
            wrong = problems(found)
            left = end - time.monotonic()
            if not wrong or left <= 0:
                return wrong
            changes = self.eyes.watch(kind, self.namespace, revision, silence=left)
            with contextlib.closing(changes), contextlib.suppress(KubeExpired, KubeUnavailable):
                next(changes, None)


def _name(thing: Document) -> str:
    return str(thing["metadata"]["name"])


def _ends(thing: Document) -> bool:
    return "deletionTimestamp" in thing["metadata"]


# --- matching -------------------------------------------------------------------------------------------------------


class Match:
    """A value that is not known word by word."""

    optional = False

    def wrong(self, about: str, found: Any) -> Problems:
        """Nothing when it fits."""
        return []


class Server(Match):
    """The API server, or somebody after it, sets it to something."""

    def wrong(self, about: str, found: Any) -> Problems:
        return [] if found else [f"{about} is empty"]


SERVER = Server()
MISSING = object()


class Maybe(Match):
    """May be there; then it is `value`, if one is given."""

    optional = True

    def __init__(self, value: Any = MISSING) -> None:
        self.value = value

    def wrong(self, about: str, found: Any) -> Problems:
        return [] if self.value is MISSING else differences(about, self.value, found)


@dataclass
class Like(Match):
    """A text of a form."""

    pattern: str

    def wrong(self, about: str, found: Any) -> Problems:
        return [] if re.fullmatch(self.pattern, str(found)) else [f"{about} is {found!r}, not like {self.pattern}"]


@dataclass
class Between(Match):
    """A moment, RFC 3339 in UTC, from `first` until now."""

    first: str

    def wrong(self, about: str, found: Any) -> Problems:
        first, moment = (datetime.datetime.fromisoformat(text) for text in (self.first, str(found)))
        fits = str(found).endswith("Z") and first <= moment <= datetime.datetime.now(datetime.UTC)
        return [] if fits else [f"{about} is {found!r}, not after {self.first}"]


@dataclass
class Environment(Match):
    """A container's variables: its own in their order, and those that are added, none of them twice."""

    each: Running
    own: list[Document]

    def wrong(self, about: str, found: Any) -> Problems:
        names = {variable["name"] for variable in self.own}
        reference = {name: {"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.{key}"}}}
                     for name, key in (("POD_NAMESPACE", "namespace"), ("POD_NAME", "name"))}  # fmt: skip
        added = {"APP_NAME": {"value": self.each.app}, "APP_VERSION": {"value": self.each.version}, **reference}
        added |= {name: {"value": value} for name, value in self.each.environment.items()}
        wanted = [{"name": name, **value} for name, value in added.items() if name not in names]
        mine = [v for v in found if v["name"] in names]
        rest = sorted((v for v in found if v["name"] not in names), key=lambda v: v["name"])
        own = [{k: v for k, v in variable.items() if (k, v) != ("value", "")} for variable in self.own]
        wrong = differences(f"{about} (added)", sorted(wanted, key=lambda v: str(v["name"])), rest)
        return wrong + differences(f"{about} (own)", own, mine)


class Ports(Match):
    """A Service's: one per container port; the container port's name, else `port-<number>`, as long as it is unique."""

    def __init__(self, ports: list[Document]) -> None:
        self.ports = ports

    def wrong(self, about: str, found: Any) -> Problems:
        there = {(p["port"], p["protocol"]): p for p in found}
        wanted = [(p["containerPort"], p.get("protocol", "TCP")) for p in self.ports]
        if sorted(there) != sorted(wanted) or len(found) != len(wanted):
            return [f"{about} are {found} instead of {wanted}"]
        given = [p.get("name") or f"port-{p['containerPort']}" for p in self.ports]
        problems: Problems = []
        for key, name in zip(wanted, given, strict=True):
            # Only the first of several that would have the same name can have it.
            match = name if given.count(name) == 1 or wanted[given.index(name)] == key else Like(r"[a-z0-9-]{1,63}")
            target = {"port": key[0], "protocol": key[1], "targetPort": key[0], "name": match}
            problems += differences(f"{about} {key}", target, there[key])
        if len({p["name"] for p in found}) != len(found):
            problems.append(f"{about} have names that are not unique: {found}")
        return problems


def differences(about: str, wanted: Any, found: Any) -> Problems:
    """Every place where `found` is not what is wanted, down to the last field."""
    if isinstance(wanted, Match):
        return wanted.wrong(about, found)
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        problems: Problems = []
        families = [key[:-1] for key in wanted if str(key).endswith("*")]
        for key in wanted.keys() | found.keys():
            where = f"{about} .{key}"
            if key not in wanted:
                if not any(str(key).startswith(family) for family in families):
                    problems.append(f"{where} is not expected: {found[key]!r}")
            elif key in found:
                problems += differences(where, wanted[key], found[key])
            elif not str(key).endswith("*") and not getattr(wanted[key], "optional", False):
                problems.append(f"{where} is missing")
        return problems
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = zip(wanted, found, strict=True)
        return [p for number, (w, f) in enumerate(pairs) for p in differences(f"{about}[{number}]", w, f)]
    return [] if type(wanted) is type(found) and wanted == found else [f"{about} is {found!r} instead of {wanted!r}"]


# --- parts ----------------------------------------------------------------------------------------------------------


def environment_of(ip: str, port: int = 8080) -> dict[str, str]:
    """What a process in a pod has as its environment, by the application's own words."""
    opener = build_opener(ProxyHandler({}))
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with opener.open(f"http://{ip}:{port}/env", timeout=PATIENCE) as answer:
                return dict(line.partition("=")[::2] for line in answer.read().decode().splitlines())
        except URLError as error:
            # Without a readiness probe a pod is Ready before it listens.
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _notes(each: Running) -> Document:
    """The annotations of the original; those of a health check and of a frontend only where there is one."""
    descriptor = each.descriptor
    checked = descriptor.get("useHealthCheck") in (True, "true")
    out: Document = {
        "deploymentId": each.deployment["id"],
        "deploymentTs": Between(each.deployment["created"]),
        "appName": each.app,
        "version": each.version,
        "useHealthCheck": "true" if checked else "false",
    }
    if checked:
        out["healthCheckPath"] = Like(f"/?{re.escape(descriptor['healthCheckPath'].lstrip('/'))}")
        out["healthCheckPort"] = str(descriptor["healthCheckPort"])
        out["healthCheckType"] = descriptor["healthCheckType"]
    if descriptor.get("frontend"):
        out["frontend"] = descriptor["frontend"]
    return out


def _service_spec(each: Running, selector: Mapping[str, str]) -> Document:
    return {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "selector": dict(selector),
        "ports": Ports(each.container_ports),
        "clusterIP": SERVER,
        "clusterIPs": SERVER,
        "ipFamilies": Maybe(),
        "ipFamilyPolicy": Maybe(),
        "internalTrafficPolicy": Maybe("Cluster"),
    }


def _container_defaults(container: Document) -> None:
    """What the API server fills in; https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/."""
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    if container.get("ports") == []:
        del container["ports"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            times = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
            container[probe] = {**times, **container[probe]}
            if "httpGet" in container[probe]:
                container[probe]["httpGet"] = {"scheme": "HTTP", **container[probe]["httpGet"]}


def _is_public(port: Document) -> bool:
    return port.get("name") != "healthcheck" and port.get("protocol", "TCP") == "TCP"


def _is_of(pod: Document, each: Running) -> bool:
    return bool(pod["metadata"].get("labels") == each.labels)


def _is_ready(pod: Document) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())


def _controller(pod: Document) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _service_of(found: Document) -> str:
    return str((found["metadata"].get("labels") or {}).get(SERVICE_OF, ""))
