"""What a process that serves needs around it: its log, and signals that end it in order, or at once."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployer.api.auth import audit as audit_log

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_log = logging.getLogger(__name__)
_NUDGE = signal.SIGURG  # ignored by default, so that nobody else waits for it


class JsonLines(logging.Formatter):
    """An object a line: `time`, `level`, `logger`, `message`, `exception` and `stack` if there are, and the ids of what
    the line is about (`log_context`). ASCII only, with everything else escaped: no text can end the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment.replace("+00:00", "Z"), "level": record.levelname}
        line |= {"logger": record.name, "message": record.getMessage(), **getattr(record, "ids", {})}
        exception = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        line |= {"exception": exception} if exception else {}
        line |= {"stack": record.stack_info} if record.stack_info else {}
        return json.dumps(line, ensure_ascii=True)


def log_to_stderr(level: str, style: str = "text", *, audit: Path | bool = True) -> None:
    """Log to standard error, a line for each message: `2026-11-23T10:00:00.123Z WARNING deployer.kube.informer: ...`,
    or as `JsonLines` when `style` is `json`.

    Lines of the audit log stand there as they are, whatever the level is. With a path as `audit` they are appended to
    that file instead, without `audit` they go nowhere.
    """
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(JsonLines() if style == "json" else formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What ends a thread is a line of the log like any other, and no secret may stand in it either.
    threading.excepthook = _log_end_of_thread
    who_did_what = logging.getLogger(audit_log.LOGGER)
    who_did_what.handlers = [_audit_handler(audit)]
    who_did_what.propagate = False
    if level != "debug":
        # Every request and every reconnection, in words of libraries that do not know what matters here.
        for library in ("urllib3", "kubernetes", "asyncio", "waitress", "websockets"):
            logging.getLogger(library).setLevel(logging.WARNING)


def _audit_handler(where: Path | bool) -> logging.Handler:
    if isinstance(where, Path):
        return logging.FileHandler(where, encoding="utf-8", delay=True)
    return logging.StreamHandler() if where else logging.NullHandler()


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "(unknown)"
        _log.error("thread %s ended", name, exc_info=args.exc_value)


def log_nowhere() -> None:
    """For commands that say themselves what they found."""
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


class Ending:
    """From here on the first SIGTERM, SIGINT or SIGHUP asks for the end, and the next one does not wait for it."""

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """`at_once` is called, in another thread, before the process ends without any order. Main thread only."""
        self._asked = threading.Event()
        self._at_once = at_once
        self._impatient = False
        for number in ENDING:
            signal.signal(number, _do_nothing)
        _watch(self._on_signal)

    def wait(self) -> None:
        """Return when the end was asked for."""
        self._asked.wait()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block the first signal ends the process: nothing is open yet, and it may take any time."""
        self._impatient = True
        try:
            yield
        finally:
            self._impatient = False

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set() or self._impatient:
            try:
                self._at_once()
            finally:
                os._exit(128 + number)
        self._asked.set()


class Interrupts:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does; from then on all three are ignored.

    Cleaning up takes bounded time, and nobody would clean up after it. Main thread only; `close` puts back what was.
    """

    def __init__(self) -> None:
        self._held = False
        self._came = False
        self._before = [(number, signal.signal(number, self._interrupt)) for number in ENDING]
        self._before.append((_NUDGE, signal.signal(_NUDGE, _do_nothing)))
        main = threading.main_thread().ident or 0
        # Handlers run in the main thread, once that comes back to Python: out of a long wait it must be fetched.
        self._unwatch = _watch(lambda _: signal.pthread_kill(main, _NUDGE))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """An interrupt within the block is raised at its end: for what must not be left half done."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._came:
                raise KeyboardInterrupt

    def ignore(self) -> None:
        """Interrupt nothing any more."""
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Signals mean again what they meant before."""
        self._unwatch()
        for number, handler in self._before:
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self.ignore()
        self._came = True
        if not self._held:
            raise KeyboardInterrupt


def _watch(told: Callable[[int], None]) -> Callable[[], None]:
    """Have `told` called in a thread of its own for every signal that is to end the process; returns how to stop that.

    The kernel may give a signal to any thread (signal(7)); then a main thread that waits for a lock does not wake up,
    and the handler does not run. What Python writes to the wake-up descriptor comes in any case.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as numbers:  # noqa: PTH123 - a descriptor, not a path
            while number := numbers.read(1):
                if number[0] in ENDING:
                    told(number[0])

    threading.Thread(target=watch, name="signals", daemon=True).start()

    def unwatch() -> None:
        signal.set_wakeup_fd(-1)
        os.close(writer)

    return unwatch


def _do_nothing(_number: int, _frame: object) -> None:
    """In place of the default, which would end the process."""
