"""Polling: what clients were told last, so that telling them that nothing has changed costs next to nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import falcon

from deployer.api import http

LARGEST_KEPT = 1024 * 1024
"""Bytes of an answer that is kept for the next one who asks."""

ALL_KEPT = 8 * LARGEST_KEPT
"""Bytes that all of them have together."""

STRIPES = 16
"""Answers that are made at the same time: of one that many want now, it is once."""


@dataclass(frozen=True, slots=True)
class Made:
    """An answer: its entity tag, the body, and a `Link` (RFC 8288) to what follows, if there is more."""

    tag: str
    body: bytes
    link: str = ""


@dataclass(frozen=True, slots=True)
class _Told:
    """What was told; its body is empty when it is not kept."""

    moved: Hashable
    made: Made


class Polls:
    """Of one kind of answer. Thread-safe.

    most    answers that are remembered, those that were asked for last
    bodies  they are kept, too
    """

    def __init__(self, most: int, *, bodies: bool = False) -> None:
        self._most = most
        self._bodies = bodies
        self._lock = threading.Lock()
        self._told: OrderedDict[Hashable, _Told] = OrderedDict()
        self._size = 0
        self._making = [threading.Lock() for _ in range(STRIPES)]

    def answer(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        key: Hashable,
        moved: Callable[[], Hashable],
        make: Callable[[], Made],
    ) -> None:
        """Answer 200, or 304 to a client that has it.

        key    names the answer, with all that it depends on besides what is stored
        moved  gives what differs whenever the answer may; asked before `make` is
        make   makes it
        """
        made = self._known(req, key, moved())
        if made is None:
            with self._making[hash(key) % STRIPES]:
                now = moved()
                made = self._known(req, key, now)
                if made is None:
                    made = make()
                    self._keep(key, _Told(now, made))
        http.set_tag(resp, made.tag)
        if made.link:
            resp.set_header("Link", made.link)
        if http.has(req, made.tag):
            resp.status = 304
            return
        resp.content_type = falcon.MEDIA_JSON
        resp.data = made.body

    def _known(self, req: falcon.Request, key: Hashable, moved: Hashable) -> Made | None:
        """What is still true, and enough to answer with."""
        with self._lock:
            told = self._told.get(key)
            if told is None or told.moved != moved:
                return None
            self._told.move_to_end(key)
        return told.made if told.made.body or http.has(req, told.made.tag) else None

    def _keep(self, key: Hashable, told: _Told) -> None:
        if not self._bodies or len(told.made.body) > LARGEST_KEPT:
            told = _Told(told.moved, Made(told.made.tag, b"", told.made.link))
        with self._lock:
            before = self._told.pop(key, None)
            self._size += len(told.made.body) - (len(before.made.body) if before else 0)
            self._told[key] = told
            while len(self._told) > self._most or self._size > ALL_KEPT:
                self._size -= len(self._told.popitem(last=False)[1].made.body)
