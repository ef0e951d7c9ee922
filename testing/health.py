"""What every health checker must do, as checks on pods that are listeners on loopback: ours, and a stranger's.

No test framework is needed: `CHECKS` are functions that take a `HealthBench` and raise AssertionError. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_checker(check):
        check(HealthBench(Mine, healthy=answer("200 OK", b"fine"), unhealthy=[answer("200 OK", b"ill")]))
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.calls import Invocation
from deployer.core.contract.health import BODY_LIMIT, Address, HttpRequest, Way
from deployer.core.errors import DeployerError
from deployer.core.model.records import HealthData, Status
from deployer.sdk.errors import Cancelled
from deployer.sdk.health import HealthChecker, HealthTarget, HttpAnswer, PodUnreachable, Verdict
from deployer.sdk.plugin import CancelScope, Document
from deployer.testing.descriptors import HEALTHY, describe
from deployer.testing.plugins import require_options
from deployer.testing.pods import FakePod, Talk, answer, drip, drip_headers, hang
from deployer.testing.service import SandboxedService
from deployer.toolkit.health.transport import Direct

WRONG = ("error", "redirect", "garbage", "nothing", "cut", "silence", "slow head", "slow body")
"""What pods answer that are healthy to hardly any checker; see `HealthBench.tolerates`."""

SECONDS = 0.5
"""What a check of a pod that hangs gets."""

LATE = 1.0
"""Seconds after its deadline, or after a cancellation, in which a check has to be back."""

AT_ONCE = 8
"""Pods that are asked at the same time."""

ENDLESS = 16 * 1024 * 1024
"""Bytes beyond which a check reads more than it may: 64 KiB, and what the system's buffers take."""


@dataclass
class HealthBench:
    """Where one health checker is tried.

    checker        makes it anew, as a restarted service would
    healthy        what a healthy pod answers: bytes (`answer` makes HTTP), or a function that is given the connection
    unhealthy      answers of pods that are not, besides `WRONG`
    tolerates      those of `WRONG` that are healthy to this checker all the same
    options        `healthCheckOptions` with which it asks
    wrong_options  options that a descriptor must not have
    http           it asks in HTTP; False: pods speak first, or `healthy` reads for itself what is asked
    cluster        a sandbox for the check that deploys; None: it does nothing, as for a protocol which the sandbox's
                   sample does not speak
    path           a directory for that
    fields         of the descriptor, for a healthy version of the sample; `healthCheckType` need not be among them
    unfit          further ones, for a version that must not be let through
    """

    checker: Callable[[], HealthChecker]
    healthy: bytes | Talk
    unhealthy: Sequence[bytes | Talk]
    tolerates: Collection[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    wrong_options: Sequence[Mapping[str, Any]] = ()
    http: bool = True
    cluster: sandbox.Sandbox | None = None
    path: Path = Path()
    fields: Mapping[str, Any] = field(default_factory=lambda: HEALTHY)
    unfit: Mapping[str, Any] = field(default_factory=lambda: {"env": {"FAIL": "1"}})

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tolerates) - set(WRONG)):
            raise ValueError(f"tolerates: {unknown[0]!r} is none of {', '.join(WRONG)}")

    def pod(self, talk: bytes | Talk) -> FakePod:
        """A pod that answers so."""
        return FakePod(talk, http=self.http)

    def ask(self, pod: FakePod, checker: HealthChecker | None = None, **changes: Any) -> Found:
        """Check a pod once, as the Deployer does. `changes` are fields of the target."""
        target = pod.target(**{"options": dict(self.options), "timeout": 5.0, **changes})
        return ask(checker or self.checker(), target)

    @property
    def body(self) -> str | None:
        """What is to be kept of a healthy pod's answer; None: that depends on the checker."""
        return body_of(self.healthy) if self.http else None

    def wrong(self, *names: str) -> Iterator[tuple[str, bytes | Talk]]:
        """Those of `WRONG` with these names that the checker does not tolerate, and how pods say it."""
        body = (self.body or "").encode()
        talks: dict[str, bytes | Talk] = {
            "error": answer("500 Internal Server Error", body),
            "redirect": answer("302 Found", body, "Location: /login"),
            "garbage": b"\x16\x03\xff\x00 no HTTP\r\n\r\n" + body,
            "nothing": b"",
            "cut": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) + 1000, body),
            "silence": hang,
            "slow head": drip_headers,
            "slow body": drip,
        }
        return ((name, talks[name]) for name in names if name not in self.tolerates)


@dataclass(frozen=True)
class Found:
    """What came of one check: `error` is what it raised, `message` the sentence that the log gets."""

    healthy: bool
    message: str
    body: str
    seconds: float
    error: BaseException | None = None


def ask(checker: HealthChecker, target: HealthTarget) -> Found:
    """Check once; in a thread of its own, for it may hang. Raises AssertionError when it does, or gives no verdict."""
    began = time.monotonic()
    call = Invocation(lambda: checker.check(target), "health")
    limit = target.timeout + 5 * LATE
    assert call.wait(limit), f"check() has not come back after {limit:g} s, although it had {target.timeout:g} s"
    seconds = time.monotonic() - began
    try:
        verdict = call.result()
    except BaseException as error:  # noqa: BLE001 - what a plugin raises is what is tested
        return Found(False, str(error), "", seconds, error)
    assert isinstance(verdict, Verdict), f"check() returned {verdict!r}, which is no Verdict"
    return Found(verdict.healthy, verdict.message, verdict.body, seconds)


def body_of(said: bytes | Talk) -> str | None:
    """The body of an HTTP answer, as it is kept."""
    return said.partition(b"\r\n\r\n")[2].decode("utf-8", "replace") if isinstance(said, bytes) else None


Check = Callable[[HealthBench], None]


# --- verdicts -----------------------------------------------------------------------------------------------------


def a_healthy_pod_is_healthy(bench: HealthBench) -> None:
    """Exactly `True`, with a sentence for the log, and again when it is asked again."""
    checker = bench.checker()
    with bench.pod(bench.healthy) as pod:
        for _ in range(3):
            found = bench.ask(pod, checker)
            assert found.healthy is True, f"a healthy pod is not: {found}"
            _require_sentence("a healthy pod", found)


def an_unhealthy_pod_is_not(bench: HealthBench) -> None:
    """Whatever the bench says is unhealthy, and the checker says what is wrong with it."""
    assert bench.unhealthy or set(bench.tolerates) == set(WRONG), "the bench has no answer of an unhealthy pod"
    for said in bench.unhealthy:
        with bench.pod(said) as pod:
            found = bench.ask(pod)
            assert found.healthy is False, f"a pod that answers {said!r} is healthy: {found}"
            _require_sentence(f"a pod that answers {said!r}", found)


def a_wrong_answer_is_unhealthy(bench: HealthBench) -> None:
    """An error, a redirect, something else than HTTP, half an answer, and a connection that is closed at once."""
    for name, said in bench.wrong("error", "redirect", "garbage", "nothing", "cut"):
        with bench.pod(said) as pod:
            found = bench.ask(pod)
            assert found.healthy is False, f"{name}: {found}"
            _require_sentence(name, found)


def nobody_there_is_unhealthy(bench: HealthBench) -> None:
    """Nothing listens on the port, and the check says so at once."""
    with bench.pod(b"") as pod:
        pass
    found = bench.ask(pod)
    assert found.healthy is False, f"a pod where nothing listens is healthy: {found}"
    assert found.seconds < LATE, f"that nothing listens is found out after {found.seconds:.1f} s"
    _require_sentence("a pod where nothing listens", found)


def the_raw_answer_is_kept(bench: HealthBench) -> None:
    """Of an HTTP answer its body, healthy or not: it is the deployment's health check data."""
    for said in (bench.healthy, *bench.unhealthy):
        kept = body_of(said) if bench.http else None
        if kept is not None:
            with bench.pod(said) as pod:
                found = bench.ask(pod)
                assert found.body == kept, f"the pod answered {kept!r}, and {found.body!r} was kept"


def _require_sentence(what: str, found: Found) -> None:
    """Of other errors than ours users see the class only."""
    if found.error is not None and not isinstance(found.error, DeployerError):
        raise AssertionError(f"{what}: check() raised {found.error!r}, of which users see the class only")
    assert isinstance(found.message, str) and found.message.strip(), f"{what}: the verdict has no message"


# --- bounds -------------------------------------------------------------------------------------------------------


def a_slow_pod_is_waited_for(bench: HealthBench) -> None:
    """A pod that answers within its time is healthy."""

    def late(connection: socket.socket, request: bytes) -> None:
        threading.Event().wait(0.5)
        _say(bench.healthy, connection, request)

    with bench.pod(late) as pod:
        found = bench.ask(pod)
        assert found.healthy is True, f"a pod that takes half a second of five is not healthy: {found}"


def a_pod_that_hangs_ends_at_the_deadline(bench: HealthBench) -> None:
    """One that says nothing, and those that say a byte at a time, in the head or in the body."""
    for name, said in bench.wrong("silence", "slow head", "slow body"):
        with bench.pod(said) as pod:
            found = bench.ask(pod, timeout=SECONDS)
            assert found.healthy is False, f"{name}: {found}"
            assert found.seconds < SECONDS + LATE, f"{name}: took {found.seconds:.1f} s instead of {SECONDS:g} s"
            _require_sentence(name, found)


def a_huge_answer_is_not_read_to_its_end(bench: HealthBench) -> None:
    """Of one that never ends little more than 64 KiB are fetched."""
    sent: list[int] = []

    def pour(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while sum(sent) < 8 * ENDLESS:
                sent.append(connection.send(b"x" * BODY_LIMIT))

    with bench.pod(pour) as pod:
        found = bench.ask(pod, timeout=2.0)
        assert pod.over.wait(5), "the connection stays open"
    assert found.seconds < 2.0 + LATE, f"an answer without an end took {found.seconds:.1f} s instead of 2 s"
    assert sum(sent) < ENDLESS, f"{sum(sent)} bytes were fetched of an answer without an end"


def a_cancellation_ends_a_check(bench: HealthBench) -> None:
    """While a pod lets it wait."""
    if "silence" in bench.tolerates:
        return
    scope = CancelScope()
    with bench.pod(hang) as pod:
        call = Invocation(lambda: bench.ask(pod, scope=scope), "health")
        assert pod.asked.wait(5), "the pod is not asked"
        began = time.monotonic()
        scope.close(Cancelled("cancelled by request"))
        call.wait(20 * LATE)
        found = call.result()
        assert time.monotonic() - began < LATE, "a check that was cancelled goes on"
        assert found.healthy is False, f"a check that was cancelled calls the pod healthy: {found}"


def pods_are_asked_at_once(bench: HealthBench) -> None:
    """By one checker, in several threads: none waits for another, and each verdict is about its own pod."""
    checker = bench.checker()
    together = threading.Barrier(AT_ONCE, timeout=3.0)

    def meet(said: bytes | Talk) -> Talk:
        first = threading.Event()

        def talk(connection: socket.socket, request: bytes) -> None:
            if not first.is_set():  # a checker may ask a pod twice
                first.set()
                with contextlib.suppress(threading.BrokenBarrierError):
                    together.wait()
            _say(said, connection, request)

        return talk

    with contextlib.ExitStack() as stack:
        answers = list(itertools.islice(itertools.cycle([bench.healthy, *bench.unhealthy[:1]]), AT_ONCE))
        pods = [stack.enter_context(bench.pod(meet(said))) for said in answers]
        calls = [Invocation(lambda pod=pod: bench.ask(pod, checker), "health") for pod in pods]  # type: ignore[misc]
        for number, (said, call) in enumerate(zip(answers, calls, strict=True)):
            call.wait(20.0)
            found = call.result()
            assert not together.broken, f"{AT_ONCE} pods are not asked at the same time: {found}"
            assert found.healthy is (said is bench.healthy), f"pod {number}, asked with others: {found}"
            kept = body_of(said) if bench.http else None
            assert kept is None or found.body == kept, f"pod {number} has the answer {found.body!r}, not {kept!r}"


def _say(said: bytes | Talk, connection: socket.socket, request: bytes) -> None:
    if isinstance(said, bytes):
        connection.sendall(said)
    else:
        said(connection, request)


# --- whom it asks -------------------------------------------------------------------------------------------------


def nobody_but_the_pod_is_asked(bench: HealthBench) -> None:
    """A redirect to another server is not followed: it would be the Deployer's hand in somebody's network."""
    if not bench.http:
        return
    with bench.pod(bench.healthy) as other:
        elsewhere = f"Location: http://{other.address}:{other.port}/health"
        for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect"):
            with bench.pod(answer(status, b"", elsewhere)) as pod:
                bench.ask(pod)
                assert not other.asked.is_set(), f"{status}: another server than the pod is asked"


def a_pod_that_may_not_be_dialled_is_not(bench: HealthBench) -> None:
    """Where checks go through the API server only HTTP does; what needs a connection of its own is unhealthy there and
    says so. A pod on its node's network is asked by nobody."""
    way = _ThroughOthers()
    with bench.pod(bench.healthy) as pod:
        found = bench.ask(pod, way=way)
        assert way.used or not pod.asked.is_set(), "the pod is dialled past `target`, whatever its limits are"
        assert found.healthy is (way.passed > 0), f"through the API server: {found}"
        _require_sentence("through the API server", found)
    with bench.pod(bench.healthy) as pod:
        found = bench.ask(pod, host_network=True)
        assert not pod.asked.is_set(), "a pod on its node's network is dialled, past `target`"
        assert found.healthy is False, f"a pod that cannot be asked is healthy: {found}"
        _require_sentence("a pod on its node's network", found)


class _ThroughOthers(Way):
    """Passes on HTTP, as the API server does, and nothing else."""

    def __init__(self) -> None:
        self.used = self.passed = 0

    def connect(self, target: HealthTarget, address: Address) -> socket.socket:
        self.used += 1
        raise PodUnreachable(f"{target.where} cannot be dialled: health checks go through the API server")

    def exchange(self, target: HealthTarget, address: Address, request: HttpRequest) -> HttpAnswer:
        self.used += 1
        found = Direct().exchange(target, address, request)
        self.passed += 1
        return found


# --- options and deployments --------------------------------------------------------------------------------------


def options_are_checked(bench: HealthBench) -> None:
    """By the checker's schema or `check_descriptor`: the right ones pass, wrong and misspelt ones do not."""
    checker = bench.checker()
    fields: Document = {**HEALTHY, "healthCheckType": checker.name}

    def place(options: Document) -> Document:
        return describe("default", **fields, healthCheckOptions=options)

    require_options(checker, "health", bench.options, bench.wrong_options, place)


def a_deployment_depends_on_it(bench: HealthBench) -> None:
    """On a sandbox: a healthy version goes live, one that is not never does, and leaves the one before in its place."""
    if bench.cluster is None:
        return
    checker = bench.checker()
    host = {"frontend": "shop.example.com", "healthCheckType": checker.name}
    options = {"healthCheckOptions": dict(bench.options)} if bench.options else {}
    fields = {**bench.fields, **host, **options}
    with SandboxedService(bench.cluster, bench.path, providers=[checker], timeout=2.0) as service:
        first = service.deploy_descriptor(describe(service.namespace, **fields, replicas=2))
        assert service.await_status(first).status is Status.DEPLOYED, service.log(first)
        assert "healthy: 2 of 2 pods" in service.log(first), service.log(first)
        second = service.deploy_descriptor(describe(service.namespace, **{**fields, **bench.unfit}))
        found = service.await_status(second)
        assert found.status is Status.FAILURE, f"{found.status}\n{service.log(second)}"
        failure = found.failure or {}
        assert failure.get("reason") == "Unhealthy", f"{failure}\n{service.log(second)}"
        service.quiet()
        assert service.live_version() == "1", service.log(second)
        code, body = service.answer("shop.example.com")
        assert (code, body.startswith("version 1 ")) == (200, True), body
        for id in (first, second) if bench.http else ():
            kept = service.store.get(HealthData, id)
            assert kept and all(entry["value"] for entry in kept.entries), f"no answer is kept of {id}: {kept}"


CHECKS: Sequence[Check] = (
    a_healthy_pod_is_healthy,
    an_unhealthy_pod_is_not,
    a_wrong_answer_is_unhealthy,
    nobody_there_is_unhealthy,
    the_raw_answer_is_kept,
    a_slow_pod_is_waited_for,
    a_pod_that_hangs_ends_at_the_deadline,
    a_huge_answer_is_not_read_to_its_end,
    a_cancellation_ends_a_check,
    pods_are_asked_at_once,
    nobody_but_the_pod_is_asked,
    a_pod_that_may_not_be_dialled_is_not,
    options_are_checked,
    a_deployment_depends_on_it,
)


__all__ = ["CHECKS", "WRONG", "Check", "HealthBench"]
