"""Following one deployment's log for all its viewers: read once, framed once, the same bytes written to each.

Everything comes from the store, which says when there is something new: it does not matter which process runs the
deployment. A viewer's cursor is the number of the last line that it was given. Numbers have no gaps, so to a viewer it
is the count of messages that it got, and all that it needs to say when it comes back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from dataclasses import dataclass, field
from typing import Protocol

from websockets.frames import Frame, Opcode

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.deployment_log import format_line
from deployer.core.errors import Invalid, NotFound, Problem

PAGE = 500
"""Lines that are read at once."""
PAGE_SIZE = 32 * 1024
"""Characters that end a page. With its last line this is what is written at once, and so what a slow viewer holds."""
SEND_TIMEOUT = 8.0
"""Seconds in which a viewer must take what waits for it, or it is dropped."""
DELETED = "DELETED"
"""How a log ends whose deployment was deleted; other ends are the deployment's status."""


class Way(Protocol):
    """The way out to one viewer. Used by the loop's thread only."""

    def put(self, data: bytes) -> bool:
        """Write frames; false when not all of them got into the kernel's buffer."""

    async def taken(self) -> None:
        """Return when all that was put is in the kernel's buffer, or the viewer has left or was dropped."""


@dataclass(eq=False, slots=True)
class Viewer:
    """One viewer's place in the log: `after` is the number of the last line that it was given."""

    way: Way
    after: int = 0
    left: bool = False
    _end: str | Exception | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self) -> None:
        """It is gone: nothing more is wanted."""
        self.left = True
        self._wake.set()


@dataclass(frozen=True, slots=True)
class _Page:
    """The lines that follow number `first` as frames, and what comes then.

    more  there may be further lines already
    end   why nothing will ever follow; empty while something may
    """

    first: int
    frames: tuple[bytes, ...]
    more: bool
    end: str

    @property
    def last(self) -> int:
        return self.first + len(self.frames)

    def after(self, number: int) -> bytes:
        """What somebody lacks who has the lines up to `number`, which is not below `first`."""
        return b"".join(self.frames[number - self.first :])


class Feed:
    """Reads one deployment's log for its viewers. Used by the loop's thread only, but for what the store calls.

    A viewer reads page after page at its own speed until it has all that there is. From then on it is a follower: what
    is new is read once and written to all followers in one go. One that does not take it at once reads on by itself
    and holds up nobody. Whoever reads at the same place shares a read.
    """

    def __init__(
        self, service: DeploymentCommands, namespace: str, id: str, readers: concurrent.futures.ThreadPoolExecutor
    ) -> None:
        self.viewers = 0  # for whoever keeps it; not only followers
        self._service = service
        self._namespace = namespace
        self._id = id
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self._followers: set[Viewer] = set()
        self._head = 0  # every follower has the lines up to this number, perhaps more; it never decreases
        self._reads: dict[int, asyncio.Future[_Page]] = {}
        self._news = asyncio.Event()
        self._told = False
        self._version = 0  # counts what the store has told
        self._unwatch = service.deployment_log.watch(id, self._tell)
        self._distributor = asyncio.create_task(self._distribute())

    def close(self) -> None:
        """Follow no more."""
        self._unwatch()
        self._distributor.cancel()

    async def follow(self, viewer: Viewer) -> str:
        """Give the viewer everything after its place; returns how the log ends, empty when it has left before.

        Raises Invalid when its place is none, NotFound never (a deployment that is gone is an end), and what reading
        raises.
        """
        while not viewer.left:
            version = self._version
            page = await self._read(viewer.after)
            viewer.after = page.last
            viewer.way.put(page.after(page.first))
            await viewer.way.taken()
            if page.end:
                return page.end
            # Behind the followers once more: they were given something while it read.
            if page.more or viewer.left or viewer.after < self._head:
                continue
            end = await self._as_follower(viewer, version)
            if isinstance(end, Exception):
                raise end
            if end is not None:
                return end
        return ""

    async def _as_follower(self, viewer: Viewer, version: int) -> str | Exception | None:
        """Be given what is new; returns the end, or None when it has to read by itself again or has left."""
        if not self._followers:
            self._head = viewer.after
        self._followers.add(viewer)
        if version != self._version:
            self._news.set()  # told while it read: perhaps of the end, which nobody would tell again
        try:
            await viewer._wake.wait()
            viewer._wake.clear()
        finally:
            self._followers.discard(viewer)
        await viewer.way.taken()
        return viewer._end

    # --- what is new ----------------------------------------------------------------------------------------------

    async def _distribute(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._followers:
                continue
            try:
                page = await self._read(self._head)
            except Exception as error:  # noqa: BLE001 - raised to each of those who wait for it
                for viewer in self._followers:
                    viewer._end = error
                    viewer._wake.set()
                continue
            self._give(page)
            if page.more:
                self._news.set()

    def _give(self, page: _Page) -> None:
        """Write a page to all followers, without a pause in which one might come or go."""
        whole = page.after(page.first)
        # Who has joined during the read may know a part of it already, or even more than it.
        for viewer in tuple(self._followers):
            if viewer.after < page.last:
                at_once = viewer.way.put(whole if viewer.after == page.first else page.after(viewer.after))
                viewer.after = page.last
                if not at_once:
                    self._followers.discard(viewer)
                    viewer._wake.set()
            if page.end:
                viewer._end = page.end
                viewer._wake.set()
        self._head = max(self._head, page.last)

    def _tell(self) -> None:
        """In the store's thread, after new lines or another status. Many calls become one in the loop."""
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: there is nobody to tell
                self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        # In this order: what the store tells from here on is told anew, and whoever wakes up reads anew.
        self._told = False
        self._version += 1
        self._reads.clear()
        self._news.set()

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read(self, after: int) -> _Page:
        future = self._reads.get(after)
        if future is None:
            future = self._reads[after] = self._loop.run_in_executor(self._readers, self._page, after)
            future.add_done_callback(lambda done: self._over(after, done))
        # One viewer that leaves must not cancel what the others wait for.
        return await asyncio.shield(future)

    def _over(self, after: int, future: asyncio.Future[_Page]) -> None:
        if self._reads.get(after) is future:
            del self._reads[after]
        if not future.cancelled():
            future.exception()  # seen, even if every viewer has left meanwhile

    def _page(self, after: int) -> _Page:
        """In a reader's thread. The status is read first: what it says ends the log was written before it."""
        try:
            status = self._service.deployment(self._namespace, self._id).status
            lines = self._service.deployment_log.read(self._id, after, PAGE, PAGE_SIZE)
            if not lines and after > (last := self._service.deployment_log.last(self._id)):
                self._service.deployment(self._namespace, self._id)  # a log may be gone because this is, since just now
                raise Invalid([Problem("after", f"is too large: the log has {last} lines")])
        except NotFound:
            return _Page(after, (), more=False, end=DELETED)
        more = len(lines) == PAGE or sum(len(line.text) for line in lines) >= PAGE_SIZE
        frames = tuple(frame(format_line(line) + "\n") for line in lines)
        return _Page(after, frames, more, end="" if more or status.moving else status.value)


def frame(text: str) -> bytes:
    """A message as it goes over the wire, the same for every viewer (RFC 6455: servers do not mask)."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
