"""Where a receiver is. Errors never repeat an address: more of it than its origin may be a secret."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where a receiver is, in parts. `target` is path and query."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: as much as may be said."""
        return f"http{'s' if self.secure else ''}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and, unless it is the usual one, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises ValueError, which says what is wrong without the address."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("an address is printable ASCII without spaces")
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("this is not an address like https://hooks.example.com/deployer") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("this is not an address like https://hooks.example.com/deployer")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address may not contain credentials; there are settings of their own for them")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(secure, host, port or (443 if secure else 80), target)
