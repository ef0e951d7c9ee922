"""Who sends a request, as far as that can be seen before anything is done for it.

Whether credentials are good is not decided here: that they were lately is what gets their next request a better place.
"""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Callable
from typing import Any

from falcon.uri import parse_query_string

from deployer.api.auth.cache import Cache, digest
from deployer.api.fairness.queue import Share

PROBES, KNOWN, UNKNOWN, REFUSED = "probes", "known", "unknown", "refused"
"""Kinds of requests: of a kubelet; with credentials that were good lately; with others, or none; refused at once."""

RATE = 200.0
"""Requests a second of callers who are not known, those of all addresses together."""

BACKLOG = 100
"""Those of one address that may wait. Further ones are refused before anything else is done."""

_REMEMBERED = 4096  # credentials
_REMEMBER_FOR = 600.0  # seconds since they were last good
_PROBES = frozenset({"/healthz", "/readyz"})


class Callers:
    """Tells kinds of requests apart. Thread-safe."""

    def __init__(self, *, secured: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """`secured`: callers need credentials. Else all are as good as known."""
        self._secured = secured
        self._clock = clock
        self._good: Cache[bool] = Cache(_REMEMBERED, clock)

    def were_good(self, authorization: str) -> None:
        """Remember a header `Authorization` that somebody proved with who they are."""
        self._good.put(digest(authorization), True, self._clock() + _REMEMBER_FOR)

    def sort(self, request: Any, address: str) -> tuple[str, str]:
        """The kind of a request as waitress has parsed it, and among whom of that kind it takes turns: namespaces for
        callers who are known, addresses for others."""
        if getattr(request, "path", "").rstrip("/") in _PROBES:
            return PROBES, network(address)
        authorization = request.headers.get("AUTHORIZATION")
        if self._secured and not (authorization and self._good.get(digest(authorization))):
            return UNKNOWN, network(address)
        return KNOWN, _namespace(getattr(request, "query", ""))


def shares(threads: int) -> dict[str, Share]:
    """What each kind gets of that many threads: some are left for all others, whoever takes what there is."""
    few = max(1, threads // 4)
    return {
        PROBES: Share(threads, few, RATE, 100),
        KNOWN: Share(max(1, threads - 2), max(1, threads - few)),
        UNKNOWN: Share(few, few, RATE, 200),
        REFUSED: Share(1, 1),
    }


@functools.lru_cache(1024)
def network(address: str) -> str:
    """The address, of IPv6 the /64 that one customer has to themselves (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def _namespace(query: str) -> str:
    """The one of the query; empty for none, or several."""
    if "namespace" not in query:
        return ""
    value = parse_query_string(query).get("namespace", "")
    return value if isinstance(value, str) else ""
