"""What of a record an answer shows: nothing that its caller could not also have read.

Whoever may create something may not therefore read it. What a caller may see is asked before anything is done, so that
an authority that cannot be asked refuses the request instead of hiding what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import falcon

from deployer.api import http
from deployer.api.routes import Permission
from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Deployment, Document, StoredDescriptor

_UNREADABLE = (
    "the stored descriptor breaks the rules of this service by now; somebody who may read it can validate it to see why"
)


class DescriptorView:
    """Descriptors as a caller gets to see them: whole, or id, namespace and name."""

    def __init__(self, req: falcon.Request) -> None:
        """Raises Unsure when nobody can say what the caller may read."""
        self._whole = http.may(req, Permission("descriptors", "get"))

    def show(self, descriptor: StoredDescriptor) -> Document:
        """The document to answer with."""
        if self._whole:
            return descriptor.public()
        return {"id": descriptor.id, "namespace": descriptor.namespace, "appName": descriptor.app}


class DeploymentView:
    """Deployments as a caller gets to see them: whole, without the copy of the descriptor for those who may not read
    descriptors, or no more than what it is and how it is doing."""

    def __init__(self, req: falcon.Request, id: str = "", *, verb: str = "get") -> None:
        """`id` of the deployment, when it is known by now; `verb` list for many. Raises Unsure as above."""
        self._record = http.may(req, Permission("deployments", verb), id)
        self._descriptor = self._record and http.may(req, Permission("descriptors", verb))

    def show(self, deployment: Deployment) -> Document:
        """The document to answer with."""
        if self._descriptor:
            return deployment.public()
        what = {"id": deployment.id, "namespace": deployment.namespace, "appName": deployment.app}
        if not self._record:
            return {**what, "status": deployment.status.value}
        return {**what, **{name: value for name, value in deployment.public().items() if name != "descriptor"}}

    def course(self, more: Document) -> Document:
        """What else a deployment's course shows, for those who may read the deployment; nothing for others."""
        return more if self._record else {}

    def details(self, more: Document) -> Document:
        """The same, for those who may read descriptors; nothing for others."""
        return more if self._descriptor else {}

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Say no more of a stored descriptor's mistakes than the caller may see. Raises Invalid."""
        try:
            yield
        except Invalid:
            if self._descriptor:
                raise
            raise Invalid([Problem("", _UNREADABLE)]) from None
