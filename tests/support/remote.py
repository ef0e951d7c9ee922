"""A Deployer in a process of its own, perhaps in another Python environment, that does what a test tells it.

A child of the fork server reads `{"cluster", "path", "namespace", "settings", "environ"}`, starts the service and
answers orders `{"do": name, ...}` (the functions below) with `{"did": answer}`; what goes wrong comes as `{"error"}`.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.model.records import App, Deployment, Operation, Plan, Status
from support.forkserver import Channel, Child, ForkServer
from support.world import World


class Remote:
    """The service, from the test's side. Raises EOFError when it died."""

    def __init__(self, server: ForkServer, world: World, environ: dict[str, str] | None = None) -> None:
        """Start it on the store of `world`, which is not started itself."""
        assert world.cluster is not None
        job = {
            "cluster": {**vars(world.cluster), "state": str(world.cluster.state)},
            "path": str(world.settings.data_dir),
            "namespace": world.namespace,
            "settings": {"plugins": dict(world.settings.plugins), "ingress": world.settings.ingress},
            "environ": environ or {},
        }
        self.child: Child = server.fork()
        self.child.write(job)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close()

    def ask(self, what: str, **arguments: Any) -> Any:
        """Give an order, and return the answer."""
        self.child.write({"do": what, "arguments": arguments})
        message = self.child.read()
        if message is None:
            raise EOFError(f"the service ended with {self.child.exit}")
        assert "error" not in message, message["error"]
        return message["did"]

    def dies(self) -> None:
        """It dies by itself, as by a failpoint; what it says before is of no interest."""
        while self.child.read() is not None:
            pass
        assert self.child.exit == 137, f"the service ended with {self.child.exit}"


# --- in the child -------------------------------------------------------------------------------------------------


def deploy(world: World, **fields: Any) -> str:
    """The id of the new deployment."""
    return world.deploy(**fields).id


def undeploy(world: World, id: str) -> None:
    """Queue it."""
    world.service.undeploy(world.namespace, id)


def ended(world: World, id: str) -> str:
    """The status in which it ended."""
    return world.ended(id).status.value


def logged(world: World, id: str, line: str) -> None:
    """Wait for a line in its log."""
    world.until(lambda: line in world.log(id), f"the line {line!r}")


def parked(world: World, id: str) -> None:
    """Wait until its operation is parked."""

    def found() -> bool:
        return any(o.deployment == id and o.due and o.begun for o in world.store.find(Operation, tag="open"))

    world.until(found, "the deployment to park")


def plugins(world: World) -> list[Any]:
    """What is installed."""
    return world.registry.describe()


def report(world: World) -> dict[str, Any]:
    """Everything of the store that matters, deployments oldest first, once nothing is left to do."""
    world.quiet()
    return state(world)


def state(world: World) -> dict[str, Any]:
    """The same at this moment."""
    app = world.store.get(App, f"{world.namespace}/shop")
    return {
        "deployments": [
            {**d.public(), "log": world.log(d.id), "health": world.service.health_data(world.namespace, d.id)}
            for d in world.store.find(Deployment, namespace=world.namespace)
        ],
        "live": app.live if app else "",
        "held": app.held if app else "",
        "plans": [p.deployment for p in world.store.find(Plan, namespace=world.namespace)],
    }


def remove(world: World) -> dict[str, Any]:
    """Undeploy what is live."""
    for deployment in world.service.deployments(world.namespace, status=Status.DEPLOYED):
        world.service.undeploy(world.namespace, deployment.id)
    return report(world)


ORDERS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (deploy, undeploy, ended, logged, parked, plugins, report, state, remove)
}


def run(channel: Channel) -> None:
    """Serve until the channel ends."""
    job = channel.read()
    os.environ.update(job["environ"])
    logging.basicConfig(filename=f"{job['path']}/service.log", level=logging.INFO, force=True)
    cluster = sandbox.Sandbox(**{**job["cluster"], "state": Path(job["cluster"]["state"])})
    world = World(cluster, Path(job["path"]), job["namespace"], **job["settings"]).start()
    while True:
        try:
            order = channel.read()
        except EOFError:
            return
        try:
            channel.write({"did": ORDERS[order["do"]](world, **order["arguments"])})
        except AssertionError as error:
            channel.write({"error": str(error)})


# What connecting imports only when it comes to that; here once for all children.
for name in ("kubernetes.client", "kubernetes.config"):
    importlib.import_module(name)
