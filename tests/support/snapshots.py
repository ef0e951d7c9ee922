"""Snapshots of a service at work: its database and the objects in the cluster, at one moment, as a crash leaves them.

`tests/engine/databases/*.json.xz` hold them, a file for each flow: `{"flow", "format", "moments": [{"at",
"acknowledged", "database": {"version", "statements"}, "objects": [{"kind", ...}]}]}`. `format` is the commit whose
service wrote them, `acknowledged` what it had answered its clients by then, `statements` the SQL that makes the
database. `tests/engine/databases_generator.py` makes the files.

Put back, objects get uids of their own from the API server; whatever named the old ones (owner references, the memory
of steps) is given the new ones. Everything else stays as it was, so a flow has one namespace, now and then.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.core.errors import KubeConflict, KubeNotFound
from deployer.core.model.kind import (
    CONFIG_MAP,
    CONTROLLER,
    HTTP_ROUTE,
    INGRESS,
    NAMESPACE,
    POD,
    SERVICE,
    Kind,
)
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient, connect
from support import late, originals
from support.flows import FAILS, FLOWS, WAITS, D, F, Flow, U, deploying, host, live, nothing, undeploy, waiting
from support.world import HEALTHY, PATIENCE, World

FILES = Path(__file__).parent.parent / "engine" / "databases"
KINDS = {kind.kind: kind for kind in (CONFIG_MAP, SERVICE, INGRESS, HTTP_ROUTE, CONTROLLER, POD)}
"""What is kept, in the order in which it is put back."""

GIVEN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp")
"""What the API server gives an object, in its metadata."""


# --- flows that only these tests have -----------------------------------------------------------------------------


def adopted(world: World) -> None:
    """Version 41 of the original deployer is live."""
    originals.leave(world.eyes, world.namespace, host(world.namespace), world.image)


def making(end: str) -> dict[str, Any]:
    """The fields of a deployment whose strategy makes an object of its own."""
    return {"deploymentType": "late", "strategyOptions": {"end": end, "makes": True}}


def made(world: World) -> None:
    """Version 1, whose strategy made an object of its own, is live."""
    world.deployed(frontend=host(world.namespace), **HEALTHY, **making("succeeds"))
    world.quiet()


SLOW = {"env": {"DRAIN": "0.5"}}
"""A version whose pods take half a second to end."""


def slow(world: World) -> None:
    """Version 1, whose pods take their time to end, is live."""
    world.deployed(frontend=host(world.namespace), **HEALTHY, **SLOW)
    world.quiet()


NEWER = {"canary", "canary-gateway", *(name for name in FLOWS if name.startswith(("rollback", "soak", "gates")))}
"""Flows of what the older service did not have yet."""

ALL: Mapping[str, Flow] = {
    **{name: flow for name, flow in FLOWS.items() if name not in NEWER},
    "gateway": Flow(live, deploying(), (U, D), before="gateway", ingress="gateway"),
    "adopt": Flow(adopted, deploying(), (D,), original="41"),
    "adopt-fail-late": Flow(adopted, deploying(**FAILS), (F,), reason="Late", original="41"),
    "hide": Flow(live, deploying(frontend=""), (U, D), stays=False),
    "made-fail": Flow(nothing, deploying(**making("fails")), (F,), reason="Late", live=False, stays=False),
    "made-fail-late": Flow(live, deploying(**making("fails")), (D, F), reason="Late"),
    "made-redeploy": Flow(made, deploying(), (U, D)),
    "made-undeploy": Flow(made, undeploy, (U,), stays=False, again=undeploy),
    "park": Flow(live, deploying(deploymentType="late", strategyOptions={"end": "parks"}), (U, D)),
    "slow-fail-late": Flow(live, deploying(**FAILS, **SLOW), (D, F), reason="Late"),
    "slow-cancel-late": Flow(waiting(late.WAITING, **WAITS, **SLOW), undeploy, (D, U), again=undeploy, timeout=60),
    "slow-undeploy": Flow(slow, undeploy, (U,), stays=False, again=undeploy),
}


# --- files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """One snapshot."""

    flow: str
    at: str
    acknowledged: Mapping[str, str]
    database: Document
    objects: Sequence[Document]


def namespace(flow: str) -> str:
    """Where a flow takes place. Names of hosts are derived from it, and so are in the snapshots."""
    return f"snapshot-{flow}"


def load(flow: str) -> list[Moment]:
    """The snapshots of a flow, in order."""
    document = json.loads(lzma.decompress((FILES / f"{flow}.json.xz").read_bytes()))
    return [Moment(flow=flow, **moment) for moment in document["moments"]]


def records(moment: Moment, kind: str) -> list[Document]:
    """The stored documents of one kind; of operations those that are open."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("\n".join(moment.database["statements"]))
        rows = connection.execute("SELECT document FROM records WHERE kind = ? AND tag != 'closed'", (kind,))
        return [json.loads(text) for (text,) in rows]


def started(moment: Moment) -> set[str]:
    """Ids of the steps that open operations have started."""
    return {step for operation in records(moment, "operation") for step in operation["steps"]}


def save(flow: str, commit: str, moments: Sequence[Document]) -> None:
    """Write the file of a flow."""
    text = json.dumps({"flow": flow, "format": commit, "moments": moments}, separators=(",", ":"))
    (FILES / f"{flow}.json.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


# --- taking -------------------------------------------------------------------------------------------------------


def objects(client: KubeClient, namespace: str) -> list[Document]:
    """Everything in the namespace that a Deployer could have made."""
    found = []
    for kind in KINDS.values():
        with contextlib.suppress(KubeNotFound):  # a cluster without the Gateway API
            found += [{**o, "kind": kind.kind, "apiVersion": kind.api_version} for o in client.list(kind, namespace)[0]]
    return found


def database(path: Path) -> Document:
    """What is committed, as the SQL that makes it again."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return {"version": version, "statements": list(connection.iterdump())}


def open_operations(path: Path) -> int:
    """How many operations are not done."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM records WHERE kind = 'operation' AND tag = 'open'"
        number: int = connection.execute(query).fetchone()[0]
        return number


# --- putting back -------------------------------------------------------------------------------------------------


def restore(world: World, moment: Moment) -> None:
    """Put objects and database where that world's service will find them when it is started."""
    uids: dict[str, str] = {}

    def renamed(text: str) -> str:
        for old, new in uids.items():
            text = text.replace(old, new)
        return text

    left = []
    for kind in KINDS.values():
        for found in (o for o in moment.objects if o["kind"] == kind.kind):
            if kind is POD and not _is_leaving(found, uids):
                continue  # its controller makes another one
            body = json.loads(renamed(json.dumps(found)))
            made = world.eyes.create(kind, _anew(kind, body), world.namespace)
            uids[found["metadata"]["uid"]] = made["metadata"]["uid"]
            left.append((kind, found, made))
    for kind, found, made in left:
        metadata = found["metadata"]
        if "deletionTimestamp" in metadata:
            policy = "Foreground" if "foregroundDeletion" in metadata.get("finalizers", ()) else "Background"
            with contextlib.suppress(KubeNotFound, KubeConflict):  # the garbage collector was quicker
                uid = made["metadata"]["uid"]
                world.eyes.delete(kind, metadata["name"], world.namespace, uid=uid, propagation=policy)
        elif kind is CONTROLLER and (ready := found.get("status", {}).get("readyReplicas")):
            _await_ready(world, metadata["name"], ready)
    path = world.settings.data_dir / "deployer.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(renamed("\n".join(moment.database["statements"])))
        connection.execute(f"PRAGMA user_version = {moment.database['version']}")


def clear(world: World) -> None:
    """Remove the namespace, and return when it is gone."""
    world.close()
    client = connect(world.settings)

    def gone() -> bool:
        try:
            client.get(NAMESPACE, world.namespace)
        except KubeNotFound:
            return True
        return False

    try:
        wait(gone, f"namespace {world.namespace} to be gone")
    finally:
        client.close()


def _is_leaving(pod: Document, uids: Mapping[str, str]) -> bool:
    """Nobody makes it again: it is being deleted, or its controller is gone."""
    owners = {reference["uid"] for reference in pod["metadata"].get("ownerReferences") or ()}
    return "deletionTimestamp" in pod["metadata"] or not owners & uids.keys()


def _anew(kind: Kind, found: Document) -> Document:
    """The object as it can be created."""
    body = {key: value for key, value in found.items() if key != "status"}
    body["metadata"] = {
        key: value
        for key, value in found["metadata"].items()
        if key not in (*GIVEN, "deletionGracePeriodSeconds", "finalizers")
    }
    if kind is POD:
        body["spec"] = {key: value for key, value in found["spec"].items() if key != "nodeName"}
    if kind is SERVICE:
        body["spec"] = {key: value for key, value in found["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return body


def _await_ready(world: World, controller: str, ready: int) -> None:
    """Wait until so many of its pods are ready, as they were."""

    def reached() -> bool:
        status = world.eyes.get(CONTROLLER, controller, world.namespace).get("status", {})
        return bool(status.get("readyReplicas", 0) >= ready)

    wait(reached, f"{controller} to have {ready} ready pods")


def wait(condition: Callable[[], bool], what: str) -> None:
    """Wait for something in the cluster while no service runs that a watch could belong to."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)
