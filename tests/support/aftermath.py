"""What must hold once a flow (`support/flows.py`) has come to its end, however often the service died on the way."""

from __future__ import annotations

from collections.abc import Mapping

from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, HTTP_ROUTE, INGRESS, JOB, POD, SERVICE, Kind
from deployer.core.model.records import Document, Status
from support.flows import Flow
from support.history import backend_of, document, ready_pods
from support.world import World

APP = "shop"
FOREIGN = {"foreign", "kube-root-ca.crt"}
"""What is there besides: the objects of `make_foreign`, and what a real cluster puts into every namespace."""


def check_end(world: World, flow: Flow, acknowledged: Mapping[str, str], report: Document) -> list[str]:
    """What is wrong once there is nothing left to do: `acknowledged` is what clients were answered."""
    found = report["deployments"]
    problems = [f"left open: {report['open']}"] if report["open"] else []
    if report["events"]:
        problems.append("observers were not told everything")
    lost = set(acknowledged.values()) - {d["id"] for d in found} - set(report["descriptors"])
    problems += [f"acknowledged, but lost: {id}" for id in lost]
    ends = flow.ends
    if len(found) < len(ends):  # the last were never accepted
        ends = (*[Status.UNDEPLOYED] * (len(found) - 1), *[Status.DEPLOYED] * bool(found))
    statuses = tuple(Status(d["status"]) for d in found)
    if statuses != ends:
        problems.append(f"ended {[s.value for s in statuses]}, not {[s.value for s in ends]}")
    if found and statuses[-1] is Status.FAILURE and found[-1]["reason"] != flow.reason:
        problems.append(f"failed because of {found[-1]['reason']}, not {flow.reason}")
    live = next((d for d in found if d["status"] == Status.DEPLOYED), None)
    if (report["live"], report["held"]) != (live["id"] if live else "", ""):
        problems.append(f"the app's record says live {report['live']!r}, held {report['held']!r}")
    if sorted(report["plans"]) != ([live["id"]] if live else []):
        problems.append(f"plans left: {report['plans']}")
    if flow.original and not live:
        return problems + check_original(world, flow.original)
    provider = flow.before if live and live["version"] == "1" else flow.ingress
    return problems + check_objects(world, live, HTTP_ROUTE if provider == "gateway" else INGRESS)


def check_objects(world: World, live: Document | None, kind_of_route: Kind) -> list[str]:
    """The namespace has exactly the objects of the live deployment, all of them marked as its own."""
    version = live["version"] if live else ""
    service = {APP} if live else set()
    route = {APP} if live and live["frontend"] else set()
    wanted: dict[Kind, set[str]] = {
        CONTROLLER: {f"{APP}-{version}"} if live else set(),
        INGRESS: set(),
        HTTP_ROUTE: set(),
    }
    wanted[kind_of_route] = route
    wanted[SERVICE] = {*service, *wanted[CONTROLLER], "foreign"}
    problems = []
    for kind, names in wanted.items():
        if set(world.objects(kind)) != names:
            problems.append(f"{kind.plural} are {sorted(world.objects(kind))}, not {sorted(names)}")
    if jobs := world.objects(JOB):
        problems.append(f"jobs are left: {sorted(jobs)}")
    maps = {name for name in world.objects(CONFIG_MAP) if name not in FOREIGN}
    if len(maps) != (len(route) if kind_of_route is INGRESS else 0):
        problems.append(f"configmaps are {sorted(maps)}")
    for found in all_objects(world):
        name, notes = found["metadata"]["name"], found["metadata"].get("annotations") or {}
        owner = notes.get("kube-deployer/deployment")
        if name not in FOREIGN and live and found["kind"] != "Pod" and owner != live["id"]:
            problems.append(f"{found['kind']} {name} is marked as of deployment {owner}, not of {live['id']}")
    return problems + (
        check_live(world, f"{APP}-{version}", kind_of_route if route else None) if live else check_no_pods(world)
    )


def check_original(world: World, version: str) -> list[str]:
    """The version that the original deployer made is all that there is, and it serves."""
    name = f"{APP}-{version}"
    found = set(world.objects(CONTROLLER))
    problems = [] if found == {name} else [f"replicationcontrollers are {sorted(found)}, not {name}"]
    return problems + check_live(world, name, INGRESS)


def check_live(world: World, name: str, kind: Kind | None) -> list[str]:
    """Service and route (of this kind; None: it has none) lead to the one version that there is, and it is ready."""
    services, pods = world.objects(SERVICE), world.pods()
    if not {APP, name} <= services.keys() or (kind and APP not in world.objects(kind)):
        return ["there is no service or no route: the cluster is as good as empty"]
    problems = []
    if kind and backend_of(world.objects(kind)[APP]) != name:
        problems.append(f"the route leads to {backend_of(world.objects(kind)[APP])}, not to {name}")
    for service in (services[APP], services[name]):
        if sorted(ready_pods({"pods": pods}, service)) != sorted(pods):
            problems.append(f"service {service['metadata']['name']} does not select all pods: {sorted(pods)}")
    return problems if pods else [*problems, "there is no pod"]


def check_no_pods(world: World) -> list[str]:
    """Nothing runs."""
    return [f"pods are left: {sorted(world.pods())}"] if world.pods() else []


def check_empty(world: World, report: Document) -> list[str]:
    """After everything was undeployed."""
    problems = [f"left open: {report['open']}"] if report["open"] else []
    left = [o for o in all_objects(world) if o["metadata"]["name"] not in FOREIGN]
    return problems + ([f"left after undeploying everything: {document(left)}"] if left else [])


def all_objects(world: World) -> list[Document]:
    """Everything in the namespace that a Deployer could have made."""
    kinds = (POD, CONTROLLER, SERVICE, INGRESS, HTTP_ROUTE, CONFIG_MAP, JOB)
    return [{"kind": k.kind, **o} for k in kinds for o in world.eyes.list(k, world.namespace)[0]]
