"""Hosts, as settings and descriptors compare them, and the forms of names in DNS and of paths."""

from __future__ import annotations

import ipaddress
import re

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
PATH = r"/([!-.0-~][!-~]*)?"
"""A path that is asked for, with a query perhaps: printable ASCII, and not the start of an address (`//host`)."""


def canonical_host(host: str) -> str:
    """A host as it is compared: DNS knows no case, and a dot at the end changes nothing (RFC 4343; RFC 1034, 3.1)."""
    return host.lower().removesuffix(".")


def www_twin(host: str) -> str:
    """`www.example.com` of `example.com`, and the other way round: what a redirect of www answers for as well."""
    return host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def is_loopback(host: str) -> bool:
    """True when nobody but this machine is reached at `host`, an IP address or a name."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """True for an IP address, of either version."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
