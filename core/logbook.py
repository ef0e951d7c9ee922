"""A deployment's log: append (redacted, escaped, capped), read, print, watch."""

from __future__ import annotations

import datetime
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from deployer.core.records import Deployment, LogLine
from deployer.core.store.base import Append, Store

MAX_MESSAGE = 64 * 1024  # bytes of UTF-8; the same cap as for the body of a health check
SHORTEST_SECRET = 4
_PAGE = 1000  # lines that are read at once, and after how many characters that is enough
_PAGE_SIZE = 256 * 1024
_log = logging.getLogger(__name__)

# What can move a terminal's cursor, reorder what a reader sees, or be no text at all: control characters but \n and \t,
# line and paragraph separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class Redactor:
    """The one place where secrets are taken out of text. Thread-safe.

    A value is also found in its JSON spelling (as API servers quote it in errors) and, when it has several lines, line
    by line. Values, and lines of a value, shorter than 4 characters are ignored: replacing every `1` or `no` would make
    logs unreadable and protect nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: Counter[str] = Counter()
        self._secrets: tuple[str, ...] = ()

    def add(self, secret: str) -> None:
        """From now on `clean` hides it, until each `add` of this value was undone by a `remove`."""
        with self._lock:
            self._uses.update(_spellings(secret))
            self._secrets = tuple(self._uses)

    def remove(self, secret: str) -> None:
        """Undo one `add` of the same value; does nothing when there was none."""
        with self._lock:
            for spelling in _spellings(secret):
                self._uses[spelling] -= 1
            self._uses = +self._uses
            self._secrets = tuple(self._uses)

    def clean(self, text: str) -> str:
        """The text with every secret as `***`. Secrets that overlap or touch become one `***`, so that no end shows."""
        spans: list[tuple[int, int]] = []
        for secret in self._secrets:
            start = text.find(secret)
            while start >= 0:
                spans.append((start, start + len(secret)))
                start = text.find(secret, start + 1)
        if not spans:
            return text
        out: list[str] = []
        shown = 0  # everything before this offset is in `out`
        covered = -1  # end of the last `***`
        for start, end in sorted(spans):
            if start > covered:
                out += (text[shown:start], "***")
            covered = max(covered, end)
            shown = covered
        out.append(text[shown:])
        return "".join(out)


def _spellings(secret: str) -> set[str]:
    found = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found.update(line.strip() for line in secret.splitlines())
    return {s for s in found if len(s) >= SHORTEST_SECRET}


def format_line(line: LogLine) -> str:
    """`RFC3339 message`; further lines of the message are indented by two spaces."""
    return f"{line.time} {line.text}".replace("\n", "\n  ")


class Logbook:
    """The logs of all deployments, on a store. `close` lets go of the store's subscription, not of the store."""

    def __init__(self, store: Store, redact: Redactor | None = None) -> None:
        self._store = store
        self._redact = redact
        self._lock = threading.Lock()
        self._watchers: dict[str, dict[object, Callable[[], None]]] = {}
        self._unsubscribe = store.subscribe(self._changed)

    def append(self, deployment_id: str, message: str) -> None:
        """Add one message, stamped with the time of this call. Never blocks and never fails on what it contains.

        Secrets are hidden, control characters escaped (`\\x1b`), and what exceeds 64 KiB is cut with a note. Further
        lines of a message stay in its one LogLine.
        """
        line = self.line(deployment_id, message)
        self._store.append_log(deployment_id, [(line.time, line.text)])

    def line(self, deployment_id: str, message: str) -> Append:
        """The same message as a change, for the transaction that makes it true."""
        # Redact the whole first: a cut or an escape in the middle of a secret would hide it from the redactor.
        text = self._redact.clean(message) if self._redact else message
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return Append(deployment_id, now.replace("+00:00", "Z"), _printable(text))

    def read(self, deployment_id: str, after: int = 0, limit: int = 1000, size: int | None = None) -> list[LogLine]:
        """Up to `limit` lines with a number above `after`, in order; fewer when they have `size` characters already.

        Numbers begin with 1 and have no gaps. Raises StoreUnavailable.
        """
        return self._store.read_log(deployment_id, after=after, limit=limit, size=size)

    def last(self, deployment_id: str) -> int:
        """The number of the last line; 0 when there is none. Raises StoreUnavailable."""
        return self._store.last_line(deployment_id)

    def text(self, deployment_id: str, after: int = 0, last: int | None = None) -> Iterator[str]:
        """The log as `RFC3339 message` lines, piece by piece; further lines of a message are indented.

        `last` is the number of the last line that is wanted; None: all that there are when the reading gets there.
        """
        while last is None or after < last:
            limit = _PAGE if last is None else min(_PAGE, last - after)
            lines = self.read(deployment_id, after, limit, _PAGE_SIZE)
            if not lines:
                return
            for line in lines:
                yield f"{format_line(line)}\n"
            after = lines[-1].number

    def watch(self, deployment_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after new lines and after a change of this deployment; returns the function that stops it.

        Runs in the store's thread: `wake` must only set a flag. It says that something is new, not how much: read on
        from the last number. Watchers of other deployments cost nothing.
        """
        token = object()
        with self._lock:
            self._watchers.setdefault(deployment_id, {})[token] = wake

        def unsubscribe() -> None:
            with self._lock:
                watchers = self._watchers.get(deployment_id, {})
                watchers.pop(token, None)
                if not watchers:
                    self._watchers.pop(deployment_id, None)

        return unsubscribe

    def close(self) -> None:
        """Wake nobody any more."""
        self._unsubscribe()
        with self._lock:
            self._watchers.clear()

    def _changed(self, kind: str, key: str) -> None:
        if kind not in ("log", Deployment.KIND):
            return
        with self._lock:
            wakes = list(self._watchers.get(key, {}).values())
        for wake in wakes:
            try:
                wake()
            except Exception:  # noqa: BLE001 - logged with its traceback
                # One viewer's closed event loop must not keep the others from being woken.
                _log.exception("a watcher of deployment %s failed", key)


def _printable(text: str) -> str:
    """The text, safe for a terminal and at most MAX_MESSAGE bytes and a note long."""
    length = len(text)
    clean = text[: MAX_MESSAGE + 1].replace("\r\n", "\n").rstrip("\n")
    data = _UNSAFE.sub(_escape, clean).encode()
    if length <= MAX_MESSAGE and len(data) <= MAX_MESSAGE:
        return data.decode()
    return data[:MAX_MESSAGE].decode(errors="ignore") + f" [cut here: the message had {length} characters]"


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
