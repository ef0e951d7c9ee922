"""Response headers that a descriptor cannot set, whatever the ingress provider.

A header of a descriptor goes into *every* response, in the place of what was there. For those here a fixed value is
wrong: it breaks the framing of messages, or the connection, or what only one response can say of itself.
"""

from __future__ import annotations

_FRAMING = "it says where a response ends, so that a fixed value breaks the connection (RFC 9112, 6)"
_HOP = "it is about a single connection, which is the data plane's (RFC 9110, 7.6.1)"
_CODING = "it says how the body is encoded, which a fixed value does not change (RFC 9110, 8.4)"
_PART = "it says which part of a resource the body is, of one response only (RFC 9110, 14.4)"
_HANDSHAKE = "it is part of a WebSocket's handshake (RFC 6455, 4.2.2)"

_REASONS = {
    "content-length": _FRAMING,
    "transfer-encoding": _FRAMING,
    "trailer": _FRAMING,
    "content-encoding": _CODING,
    "content-range": _PART,
    "connection": _HOP,
    "close": _HOP,
    "keep-alive": _HOP,
    "te": _HOP,
    "upgrade": _HOP,
    "http2-settings": _HOP,
    "host": "it belongs to requests (RFC 9110, 7.2)",
    "date": "it says when the response was made, by which caches and cookies expire (RFC 9110, 6.6.1)",
    "set-cookie": "it would take the place of the app's own cookies, and of those of useStickySessions (RFC 6265)",
}
_PREFIXES = {"proxy-": _HOP, "sec-websocket-": _HANDSHAKE}


def refused(name: str) -> str:
    """Why the header cannot be set, as the end of a sentence; empty when it can. Names are compared in any case."""
    name = name.lower()
    return _REASONS.get(name) or next((why for prefix, why in _PREFIXES.items() if name.startswith(prefix)), "")
