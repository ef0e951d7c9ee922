"""The data plane of an ingress provider: asking every address of it until all answer as the route says, and not longer.

Conditions and Events precede traffic; what a controller answers on a fresh connection does not. A provider adds what
else may speak against a route (Events, conditions) as an objection.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deployer.core.backoff import Backoff
from deployer.core.contract.health import HttpAnswer
from deployer.core.contract.ingress import AddressAnswer, RouteAnswers, RouteContext
from deployer.core.errors import DeadlineExceeded, SettingsError, StepFailed, require_answers
from deployer.core.model.kind import ENDPOINT_SLICE
from deployer.core.model.operation.timeline import Requests
from deployer.toolkit.dataplane.probe import ANSWER_TIMEOUT, LATE, WANTS_TLS, Address, Answer, ask, parse_address

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

_PAUSES = Backoff(first=0.03, most=1.0, growth=1.2)
"""Seconds between two rounds at first and at most, and the factor between them: an app may limit its requests."""

_SAY_AFTER, _SAY_EVERY = 2.0, 5.0
"""Seconds before a wait says what it waits for, and at least between two such lines."""

MOST_ASKED = 32
"""Addresses that are asked at the same time, and those that people are shown."""

LOOK_TIMEOUT = 2.0
"""Seconds that each address has to answer somebody who looks."""

_SPARE = 0.2
"""Seconds of the scope's time that are left then for saying that there was no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlane:
    """The controllers that answer for hosts, and how it is found out that they do.

    controller        `namespace/service` whose EndpointSlices hold them; empty: `addresses`
    revision_header   the response header that names the deployment; empty when the controller does not allow one
    confirmations     right answers that every address must give, one a round, with no answer of another version between
    propagation       seconds to wait where no header can prove anything
    always_warm_up    also warm up when a route changes in nothing but its version, and the pods were asked instead
    plugin            whose settings these are
    """

    controller: str = ""
    addresses: tuple[Address, ...] = ()
    revision_header: str = ""
    confirmations: int = 3
    propagation: float = 5.0
    always_warm_up: bool = False
    plugin: str = ""

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
        serving: bool = False,
    ) -> bool:
        """Return when `host` leads to `route.deployment` at every address, asked on fresh connections.

        `what` names the thing in the log and in errors; `headers` go with every request, for a route that matches one;
        `proof` is what the right answers have instead of the deployment in the revision header. An answer that has it
        is right whatever its status: an app may answer 503, and a controller that limits requests does. `serving`: not
        so, it must come from the app; 502 to 504 only when the app's pods answer that themselves (`context.pods`).

        True: it was proven. Without addresses or header nothing proves it: then it is the propagation time, the log
        says so, and this is False. Raises StepFailed: with the objection (reason `RouteRejected`), with the last
        answers when time is up (`RouteNotConfirmed`), or when the app wants TLS that the controller does not speak to
        it (`BackendSpeaksTLS`).
        """
        header, expected = proof or (self.revision_header, context.route.deployment)
        expected = expected if header else ""
        proven = bool(self.known and expected)
        if not proven:
            context.log(
                f"{context.route.host}: waiting {self.propagation:g} s for {what} to version {context.route.version}, "
                f"as nothing can be asked: {self._unproven(header, 'version_header' if proof else 'revision_header')}"
            )
            context.scope.pause(self.propagation)
        round_ = _Round(
            self, context, host, what, tls, objection, dict(headers or {}), header, expected, context.route.path
        )
        round_.serving = serving or context.pods.serving
        if self.known:
            try:
                round_.run()
            finally:
                if proven and context.count:
                    context.count(round_.counted)
        round_.check_objection()
        return proven

    def _unproven(self, header: str, setting: str) -> str:
        """Why nothing can be proven, and the settings that would change it."""
        missing = [] if self.known else [self._no_addresses]
        missing += [] if header else [self._no_header(setting)]
        return "; ".join(missing) or "which version is live is not known"

    @property
    def _no_addresses(self) -> str:
        return f"no addresses of the controller are configured (set controller or addresses in {self._table})"

    def _no_header(self, setting: str) -> str:
        return f"no response header names the version (set {setting} in {self._table})"

    @property
    def _table(self) -> str:
        return f"[plugins.{self.plugin}]" if self.plugin else "the provider's settings"

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
                f"{what} of {context.route.host} cannot be asked for its health: no addresses of the ingress "
                "controller are configured",
                reason="RouteNotConfirmed",
                hint="configure the controller's Service or its addresses, or leave the check through the preview out",
            )
        expected = context.route.deployment if self.revision_header else ""
        healthy = range(200, 400)
        header = self.revision_header
        round_ = _Round(self, context, host, what, tls, objection, dict(headers or {}), header, expected, path)
        round_.healthy = healthy
        round_.run()

    def ask_each(
        self, context: RouteContext, host: str, path: str, *, tls: bool, headers: Mapping[str, str] | None = None
    ) -> list[HttpAnswer]:
        """What GET `path` of `host` gets, asked once at every address. Raises StepFailed when there is nobody to ask,
        when one gives no answer, and when a header tells that it is another deployment's."""
        found = []
        addresses = self.current(context, tls) if self.known else []
        for address, answer, _ in self._ask_all(context, addresses, host, path, self.revision_header, headers=headers):
            wrong = self.revision_header and answer.revision != context.route.deployment
            if not answer.status or wrong:
                why = f"{address} {answer}" + (", which is not this version's" if answer.status else "")
                raise StepFailed(f"the preview of {context.route.host}: {why}", reason="RouteNotConfirmed")
            found.append(HttpAnswer(answer.status, answer.headers, answer.body))
        if not found:
            said = f"the preview of {context.route.host} cannot be asked: the ingress controller has no known addresses"
            raise StepFailed(said, reason="RouteNotConfirmed")
        return found

    def ask_route(self, context: RouteContext, *, tls: bool, version_header: str | None = None) -> RouteAnswers:
        """What `IngressProvider.ask_route` is: of up to `MOST_ASKED` addresses what each answers, and which deployment
        the revision header names.

        version_header  the response header in which the app itself says its version, to be read instead; empty: none
        """
        by_version = version_header is not None
        header = self.revision_header if version_header is None else version_header
        addresses = self.current(context, tls) if self.known else []
        if not addresses:
            return RouteAnswers(unknown=_NOBODY if self.known else self._no_addresses)
        asked, route = addresses[:MOST_ASKED], context.route
        timeout = max(0.0, min(LOOK_TIMEOUT, context.scope.remaining() - _SPARE))
        answers = self._ask_all(context, asked, route.host, route.path, header, timeout=timeout)
        no_header = self._no_header("version_header" if by_version else "revision_header")
        told = []
        for address, answer, seconds in answers:
            unknown = "" if answer.revision else f"the answer has no header {header}" if header else no_header
            told.append(
                AddressAnswer(
                    address=str(address),
                    tls=address.tls,
                    seconds=seconds,
                    status=answer.status,
                    deployment="" if by_version else answer.revision,
                    version=answer.revision if by_version else "",
                    unknown=unknown if answer.status else str(answer),
                )
            )
        return RouteAnswers(told, len(addresses) - len(asked))

    def _ask_all(
        self,
        context: RouteContext,
        addresses: Sequence[Address],
        host: str,
        path: str,
        header: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> list[tuple[Address, Answer, float]]:
        """What each address answers, all asked once and at the same time, and after how many seconds. With a `timeout`
        the end of the scope's time is one more reason for which there is no answer."""
        seconds = ANSWER_TIMEOUT if timeout is None else timeout

        def one(address: Address) -> tuple[Address, Answer, float]:
            began = time.monotonic()
            try:
                answer = ask(address, host, header, context.scope, path=path, headers=headers, timeout=seconds)
            except DeadlineExceeded:
                if timeout is None:
                    raise
                answer = LATE
            return address, answer, time.monotonic() - began

        with ThreadPoolExecutor(MOST_ASKED, thread_name_prefix="address") as pool:
            return list(pool.map(one, addresses))

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
    """One wait, in rounds that ask each address once. One that answered right often enough is not asked again."""

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
    serving: bool = False
    right: Counter[Address] = field(default_factory=Counter)
    last: dict[Address, Answer] = field(default_factory=dict)
    rounds: int = 0
    wants_tls: bool = False
    asked: Counter[Address] = field(default_factory=Counter)
    lost: int = 0
    moved: dict[Address, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def counted(self) -> Requests:
        """How those for the public host fared, and when the last address came to answer from the right version."""
        moved = [self.moved[address] - self.began for address in self.last if self._done(address)]
        seconds = max(moved) if moved and len(moved) == len(self.last) else None
        return Requests(self.asked.total(), self.lost, len(self.asked), seconds)

    def run(self) -> None:
        """Ask until all have answered. Raises StepFailed, and what the scope raises but for its deadline."""
        began = self.began
        said: set[str] = set()
        say_at = began + _SAY_AFTER
        try:
            while not self._all_answer():
                self.check_objection()
                now = time.monotonic()
                if now >= began + _BOUND:
                    raise self._failed()
                if now >= say_at and (text := self._text()) not in said:
                    self.context.log(f"not confirmed yet: {text}")
                    said.add(text)
                    say_at = now + _SAY_EVERY
                self.rounds += 1
                self.context.scope.pause(_PAUSES.after(self.rounds))
        except DeadlineExceeded as over:
            require_answers(over)
            raise self._failed() from None
        if self.wants_tls and not self.context.pods.any_status:
            route = self.context.route
            raise StepFailed(
                f"port {route.backend.port} of {route.backend.service} speaks TLS, but the ingress controller speaks "
                f"plain HTTP to it: {route.host} would answer everybody with HTTP 400",
                reason="BackendSpeaksTLS",
                hint=self.context.tls_hint,
            )

    def check_objection(self) -> None:
        """Raises StepFailed with what speaks against the route, if anything does."""
        if words := self.objection():
            raise StepFailed(words, reason="RouteRejected")

    def _all_answer(self) -> bool:
        addresses = self.plane.current(self.context, self.tls)
        self.last = {address: answer for address, answer in self.last.items() if address in addresses}
        for address in addresses:
            self.last.setdefault(address, Answer(0, body=b"has not answered yet"))
            if not self._done(address):
                self._ask_once(address)
        return bool(addresses) and all(map(self._done, addresses))

    def _done(self, address: Address) -> bool:
        return self.right[address] >= self.plane.confirmations

    def _ask_once(self, address: Address) -> None:
        answer = self.last[address] = self._ask(address, self.host, self.headers)
        self.asked[address] += 1
        self.lost += self._is_lost(answer)
        if self._is_right(answer) and not self._is_nobodys(address, answer):
            if not self.right[address]:
                self.moved[address] = time.monotonic()
            self.right[address] += 1
            self.rounds = 0
            self.wants_tls = self.wants_tls or (answer.status == 400 and WANTS_TLS.search(answer.body) is not None)
        elif not self._says_nothing(answer):
            self.right[address] = 0

    def _is_right(self, answer: Answer) -> bool:
        if self.expected and answer.revision != self.expected:
            return False
        if self.healthy is not None:
            return answer.status in self.healthy
        pods = self.context.pods
        if answer.status in _NO_BACKEND and answer.status and (pods.any_status or answer.status in pods.statuses):
            return True
        return bool(self.expected and answer.status and not self.serving) or answer.status not in _NO_BACKEND

    def _is_lost(self, answer: Answer) -> bool:
        """Did whoever sent such a request at this moment get nothing from the app? Its pods are asked themselves
        whether a 502 to 504 is the app's; where they cannot be, one that names a version counts as its own."""
        if not answer.status:
            return True
        pods = self.context.pods
        own = pods.any_status or answer.status in pods.statuses or (not pods.answered and bool(answer.revision))
        return answer.status in _NO_BACKEND and not own

    def _is_nobodys(self, address: Address, answer: Answer) -> bool:
        """Without a revision a 404 may be the app's, or the controller's own for hosts that it does not know."""
        asked = answer.status == 404 and not self.expected
        return asked and self._ask(address, f"{secrets.token_hex(8)}.invalid", {}) == answer

    def _says_nothing(self, answer: Answer) -> bool:
        """True for the answer of a controller that limits requests: neither the new version's, nor another's."""
        return answer.status in (429, 503) and not answer.revision and self.healthy is None

    def _ask(self, address: Address, host: str, headers: Mapping[str, str]) -> Answer:
        return ask(address, host, self.header, self.context.scope, path=self.path, headers=headers)

    def _wrong(self) -> dict[Address, Answer]:
        never = {address: answer for address, answer in self.last.items() if not self.right[address]}
        return never or {address: answer for address, answer in self.last.items() if not self._done(address)}

    def _text(self) -> str:
        wrong = [f"{address} {answer}" for address, answer in self._wrong().items()]
        return "; ".join(wrong) or _NOBODY

    def _failed(self) -> StepFailed:
        route, pods, wrong = self.context.route, self.context.pods, list(self._wrong().values())
        port = route.backend.port
        failing = bool(wrong) and all(answer.status in _NO_BACKEND and answer.status for answer in wrong)
        knows = all(answer.revision == self.expected for answer in wrong if self.expected)
        if failing and knows and self.healthy is None:
            # It knows the route: what fails is between it and the pods, or in them.
            said = f"the ingress controller gets no answer on port {port} of the pods of version {route.version}"
            said += f", the port for {route.host}"
            said += ", although the pods answer there themselves" if pods.answered else ""
            hint = _REACHED if pods.answered else _LISTENS.format(port=port)
        else:
            said = f"{route.host}: {self.what} to port {port} of {route.backend.service} was not confirmed in time"
            silent = not wrong or not all(answer.status for answer in wrong)
            hint = _SILENT if silent else _LISTENS.format(port=port) if failing else _OTHER
        why = f" ({pods.why})" if pods.why else ""
        return StepFailed(f"{said}: {self._text()}{why}", reason="RouteNotConfirmed", hint=hint)


_NOBODY = "there is no ready address of the controller to ask"
_LISTENS = (
    "check that the app listens on port {port}, on all addresses, and in plain HTTP; another port of the app is named "
    "in containerPort and frontendPort, another path to ask for in frontendPath"
)
_REACHED = "check whether a NetworkPolicy keeps the ingress controller from the pods, and its log"
_SILENT = "check that the ingress controller runs, and the addresses by which it is asked"
_OTHER = "look at the ingress controller's log, and whether it allows the headers that are sent"


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
        "warm_up": {"enum": ["changes", "always"]},
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
        always_warm_up=table.get("warm_up") == "always",
        plugin=plugin,
    )


def _addresses(table: Mapping[str, Any], plugin: str, key: str, tls: bool) -> list[Address]:
    try:
        return [parse_address(text, tls=tls) for text in table.get(key, ())]
    except ValueError:
        raise SettingsError(f"[plugins.{plugin}] {key}: write IP addresses with a port, like 10.0.0.7:80") from None
