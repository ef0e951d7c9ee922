"""What the kill tests do to an app, run by children of the fork server; each may be killed at a failpoint.

A child reads its job: `{"flow", "part", "cluster", "path", "namespace", "kill", "count", "acknowledged"}`. Part `act`
prepares the app, then arms the failpoint and runs the flow; part `recover` arms it and starts the service on the same
store. What the service returned is told at once as `{"acknowledged": {what: id}}`. When nothing is left to do the child
sends a report of the store; asked for, it then undeploys everything and reports again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from deployer import sandbox
from deployer.commands.approvals import ApprovalCommands
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core import failpoints
from deployer.core.errors import Conflict
from deployer.core.model.gates import GateDecision, GateResults
from deployer.core.model.records import (
    App,
    Deployment,
    Event,
    HostClaim,
    Operation,
    OperationKind,
    Plan,
    Status,
    StoredDescriptor,
)
from deployer.core.operations.execution import clearing
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings
from support import late
from support.forkserver import Channel
from support.world import GATEWAY, HEALTHY, NGINX, World

T = TypeVar("T")
Tell = Callable[[str, str], None]

ASKED = {"undeployment", "rollback"}
"""What is acknowledged of requests that make no deployment: the one that they are about."""


@dataclass(frozen=True)
class Flow:
    """`prepare` runs undisturbed; `act` may be killed anywhere; `again` is what a client repeats that got no answer.

    live     an earlier version is live before
    ends     the statuses of version 1, 2 ... in the end; when the last were never accepted, the one before is live
    stays    the app, once there, is there until the end
    reason   of the failure of the last version
    timeout  the service's setting, in seconds
    watch    its setting `watch_interval`, in seconds
    writes   the least number of writes to the cluster that a clean run makes
    before, ingress  the ingress provider in the settings while `prepare` runs, and from `act` on
    original the version that the original deployer had left, which is live in the end when no other is
    stride   3: every third point will do, as the flow's parts are tried by themselves, too
    spare    tried sparingly unless all points are: one point of each failpoint, and its recovery is not killed
    """

    prepare: Callable[[World], None]
    act: Callable[[World, Tell], None]
    ends: tuple[Status, ...]
    live: bool = True
    stays: bool = True
    reason: str = ""
    again: Callable[[World, Tell], None] = lambda world, tell: None
    timeout: float = 3.0
    watch: float = 3600.0
    writes: int = 3
    before: str = "nginx"
    ingress: str = "nginx"
    original: str = ""
    stride: int = 1
    spare: bool = False


def host(namespace: str) -> str:
    """The frontend of the app: the sandbox has one ingress for all namespaces."""
    return f"{namespace}.example"


# --- what is done -------------------------------------------------------------------------------------------------


def nothing(world: World) -> None:
    """An app that was never deployed."""


def live(world: World) -> None:
    """Version 1 is live."""
    fields: dict[str, Any] = {"frontend": host(world.namespace), **HEALTHY}
    world.deployed(**fields)
    world.quiet()


def deploy(world: World, tell: Tell, **fields: Any) -> str:
    """Store a descriptor and deploy it."""
    stored = world.descriptor(**{"frontend": host(world.namespace), **HEALTHY, **fields})
    tell("descriptor", stored.id)
    deployment = world.service.deploy(world.namespace, stored.id)
    tell("deployment", deployment.id)
    return deployment.id


def deploying(**fields: Any) -> Callable[[World, Tell], None]:
    """A deployment with these fields."""

    def act(world: World, tell: Tell) -> None:
        world.ended(deploy(world, tell, **fields))

    return act


def two(world: World, tell: Tell) -> None:
    """Two deployments at once, which must wait for each other."""
    ids = [deploy(world, lambda what, id, n=n: tell(f"{what} {n}", id)) for n in (1, 2)]  # type: ignore[misc]
    for id in ids:
        world.ended(id)


def waiting(line: str, **fields: Any) -> Callable[[World], None]:
    """Version 1 is live, and version 2 has come to where it logs that line."""

    def prepare(world: World) -> None:
        live(world)
        id = deploy(world, lambda *_: None, **fields)
        world.until(lambda: line in world.log(id), f"the line {line!r}")

    return prepare


def undeploy(world: World, tell: Tell) -> None:
    """Undeploy, or cancel, the newest deployment."""
    newest = world.service.deployments(world.namespace, "shop")[0]
    if newest.status in (Status.DEPLOYED, Status.DEPLOYING):
        world.service.undeploy(world.namespace, newest.id)
    tell("undeployment", newest.id)


def replaced(world: World) -> None:
    """Version 2 has replaced version 1 a moment ago; both were named by their descriptors."""
    for version in ("1", "2"):
        world.deployed(frontend=host(world.namespace), **HEALTHY, newVersion=version)


def back(world: World, tell: Tell) -> None:
    """Deploy version 1 once more, which is draining."""
    first = world.service.deployments(world.namespace, "shop")[-1]
    deployment = world.service.redeploy(world.namespace, first.id)
    tell("deployment", deployment.id)
    world.ended(deployment)


def again(world: World, tell: Tell) -> None:
    """Undeploy version 1 and deploy at once, as far as that has not happened yet."""
    found = world.service.deployments(world.namespace, "shop")
    if found[-1].status is Status.DEPLOYED:
        world.service.undeploy(world.namespace, found[-1].id)
    if len(found) == 1:
        deploy(world, tell)
    tell("undeployment", found[-1].id)


def warm(world: World, **fields: Any) -> None:
    """Version 2 has replaced version 1, which stays warm for as long as anything takes here."""
    live(world)
    replace_warm(world, **fields)


def replace_warm(world: World, **fields: Any) -> None:
    """Deploy version 2, which is then watched."""
    world.deployed(**{"frontend": host(world.namespace), **HEALTHY, "keepWarm": 3600.0, **fields})
    parked = lambda: all(operation.due for operation in world.store.find(Operation, tag="open"))  # noqa: E731
    world.until(parked, "the watch of version 2")


def roll_back(world: World, tell: Tell) -> None:
    """Roll back to version 1, as far as that has not been asked for yet."""
    first = world.service.deployments(world.namespace, "shop")[-1]
    with contextlib.suppress(Conflict):  # it is under way, or done
        RollbackCommands(world.service).roll_back(world.namespace, "shop", first.id)
    tell("rollback", first.id)


def unwilling(world: World) -> None:
    """As `warm`, but no rollback to version 1 succeeds."""
    world.deployed(frontend=host(world.namespace), **HEALTHY, **NO_WAY_BACK)
    world.quiet()
    replace_warm(world)


def in_vain(world: World, tell: Tell) -> None:
    """Roll back, which fails, and undeploy version 2, as far as that has not happened yet."""
    newest, *_, first = world.service.deployments(world.namespace, "shop")
    if newest.status is Status.DEPLOYED:
        with contextlib.suppress(Conflict):  # it is under way
            RollbackCommands(world.service).roll_back(world.namespace, "shop", first.id)
        ended = lambda: all(o.kind is not OperationKind.ROLLBACK for o in world.store.find(Operation, tag="open"))  # noqa: E731
        world.until(ended, "the rollback to end")
    undeploy(world, tell)


def cold(world: World) -> None:
    """Version 2 has replaced version 1, which is gone."""
    replaced(world)
    world.quiet()


def roll_back_cold(world: World, tell: Tell) -> None:
    """Roll back to the version that is gone."""
    queued = RollbackCommands(world.service).roll_back(world.namespace, "shop").deployment
    tell("deployment", queued.id)
    world.ended(queued)


def guarded(world: World) -> None:
    """Version 1 is warm, and version 2 is well, but may fall ill."""
    warm(world, healthCheckType="late", healthCheckOptions={"sick": str(sickness(world))})


def fall_ill(world: World, tell: Tell) -> None:
    """Version 2 serves as before, but is not healthy any more."""
    sickness(world).touch()


def sickness(world: World) -> Path:
    """The file that makes version 2 ill."""
    return world.settings.data_dir / "sick"


def soak_and_fall_ill(world: World, tell: Tell) -> None:
    """Version 2 has traffic, but falls ill before it is committed."""
    options = {"sick": str(sickness(world))}
    id = deploy(world, tell, soakSeconds=3600, healthCheckType="late", healthCheckOptions=options)
    world.until(lambda: "has to serve for 3600 s" in world.log(id), "version 2 to serve")
    fall_ill(world, tell)
    world.ended(id)


def approving(world: World, tell: Tell) -> None:
    """Deploy behind gates at every point, and approve the one that waits for that."""
    world_id = deploy(world, tell, gates={point: [*gates] for point, gates in GATES.items()})
    approve(world, tell)
    world.ended(world_id)


def approve(world: World, tell: Tell) -> None:
    """Approve whatever waits for that, as far as it has not happened yet."""
    for deployment in world.service.deployments(world.namespace, "shop", status=Status.DEPLOYING):
        asks = lambda id=deployment.id: _asks(world, id)  # noqa: E731
        if world.until(asks, "a gate to wait for a person, or the deployment to end") == "asks":
            with contextlib.suppress(Conflict):  # somebody was quicker
                ApprovalCommands(world.store).decide(world.namespace, deployment.id, {"approve": True}, "otto")


def _asks(world: World, id: str) -> str:
    found, results = world.store.get(Deployment, id), world.store.get(GateResults, id)
    if found is None or found.status is not Status.DEPLOYING:
        return "ended"
    decided = bool(world.store.find(GateDecision))
    return "asks" if decided or (results and any(entry.asks for entry in results.entries)) else ""


LOOKS = {"type": "late", "name": "looks", "options": {"end": "passes"}}
GATES = {
    "beforeStart": [{**LOOKS, "name": "first"}],
    "beforeSwitch": [{"type": "approval", "name": "ask"}],
    "afterSwitch": [{**LOOKS, "name": "last"}],
}
NOT_AFTER = {"gates": {"afterSwitch": [{**LOOKS, "options": {"end": "fails"}}]}}
CANARY = {
    # Pods that join a version which has traffic get theirs as soon as they are ready.
    "probe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1},
    "deploymentType": "canary",
    "replicas": 2,
    "strategyOptions": {"steps": [{"weight": 40, "pause": 0.1}, {"weight": 60, "pause": 0.1}]},
}


def migrating(exit_code: int = 0) -> dict[str, Any]:
    """The field for a Job that has to succeed before anything of the version is made."""
    env = [{"name": "JOB_LINES", "value": "3"}, {"name": "JOB_EXIT", "value": str(exit_code)}]
    options = {"image": "sample/job:1", "env": env}
    return {"gates": {"beforeStart": [{"type": "job", "name": "migrate", "timeoutSeconds": 60, "options": options}]}}


UNHEALTHY = {"env": {"FAIL": "1"}}
D, F, U = Status.DEPLOYED, Status.FAILURE, Status.UNDEPLOYED

FAILS, WAITS = ({"deploymentType": "late", "strategyOptions": {"end": end}} for end in ("fails", "waits"))
NO_WAY_BACK = {"deploymentType": "late", "strategyOptions": {"end": "succeeds", "back": "fails"}}

FLOWS: Mapping[str, Flow] = {
    "first": Flow(nothing, deploying(), (D,), live=False, writes=5),
    "redeploy": Flow(live, deploying(), (U, D), writes=9),
    "two": Flow(live, two, (U, U, D), writes=18, stride=3),
    "back": Flow(replaced, back, (U, U, D), writes=12, stride=3),
    "fail": Flow(live, deploying(**UNHEALTHY), (D, F), reason="Unhealthy", writes=4),
    "fail-first": Flow(nothing, deploying(**FAILS), (F,), live=False, stays=False, reason="Late", writes=9),
    "fail-late": Flow(live, deploying(**FAILS), (D, F), reason="Late", writes=11),
    "swap": Flow(live, deploying(), (U, D), writes=10, ingress="gateway"),
    "swap-fail-late": Flow(live, deploying(**FAILS), (D, F), reason="Late", writes=12, ingress="gateway"),
    "swap-back": Flow(live, deploying(), (U, D), writes=10, before="gateway"),
    "swap-back-fail-late": Flow(live, deploying(**FAILS), (D, F), reason="Late", writes=12, before="gateway"),
    "gateway-fail-late": Flow(
        live, deploying(**FAILS), (D, F), reason="Late", writes=6, before="gateway", ingress="gateway"
    ),
    "canary": Flow(live, deploying(**CANARY), (U, D), writes=14, stride=3),
    "canary-gateway": Flow(live, deploying(**CANARY), (U, D), writes=10, before="gateway", ingress="gateway", stride=3),
    "gates": Flow(live, approving, (U, D), again=approve, writes=11, stride=2, spare=True),
    "gates-fail-late": Flow(live, deploying(**NOT_AFTER), (D, F), reason="GateFailed", writes=11, stride=3, spare=True),
    "soak": Flow(live, deploying(soakSeconds=1), (U, D), writes=9, stride=3, spare=True),
    "soak-fail": Flow(
        live,
        soak_and_fall_ill,
        (D, F),
        reason="Unhealthy",
        again=fall_ill,
        watch=1.0,
        writes=9,
        stride=3,
        spare=True,
    ),
    "gates-job": Flow(live, deploying(**migrating()), (U, D), writes=12, spare=True),
    "gates-job-fail": Flow(live, deploying(**migrating(3)), (D, F), reason="GateFailed", writes=3, spare=True),
    "undeploy": Flow(live, undeploy, (U,), stays=False, again=undeploy, writes=5),
    "again": Flow(live, again, (U, D), stays=False, again=again, writes=10, stride=3),
    "rollback": Flow(warm, roll_back, (D, F), reason="RolledBack", again=roll_back, writes=5, spare=True),
    "rollback-gateway": Flow(
        warm,
        roll_back,
        (D, F),
        reason="RolledBack",
        again=roll_back,
        before="gateway",
        ingress="gateway",
        writes=4,
        spare=True,
    ),
    "rollback-fail-late": Flow(unwilling, in_vain, (U, U), stays=False, again=in_vain, writes=13, stride=3, spare=True),
    "rollback-cold": Flow(cold, roll_back_cold, (U, U, D), writes=9, stride=3, spare=True),
    "rollback-itself": Flow(
        guarded, fall_ill, (D, F), reason="RolledBack", again=fall_ill, watch=1.0, writes=5, spare=True
    ),
    "cancel": Flow(waiting("not healthy yet", **UNHEALTHY), undeploy, (D, U), again=undeploy, timeout=60, writes=2),
    "cancel-late": Flow(waiting(late.WAITING, **WAITS), undeploy, (D, U), again=undeploy, timeout=60, writes=6),
}


# --- the child ----------------------------------------------------------------------------------------------------


def run(channel: Channel) -> None:
    """Do the job that comes through the channel. Raises what goes wrong; the fork server logs it."""
    job = channel.read()
    flow = FLOWS[job["flow"]]
    logging.basicConfig(filename=f"{job['path']}/service.log", level=logging.INFO, force=True)
    cluster = sandbox.Sandbox(**{**job["cluster"], "state": Path(job["cluster"]["state"])})
    world = World(cluster, Path(job["path"]), job["namespace"], **settings(flow, job["part"]))
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    armed = {"DEPLOYER_FAILPOINT": job["kill"], "DEPLOYER_FAILPOINT_COUNT": f"{job['path']}/counts"}

    def tell(what: str, id: str) -> None:
        channel.write({"acknowledged": {what: id}})

    # What an undo leaves is left to an operation of its own in every flow, as if pods took their time.
    clearing.PODS_PATIENCE = 0.0
    try:
        if job["part"] == "act":
            world.start()
            flow.prepare(world)
            if flow.before != flow.ingress:
                world.stop()
                world.settings = dataclasses.replace(world.settings, ingress=flow.ingress)
                world.start()
            between_commits(world, lambda: failpoints.configure(armed))
            flow.act(world, tell)
        else:
            failpoints.configure(armed)
            world.start()
            if not ASKED & job["acknowledged"].keys():
                flow.again(world, tell)
        world.quiet()
        counts = between_commits(world, failpoints.counts)
        failpoints.configure({})
        channel.write({"report": report(world), "counts": counts})
        if channel.read().get("remove"):
            for deployment in world.service.deployments(world.namespace, status=Status.DEPLOYED):
                world.service.undeploy(world.namespace, deployment.id)
            world.quiet()
            channel.write({"report": report(world)})
        world.stop()
        world.eyes.close()
    except AssertionError as error:
        channel.write({"error": str(error)})


def between_commits(world: World, action: Callable[[], T]) -> T:
    """Do it in the store's thread: no commit is half way then, with one failpoint passed and one to come."""
    return world.store._writer.call(lambda _: action())


def settings(flow: Flow, part: str) -> dict[str, Any]:
    """What the service has from the start."""
    ingress = flow.before if part == "act" else flow.ingress
    plugins = {"ingress_nginx": {**NGINX, "propagation_seconds": 0.3}, "ingress_gateway": GATEWAY}
    return {
        "timeout": flow.timeout,
        "undo_timeout": 20.0,
        "watch_interval": flow.watch,
        "plugins": plugins,
        "ingress": ingress,
    }


def report(world: World) -> dict[str, Any]:
    """What the store has, oldest first."""
    store = world.store
    app = store.get(App, f"{world.namespace}/shop")
    return {
        "deployments": [
            {
                "id": d.id,
                "version": d.version,
                "status": d.status.value,
                "frontend": d.descriptor.get("frontend") or "",
                "reason": (d.failure or {}).get("reason", ""),
                "log": world.log(d.id),
            }
            for d in store.find(Deployment, namespace=world.namespace)
        ],
        "descriptors": [d.id for d in store.find(StoredDescriptor, namespace=world.namespace)],
        "open": [repr(o) for o in store.find(Operation, tag="open")],
        "events": [e.id for e in store.find(Event)],
        "plans": [p.deployment for p in store.find(Plan, namespace=world.namespace)],
        "hosts": [c.host for c in store.find(HostClaim, namespace=world.namespace)],
        "live": app.live if app else "",
        "held": app.held if app else "",
    }


# What is imported only when it comes to that; here once for all children.
for name in ("kubernetes.client", "kubernetes.config"):
    importlib.import_module(name)
load_plugins(Settings())
