"""The data plane of an ingress provider: asking every address of it until all answer as the route says, and not longer.

Conditions and Events precede traffic; what a controller answers on a fresh connection does not. A provider adds what
else may speak against a route (Events, conditions) as an objection.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.core.asking import Address, Answer, ask, parse_address
from deployer.core.errors import DeadlineExceeded, SettingsError, StepFailed
from deployer.core.kube.kinds import ENDPOINT_SLICE
from deployer.core.providers import RouteContext

Objection = Callable[[], str]
"""What speaks against the route at this moment, as a whole sentence that quotes the controller; or nothing."""

Proof = tuple[str, str]
"""A response header, and the value by which an answer is known to come from the right version; empty: there is none."""

REVISION_HEADER = "X-Deployer-Revision"
"""The response header that names the deployment, unless the settings call it otherwise."""

_HEADER_NAME = r"[A-Za-z0-9_-]{1,128}"

# Nobody, or a proxy without a usable backend. An app may answer 404 to `/`.
_NO_BACKEND = frozenset({0, 502, 503, 504})

_BOUND = 300.0
"""Seconds to wait at most where no deadline is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlane:
    """The controllers that answer for hosts, and how it is found out that they do.

    controller        `namespace/service` whose EndpointSlices hold them; empty: `addresses`
    revision_header   the response header that names the deployment; empty when the controller does not allow one
    confirmations     answers in a row that every address must give
    propagation       seconds to wait where no header can prove anything
    """

    controller: str = ""
    addresses: tuple[Address, ...] = ()
    revision_header: str = ""
    confirmations: int = 3
    propagation: float = 5.0

    @property
    def known(self) -> bool:
        """Is there anybody to ask?"""
        return bool(self.controller or self.addresses)

    def await_answers(
        self,
        context: RouteContext,
        host: str,
        what: str,
        *,
        tls: bool,
        objection: Objection = str,
        headers: Mapping[str, str] | None = None,
        proof: Proof | None = None,
    ) -> None:
        """Return when `host` leads to `route.deployment` at every address, asked on fresh connections.

        `what` names the thing in the log and in errors; `headers` go with every request, for a route that matches one;
        `proof` is what the right answers have instead of the deployment in the revision header.
        Without addresses or revision header there is no proof: then it is the propagation time, and the log says so.
        Raises StepFailed: with the objection (reason `RouteRejected`), or with the last answers when time is up
        (reason `RouteNotConfirmed`).
        """
        header, expected = proof or (self.revision_header, context.route.deployment)
        expected = expected if header else ""
        if not (self.known and expected):
            why = (
                "no response header names the version"
                if self.known
                else "no addresses of the controller are configured"
            )
            context.log(
                f"{what} to {context.route.backend.service} cannot be asked for ({why}): waiting {self.propagation:g} s"
            )
            context.gate.pause(self.propagation)
        round_ = _Round(self, context, host, what, tls, objection, dict(headers or {}), header, expected)
        if self.known:
            round_.run()
        round_.check_objection()

    def await_healthy(
        self,
        context: RouteContext,
        host: str,
        path: str,
        what: str,
        *,
        tls: bool,
        objection: Objection = str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Return when `path` of `host` answers 200 to 399 (as for a kubelet's probe) at every address, and from this
        deployment where a header tells. Raises StepFailed as `await_answers` does, and when there is nobody to ask."""
        if not self.known:
            raise StepFailed(
                f"{what} of {host} cannot be asked for its health: no addresses of the ingress controller are "
                "configured",
                reason="RouteNotConfirmed",
                hint="configure the controller's Service or its addresses, or leave the check through the preview out",
            )
        expected = context.route.deployment if self.revision_header else ""
        healthy = range(200, 400)
        header = self.revision_header
        round_ = _Round(self, context, host, what, tls, objection, dict(headers or {}), header, expected, path, healthy)
        round_.run()

    def current(self, context: RouteContext, tls: bool) -> list[Address]:
        """Every address to ask now: those that speak TLS when the route has it, as far as there are any."""
        found = list(self.addresses) if not self.controller else self._endpoints(context)
        return [address for address in found if address.tls is tls] or found

    def _endpoints(self, context: RouteContext) -> list[Address]:
        namespace, _, service = self.controller.partition("/")
        labels = {"kubernetes.io/service-name": service}
        found: list[Address] = []
        for slice_ in context.kube.list(ENDPOINT_SLICE, labels=labels, namespace=namespace):
            ports = {port.get("name") or "http": port.get("port") for port in slice_.get("ports") or ()}
            for endpoint in slice_.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is False:
                    continue
                host = endpoint["addresses"][0]
                found += [Address(host, ports[name], name == "https") for name in ("http", "https") if ports.get(name)]
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class _Round:
    """One wait. An address that answered right often enough is not asked again."""

    plane: DataPlane
    context: RouteContext
    host: str
    what: str
    tls: bool
    objection: Objection
    headers: Mapping[str, str]
    header: str
    expected: str
    path: str = "/"
    healthy: range | None = None
    done: set[Address] = field(default_factory=set)
    last: dict[Address, Answer] = field(default_factory=dict)

    def run(self) -> None:
        """Ask until all have answered. Raises StepFailed, and what the gate raises but for its deadline."""
        pause = 0.05
        end = time.monotonic() + _BOUND
        try:
            while not self._all_answer():
                self.check_objection()
                if time.monotonic() >= end:
                    raise self._failed()
                self.context.gate.pause(pause)
                pause = min(1.0, pause * 1.5)
        except DeadlineExceeded:
            raise self._failed() from None

    def check_objection(self) -> None:
        """Raises StepFailed with what speaks against the route, if anything does."""
        if words := self.objection():
            raise StepFailed(words, reason="RouteRejected")

    def _all_answer(self) -> bool:
        addresses = self.plane.current(self.context, self.tls)
        self.last = {address: answer for address, answer in self.last.items() if address in addresses}
        for address in addresses:
            self.last.setdefault(address, Answer(0, body=b"has not answered yet"))
            if address not in self.done and self._answers(address):
                self.done.add(address)
        return bool(addresses) and self.done.issuperset(addresses)

    def _answers(self, address: Address) -> bool:
        nobody = self._ask(address, f"{secrets.token_hex(8)}.invalid", {}) if not self.expected else None
        for _ in range(self.plane.confirmations):
            answer = self.last[address] = self._ask(address, self.host, self.headers)
            if answer.status in _NO_BACKEND or (self.expected and answer.revision != self.expected):
                return False
            if self.healthy is not None and answer.status not in self.healthy:
                return False
            # Without a revision a 404 may be the app's, or the controller's own for hosts that it does not know.
            if nobody and answer.status == 404 and answer == nobody:
                return False
        return True

    def _ask(self, address: Address, host: str, headers: Mapping[str, str]) -> Answer:
        return ask(address, host, self.header, self.context.gate, path=self.path, headers=headers)

    def _failed(self) -> StepFailed:
        wrong = [f"{address} {answer}" for address, answer in self.last.items() if address not in self.done]
        said = "; ".join(wrong) or "there is no ready address of the controller to ask"
        return StepFailed(
            f"{self.what} of {self.host} to {self.context.route.backend.service} was not confirmed in time: {said}",
            reason="RouteNotConfirmed",
            hint="look at the ingress controller's log, and whether it allows the headers that are sent",
        )


# --- settings -----------------------------------------------------------------------------------------------------


def data_plane_schema() -> dict[str, Any]:
    """Properties (JSON Schema) for the table `[plugins.<name>]` of a provider that uses `data_plane`."""
    addresses = {"type": "array", "items": {"type": "string"}}
    return {
        "controller": {"type": "string", "pattern": r"^[a-z0-9-]{1,63}/[a-z0-9-]{1,63}$"},
        "addresses": addresses,
        "https_addresses": addresses,
        "revision_header": {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": f"^{_HEADER_NAME}$"}]},
        "confirmations": {"type": "integer", "minimum": 1, "maximum": 100},
        "propagation_seconds": {"type": "number", "minimum": 0, "maximum": 3600},
    }


def data_plane(table: Mapping[str, Any], plugin: str, *, revision_header: bool = False) -> DataPlane:
    """What those properties say; `revision_header`: is one sent where the table is silent? Raises SettingsError."""
    addresses = _addresses(table, plugin, "addresses", False) + _addresses(table, plugin, "https_addresses", True)
    if addresses and "controller" in table:
        raise SettingsError(f"[plugins.{plugin}] controller and addresses exclude each other: give one of them")
    header = table.get("revision_header", revision_header)
    return DataPlane(
        controller=table.get("controller", ""),
        addresses=tuple(addresses),
        revision_header=header if isinstance(header, str) else REVISION_HEADER if header else "",
        confirmations=table.get("confirmations", 3),
        propagation=float(table.get("propagation_seconds", 5.0)),
    )


def _addresses(table: Mapping[str, Any], plugin: str, key: str, tls: bool) -> list[Address]:
    try:
        return [parse_address(text, tls=tls) for text in table.get(key, ())]
    except ValueError:
        raise SettingsError(f"[plugins.{plugin}] {key}: write IP addresses with a port, like 10.0.0.7:80") from None
