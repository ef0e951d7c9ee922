"""Saying that an answer takes its time, so that nobody looks at a screen on which nothing happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

from deployer.client.output.words import one_line

SOON = 0.8
"""Seconds after which a person at a terminal is told; the line counts on, and is gone with the answer."""

LATE = 10.0
"""Seconds after which a line says so where there is no terminal: once for each answer."""

_START_OF_LINE, _CLEAR = "\r", "\x1b[K"  # ECMA-48, 8.3.41: erase to the end of the line


class Waiting:
    """Tells on standard error, in a thread of its own, that `what` is waited for.

    say   prints a line where there is no terminal
    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what = what
        self._say = say

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """While the block runs. Only the main thread's are told: others wait behind a picture that says it itself."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        over = threading.Event()
        teller = threading.Thread(target=self._tell, args=(over,), name="waiting", daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def _tell(self, over: threading.Event) -> None:
        began = time.monotonic()
        if not draws():
            if not over.wait(LATE):
                self._say(f"{self._what} has not answered for {LATE:g} s; still waiting")
            return
        shown = False
        pause = SOON
        while not over.wait(pause):
            text = one_line(f"waiting for {self._what}, {time.monotonic() - began:.0f} s")
            room = shutil.get_terminal_size().columns - 1  # in the last column some terminals begin a new line
            self._draw(f"{_START_OF_LINE}{text[:room]}{_CLEAR}")
            shown, pause = True, 1.0
        if shown:
            self._draw(f"{_START_OF_LINE}{_CLEAR}")

    def _draw(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone: there is nobody to tell
            sys.stderr.write(text)
            sys.stderr.flush()


def draws() -> bool:
    """Is standard error a terminal in which a line can be drawn again?"""
    if os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr is not None and sys.stderr.isatty()
