"""What the API server's answers mean: errors, warnings, when to come again, the events of a watch."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from deployer.core.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeExpired,
    KubeForbidden,
    KubeNotFound,
    KubeRejected,
    KubeUnavailable,
)
from deployer.core.model.records import Document
from deployer.kube.http.requests import Request
from deployer.kube.http.transport import Answer, Lost

MESSAGE_MOST = 2000
"""Characters of a message that go into an error's text."""

SAID_MOST = 64 * 1024
"""Characters of it that the error keeps, for who reads more out of it."""

LINE_MOST = 64 * 1024 * 1024
"""Bytes of one event of a watch."""

UNDECODABLE = "UNDECODABLE"
"""Type of the event that `watch` gives for a line that is no event."""


def refuse(request: Request, answer: Answer) -> NoReturn:
    """Raise what an answer other than 2xx means."""
    try:
        status = json.loads(answer.body)
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {}
    _raise_status(request, answer.status, status, _retry_after(answer.headers.get("Retry-After"), status))


def _raise_status(request: Request, code: int, status: Document, retry_after: float | None) -> NoReturn:
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or f"the API server answered {code}")[:MESSAGE_MOST]
    text = f"{request}: {message}"
    kind: type[KubeError] = KubeError
    if code == 404:
        kind = KubeNotFound
    elif code == 409:
        taken = request.method == "POST" and reason in ("AlreadyExists", "")
        kind = KubeAlreadyExists if taken else KubeConflict
    elif code == 410:
        kind = KubeExpired
    elif code in (401, 403):
        kind = KubeForbidden
        text = f"the API server refused to {request}: {message}"
    elif code in (400, 405, 406, 413, 415, 422):
        kind, text = KubeRejected, message
    elif code in (408, 429) or code >= 500:
        kind = KubeUnavailable
    said = str(status.get("message") or "")[:SAID_MOST]
    raise kind(text, status=code, reason=reason, retry_after=retry_after, said=said, causes=tuple(_causes(status)))


def _causes(status: Document) -> Iterator[tuple[str, str]]:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("field"):
            yield str(cause["field"]), str(cause.get("message") or cause.get("reason") or "")[:MESSAGE_MOST]


_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


def warnings(answer: Answer) -> Iterator[str]:
    """The texts of the Warning headers (RFC 7234, 5.5), however many came in one line."""
    for text in _WARNING.findall(answer.headers.get("Warning") or ""):
        yield re.sub(r"\\(.)", r"\1", text)[:MESSAGE_MOST]


def _retry_after(header: str | None, status: Document) -> float | None:
    """Seconds from the header (a number or an HTTP date) or from the Status."""
    value: Any = header
    if not header:
        details = status.get("details")
        value = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(TypeError, ValueError):
        moment = email.utils.parsedate_to_datetime(str(value))
        return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
    return None


def events(request: Request, chunks: Iterator[bytes] | Any) -> Iterator[tuple[str, Document]]:
    """The events of a watch's stream: one JSON document a line."""
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield _event(request, line)
        if len(buffer) > LINE_MOST:
            raise Lost("a line that does not end")


def _event(request: Request, line: bytes) -> tuple[str, Document]:
    try:
        event = json.loads(line)
        type_, object_ = event["type"], event["object"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNDECODABLE, {}
    if not isinstance(type_, str) or not isinstance(object_, dict):
        return UNDECODABLE, {}
    if type_ == "ERROR":
        code = object_.get("code")
        _raise_status(request, code if isinstance(code, int) else 500, object_, _retry_after(None, object_))
    return type_, object_
