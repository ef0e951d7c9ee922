"""One watch for each process, on the keys that say that a transaction happened.

A stream that says nothing may be dead, or its member without a leader: it is begun anew every few seconds, at the next
endpoint, from the revision after the last one that was heard of. So nothing is missed, whatever happens to it, unless
etcd is compacted meanwhile; then everything that was written since counts as changed.

An etcd that was brought back from a snapshot has another history from there on, and would say nothing until its
revision is where the old one was. So each stream begins with the question whether what was heard of last has happened.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from deployer.core.errors import StoreError
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway, Refused
from deployer.store.etcd.client.messages import Range, Watched
from deployer.store.etcd.layout import Layout, end_of
from deployer.store.etcd.notices import Changes, Notice, Notices

SILENCE = 10.0
"""Seconds after which a stream is begun anew."""

_PAUSE, _LONGEST = 0.1, 2.0  # seconds between attempts
_PAGE = 2_000
_OUT_OF_RANGE = 11  # gRPC's code for revisions that are compacted, or in the future
_FUTURE = "future revision"  # etcd's words (api/v3/rpc/rpctypes/error.go) for the latter
_log = logging.getLogger(__name__)


class Watch:
    """Hears of transactions behind `revision`.

    saw     is told the highest number in the order of arrival of each transaction
    forget  is called when revisions do not mean what they meant before
    """

    def __init__(
        self,
        gateway: Gateway,
        layout: Layout,
        notices: Notices,
        revision: int,
        *,
        saw: Callable[[int], None],
        forget: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._layout = layout
        self._notices = notices
        self._next = revision + 1
        self._last: tuple[bytes, int] | None = (layout.format, revision)
        """A key that was there at that revision."""
        self._saw = saw
        self._forget = forget
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear of nothing any more. The gateway is closed afterwards, which ends the stream."""
        self._closed.set()

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        pause, problem = _PAUSE, ""
        while not self._closed.is_set():
            try:
                self._listen()
                pause = _PAUSE
                if problem:
                    _log.info("changes in etcd are heard of again")
                    problem = ""
                continue
            except StoreError as error:
                if not problem and not self._closed.is_set():
                    problem = str(error)
                    _log.warning("changes of other processes are not heard of now: %s", problem)
            except Exception:  # noqa: BLE001 - logged with its traceback
                _log.exception("watching etcd failed; trying again")
            self._closed.wait(pause)
            pause = min(2 * pause, _LONGEST)

    def _listen(self) -> None:
        """One stream, to its end."""
        if not self._goes_on():
            self._begin_anew()
        begin = self._layout.commits
        create = {"key": begin, "range_end": end_of(begin), "start_revision": self._next, "filters": ["NODELETE"]}
        for message in self._gateway.stream("watch", {"create_request": create}, Watched, silence=SILENCE):
            if self._closed.is_set():
                return
            if message.compact_revision:
                self._resynchronise()
                return
            if message.canceled:
                raise Refused(0, f"etcd ended the watch ({message.cancel_reason or 'without a reason'})")
            for event in message.events:
                self._last = (event.kv.key, event.kv.mod_revision)
                self._hear(event.kv.key, event.kv.value)
            self._next = max(self._next, message.header.revision + 1) if message.events else self._next

    def _goes_on(self) -> bool:
        """Whether etcd's history is the one of which this process has heard.

        Asking logs in again when a token is no longer good, which a stream does not.
        """
        key, revision = self._last or (self._layout.format, 0)
        try:
            found = self._read(operations.get(key, revision, keys_only=True)).kvs
            return bool(found) or self._last is None
        except Refused as error:
            if error.code != _OUT_OF_RANGE:
                raise
            return _FUTURE not in str(error)  # what is compacted is for the stream to say

    def _begin_anew(self) -> None:
        """Whatever was known is of no use."""
        _log.warning("etcd was brought back from a snapshot: what was written after it is lost; all is read anew")
        answer = self._read(operations.get(self._layout.format))
        self._next = answer.header.revision + 1
        # There may be nothing at all.
        self._last = (self._layout.format, answer.header.revision) if answer.kvs else None
        self._forget()
        self._notices.anything([])

    def _read(self, part: operations.Part) -> Range:
        return self._gateway.call("kv/range", part["request_range"], Range)

    def _hear(self, key: bytes, value: bytes) -> None:
        if not value:  # says that a transaction did not happen
            return
        try:
            changes = msgspec.json.decode(value, type=Changes)
        except msgspec.MsgspecError:
            _log.warning("the key %s in etcd cannot be read; is a newer release running?", key.decode(errors="replace"))
            return
        self._saw(changes.sequence)
        self._notices.happened(key[len(self._layout.commits) :].decode(), changes)

    def _resynchronise(self) -> None:
        """Everything written since the last revision that was heard of counts as changed."""
        _log.warning("etcd was compacted before all changes were heard of; everything is looked at again")
        since = self._next
        found: list[Notice] = []
        revision = 0
        for prefix in (self._layout.records, self._layout.logs):
            begin = prefix
            while not self._closed.is_set():
                answer = self._read(operations.span(begin, end_of(prefix), limit=_PAGE, keys_only=True))
                revision = revision or answer.header.revision
                for stored in answer.kvs:
                    if stored.mod_revision >= since:
                        found.append(self._layout.named(stored.key))
                if not answer.more:
                    break
                begin = answer.kvs[-1].key + b"\0"
        self._next = revision + 1
        self._last = (self._layout.format, revision)
        self._notices.anything(found)
