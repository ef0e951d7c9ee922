"""What a health checker implements, what it sees of a pod, and how it may ask it: only that pod, bounded in time."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.provider import Provider
from deployer.core.errors import DeployerError
from deployer.core.model.records import Document

BODY_LIMIT = 64 * 1024
"""Bytes of an answer that are read and kept; the rest is never fetched."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# The original's checks were POSTs; apps made for it answer a GET with one of these.
_TRY_POST = frozenset({404, 405, 501})

# Metadata services that are not in a link-local range (AWS over IPv6, Alibaba).
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
_PATH = re.compile(r"/(?!/)[\x21-\x7e]*|/")
_METHOD = re.compile(r"[A-Z]{1,20}")
# A name with a colon would be another header than the one that it seems to be: RFC 9110, section 5.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


class PodUnreachable(DeployerError):
    """The pod may not be asked, or gave no complete answer in time. Counts as unhealthy."""


class PodRefused(PodUnreachable):
    """Nothing listens on the port."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker says of a pod. `message` is a sentence for the log, `body` the pod's raw answer.

    `answer` is what the checker's last HTTP request got, if it sent one: the service puts it there, checkers need not.
    """

    healthy: bool
    message: str
    body: str = ""
    answer: HttpAnswer | None = None

    def __post_init__(self) -> None:
        raw = self.body.encode("utf-8", "replace")
        object.__setattr__(self, "body", raw[:BODY_LIMIT].decode("utf-8", "ignore"))


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as it came. Names of `headers` are in lower case; `truncated`: there was more than BODY_LIMIT."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status <= 299

    @property
    def said(self) -> str:
        """The status for a sentence, `HTTP 302 (a redirect to /login)`: where to is told by path only, without a host,
        and without a query, in which there may be secrets."""
        if not 300 <= self.status <= 399 or not self.location:
            return f"HTTP {self.status}"
        return f"HTTP {self.status} (a redirect to {self.location})"

    @property
    def location(self) -> str:
        """The path of the header `Location`, shortened; "elsewhere" when it cannot be shown, empty without one."""
        if not (location := self.headers.get("location")):
            return ""
        try:
            path = urllib.parse.urlsplit(location).path or "/"
        except ValueError:
            return ""
        return path[:100] if path.isprintable() else "elsewhere"

    @property
    def text(self) -> str:
        """The body as UTF-8; what is none becomes U+FFFD. Never decompressed."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request without a body whose parts have been checked. `Host` is missing: the target says it."""

    method: str
    path: str
    headers: Mapping[str, str]


class Way(ABC):
    """How pods are reached from here. Whichever it is, a check has the same limits of time and size."""

    @abstractmethod
    def connect(self, target: HealthTarget, address: Address) -> socket.socket:
        """A connection to the health port. `address` is the target's, checked. Raises PodUnreachable."""

    @abstractmethod
    def exchange(self, target: HealthTarget, address: Address, request: HttpRequest) -> HttpAnswer:
        """The pod's own answer, complete or cut at BODY_LIMIT. Raises PodUnreachable, and what the scope raises."""


@dataclass(slots=True, kw_only=True)
class HealthTarget:
    """One pod and the one port on which its health may be asked, for one check.

    name, uid, namespace   the pod
    address                its own IP address, a literal
    port                   the resolved health port
    path                   what `http` asks for when it is given no path
    host_network           true for a pod on its node's network, which is never dialled
    host                   the `Host` header of HTTP requests; empty: the pod's own address
    options                the descriptor's options for the checker
    timeout                seconds for everything that is done with this target, from the first use on
    allow_loopback         pods on 127.0.0.0/8, as in a sandbox
    way                    how the pod is reached: directly, or through the API server, which passes on HTTP only
    """

    name: str
    uid: str
    namespace: str
    address: str
    port: int
    path: str
    scope: CancelScope
    way: Way
    host_network: bool = False
    host: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 10.0
    allow_loopback: bool = False
    answer: HttpAnswer | None = field(default=None, init=False)
    """The answer to the last HTTP request, whose body may be cut; None when none came."""
    _deadline: float | None = field(default=None, init=False, repr=False)

    @property
    def where(self) -> str:
        """The pod and its port, for a sentence."""
        return f"pod {self.name} at {self.authority}"

    @property
    def authority(self) -> str:
        """The pod's address and port, as in a URL."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def remaining(self) -> float:
        """Seconds left for this check, never negative. The first call starts the clock."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.timeout
        return self.scope.remaining(max(0.0, self._deadline - time.monotonic()))

    def connect(self) -> socket.socket:
        """A connection to the health port, to be closed by the caller; every use of it keeps the deadline.

        Raises PodUnreachable when the pod may not be dialled, does not answer, or is asked through the API server,
        and what the scope raises.
        """
        self.scope.check()
        return self.way.connect(self, self._dialable())

    def http(
        self, method: str = "GET", path: str | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """One HTTP/1.1 request without a body on a connection of its own. Redirects are answers like any other.

        Raises PodUnreachable as `connect` does, for an incomplete answer, and for a method, path or header that
        cannot be sent; and what the scope raises.
        """
        self.answer = None
        request = self._request(method, path, headers)
        self.scope.check()
        answer = self.answer = self.way.exchange(self, self._dialable(), request)
        self.scope.check()
        return answer

    def ask(self) -> HttpAnswer:
        """The answer of the health path: GET first, and POST when that answers 404, 405 or 501."""
        answer = self.http("GET")
        return self.http("POST") if answer.status in _TRY_POST else answer

    def _request(self, method: str, path: str | None, headers: Mapping[str, str] | None) -> HttpRequest:
        target = path if path is not None else self.path
        target = target if target.startswith("/") else f"/{target}"
        if not _METHOD.fullmatch(method) or not _PATH.fullmatch(target):
            raise PodUnreachable(f"{self.where} is not asked: {method!r} {target!r} is no plain method and path")
        # Host is the descriptor's, or the pod's address: a checker cannot set it to something else.
        lines = {"User-Agent": "deployer-health", "Accept": "*/*"}
        fixed = {"Accept-Encoding": "identity", "Connection": "close"}
        if method not in ("GET", "HEAD"):
            fixed["Content-Length"] = "0"
        own = {name: value for name, value in (headers or {}).items() if name.title() not in {"Host", *fixed}}
        request = HttpRequest(method, target, lines | own | fixed)
        if not all(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value) for name, value in request.headers.items()):
            raise PodUnreachable(f"{self.where} is not asked: a header holds characters that no header may hold")
        return request

    def _dialable(self) -> Address:
        """The address to dial. Raises PodUnreachable for every address that cannot be the pod's own."""
        if self.host_network:
            raise PodUnreachable(f"pod {self.name} is on its node's network and is never asked: remove hostNetwork")
        if not 1 <= self.port <= 65_535:
            raise PodUnreachable(f"pod {self.name} has no health port: {self.port} is not between 1 and 65535")
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            raise PodUnreachable(f"pod {self.name} has no address: {self.address!r} is no IP address") from None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if address.is_loopback and self.allow_loopback:
            return address
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.is_reserved
            or address in _METADATA
            or "%" in self.address
        ):
            raise PodUnreachable(f"pod {self.name} is not asked: {self.address} cannot be a pod's own address")
        return address


class HealthChecker(Provider):
    """Says of one pod whether it is healthy. Its options are `healthCheckOptions`, which `target.options` has."""

    needs_path: bool = True
    """Must a descriptor have `healthCheckPath`? Not for TCP or gRPC; without one `target.path` is `/`."""

    @abstractmethod
    def check(self, target: HealthTarget) -> Verdict:
        """Ask the pod once, within `target`'s deadline. An exception counts as unhealthy, with its text."""


class HealthRounds(ABC):
    """What `work.health` is: rounds of checks over all pods of the version, concurrently, by uid."""

    @abstractmethod
    def check_all(self, pods: Sequence[Document], scope: CancelScope) -> Mapping[str, Verdict]:
        """One round: pod uid -> verdict. Raises what the scope raises."""

    @abstractmethod
    def keep(self, pods: Sequence[Document], verdicts: Mapping[str, Verdict]) -> None:
        """Make the raw answers of the last round the deployment's health check data."""
