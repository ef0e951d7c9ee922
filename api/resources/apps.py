"""`/apps/`: what is live, warm and to come of each app, and its history."""

from __future__ import annotations

import urllib.parse
from collections.abc import Hashable
from functools import partial

import falcon

from deployer.api import http
from deployer.api.polling import Made, Polls
from deployer.api.routes import Permission
from deployer.commands.apps import HISTORY, LONGEST_HISTORY, AppViews
from deployer.core.model.records import Document
from deployer.descriptor import fold

_DESCRIPTORS = Permission("descriptors", "list")


class _Polled(http.Resource):
    """What is polled for a whole namespace, or one app of it."""

    def __init__(self, apps: AppViews) -> None:
        self._apps = apps
        self._polls = Polls(256, bodies=True)

    def _key(self, req: falcon.Request, *more: Hashable) -> tuple[str, bool, Hashable]:
        """The namespace, whether the caller may see what comes from descriptors, and the key of the answer."""
        namespace, hosts = http.namespace(req), http.may(req, _DESCRIPTORS)
        return namespace, hosts, (namespace, hosts, *more)


class Apps(_Polled):
    """The collection."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """By name; with `limit` at most so many `after` a name, and a `Link` to the next ones."""
        limit, after = http.number(req, "limit", least=1), fold(http.text(req, "after") or "")
        namespace, hosts, key = self._key(req, limit, after)

        def make() -> Made:
            shown, last = self._apps.apps(namespace, after=after, limit=limit, hosts=hosts)
            query = urllib.parse.urlencode({"namespace": namespace, "limit": limit, "after": last})
            link = f'</apps/?{query}>; rel="next"' if last else ""
            return Made(http.tag_of([shown, last]), http.render(shown), link)

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)


class App(_Polled):
    """One app."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Show it."""
        namespace, hosts, key = self._key(req, fold(appname))

        def make() -> Made:
            shown: Document = self._apps.app(namespace, fold(appname), hosts=hosts)
            return Made(http.tag_of(shown), http.render(shown))

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)


class History(_Polled):
    """What was done to an app."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, appname: str) -> None:
        """Newest first, at most `limit` entries."""
        limit = min(http.number(req, "limit", least=1) or HISTORY, LONGEST_HISTORY)
        namespace, _, key = self._key(req, fold(appname), limit)

        def make() -> Made:
            shown = self._apps.history(namespace, fold(appname), limit)
            return Made(http.tag_of(shown), http.render(shown))

        self._polls.answer(req, resp, key, partial(self._apps.moved, namespace), make)
