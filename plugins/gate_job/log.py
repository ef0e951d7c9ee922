"""Copies what a Job's container writes into the deployment's log, each line once, and not without bounds."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from deployer.sdk.errors import KubeError
from deployer.sdk.gate import GateContext
from deployer.sdk.kube import name_of, uid_of
from deployer.sdk.plugin import Document

MOST_LINES = 2_000
MOST_BYTES = 512 * 1024
"""Of all that is copied of one Job; of more, only the end is told."""

MOST_LINE = 16 * 1024
"""Characters of a line. One that is longer is left out as a whole: half of a secret is one that nobody recognises."""

AT_ONCE = 48 * 1024
"""Bytes of one entry of the deployment's log, which takes 64 KiB."""

TRUNCATED = 192 * 1024
"""Characters of an answer that is likely to have been cut."""

LAST_LINES = 20

# As a kubelet writes it (RFC 3339 with nanoseconds), be it in the node's time zone.
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far it has been copied.

    pod, created  uid of the pod whose log is being copied, and when it was made
    second, nanos  time of the last line that was copied, RFC 3339 and what comes after it; empty: none was
    same    how many lines of exactly that time were copied
    lines, size  that were copied, of all pods
    told    that there was more has been said
    """

    pod: str = ""
    created: str = ""
    second: str = ""
    nanos: int = 0
    same: int = 0
    lines: int = 0
    size: int = 0
    told: bool = False

    @property
    def full(self) -> bool:
        """Is nothing copied any more?"""
        return self.lines >= MOST_LINES or self.size >= MOST_BYTES

    def has(self, second: str, nanos: int, skipped: int) -> bool:
        """Was a line of that time copied? `skipped`: lines of exactly that time that were met before it."""
        if second != self.second or nanos > self.nanos:
            return False  # Kubernetes gives no line of an earlier second
        return nanos < self.nanos or skipped < self.same

    def after(self, second: str, nanos: int, size: int) -> Cursor:
        """The one after a line of that time."""
        same = self.same + 1 if (second, nanos) == (self.second, self.nanos) else 1
        return dataclasses.replace(
            self, second=second, nanos=nanos, same=same, lines=self.lines + 1, size=self.size + size
        )


class LogCopy:
    """Of one Job, for one call of its gate."""

    def __init__(self, context: GateContext) -> None:
        self._context = context
        self._cursor = Cursor(*context.recall("log", []))

    @property
    def full(self) -> bool:
        """Is nothing copied any more?"""
        return self._cursor.full

    def copy(self, pods: Sequence[Document], container: str) -> None:
        """Say what is new of these pods, the oldest first. A log that cannot be read is no failure."""
        uids = [uid_of(pod) for pod in pods]
        if self._cursor.pod in uids:
            pods = pods[uids.index(self._cursor.pod) :]
        with contextlib.suppress(KubeError):
            for pod in pods:
                if _created(pod) >= self._cursor.created:  # an older one was copied before
                    self._copy(pod, container)

    def last_lines(self, pod: str, container: str) -> None:
        """Say those, of what was not copied."""
        with contextlib.suppress(KubeError):
            lines = self._context.kube.pod_log(pod, container, LAST_LINES).strip()
            self._context.log(f"last lines of container {container} in pod {pod}:\n{lines}")

    def _copy(self, pod: Document, container: str) -> None:
        name, uid = name_of(pod), uid_of(pod)
        if self._cursor.pod != uid:
            self._cursor = dataclasses.replace(self._cursor, pod=uid, created=_created(pod), second="", nanos=0, same=0)
        while not self._cursor.full:
            found = self._context.kube.pod_lines(name, container, self._cursor.second)
            cursor, texts = _new(self._cursor, found)
            if cursor == self._cursor and sum(map(len, found)) < TRUNCATED:
                return
            if cursor == self._cursor:  # so much within one second that what comes after it cannot be had
                cursor = dataclasses.replace(cursor, size=MOST_BYTES)
            self._say(cursor, "\n".join([f"container {container} of pod {name} writes:", *texts]) if texts else "")
        if not self._cursor.told:
            most = f"{MOST_LINES} lines or {MOST_BYTES // 1024} KiB"
            text = f"container {container} of pod {name} writes more than is copied here, which is at most {most}"
            self._say(dataclasses.replace(self._cursor, told=True), text)

    def _say(self, cursor: Cursor, text: str) -> None:
        # In this order: after a crash in between lines are missing here, where otherwise they would be there twice.
        self._context.remember("log", list(dataclasses.astuple(cursor)))
        self._cursor = cursor
        if text:
            self._context.log(text)


def _created(pod: Document) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")


def _new(cursor: Cursor, found: Sequence[str]) -> tuple[Cursor, list[str]]:
    """The texts of the lines that come after the cursor, as many as one entry of the log takes; and the cursor then."""
    texts: list[str] = []
    before, skipped = cursor, 0
    for line in found:
        match = _STAMPED.fullmatch(line)
        if match is None:
            continue  # a word of the node, such as that it has no log any more
        second, nanos = match[1] + match[3], int((match[2] or "").ljust(9, "0"))
        if before.has(second, nanos, skipped):
            skipped += (second, nanos) == (before.second, before.nanos)
            continue
        text = match[4] if len(match[4]) <= MOST_LINE else f"(a line of {len(match[4])} characters is left out)"
        cursor = cursor.after(second, nanos, len(text.encode("utf-8", "replace")) + 1)
        texts.append(text)
        if cursor.size - before.size >= AT_ONCE or cursor.full:
            break
    return cursor, texts
