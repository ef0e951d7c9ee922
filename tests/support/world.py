"""A Deployer on a sandbox for tests: that of `deployer.testing`, with the words of these tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.model.records import Deployment, Status, StoredDescriptor
from deployer.core.registry import Registry
from deployer.testing.service import HEALTHY, IMAGE, NGINX, PATIENCE, SandboxedService, describe

__all__ = ["GATEWAY", "HEALTHY", "NGINX", "PATIENCE", "World", "describe"]

GATEWAY = {
    "gateway": "infra/edge",
    "section": "http",
    "controller": "ingress-nginx/ingress-nginx-controller",
    "minimum_hold": 0.2,
}


class World(SandboxedService):
    """A Deployer on the sandbox, that can be stopped and started again, and eyes on the cluster."""

    image = IMAGE
    """What apps consist of."""

    def __init__(self, cluster: sandbox.Sandbox | None, path: Path, namespace: str, **settings: Any) -> None:
        super().__init__(cluster, path, namespace, **settings)

    def start(self, registry: Registry | None = None, *, kill_at: int = 0) -> World:
        """Start the service on the same store as before."""
        super().start(registry, kill_at=kill_at)
        return self

    # --- doing ---------------------------------------------------------------------------------------------------

    def descriptor(self, app: str = "shop", **fields: Any) -> StoredDescriptor:
        """Store a descriptor of the sample app."""
        return self.service.descriptors.create(
            self.namespace, json.dumps(describe(self.namespace, app, **fields)).encode()
        )

    def deploy(self, app: str = "shop", **fields: Any) -> Deployment:
        """Store a descriptor and queue its deployment."""
        return self.service.deploy(self.namespace, self.descriptor(app, **fields).id)

    def ended(self, deployment: Deployment | str, *statuses: Status) -> Deployment:
        """Wait until the deployment is no longer moving, and is in one of `statuses`, if any are given."""
        id = deployment if isinstance(deployment, str) else deployment.id

        def end() -> Deployment | None:
            found = self.store.get(Deployment, id)
            return found if found and not found.status.moving else None

        found = self.until(end, f"deployment {id} to end")
        assert not statuses or found.status in statuses, f"{found.status}: {found.failure}\n{self.log(id)}"
        return found

    def deployed(self, app: str = "shop", **fields: Any) -> Deployment:
        """Deploy and wait until it is live."""
        return self.ended(self.deploy(app, **fields), Status.DEPLOYED)
