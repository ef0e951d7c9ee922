"""Finding the token in a request: the header `Authorization`, a WebSocket's subprotocols, its first message."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from deployer.api.auth.principal import Unauthenticated

MAX_TOKEN = 8 * 1024
"""Characters of a token."""

PROTOCOL = "logs.kube-deployer"
"""The subprotocol of the log stream."""

BEARER_PROTOCOL = "base64url.bearer.authorization.kube-deployer."
"""Beginning of the subprotocol that carries a token, as `base64url.bearer.authorization.k8s.io.` does in Kubernetes."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)  # RFC 6750, 2.1
_HOW = "send `Authorization: Bearer <token>`"


def from_header(value: str | None) -> str:
    """The token of a header `Authorization`. Raises Unauthenticated.

    Several headers arrive as one with a comma, which no token has.
    """
    if value is None:
        raise Unauthenticated(f"credentials are needed: {_HOW}", given=False)
    if len(value) > MAX_TOKEN + 64:
        raise Unauthenticated(f"the token is longer than {MAX_TOKEN} characters")
    match = _BEARER.fullmatch(value.strip(" \t"))
    if match is None:
        raise Unauthenticated(f"the header Authorization cannot be understood: {_HOW}, once")
    return _capped(match.group(1))


def from_protocols(offered: Sequence[str]) -> str | None:
    """The token among a WebSocket's subprotocols; None when there is none. Raises Unauthenticated."""
    tokens = [p.removeprefix(BEARER_PROTOCOL) for p in offered if p.startswith(BEARER_PROTOCOL)]
    if not tokens:
        return None
    try:
        (encoded,) = tokens
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode("ascii")
        return from_header(f"Bearer {token}")
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise Unauthenticated(
            f"the subprotocol {BEARER_PROTOCOL}... is not one token in base64url without padding"
        ) from None


def from_message(message: str | bytes) -> str:
    """The token of a WebSocket's first message: the same text as the header's value. Raises Unauthenticated."""
    if isinstance(message, bytes):
        raise Unauthenticated("the first message must be the text `Bearer <token>`")
    return from_header(message)


def _capped(token: str) -> str:
    if len(token) > MAX_TOKEN:
        raise Unauthenticated(f"the token is longer than {MAX_TOKEN} characters")
    return token
