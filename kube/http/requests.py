"""What is asked of the API server, as a path, a query and a body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from deployer.core.errors import KubeRejected
from deployer.core.model.kind import Kind
from deployer.core.model.records import Document

_RIGHTS = {"replace": "update", "log": "get", "version": "get"}
"""What a Role calls our verbs, where that is something else."""

_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?")

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"

Labels = Mapping[str, str] | str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and what may be repeated."""

    verb: str
    method: str
    target: str
    where: str
    body: bytes | None = None
    content_type: str = _JSON
    writes: bool = False
    repeatable: bool = True
    """May be sent again although the first one may have had its effect."""
    warned: Callable[[str], None] | None = None
    """Is told the warnings that come with an answer, whatever that is."""

    def __str__(self) -> str:
        return f"{_RIGHTS.get(self.verb, self.verb)} {self.where}"


def make_request(
    verb: str,
    method: str,
    kind: Kind,
    namespace: str | None,
    name: str | None = None,
    *,
    query: Mapping[str, str | None] | None = None,
    body: Document | None = None,
    writes: bool = False,
    repeatable: bool | None = None,
    subresource: str = "",
) -> Request:
    """A request about objects of a kind. Without `repeatable`, all but POST may be repeated. Raises KubeRejected for a
    namespace or a name that cannot be one."""
    for segment in (namespace, name):
        if segment is not None and not _SEGMENT.fullmatch(segment):
            raise KubeRejected(f"{segment!r} cannot be the name of an object", status=400)
    target = kind.path(namespace, name) + (f"/{subresource}" if subresource else "")
    parameters = urlencode({k: v for k, v in (query or {}).items() if v})
    where = kind.plural + (f"/{subresource}" if subresource else "") + (f" {name}" if name else "")
    if kind.namespaced:
        where += f" in namespace {namespace}" if namespace else " in all namespaces"
    return Request(
        verb=verb,
        method=method,
        target=f"{target}?{parameters}" if parameters else target,
        where=where,
        body=None if body is None else json.dumps(body).encode(),
        content_type=_MERGE_PATCH if method == "PATCH" else _JSON,
        writes=writes,
        repeatable=method != "POST" if repeatable is None else repeatable,
    )


def selector(labels: Labels) -> str | None:
    """Labels as a query has them."""
    if labels is None or isinstance(labels, str):
        return labels
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
