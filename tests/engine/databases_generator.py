"""Makes `tests/engine/databases/`: what a service leaves when it dies at any write, for `test_migration.py`.

Run as `PYTHONPATH=tests python tests/engine/databases_generator.py [FLOW ...]`, at the commit whose format is to be
kept (a release, or the last one before a format changes). Each flow of `support/snapshots.py` runs once, undisturbed,
on a sandbox; after each durable commit, and after each request that changed the cluster, both are written down as they
are. Moments at which no operation was open are left out. Files of flows that are made anew replace those of an older
format: where a flow is to be tried in both, give it a second name first.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core import failpoints
from deployer.core.operations.execution import clearing
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from support import late, snapshots
from support.flows import settings
from support.history import make_foreign
from support.world import World

POINTS = ("store.after", "kube.after")


def moments(cluster: sandbox.Sandbox, path: Path, name: str) -> list[dict[str, Any]]:
    """Run a flow and take its snapshots."""
    flow = snapshots.ALL[name]
    flow = dataclasses.replace(flow, timeout=flow.timeout if flow.reason == "Unhealthy" else max(10.0, flow.timeout))
    world = World(cluster, path, snapshots.namespace(name), **settings(flow, "act"))
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    make_foreign(world)
    world.start()
    flow.prepare(world)
    if flow.before != flow.ingress:
        world.stop()
        world.settings = dataclasses.replace(world.settings, ingress=flow.ingress)
        world.start()
    taken: list[dict[str, Any]] = []
    acknowledged: dict[str, str] = {}
    lock = threading.Lock()

    def hit(point: str) -> None:
        """Where a kill test would end the process: one moment at a time."""
        file = path / "deployer.db"
        with lock:
            if point in POINTS and snapshots.open_operations(file):
                moment = {"at": f"{len(taken) + 1} {point}", "acknowledged": dict(acknowledged)}
                moment["database"] = snapshots.database(file)
                moment["objects"] = snapshots.objects(world.eyes, world.namespace)
                taken.append(moment)

    original, failpoints.hit = failpoints.hit, hit
    try:
        flow.act(world, lambda what, id: acknowledged.update({what: id}))
        world.quiet()
    finally:
        failpoints.hit = original
        world.close()
    return taken


def main() -> None:
    """Make the files of the flows that are named, or of all."""
    # What an undo leaves is left to an operation of its own, as if pods took their time.
    clearing.PODS_PATIENCE = 0.0
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as directory:
        cluster = sandbox.start(Path(directory) / "sandbox", ingress_delay=0.05)
        try:
            for name in sys.argv[1:] or snapshots.ALL:
                path = Path(directory) / name
                path.mkdir()
                taken = moments(cluster, path, name)
                snapshots.save(name, commit, taken)
                print(f"{name}: {len(taken)} moments")  # noqa: T201
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
