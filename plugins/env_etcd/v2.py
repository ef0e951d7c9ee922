"""Looks whether etcd's v2 store, where the original had its environment, still has it. For a warning, nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Sequence

TIMEOUT = 1.0
"""Seconds for all endpoints together: nobody shall wait for a warning."""
LIMIT = 1 << 20
"""Bytes of an answer that are read."""

_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)


def keys(endpoints: Sequence[str], prefix: str, tls: Callable[[], ssl.SSLContext]) -> str:
    """How many keys there are below `prefix`, like `3 keys`; empty when there are none, or nobody can tell in time.

    Never raises. An etcd without a v2 store (3.6 has none, 3.4 and 3.5 only when they are told to) answers 404.
    """
    found: list[int] = []

    def ask() -> None:
        for endpoint in endpoints:
            with contextlib.suppress(*_NO_ANSWER):
                found.append(_count(endpoint, prefix, tls))
                return

    # A thread of its own, as a time-out of a socket begins anew with every byte.
    thread = threading.Thread(target=ask, name="etcd-v2", daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    count = found[0] if found else 0
    return f"{count} key{'' if count == 1 else 's'}" if count else ""


def _count(endpoint: str, prefix: str, tls: Callable[[], ssl.SSLContext]) -> int:
    """Keys of the first level, as only those were read. Raises OSError, HTTPException or ValueError."""
    parts = urllib.parse.urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or 2379
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=tls())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    )
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/keys{urllib.parse.quote(prefix.rstrip('/'))}")
        response = connection.getresponse()
        if response.status != http.client.OK:
            return 0
        nodes = json.loads(response.read(LIMIT))["node"].get("nodes") or []
    return sum("value" in node for node in nodes)
