"""Objects that were made too late: by a request that was under way when its sender lost the lease.

Shared objects are safe from that: such a request carries a resourceVersion that is old by then. An object of one
version is created by name alone. When it arrives while its deployment goes on elsewhere, it is the one that was wanted,
and is found by its name. When it arrives after the deployment was undone, nobody would ever look for it: so its sender
does.
"""

from __future__ import annotations

import logging
import threading

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.errors import Interrupted, KubeError, Revoked, StoreError
from deployer.core.model.kind import Kind
from deployer.core.model.records import Deployment, Operation, Status
from deployer.core.ports.store import Store
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube

logger = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between two looks at whether the deployment has ended."""

LOOKS = 720
"""Looks until it is left alone: an hour."""

OVER = (Status.FAILURE, Status.UNDEPLOYED)


class LateObjects:
    """Removes them, each in a thread of its own: there are next to none."""

    def __init__(self, client: KubeClient, informers: Informers, store: Store) -> None:
        self._client = client
        self._informers = informers
        self._store = store
        self._scope = CancelScope()

    def made(self, owner: Owner, kind: Kind, name: str) -> None:
        """It may have been made too late. Returns at once."""
        threading.Thread(target=self._look_after, args=(owner, kind, name), name="late-object", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._scope.close(Revoked("the service is stopping"))

    def _look_after(self, owner: Owner, kind: Kind, name: str) -> None:
        kube = OwnedKube(self._client, self._informers, owner, self._scope)
        try:
            for _ in range(LOOKS):
                self._scope.pause(LOOK)
                try:
                    if not self._goes_on(owner):
                        self._remove(kube, kind, name)
                        return
                except (StoreError, KubeError) as error:
                    logger.info("whether %s %s was made too late is found out later: %s", kind.kind, name, error)
        except Interrupted:
            return

    def _goes_on(self, owner: Owner) -> bool:
        """Does an operation of its deployment look after it?"""
        found = self._store.find(Operation, tag="open", namespace=owner.namespace, app=owner.app)
        return any(operation.deployment == owner.deployment for operation in found)

    def _remove(self, kube: OwnedKube, kind: Kind, name: str) -> None:
        deployment = self._store.get(Deployment, kube.owner.deployment)
        if deployment is not None and deployment.status not in OVER:
            return  # it is wanted
        found = kube.get(kind, name)
        if found is not None and kube.owned_by(found, kube.owner.deployment):
            logger.warning(
                "%s %s in namespace %s was made too late, and is removed", kind.kind, name, kube.owner.namespace
            )
            kube.delete(kind, name, wait_gone=False)
