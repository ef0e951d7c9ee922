"""Polling: what clients were told last, so that telling them that nothing has changed costs next to nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import falcon

from deployer.api import http

LARGEST_KEPT = 256 * 1024
"""Bytes of an answer that is kept for the next one who asks."""


@dataclass(frozen=True, slots=True)
class Made:
    """An answer: its entity tag, the body, and a `Link` (RFC 8288) to what follows, if there is more."""

    tag: str
    body: bytes
    link: str = ""


@dataclass(frozen=True, slots=True)
class _Told:
    moved: Hashable
    tag: str
    body: bytes
    link: str


class Polls:
    """Of one kind of answer. Thread-safe.

    most    answers that are remembered, those that were asked for last
    bodies  they are kept, too, up to `LARGEST_KEPT` each
    """

    def __init__(self, most: int, *, bodies: bool = False) -> None:
        self._most = most
        self._bodies = bodies
        self._lock = threading.Lock()
        self._told: OrderedDict[Hashable, _Told] = OrderedDict()

    def answer(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        key: Hashable,
        moved: Hashable,
        make: Callable[[], Made],
    ) -> None:
        """Answer 200, or 304 to a client that has it.

        key    names the answer, with all that it depends on besides what is stored
        moved  read before `make` is called: differs whenever the answer may
        make   makes it
        """
        with self._lock:
            told = self._told.get(key)
            if told is not None:
                self._told.move_to_end(key)
        fresh = told if told is not None and told.moved == moved else None
        body = fresh.body if fresh is not None else b""
        if fresh is None or not (body or http.has(req, fresh.tag)):
            made = make()
            body = made.body
            fresh = _Told(moved, made.tag, body if self._bodies and len(body) <= LARGEST_KEPT else b"", made.link)
            with self._lock:
                self._told[key] = fresh
                self._told.move_to_end(key)
                while len(self._told) > self._most:
                    self._told.popitem(last=False)
        http.set_tag(resp, fresh.tag)
        if fresh.link:
            resp.set_header("Link", fresh.link)
        if http.has(req, fresh.tag):
            resp.status = 304
            return
        resp.content_type = falcon.MEDIA_JSON
        resp.data = body
