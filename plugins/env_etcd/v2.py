"""Looks whether etcd's v2 store, where the original had its environment, still has it. For a warning, nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Sequence

from deployer.sdk.plugin import CancelScope, http_exchange

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

    # A thread of its own, as looking up a name cannot be given up.
    thread = threading.Thread(target=ask, name="etcd-v2", daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    count = found[0] if found else 0
    return f"{count} key{'' if count == 1 else 's'}" if count else ""


def _count(endpoint: str, prefix: str, tls: Callable[[], ssl.SSLContext]) -> int:
    """Keys of the first level, as only those were read. Raises OSError, HTTPException or ValueError."""
    parts = urllib.parse.urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or 2379
    target = f"/v2/keys{urllib.parse.quote(prefix.rstrip('/'))}"
    request = http_exchange.request("GET", target, {"Host": parts.netloc.rpartition("@")[2], "Connection": "close"})
    sock = http_exchange.connect(host, port, CancelScope(), timeout=TIMEOUT, connect_timeout=TIMEOUT)
    secure = tls() if parts.scheme == "https" else None
    answer = http_exchange.exchange(sock, request, limit=LIMIT, tls=secure, server_name=host)
    if answer.status != http.client.OK:
        return 0
    nodes = json.loads(answer.body)["node"].get("nodes") or []
    return sum("value" in node for node in nodes)
