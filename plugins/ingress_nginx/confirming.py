"""Waiting until every address of the data plane answers as the route says, or saying what is in the way."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core import ENDPOINT_SLICE, DeadlineExceeded, KubeForbidden, RouteContext, StepFailed
from deployer.plugins.ingress_nginx.asking import Address, Answer, ask

# What the controller says in Events when it drops an Ingress or a part of it.
_REFUSALS = frozenset({"AnnotationParsingFailed", "Rejected"})
# nginx without a usable backend, or with `custom-headers` that it refuses. An app may answer 404 to `/`.
_NO_BACKEND = frozenset({0, 502, 503, 504})

_BOUND = 300.0
"""Seconds to wait at most where no deadline is set."""


@dataclass(frozen=True, slots=True)
class Watched:
    """An Ingress whose Events matter, and those (uid to count) that are older than what is being waited for."""

    ingress: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()

    def refusal(self, events: Sequence[Mapping[str, Any]]) -> str:
        """The newest refusal among `events` that is not an old one, in the controller's words; or nothing."""
        old = {event["metadata"]["uid"]: _count(event) for event in self.events}
        for event in reversed(events):
            if event.get("reason") in _REFUSALS and _count(event) > old.get(event["metadata"]["uid"], 0):
                return f"{event['reason']}: {event.get('message', '')}"
        return ""


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

    def await_answers(
        self, context: RouteContext, host: str, what: str, *, tls: bool, watched: Sequence[Watched]
    ) -> None:
        """Return when `host` leads to `route.deployment` at every address, asked on fresh connections.

        Without addresses or header there is no such proof: then it is the propagation time, and the log says so.
        Raises StepFailed: with the controller's words when it refuses, with the last answer when time is up.
        """
        expected = context.route.deployment if self.revision_header else ""
        known = bool(self.controller or self.addresses)
        if not (known and expected):
            why = "no response header names the version" if known else "no addresses of the controller are configured"
            context.log(
                f"{what} to {context.route.backend.service} cannot be asked for ({why}): waiting {self.propagation:g} s"
            )
            context.gate.pause(self.propagation)
        round_ = _Round(self, context, host, what, tls, expected, watched)
        if known:
            round_.run()
        round_.check_events()

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
    expected: str
    watched: Sequence[Watched]
    done: set[Address] = field(default_factory=set)
    last: dict[Address, Answer] = field(default_factory=dict)

    def run(self) -> None:
        """Ask until all have answered. Raises StepFailed, and what the gate raises but for its deadline."""
        pause = 0.05
        end = time.monotonic() + _BOUND
        try:
            while not self._all_answer():
                self.check_events()
                if time.monotonic() >= end:
                    raise self._failed()
                self.context.gate.pause(pause)
                pause = min(1.0, pause * 1.5)
        except DeadlineExceeded:
            raise self._failed() from None

    def check_events(self) -> None:
        """Raises StepFailed with the words of a controller that refuses one of the Ingresses."""
        for watched in self.watched:
            metadata = watched.ingress["metadata"]
            try:
                refusal = watched.refusal(self.context.kube.events(metadata["uid"]))
            except KubeForbidden:
                return  # Events are a help; whether the route answers is asked all the same
            if refusal:
                raise StepFailed(
                    f"the ingress controller refuses Ingress {metadata['name']}: {refusal}", reason="RouteRejected"
                )

    def _all_answer(self) -> bool:
        addresses = self.plane.current(self.context, self.tls)
        self.last = {address: answer for address, answer in self.last.items() if address in addresses}
        for address in addresses:
            self.last.setdefault(address, Answer(0, body=b"has not answered yet"))
            if address not in self.done and self._answers(address):
                self.done.add(address)
        return bool(addresses) and self.done.issuperset(addresses)

    def _answers(self, address: Address) -> bool:
        nobody = self._ask(address, f"{secrets.token_hex(8)}.invalid") if not self.expected else None
        for _ in range(self.plane.confirmations):
            answer = self.last[address] = self._ask(address, self.host)
            if answer.status in _NO_BACKEND or (self.expected and answer.revision != self.expected):
                return False
            # Without a revision a 404 may be the app's, or the controller's own for hosts that it does not know.
            if nobody and answer.status == 404 and answer == nobody:
                return False
        return True

    def _ask(self, address: Address, host: str) -> Answer:
        return ask(address, host, self.plane.revision_header, self.context.gate)

    def _failed(self) -> StepFailed:
        wrong = [f"{address} {answer}" for address, answer in self.last.items() if address not in self.done]
        said = "; ".join(wrong) or "there is no ready address of the controller to ask"
        return StepFailed(
            f"{self.what} of {self.host} to {self.context.route.backend.service} was not confirmed in time: {said}",
            reason="RouteNotConfirmed",
            hint="look at the ingress controller's log, and whether it allows the headers that are sent",
        )


def _count(event: Mapping[str, Any]) -> int:
    series = event.get("series") or {}
    return int(series.get("count") or event.get("count") or 1)
