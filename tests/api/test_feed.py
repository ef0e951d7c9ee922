"""Viewers that begin to follow at the worst moment get every line once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deployer.api.stream import feed
from deployer.api.stream.feed import Feed, Viewer
from deployer.core.model.records import Status


class Way:
    """A way out that keeps what it is given, and lets it wait as long as the test says."""

    def __init__(self) -> None:
        self.data = b""
        self.free = asyncio.Event()
        self.free.set()
        self.changed = asyncio.Event()

    def put(self, data: bytes) -> bool:
        self.data += data
        self.changed.set()
        return self.free.is_set()

    async def taken(self) -> None:
        await self.free.wait()

    def has(self, served: Any, id: str) -> bool:
        """It was given the whole log, every line once."""
        return self.data == b"".join(
            feed.frame(feed.format_line(line) + "\n") for line in served.deployment_log.read(id)
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def following(served: Any, id: str) -> AsyncIterator[tuple[Feed, Callable[[Way], asyncio.Task[str]]]]:
    with concurrent.futures.ThreadPoolExecutor(4) as readers:
        log = Feed(served.service, "shop-ns", id, readers)
        tasks: list[asyncio.Task[str]] = []

        def follow(way: Way) -> asyncio.Task[str]:
            tasks.append(asyncio.create_task(log.follow(Viewer(way))))
            return tasks[-1]

        try:
            yield log, follow
            served.end(id, Status.FAILURE)
            await asyncio.wait(tasks, timeout=20)
        finally:
            for task in tasks:
                task.cancel()
            log.close()


async def settled(condition: Callable[[], bool]) -> None:
    """Wait for the state of a feed, which tells nobody."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_one_that_was_overtaken_while_it_took_its_page(served: Any) -> None:
    """Between its look and its wait the others were given a line; it must not be told the next one only."""

    async def check() -> None:
        id = served.deployment().id
        first, second = Way(), Way()
        async with following(served, id) as (log, follow):
            one = follow(first)
            await settled(lambda: len(log._followers) == 1)
            second.free.clear()
            two = follow(second)
            await second.until(lambda: bool(second.data))
            served.deployment_log.append(id, "given to the first")
            await first.until(lambda: first.has(served, id))
            assert not second.has(served, id)
            second.free.set()
            await settled(lambda: len(log._followers) == 2)
            assert second.has(served, id)
            served.deployment_log.append(id, "given to both")
            for way in (first, second):
                await way.until(lambda way=way: way.has(served, id))
        assert (one.result(), two.result()) == ("FAILURE", "FAILURE")
        assert first.data == second.data

    asyncio.run(check())


@pytest.mark.parametrize("further", [False, True])
def test_one_that_knows_more_than_the_page_on_its_way(served: Any, monkeypatch: Any, further: bool) -> None:
    """It joins while the others' page is still being read, and has some or all of its lines already."""

    async def check() -> None:
        id = served.deployment().id
        first, second = Way(), Way()
        read = served.deployment_log.read
        begun, go = threading.Event(), threading.Event()

        def slow_read(id: str, after: int = 0, *args: Any) -> Any:
            if after == 1 and not begun.is_set():
                begun.set()
                assert go.wait(20)
                if not further:
                    return read(id, after, 1, feed.PAGE_SIZE)
            return read(id, after, *args)

        async with following(served, id) as (log, follow):
            one = follow(first)
            await settled(lambda: len(log._followers) == 1)
            monkeypatch.setattr(served.deployment_log, "read", slow_read)
            served.deployment_log.append(id, "the page")
            await settled(begun.is_set)
            if not further:
                served.deployment_log.append(id, "not in it")
            two = follow(second)
            await settled(lambda: len(log._followers) == 2)
            assert second.has(served, id)
            if further:
                served.deployment_log.append(id, "in it, but new to the second")
                await asyncio.to_thread(read, id)  # it is durable now
            go.set()
            for way in (first, second):
                await way.until(lambda way=way: way.has(served, id))
        assert (one.result(), two.result()) == ("FAILURE", "FAILURE")
        assert first.data == second.data

    asyncio.run(check())


def test_one_that_does_not_take_it_holds_up_nobody_and_reads_on_by_itself(served: Any) -> None:
    async def check() -> None:
        id = served.deployment().id
        quick, slow = Way(), Way()
        async with following(served, id) as (log, follow):
            tasks = [follow(quick), follow(slow)]
            await settled(lambda: len(log._followers) == 2)
            slow.free.clear()
            for number in range(5):
                served.deployment_log.append(id, f"{number} " + "x" * 20_000)
                await quick.until(lambda: quick.has(served, id))
            # Not a byte more than what was written before it was known to be slow.
            assert len(slow.data) < 21_000
            assert len(log._followers) == 1
            slow.free.set()
            await slow.until(lambda: slow.has(served, id))
        assert {task.result() for task in tasks} == {"FAILURE"}
        assert slow.has(served, id)

    asyncio.run(check())


def test_a_read_that_fails_is_raised_to_every_viewer(served: Any, monkeypatch: Any) -> None:
    async def check() -> None:
        id = served.deployment().id
        async with following(served, id) as (log, follow):
            tasks = [follow(Way()) for _ in range(3)]
            await settled(lambda: len(log._followers) == 3)

            def broken(*_: Any) -> Any:
                raise KeyError("a fault of ours")

            monkeypatch.setattr(served.deployment_log, "read", broken)
            served.deployment_log.append(id, "x")
            for task in tasks:
                with pytest.raises(KeyError):
                    await task
            assert not log._followers

    asyncio.run(check())
