"""The health checkers that ship do what every health checker must, and the suite finds each kind of mistake."""

from __future__ import annotations

import dataclasses
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.records import Status
from deployer.plugins.health_probe import Probe
from deployer.plugins.health_simple import Simple
from deployer.sdk.errors import DeployerError
from deployer.sdk.health import HealthChecker, HealthTarget, Verdict
from deployer.testing.health import CHECKS, WRONG, Check, HealthBench
from deployer.testing.pods import answer
from deployer.testing.service import HEALTHY, SandboxedService, describe

pytestmark = pytest.mark.slow

YES, NO = (answer("200 OK", body) for body in (b'{"healthy": true}', b'{"healthy": false}'))
BENCHES = {
    "probe": HealthBench(Probe, YES, [NO, answer("200 OK", b"fine"), answer("200 OK")]),
    "simple": HealthBench(Simple, answer("204 No Content"), [answer("503 Service Unavailable", b"ill")]),
}
BENCHES["simple"].fields = {**BENCHES["simple"].fields, "healthCheckPath": "simple"}


@pytest.mark.parametrize("bench", BENCHES.values(), ids=BENCHES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_checker_that_ships(check: Check, bench: HealthBench, cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    check(dataclasses.replace(bench, cluster=cluster, path=tmp_path))


# --- mistakes -----------------------------------------------------------------------------------------------------


class Fine(HealthChecker):
    """Healthy when the answer is 2xx and says `fine`; what follows is wrong in one way each."""

    name = "fine"

    def check(self, target: HealthTarget) -> Verdict:
        found = target.ask()
        return Verdict(found.ok and found.text == "fine", f"{target.where} said {found.text!r}", found.text)


class Optimist(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        try:
            return Verdict(True, "as always", target.ask().text)
        except DeployerError as error:
            return Verdict(True, str(error))


class Pessimist(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        return Verdict(False, "as always", target.ask().text)


class Truthy(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        return Verdict(target.ask().status, "fine", "fine")  # type: ignore[arg-type]


class Speechless(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        return dataclasses.replace(super().check(target), message="")


class Undecided(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        found = super().check(target)
        return found if found.healthy else None  # type: ignore[return-value]


class Raises(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        if (found := super().check(target)).healthy:
            return found
        raise KeyError("fine")


class OnlyTheBody(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        found = target.ask()
        return Verdict(found.text == "fine", "read", found.text)


class KeepsNothing(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        return dataclasses.replace(super().check(target), body="")


class Impatient(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        target.timeout = 0.1
        return super().check(target)


class Dials(Fine):
    """Past `target`, with a time-out that begins anew with every byte."""

    def check(self, target: HealthTarget) -> Verdict:
        said = b""
        with socket.create_connection((target.address, target.port), timeout=2) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while piece := wire.recv(1 << 20):
                said = (said + piece)[:1000]
                if said.endswith(b"fine"):
                    break
        return Verdict(said.endswith(b"fine"), "asked", "fine")


class Follows(Fine):
    def check(self, target: HealthTarget) -> Verdict:
        found = target.ask()
        if found.status // 100 == 3:
            urllib.request.urlopen(found.headers["location"], timeout=2).close()
        return Verdict(found.ok and found.text == "fine", "asked", found.text)


class OneAtATime(Fine):
    lock = threading.Lock()

    def check(self, target: HealthTarget) -> Verdict:
        with self.lock:
            return super().check(target)


class Remembers(Fine):
    """The last answer, of whichever pod."""

    def check(self, target: HealthTarget) -> Verdict:
        self.last = super().check(target)
        threading.Event().wait(0.1)
        return self.last


class Sloppy(Fine):
    options_schema = {"type": "object"}  # type: ignore[assignment]  # noqa: RUF012


class Strict(Fine):
    options_schema = {"required": ["word"], "properties": {"word": {}}, "additionalProperties": False}  # type: ignore[assignment]  # noqa: RUF012


class Unusable(Fine):
    options_schema = {"$ref": "#/$defs/nothing"}  # type: ignore[assignment]  # noqa: RUF012


FINE = HealthBench(Fine, answer("200 OK", b"fine"), [answer("200 OK", b"ill")])
BY_NAME = {check.__name__: check for check in CHECKS}
MISTAKES = [
    (Pessimist, "a_healthy_pod_is_healthy", "a healthy pod is not"),
    (Truthy, "a_healthy_pod_is_healthy", "a healthy pod is not"),
    (Speechless, "a_healthy_pod_is_healthy", "has no message"),
    (Optimist, "an_unhealthy_pod_is_not", "is healthy"),
    (Undecided, "an_unhealthy_pod_is_not", "returned None, which is no Verdict"),
    (Raises, "an_unhealthy_pod_is_not", "raised KeyError"),
    (OnlyTheBody, "a_wrong_answer_is_unhealthy", "error: "),
    (Optimist, "a_wrong_answer_is_unhealthy", "error: "),
    (Optimist, "nobody_there_is_unhealthy", "where nothing listens is healthy"),
    (Dials, "nobody_there_is_unhealthy", "raised ConnectionRefusedError"),
    (KeepsNothing, "the_raw_answer_is_kept", "'' was kept"),
    (Impatient, "a_slow_pod_is_waited_for", "half a second"),
    (Dials, "a_pod_that_hangs_ends_at_the_deadline", "silence: took"),
    (Optimist, "a_pod_that_hangs_ends_at_the_deadline", "silence: "),
    (Dials, "a_huge_answer_is_not_read_to_its_end", "bytes were fetched"),
    (Dials, "a_cancellation_ends_a_check", "goes on"),
    (Optimist, "a_cancellation_ends_a_check", "calls the pod healthy"),
    (OneAtATime, "pods_are_asked_at_once", "not asked at the same time"),
    (Remembers, "pods_are_asked_at_once", "asked with others"),
    (Follows, "nobody_but_the_pod_is_asked", "another server"),
    (Dials, "a_pod_that_may_not_be_dialled_is_not", "past `target`"),
    (Optimist, "a_pod_that_may_not_be_dialled_is_not", "cannot be asked is healthy"),
    (Sloppy, "options_are_checked", "'no-such-option': 1} are accepted"),
    (Strict, "options_are_checked", "{} are refused"),
    (Unusable, "options_are_checked", "plugin fine cannot be used"),
    (Optimist, "a_deployment_depends_on_it", "DEPLOYED"),
]


@pytest.mark.parametrize("check", [c for c in CHECKS if "deployment" not in c.__name__], ids=lambda c: c.__name__)
def test_the_one_without_a_mistake_passes(check: Check) -> None:
    check(FINE)


@pytest.mark.parametrize(
    ("faulty", "check", "said"), MISTAKES, ids=lambda value: getattr(value, "__name__", None) or str(value)[:40]
)
def test_a_mistake_is_found(faulty: Any, check: str, said: str, cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    where: dict[str, Any] = {"cluster": cluster, "path": tmp_path} if "deployment" in check else {}
    with pytest.raises(AssertionError, match=re.escape(said)):
        BY_NAME[check](dataclasses.replace(FINE, checker=faulty, **where))


def test_each_check_finds_a_mistake() -> None:
    assert {check for _, check, _ in MISTAKES} == set(BY_NAME)


# --- checkers that do not ask in HTTP ------------------------------------------------------------------------------


class Banner(HealthChecker):
    """A server that speaks first, as SMTP's do."""

    name = "banner"
    needs_path = False

    def check(self, target: HealthTarget) -> Verdict:
        try:
            with target.connect() as wire:
                said = wire.recv(100).decode("ascii", "replace")
        except OSError as error:
            return Verdict(False, f"{target.where}: {type(error).__name__}")
        return Verdict(said.startswith("220 "), f"{target.where} greets with {said!r}", said)


class Connects(Banner):
    """Content with somebody who takes connections."""

    def check(self, target: HealthTarget) -> Verdict:
        target.connect().close()
        return Verdict(True, f"{target.where} takes connections")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "bench",
    [
        HealthBench(Banner, b"220 hello\r\n", [b"554 no\r\n"], http=False),
        HealthBench(Connects, b"", [], tolerates=WRONG, http=False),
    ],
    ids=["banner", "connects"],
)
def test_other_protocols(check: Check, bench: HealthBench) -> None:
    check(bench)


# --- checkers that fail themselves --------------------------------------------------------------------------------


class Broken(Simple):
    """Fails in one way, for every pod."""

    def __init__(self, name: str, fail: Callable[[], Any]) -> None:
        self.name = name
        self._fail = fail

    def check(self, target: HealthTarget) -> Verdict:
        return self._fail()  # type: ignore[no-any-return]


def test_a_checker_that_raises_hangs_or_says_nothing_lets_nothing_through(
    cluster: sandbox.Sandbox, tmp_path: Path
) -> None:
    go = threading.Event()
    providers = [
        Broken("raises", lambda: {}["nothing"]),
        Broken("exits", sys.exit),
        Broken("hangs", lambda: go.wait(60)),
        Broken("mute", lambda: None),
        Broken("truthy", lambda: "healthy"),
    ]
    said = {
        "raises": "KeyError",
        "exits": "SystemExit",
        "hangs": "in time",
        "mute": "no verdict",
        "truthy": "no verdict",
    }
    with SandboxedService(cluster, tmp_path, providers=providers, timeout=2.0) as service:

        def deploy(app: str, checker: str) -> str:
            host = f"{app}.{service.namespace}.example.com"
            fields = {**HEALTHY, "healthCheckType": checker, "frontend": host}
            return service.deploy_descriptor(describe(service.namespace, app, **fields))

        first = [deploy(app, "probe") for app in said]
        assert {service.await_status(id).status for id in first} == {Status.DEPLOYED}
        before = service.names()
        second = {app: deploy(app, app) for app in said}
        for app, id in second.items():
            failure = service.await_status(id, Status.FAILURE).failure or {}
            assert (failure["reason"], said[app] in failure["message"]) == ("Unhealthy", True), failure
        go.set()
        service.quiet()
        assert service.names() == before
        for app in said:
            assert service.live_version(app) == "1"
            assert service.answer(f"{app}.{service.namespace}.example.com")[1].startswith("version 1 ")
