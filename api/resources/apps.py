"""`/apps/`: what is live, warm and to come of each app, and its history."""

from __future__ import annotations

import urllib.parse
from collections.abc import Hashable
from functools import partial

import falcon

from deployer.api import http
from deployer.api.polling import Made, Polls
from deployer.api.routes import Permission
from deployer.commands.apps import HISTORY, LONGEST_HISTORY, AppViews, Shown
from deployer.descriptor import fold

_DESCRIPTORS, _FREEZES = Permission("descriptors", "list"), Permission("freezes", "list")


class _Polled(http.Resource):
    """What is polled for a whole namespace, or one app of it."""

    def __init__(self, apps: AppViews) -> None:
        self._apps = apps
        self._polls = Polls(256, bodies=True)

    def _key(self, req: falcon.Request, *more: Hashable) -> tuple[str, Shown, Hashable]:
        """The namespace, what the caller gets to see, and the key of the answer."""
        namespace, shown = http.namespace(req), Shown(http.may(req, _DESCRIPTORS), http.may(req, _FREEZES))
        return namespace, shown, (namespace, shown, *more)


class Apps(_Polled):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """By name; with `limit` at most so many `after` a name, and a `Link` to the next ones."""
        limit, after = http.number(req, "limit", least=1), fold(http.text(req, "after") or "")
        namespace, shown, key = self._key(req, limit, after)

        def make() -> Made:
            found, last = self._apps.apps(namespace, after=after, limit=limit, shown=shown)
            query = urllib.parse.urlencode({"namespace": namespace, "limit": limit, "after": last})
            link = f'</apps/?{query}>; rel="next"' if last else ""
            return Made(http.tag_of([found, last]), http.render(found), link)

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


class History(_Polled):
    """What was done to an app."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Newest first, at most `limit` entries."""
        limit = min(http.number(req, "limit", least=1) or HISTORY, LONGEST_HISTORY)
        namespace, _, key = self._key(req, fold(appname), limit)

        def make() -> Made:
            found = self._apps.history(namespace, fold(appname), limit)
            return Made(http.tag_of(found), http.render(found))

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)
