"""A deployment's log: append (redacted, escaped, capped), read, print, watch."""

from __future__ import annotations

import datetime
import logging
import re
import threading
from collections.abc import Callable, Iterator

from deployer.core.model.records import Deployment, Plan
from deployer.core.model.secrets import secrets_of
from deployer.core.ports.redactor import Redactor
from deployer.core.ports.store import Append, LogLine, Store

MAX_MESSAGE = 64 * 1024  # bytes of UTF-8; the same cap as for the body of a health check
_PAGE = 1000  # lines that are read at once, and after how many characters that is enough
_PAGE_SIZE = 256 * 1024
_log = logging.getLogger(__name__)

# What can move a terminal's cursor, reorder what a reader sees, or be no text at all: control characters but \n and \t,
# line and paragraph separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def format_line(line: LogLine) -> str:
    """`RFC3339 message`; further lines of the message are indented by two spaces."""
    return f"{line.time} {line.text}".replace("\n", "\n  ")


class DeploymentLog:
    """The logs of all deployments, on a store. `close` lets go of the store's subscription, not of the store."""

    def __init__(self, store: Store, redactor: Redactor) -> None:
        self._store = store
        self.redactor = redactor
        self.redactor.find = self.secrets
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
        text = self.redactor.clean_of(deployment_id, message)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return Append(deployment_id, now.replace("+00:00", "Z"), printable(text))

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

    def secrets(self, deployment_id: str) -> set[str] | None:
        """What must not be said of that deployment; None when the store does not know it. Raises StoreUnavailable."""
        deployment = self._store.get(Deployment, deployment_id)
        return None if deployment is None else secrets_of(deployment.descriptor, self._store.get(Plan, deployment_id))

    def _changed(self, kind: str, key: str) -> None:
        if kind == Plan.KIND:  # perhaps by another process, which has learnt more secrets
            self.redactor.forget(key)
        if kind not in ("log", Deployment.KIND, ""):
            return
        with self._lock:
            watched = [self._watchers.get(key, {})] if kind else self._watchers.values()
            wakes = [wake for watchers in watched for wake in watchers.values()]
        for wake in wakes:
            try:
                wake()
            except Exception:  # noqa: BLE001 - logged with its traceback
                # One viewer's closed event loop must not keep the others from being woken.
                _log.exception("a watcher of deployment %s failed", key)


def printable(text: str) -> str:
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
