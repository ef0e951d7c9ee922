"""`/freezes/`: what keeps namespaces from new deployments."""

from __future__ import annotations

import falcon

from deployer.api import http
from deployer.commands.freezes import EVERYWHERE
from deployer.commands.freezes import Freeze as Record
from deployer.commands.freezes import Freezes as Commands


class Freezes(http.Resource):
    """All that there are now."""

    def __init__(self, freezes: Commands) -> None:
        self._freezes = freezes

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """What freezes the namespace, windows of the settings included; of `*`: everything that freezes anything."""
        namespace = http.frozen_namespace(req)
        found = self._freezes.everywhere() if namespace == EVERYWHERE else self._freezes.of(namespace)
        documents = [freeze.document() for freeze in found]
        http.send(resp, documents)
        http.set_tag(resp, http.tag_of(documents))


class Freeze(http.Resource):
    """The one that somebody put on a namespace, or on all of them."""

    def __init__(self, freezes: Commands) -> None:
        self._freezes = freezes

    def on_get(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        """Show it."""
        _show(resp, self._freezes.get(http.frozen_namespace(req, namespace)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        """Put it, in the place of the one that there is."""
        where, body = http.frozen_namespace(req, namespace), http.body(req)
        replaces = req.get_header("If-Match") is not None
        freeze, created = self._freezes.put(where, body, http.by(req), if_match=http.if_match(req), replaces=replaces)
        resp.context.freeze = str(Commands.shown(freeze))
        resp.set_header("Location", http.location("freezes", where, where))
        _show(resp, freeze, 201 if created else 200)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, namespace: str) -> None:
        """Lift it."""
        self._freezes.lift(http.frozen_namespace(req, namespace), http.by(req), if_match=http.if_match(req))


def _show(resp: falcon.Response, freeze: Record, status: int = 200) -> None:
    http.send(resp, Commands.shown(freeze).document(), status)
    http.set_tag(resp, freeze.revision)
