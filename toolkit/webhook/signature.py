"""Signing what is sent: Standard Webhooks, symmetric."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""How long the key of a signature may be (Standard Webhooks)."""


def parse_keys(text: str) -> list[bytes]:
    """The keys in `text`, one a line, each `whsec_` and base64. Raises ValueError, without a key in it."""
    keys = []
    for line in text.split():
        try:
            key = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not line.startswith(SECRET_PREFIX) or len(key) not in KEY_BYTES:
            raise ValueError(
                "a secret is whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32)"
            )
        keys.append(key)
    if not keys:
        raise ValueError("there is no secret in it")
    return keys


def signature(keys: list[bytes], id: str, seconds: int, body: bytes) -> str:
    """What the header `webhook-signature` holds: one for each key (Standard Webhooks, symmetric)."""
    signed = f"{id}.{seconds}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
