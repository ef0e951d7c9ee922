"""Which names this service answers to: the guard against DNS rebinding.

A page may have its own name resolve to this machine. Its requests are then of the same origin as the page to a browser,
so that neither `Origin` nor CORS stop them; only the name in `Host` gives them away. An IP address cannot be rebound.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection

from deployer.core.model.hosts import is_loopback
from deployer.settings import Settings

# RFC 9110, 7.2 and RFC 3986, 3.2.2, without what no name in DNS has: escapes, sub-delimiters and user information.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]*)?")

REFUSAL = (
    "this service does not answer to the name in the header Host; use localhost or the address that it listens on, or "
    "add the name to the setting allowed_hosts"
)


def is_authority(value: str) -> bool:
    """True for what `Host` may be: a name or IP address, and perhaps a port."""
    return _AUTHORITY.fullmatch(value) is not None


REMEMBERED = 256
"""Values of `Host` whose answer is remembered."""


class AllowedHosts:
    """The hosts that requests may be for, whatever the port: a forwarded one is another."""

    def __init__(self, names: Collection[str] = (), *, everything: bool = False, any_address: bool = False) -> None:
        """
        names        beside localhost and loopback addresses: names, IP addresses, and `*.example.com` for every name
                     below that domain
        everything   nothing is refused
        any_address  every IP address is
        """
        self._names = frozenset(_normal(name) for name in names if not name.startswith("*."))
        self._domains = tuple(_normal(name[1:]) for name in names if name.startswith("*."))
        self._everything = everything
        self._any_address = any_address
        # Few names ask again and again; looking at one takes a third of the time of a small answer.
        self._known = functools.lru_cache(REMEMBERED)(self._decide)

    @classmethod
    def of(cls, settings: Settings) -> AllowedHosts:
        """What the settings say: everything where callers must prove who they are and `allowed_hosts` is empty.

        A service that listens on more than loopback is asked by its addresses too, as by the kubelet's probes.
        """
        host = settings.deployhost
        return cls(
            [*settings.allowed_hosts, *([host] if host else [])],
            everything=settings.auth != "none" and not settings.allowed_hosts,
            any_address=not is_loopback(host),
        )

    def admits(self, authority: str | None) -> bool:
        """True when a request with this `Host` is for this service. None (HTTP/1.0) is sent by no browser."""
        return authority is None or self._everything or self._known(authority)

    def _decide(self, authority: str) -> bool:
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            return False
        host = _normal(match.group(1))
        if host == "localhost" or host in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host.endswith(self._domains)
        return self._any_address or address.is_loopback


def _normal(host: str) -> str:
    """One spelling: lower case, no brackets, no final dot; addresses as `ipaddress` writes them, IPv4 not within IPv6.

    >>> _normal("LocalHost."), _normal("[::FFFF:127.0.0.1]"), _normal("[0:0::1]")
    ('localhost', '127.0.0.1', '::1')
    """
    host = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)
