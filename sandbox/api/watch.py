"""Watches: the changes of one kind since a revision, as a stream of JSON lines, with bookmarks and 410."""

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from deployer.sandbox.api.selectors import Test
from deployer.sandbox.kinds import Kind, Object, key_of
from deployer.sandbox.status import bad_request, expired
from deployer.sandbox.store import Change, Store

log = logging.getLogger("sandbox")

BACKLOG = 1000
"""Changes that a slow watcher may lag behind before the server ends its watch."""


@dataclass(frozen=True)
class WatchRequest:
    """What to watch, from where, for how long."""

    kind: Kind
    namespace: str
    test: Test
    revision: str = ""
    bookmarks: bool = False
    timeout: float = 0.0

    def concerns(self, obj: Object) -> bool:
        return (not self.namespace or key_of(obj)[0] == self.namespace) and self.test(obj)

    def event(self, change: Change) -> Object | None:
        """As the watcher sees it: an object that starts or stops to match was added or deleted for it."""
        # A revision from the future is waited for, as in the real server.
        if change.kind != self.kind or change.revision <= int(self.revision or 0):
            return None
        now = change.type != "DELETED" and self.concerns(change.obj)
        before = change.old is not None and self.concerns(change.old)
        if now:
            return {"type": "MODIFIED" if before else "ADDED", "object": self.kind.as_asked(change.obj)}
        return {"type": "DELETED", "object": self.kind.as_asked(change.obj)} if before else None


class Watches:
    """Serves watch requests from one store."""

    def __init__(self, store: Store, bookmark_interval: float) -> None:
        self._store, self._interval = store, bookmark_interval
        self._closing = asyncio.Event()
        self.expire_as_status = False

    def close(self) -> None:
        """Ends every watch."""
        self._closing.set()

    async def serve(self, request: web.BaseRequest, wanted: WatchRequest) -> web.StreamResponse:
        store, revision = self._store, wanted.revision
        if revision and not revision.isdigit():
            raise bad_request(f'invalid resource version "{revision}"')
        too_old = revision not in ("", "0") and int(revision) < store.compacted
        gone = expired(f"too old resource version: {revision} ({store.compacted})")
        if too_old and self.expire_as_status:
            raise gone
        queue: asyncio.Queue[Change] = asyncio.Queue()
        first = [] if too_old else list(self._first(wanted))
        unsubscribe = store.subscribe(queue.put_nowait)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            if too_old:
                await _send(response, {"type": "ERROR", "object": gone.status()})
            else:
                for event in first:
                    await _send(response, event)
                await self._follow(request, response, wanted, queue)
            await response.write_eof()
        except ConnectionError:
            log.debug("a watcher of %s went away", wanted.kind.plural)
        finally:
            unsubscribe()
        return response

    def _first(self, wanted: WatchRequest) -> Iterator[Object]:
        """What is there now, or what happened since the revision."""
        if wanted.revision in ("", "0"):
            for obj in self._store.list(wanted.kind, wanted.namespace):
                if wanted.test(obj):
                    yield {"type": "ADDED", "object": wanted.kind.as_asked(obj)}
            return
        for change in self._store.history:
            if event := wanted.event(change):
                yield event

    async def _follow(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        wanted: WatchRequest,
        queue: "asyncio.Queue[Change]",
    ) -> None:
        now = asyncio.get_running_loop().time
        # The real server chooses between 30 and 60 minutes when the client leaves it open.
        end = now() + (wanted.timeout or random.uniform(1800, 3600))
        bookmark = now() + self._interval
        closing = asyncio.create_task(self._closing.wait())
        change: asyncio.Task[Change] = asyncio.create_task(queue.get())
        try:
            while now() < end and not closing.done() and queue.qsize() < BACKLOG and request.transport is not None:
                pause = min(end, bookmark) - now()
                await asyncio.wait({change, closing}, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
                if change.done():
                    if event := wanted.event(change.result()):
                        await _send(response, event)
                    change = asyncio.create_task(queue.get())
                if now() >= bookmark or now() >= end:
                    bookmark = now() + self._interval
                    if wanted.bookmarks and queue.empty() and not change.done():
                        await _send(response, _bookmark(wanted.kind, self._store.revision))
        finally:
            closing.cancel()
            change.cancel()


def _bookmark(kind: Kind, revision: int) -> Object:
    meta = {"resourceVersion": str(revision), "creationTimestamp": None}
    return {"type": "BOOKMARK", "object": {"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta}}


async def _send(response: web.StreamResponse, event: Object) -> None:
    await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
