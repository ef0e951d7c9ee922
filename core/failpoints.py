"""Failpoints: places where a test may kill this process, to prove that a restart brings everything to its end.

`DEPLOYER_FAILPOINT=name:N` ends the process without any clean-up at the N-th hit of that name (exit code 137, as after
SIGKILL). `DEPLOYER_FAILPOINT_COUNT=path` counts the hits of every name into a JSON file, so that a test knows which N
exist. With neither variable set a hit costs one comparison.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from deployer.core.errors import SettingsError

EXIT_CODE = 137


class _Armed:
    """The counters, and the hit at which to die."""

    def __init__(self, name: str, number: int, report: Path | None) -> None:
        self._name = name
        self._number = number
        self._report = report
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def hit(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1
            if name == self._name and self._counts[name] == self._number:
                self._write()
                os._exit(EXIT_CODE)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def report(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._report is None:
            return
        # Through a name of this process only: several may report to one path, and a reader never meets half a file.
        draft = self._report.with_name(f"{self._report.name}.{os.getpid()}")
        draft.write_text(json.dumps(self._counts, sort_keys=True), encoding="utf-8")
        draft.replace(self._report)


_armed: _Armed | None = None


def configure(environ: Mapping[str, str]) -> None:
    """Read both variables and start counting from zero. Called at import; a forked child may call it again.

    Raises SettingsError when `DEPLOYER_FAILPOINT` is not `name:N` with N >= 1.
    """
    global _armed  # noqa: PLW0603 - a failpoint is a property of the process, like its environment
    kill = environ.get("DEPLOYER_FAILPOINT", "")
    path = environ.get("DEPLOYER_FAILPOINT_COUNT", "")
    if not kill and not path:
        _armed = None
        return
    name, _, number = kill.rpartition(":")
    if kill and not (name and number.isascii() and number.isdigit() and int(number) > 0):
        raise SettingsError(f"DEPLOYER_FAILPOINT is {kill!r}; write name:N with N from 1, such as store.before:3")
    _armed = _Armed(name, int(number or 0), Path(path) if path else None)


def hit(name: str) -> None:
    """Pass the failpoint `name`; does not return if this is the hit at which the process is to die. Thread-safe."""
    if _armed is not None:
        _armed.hit(name)


def counts() -> dict[str, int]:
    """Hits by name since `configure`; empty when nothing is counted."""
    return {} if _armed is None else _armed.counts()


def report() -> None:
    """Write the counts to `DEPLOYER_FAILPOINT_COUNT`, if it is set. Also done at exit and right before dying."""
    if _armed is not None:
        _armed.report()


configure(os.environ)
atexit.register(report)
