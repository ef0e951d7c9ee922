"""One call of a plugin's code in a thread of its own, so that a call that hangs can be left behind."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


def no_list(answer: object) -> str:
    """What is wrong with something that a plugin returned for a list, after its name; empty when it is one, or any
    other thing whose items can be had one by one."""
    if isinstance(answer, Iterable) and not isinstance(answer, str | bytes | Mapping):
        return ""
    if answer is None:
        return "returned None, not a list; did you forget `return`?"
    return f"returned something of type {type(answer).__name__}, not a list"


class Invocation(Generic[T]):
    """A function in a daemon thread: what it returned or raised, once it has. It logs in the caller's context."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        """Start it. `name` is the thread's."""
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self.done = threading.Event()
        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), name=name, daemon=True)
        self.thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, for at most `seconds`, or until `wake`. False: it goes on."""
        self._wake.wait(seconds)
        return self.done.is_set()

    def wake(self) -> None:
        """Let nobody wait any longer."""
        self._wake.set()

    def result(self) -> T:
        """What it returned. Raises what it raised, `SystemExit` and the like included. Only for one that has ended."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            self._error = error
        finally:
            self.done.set()
            self._wake.set()
