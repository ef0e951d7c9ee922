"""`/descriptors/`: what teams want to have deployed."""

from __future__ import annotations

from collections.abc import Sequence

import falcon

from deployer.api import http
from deployer.api.lists import continuation
from deployer.api.lists.answers import Collection, Streams
from deployer.api.views import DescriptorView
from deployer.commands.descriptor_commands import DescriptorCommands
from deployer.core.model.records import Document, StoredDescriptor


class Descriptors(http.Resource):
    """The collection."""

    def __init__(self, commands: DescriptorCommands, streams: Streams) -> None:
        self._descriptors = commands
        self._collection = Collection[StoredDescriptor]("/descriptors/", streams)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Newest first, narrowed to `appname`; with `limit` or `continue` a page."""
        paged = "limit" in req.params or continuation.NAME in req.params
        namespace, app = http.namespace(req), http.app(req)
        moved = self._descriptors.moved(namespace)
        found = self._descriptors.listed(namespace, app)
        self._collection.answer(req, resp, found, _render, moved=moved, paged=paged)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store a new one."""
        namespace, view, body = http.namespace(req), DescriptorView(req), http.body(req)
        key = http.request_key(req, namespace, with_body=True)
        descriptor = self._descriptors.create(namespace, body, key=key)
        http.tell_replayed(resp, key)
        resp.set_header("Location", http.location("descriptors", descriptor.id, namespace))
        validation = self._descriptors.remarked(body, descriptor)
        shown = view.show(descriptor) | ({"validation": validation} if validation else {})
        _show(resp, descriptor, shown, 201)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete those of `appname`, all but the latest unless told."""
        namespace, app = http.namespace(req), http.required_app(req)
        keep_latest = http.flag(req, "keepLatest", default=True)
        http.send(resp, {"deleted": self._descriptors.delete_all(namespace, app, keep_latest)})


class Descriptor(http.Resource):
    """One descriptor."""

    def __init__(self, commands: DescriptorCommands) -> None:
        self._descriptors = commands

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show it."""
        descriptor = self._descriptors.get(http.namespace(req), id)
        _show(resp, descriptor, descriptor.public())

    def on_put(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Replace it, if it still has the revision that `If-Match` names."""
        namespace, revision = http.namespace(req), http.if_match(req)
        descriptor = self._descriptors.update(namespace, id, http.body(req), revision)
        resp.status = 204
        http.about(resp, descriptor.app, id)
        http.set_tag(resp, descriptor.revision)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Delete it, if it still has the revision that `If-Match` names; what was deployed from it stays."""
        deleted = self._descriptors.delete(http.namespace(req), id, if_match=http.if_match(req))
        http.about(resp, deleted.app, id)
        resp.status = 200


class Validation(http.Resource):
    """Checks a descriptor and stores nothing."""

    def __init__(self, commands: DescriptorCommands) -> None:
        self._descriptors = commands

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 with what would be stored, or 400 with everything that is wrong; `validation` says what was checked."""
        http.send(resp, self._descriptors.validate(http.stated_namespace(req), http.body(req)))


def _render(found: Sequence[StoredDescriptor]) -> bytes:
    return http.render([descriptor.public() for descriptor in found])


def _show(resp: falcon.Response, descriptor: StoredDescriptor, document: Document, status: int = 200) -> None:
    http.about(resp, descriptor.app, descriptor.id)
    http.send(resp, document, status)
    http.set_tag(resp, descriptor.revision)
