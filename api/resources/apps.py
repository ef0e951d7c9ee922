"""`/apps/`: what is live, warm and to come of each app, its history, and what the data plane answers for it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Hashable
from functools import partial

import falcon

from deployer.api import http
from deployer.api.lists import answers, continuation
from deployer.api.polling import Made, Polls
from deployer.api.routes import Permission
from deployer.commands.apps import HISTORY, LONGEST_HISTORY, AppViews, Shown
from deployer.descriptor import fold

_DESCRIPTORS, _FREEZES = Permission("descriptors", "list"), Permission("freezes", "list")


def _shown(req: falcon.Request) -> Shown:
    """What the caller gets to see."""
    return Shown(http.may(req, _DESCRIPTORS), http.may(req, _FREEZES))


class _Polled(http.Resource):
    """What is polled for a whole namespace, or one app of it."""

    def __init__(self, apps: AppViews) -> None:
        self._apps = apps
        self._polls = Polls(256, bodies=True)

    def _key(self, req: falcon.Request, *more: Hashable) -> tuple[str, Shown, Hashable]:
        """The namespace, what the caller gets to see, and the key of the answer."""
        namespace, shown = http.namespace(req), _shown(req)
        return namespace, shown, (namespace, shown, *more)


class Apps(_Polled):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """By name; with `limit` at most so many `after` a name, and a `Link` to the next ones."""
        limit = min(http.number(req, "limit", least=1) or answers.UNPAGED, answers.UNPAGED)
        of = ("/apps/", http.namespace(req))
        page = continuation.requested(req, *of) if continuation.NAME in req.params else None
        after = fold(http.text(req, "after") or "")
        if page is not None:
            limit, after = page.limit, page.after[1] if page.after else ""
        namespace, shown, key = self._key(req, limit, after, page is not None)

        def make() -> Made:
            found, last = self._apps.apps(namespace, after=after, limit=limit, shown=shown)
            query = {"namespace": namespace, "limit": limit}
            if page is not None:
                link = continuation.link("/apps/", query, (0, last), *of)
            else:
                link = f'</apps/?{urllib.parse.urlencode(query | {"after": last})}>; rel="next"'
            return Made(http.tag_of([found, last]), http.render(found), link if last else "")

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)


class App(_Polled):
    """One app."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Show it."""
        namespace, shown, key = self._key(req, fold(appname))

        def make() -> Made:
            found = self._apps.app(namespace, fold(appname), shown=shown)
            return Made(http.tag_of(found), http.render(found))

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)


class DataPlane(http.Resource):
    """Which address of the data plane answers with which version."""

    def __init__(self, apps: AppViews) -> None:
        self._apps = apps

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Ask them, or tell what they answered a moment ago."""
        http.send(resp, self._apps.data_plane(http.namespace(req), fold(appname), shown=_shown(req)))


class History(_Polled):
    """What was done to an app."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Newest first, at most `limit` entries, and a `Link` to those before."""
        limit, app = min(http.number(req, "limit", least=1) or HISTORY, LONGEST_HISTORY), fold(appname)
        of = (path := f"/apps/{urllib.parse.quote(app)}/history", http.namespace(req))
        page = continuation.requested(req, *of)
        namespace, _, key = self._key(req, app, limit, page.after)

        def make() -> Made:
            found, last = self._apps.history(namespace, app, limit, before=page.after)
            link = continuation.link(path, {"namespace": namespace, "limit": limit}, last, *of) if last else ""
            return Made(http.tag_of([found, last]), http.render(found), link)

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)
