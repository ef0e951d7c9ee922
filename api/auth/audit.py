"""The audit log: one line of JSON for everything that was to change something, and for every refusal.

Lines go to the logger `deployer.audit`, whatever level the service's own log has. Reads that are allowed leave none.
"""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

LOGGER = "deployer.audit"
"""`cli/process.py` gives it a place of its own on standard error."""
_MOST = 512
"""Characters of a field: most of them come from outside."""


class Audit:
    """Writes the lines."""

    def __init__(self) -> None:
        self._log = logging.getLogger(LOGGER)
        # Not the root's: who did what must be known even where nothing else is logged.
        self._log.setLevel(logging.INFO)

    def note(self, *, who: str | None, outcome: str, status: int, **fields: str | None) -> None:
        """One line. `who` is None when that is not known, `outcome` "done", "refused" or "failed".

        `status` is that of HTTP, or a WebSocket's close code. Fields that are None or empty are left out. ASCII only,
        with everything else escaped: no name can end the line or imitate another.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"audit": now, "who": _cut(who) if who is not None else None}
        line |= {name: _cut(value) for name, value in fields.items() if value}
        line |= {"outcome": outcome, "status": status}
        self._log.info("%s", json.dumps(line, ensure_ascii=True))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else text[:_MOST] + "..."
