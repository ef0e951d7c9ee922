"""Answers that may be long: a page when one is asked for, else everything, which is streamed once it is long.

Of a stream a piece is in memory at a time. It keeps a thread of REST until the client has taken nearly all of it, so
there is a limit to how many there are at once, and to how many of them are of one namespace.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic

import falcon

from deployer.api import http
from deployer.api.lists import continuation
from deployer.commands.limits.paging import RecordList, place_of
from deployer.core.ports.store import Place, R

UNPAGED = 10_000
"""Records in an answer to a client that asks for no pages. A `Link` leads to what is missing."""

WHOLE = 256 * 1024
"""Bytes up to which an answer is sent in one piece, with its length."""

STREAMS = 12
"""Answers that are streamed at the same time."""

STREAMS_EACH = 8
"""Those of one namespace."""

STREAMS_KEPT = 3
"""Those that are left for namespaces that have none: a reader who takes their time, and has two, must not get all."""


class Streams:
    """Counts the answers that are being streamed. Thread-safe."""

    def __init__(self, most: int = STREAMS, each: int = STREAMS_EACH) -> None:
        """`most` at once, `each` of a namespace."""
        self._most = most
        self._each = each
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()

    def send(self, req: falcon.Request, resp: falcon.Response, namespace: str, pieces: Iterator[bytes]) -> None:
        """Answer with the pieces: with all of them at once when that is little, else one after the other.

        Raises a 429 when too many others are long, too.
        """
        start: list[bytes] = []
        size = 0
        for piece in pieces:
            start.append(piece)
            size += len(piece)
            if size >= WHOLE:
                break
        else:
            resp.data = b"".join(start)
            return
        if req.method == "HEAD":
            resp.stream = iter(())  # nothing is sent, and its length is not known
            return
        self._enter(namespace)
        resp.stream = _Stream(itertools.chain(start, pieces), lambda: self._leave(namespace))

    def _enter(self, namespace: str) -> None:
        with self._lock:
            each = self._under_way[namespace]
            if each < self._each and self._under_way.total() < self._most - (STREAMS_KEPT if each else 0):
                self._under_way[namespace] += 1
                return
        whose = "this namespace" if each >= self._each else "this service"
        raise falcon.HTTPTooManyRequests(
            description=f"{whose} is sending as many long answers as it may at once; try again in a while, or ask for "
            "pages with limit and continue",
            retry_after=1,
        )

    def _leave(self, namespace: str) -> None:
        with self._lock:
            self._under_way[namespace] -= 1
            if not self._under_way[namespace]:
                del self._under_way[namespace]


class _Stream:
    """Pieces for the server, which calls `close` in the end, whatever comes of it."""

    def __init__(self, pieces: Iterator[bytes], leave: Callable[[], None]) -> None:
        self._pieces = pieces
        self._leave: Callable[[], None] | None = leave

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Make room for another one. Idempotent."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Collection(Generic[R]):
    """How one kind of records is listed.

    path    of the collection
    render  gives records as JSON, a list of them
    """

    def __init__(self, path: str, streams: Streams) -> None:
        self._path = path
        self._streams = streams
        self._process = secrets.token_hex(8)  # what moves is counted by each process for itself

    def answer(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        records: RecordList[R],
        render: Callable[[Sequence[R]], bytes],
        *,
        moved: Hashable,
        paged: bool,
        most: int | None = None,
    ) -> None:
        """Answer with a page, or with all, at most the first `most`. `render` makes JSON of some, as a list. `moved`
        differs whenever the answer may, and for callers who get to see different things; it was found before anything
        is read. A client that has what it stands for gets a 304, for which nothing is."""
        tag = http.tag_of([self._process, self._path, req.query_string, str(moved)])
        if http.has(req, tag):
            resp.status = 304
        elif paged:
            self._page(req, resp, records, render)
        else:
            self._whole(req, resp, records, render, most=min(most or UNPAGED, UNPAGED))
        http.set_tag(resp, tag)

    def _whole(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        records: RecordList[R],
        render: Callable[[Sequence[R]], bytes],
        *,
        most: int,
    ) -> None:
        resp.content_type = falcon.MEDIA_JSON
        end = records.end(most)
        if end is not None:
            resp.set_header("Link", self._next(records, {}, end))
        self._streams.send(req, resp, records.namespace, _pieces(records, render, most))

    def _page(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        records: RecordList[R],
        render: Callable[[Sequence[R]], bytes],
    ) -> None:
        resp.content_type = falcon.MEDIA_JSON
        page = continuation.requested(req, *self._of(records))
        found = records.read(page.limit, page.after)
        resp.data = render(found)
        if found and records.read(1, place_of(found[-1])):
            resp.set_header("Link", self._next(records, {"limit": str(page.limit)}, place_of(found[-1])))

    def _of(self, records: RecordList[R]) -> tuple[Hashable, ...]:
        """What the list depends on."""
        return self._path, records.namespace, records.app, records.tag

    def _next(self, records: RecordList[R], more: dict[str, str], after: Place) -> str:
        query = {"namespace": records.namespace, "appname": records.app, "status": records.tag, **more}
        return continuation.link(self._path, query, after, *self._of(records))


def _pieces(records: RecordList[R], render: Callable[[Sequence[R]], bytes], most: int) -> Iterator[bytes]:
    """The list in the same bytes as if it were rendered as a whole. While one piece is sent nothing else is held."""
    after, left, before = None, most, b"[\n"
    while left and (found := records.read(left, after)):
        after, left = place_of(found[-1]), left - len(found)
        piece = render(found).removeprefix(b"[\n").removesuffix(b"\n]\n")
        del found
        yield before + piece
        del piece
        before = b",\n"
    yield render([]) if after is None else b"\n]\n"
