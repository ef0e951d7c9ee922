"""What a process that serves needs around it: its log, and signals that end it in order, or at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)


def log_to_stderr(level: str) -> None:
    """Log to standard error, a line for each message: `2026-11-23T10:00:00.123Z WARNING deployer.core.engine: ...`."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # Every request and every reconnection, in words of libraries that do not know what matters here.
        for library in ("urllib3", "kubernetes", "asyncio", "waitress", "websockets"):
            logging.getLogger(library).setLevel(logging.WARNING)


def log_nowhere() -> None:
    """For commands that say themselves what they found."""
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


class Ending:
    """From here on the first SIGTERM, SIGINT or SIGHUP asks for the end, and the next one does not wait for it."""

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """`at_once` is called before the process ends without any order. Main thread only."""
        self._asked = threading.Event()
        self._at_once = at_once
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Return when the end was asked for."""
        self._asked.wait()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            self._at_once()
            os._exit(128 + number)
        self._asked.set()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt as SIGINT does; from then on all three are ignored.

    So the cleaning up, which is bounded, is not cleaned up after by nobody.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
