"""The audit log: one line of JSON for everything that was to change something, and for every refusal.

Lines go to the logger `deployer.audit`, whatever level the service's own log has. Reads that are allowed leave none.
Refusals of callers who are not known cost those callers nothing, so the log must not grow with each of them: the first
ones of a source are written, the others counted.
"""

from __future__ import annotations

import datetime
import json
import logging
import threading
from collections import Counter
from typing import Any

from deployer.redaction.redactor import about_nobody

LOGGER = "deployer.audit"
"""`cli/process.py` gives it a place of its own on standard error."""
INTERVAL = 60.0
"""Seconds for which anonymous refusals are counted, from the first one on."""
WRITTEN = 5
"""Anonymous refusals of one source that are written in full within an interval."""
SOURCES = 50
"""Sources that are told apart within an interval. All others together count as one, without an address."""
_MOST = 512
"""Characters of a field: most of them come from outside."""


class Audit:
    """Writes the lines. Thread-safe."""

    def __init__(self, interval: float = INTERVAL) -> None:
        """`interval` is in seconds."""
        self._log = logging.getLogger(LOGGER)
        # Not the root's: who did what must be known even where nothing else is logged.
        self._log.setLevel(logging.INFO)
        self._interval = interval
        self._lock = threading.Lock()
        self._seen: Counter[str | None] = Counter()  # anonymous refusals by source
        self._counted: Counter[tuple[str | None, int]] = Counter()  # those not written, by source and status
        self._since = ""
        self._timer: threading.Timer | None = None

    def close(self) -> None:
        """Write what was counted. Idempotent; what is noted afterwards is written or counted as before."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._write_counts()

    def refused_unread(self, source: str) -> None:
        """Somebody who is not known had too many requests waiting already."""
        self.note(who=None, outcome="refused", status=429, source=source, reason="too many requests wait already")

    def note(
        self, *, who: str | None, outcome: str, status: int, source: str | None = None, **more: str | None
    ) -> None:
        """One line. `who` is None when that is not known, `outcome` "ok", "refused" or "failed".

        `status` is that of HTTP, or a WebSocket's close code. Fields that are None or empty are left out. ASCII only,
        with everything else escaped: no name can end the line or imitate another.
        """
        if who is None and outcome == "refused" and self._count(source, status):
            return
        fields = {name: _cut(value) for name, value in ({"source": source} | more).items() if value}
        self._write({"who": _cut(who) if who is not None else None} | fields | {"outcome": outcome, "status": status})

    def _count(self, source: str | None, status: int) -> bool:
        """True when an anonymous refusal is counted instead of written."""
        with self._lock:
            if source not in self._seen and len(self._seen) >= SOURCES:
                source = None
            self._seen[source] += 1
            if self._timer is None:
                self._timer = threading.Timer(self._interval, self._end_interval)
                self._timer.name, self._timer.daemon = "audit", True
                self._timer.start()
                self._since = _now()
            if self._seen[source] <= WRITTEN:
                return False
            self._counted[source, status] += 1
            return True

    def _end_interval(self) -> None:
        about_nobody()
        self._write_counts()

    def _write_counts(self) -> None:
        """A line for each source and status, and begin anew."""
        with self._lock:
            counted, since = self._counted, self._since
            self._seen, self._counted, self._timer = Counter(), Counter(), None
        for (source, status), count in counted.items():
            line: dict[str, Any] = {"who": None} | ({"source": _cut(source)} if source else {})
            self._write(line | {"outcome": "refused", "status": status, "count": count, "since": since})

    def _write(self, line: dict[str, Any]) -> None:
        self._log.info("%s", json.dumps({"audit": _now()} | line, ensure_ascii=True))


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else text[:_MOST] + "..."
