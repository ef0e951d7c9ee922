"""What the data plane answers is asked once for all who look, and neither a provider nor a cluster that is away holds
up more than a few of them."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deployer.core.errors import KubeForbidden, KubeUnavailable, PluginBusy, StepFailed
from deployer.core.model.plan import ProviderRef
from deployer.core.model.records import Plan
from deployer.core.registry import Entry
from deployer.kube import client as kube_client
from deployer.kube.informer import Informers
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.sdk.ingress import AddressAnswer, RouteAnswers, RouteContext
from deployer.sdk.kube import INGRESS
from deployer.settings import Settings
from deployer.testing.descriptors import plan_of
from deployer.toolkit.dataplane import shared_answers
from deployer.toolkit.dataplane.shared_answers import SharedAnswers

NOBODY = "http://127.0.0.1:1"
"""An API server that is not there."""

NOW = 1_800_000_000.0

ANSWER = AddressAnswer(address="10.0.0.7:80", status=200, deployment="d1")


class Provider:
    """Answers as a test says."""

    options_schema = None

    def __init__(self, answer: Callable[[RouteContext], Any]) -> None:
        self.answer = answer
        self.asked = 0

    def ask_route(self, context: RouteContext) -> Any:
        self.asked += 1
        return self.answer(context)


def plan(app: str = "shop") -> Plan:
    made = plan_of("1", frontend="shop.example.com")
    assert made.route is not None
    route, provider = dataclasses.replace(made.route, app=app), ProviderRef("fake", "tests:fake", "1")
    return dataclasses.replace(made, app=app, deployment=f"d-{app}", route=route, ingress=provider)


@pytest.fixture
def shared() -> Iterator[Callable[..., SharedAnswers]]:
    settings = Settings(own_namespace="", kubernetes=NOBODY)
    registry = load_plugins(settings, entry_points=[])
    client = kube_client.connect(settings)
    informers = Informers(client)

    def make(provider: Any = None, redactor: Redactor | None = None) -> SharedAnswers:
        providers: Any = {} if provider is None else {"fake": Entry(provider, "tests", "1", "fake")}
        known = dataclasses.replace(registry, ingress_providers=providers)
        return SharedAnswers(client, informers, known, redactor or Redactor(), instance="deployer", clock=lambda: NOW)

    yield make
    informers.close()
    client.close()


def test_all_who_ask_at_the_same_time_or_a_moment_later_get_the_same_answers(shared, monkeypatch):
    go, inside = threading.Event(), threading.Event()

    def answer(_context: RouteContext) -> RouteAnswers:
        inside.set()
        go.wait(10)
        return RouteAnswers([ANSWER])

    provider = Provider(answer)
    asker = shared(provider)
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(asker.ask, plan()) for _ in range(6)]
        assert inside.wait(10)
        go.set()
        told = [one.result(10) for one in waiting]
    assert provider.asked == 1 and all(one == told[0] for one in told)
    assert told[0][0] == NOW and told[0][1].addresses == [ANSWER]
    asker.ask(plan())
    assert provider.asked == 1
    asker.ask(plan("other"))
    assert provider.asked == 2
    monkeypatch.setattr(shared_answers, "FRESH", 0.0)
    asker.ask(plan())
    assert provider.asked == 3


def test_a_provider_that_hangs_holds_up_neither_its_callers_for_long_nor_other_apps(shared, monkeypatch):
    monkeypatch.setattr(shared_answers, "PATIENCE", 0.2)
    monkeypatch.setattr(shared_answers, "LATE", 0.1)
    monkeypatch.setattr(shared_answers, "AT_ONCE", 2)
    go = threading.Event()
    provider = Provider(lambda context: go.wait(20) if context.route.app == "shop" else RouteAnswers([ANSWER]))
    asker = shared(provider)
    try:
        for _ in range(2):  # the second finds it hanging still, and asks nothing
            with pytest.raises(PluginBusy, match=r"fake did not come back from ask_route\(\) within 0\.2 s"):
                asker.ask(plan())
        assert provider.asked == 1
        assert asker.ask(plan("other"))[1].addresses == [ANSWER]
        monkeypatch.setattr(shared_answers, "AT_ONCE", 1)
        with pytest.raises(PluginBusy, match="asked about 1 other apps"):
            asker.ask(plan("third"))
    finally:
        go.set()


def test_only_so_many_requests_wait(shared, monkeypatch):
    go, inside = threading.Event(), threading.Event()

    def answer(_context: RouteContext) -> RouteAnswers:
        inside.set()
        go.wait(10)
        return RouteAnswers()

    monkeypatch.setattr(shared_answers, "SOON", 0.0)
    monkeypatch.setattr(shared_answers, "PATIENT", 1)
    asker = shared(Provider(answer))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(asker.ask, plan())
        assert inside.wait(10)
        deadline = time.monotonic() + 10
        while asker._patient._value and time.monotonic() < deadline:  # until the first one waits
            threading.Event().wait(0.01)
        with pytest.raises(PluginBusy, match="too many requests wait for the data plane; try again"):
            asker.ask(plan())
        go.set()
        assert first.result(10)[1] == RouteAnswers([], 0, "")


def test_a_cluster_that_is_away_is_a_sentence_of_its_own(shared, monkeypatch):
    monkeypatch.setattr(shared_answers, "PATIENCE", 0.5)
    asker = shared(Provider(lambda context: context.kube.list(INGRESS)))
    with pytest.raises(KubeUnavailable, match=r"^the data plane cannot be asked: .*127\.0\.0\.1:1"):
        asker.ask(plan())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KubeForbidden("no right to list endpointslices in namespace edge"), "no right to list endpointslices"),
        (StepFailed("the controller is not configured"), "the controller is not configured"),
        (ValueError("s3cret"), "ingress provider fake raised ValueError in ask_route(); the service's log has the"),
        (SystemExit(3), "ingress provider fake raised SystemExit in ask_route(); the service's log has the details"),
    ],
    ids=["right", "words", "mistake", "exit"],
)
def test_what_a_provider_raises_is_why_there_are_no_answers(shared, error, said):
    def answer(_context: RouteContext) -> RouteAnswers:
        raise error

    _, found = shared(Provider(answer)).ask(plan())
    assert found.addresses == [] and found.unknown.startswith(said) and "s3cret" not in found.unknown


def test_a_provider_that_is_gone_or_tells_nothing_or_nonsense(shared):
    wrong = "ask_route() of ingress provider fake gave something that is no RouteAnswers"
    said: list[tuple[Any, str]] = [
        (None, "ingress provider fake does not tell which address answers with what"),
        ("nonsense", wrong),
        (RouteAnswers(["10.0.0.7"]), wrong),  # type: ignore[list-item]
        (RouteAnswers([dataclasses.replace(ANSWER, seconds="soon")]), wrong),  # type: ignore[arg-type]
        (RouteAnswers([dataclasses.replace(ANSWER, deployment=None)]), wrong),  # type: ignore[arg-type]
    ]
    for answer, why in said:
        assert shared(Provider(lambda _, answer=answer: answer)).ask(plan())[1] == RouteAnswers([], 0, why)
    assert shared().ask(plan())[1].unknown.startswith("there is no ingress provider 'fake'")


def test_whoever_looks_cannot_write(shared):
    """Refused before anything is sent: nobody is there to refuse it."""
    asker = shared(Provider(lambda context: context.kube.create(INGRESS, {"metadata": {"name": "x"}})))
    assert asker.ask(plan())[1].unknown == "the ingress provider wants to write in ask_route(), which may only read"


def test_no_secret_of_the_deployment_and_no_flood_is_told(shared, caplog):
    redactor = Redactor()
    redactor.find = lambda _: ["hunter2-hunter2"]
    reason = "the answer was hunter2-hunter2 " + "x" * 1000
    many = RouteAnswers([dataclasses.replace(ANSWER, unknown=reason)] * 40, left_out=1)
    _, found = shared(Provider(lambda _: many), redactor).ask(plan())
    assert (len(found.addresses), found.left_out) == (32, 9)
    assert found.addresses[0].unknown.startswith("the answer was *** xxx") and len(found.addresses[0].unknown) <= 500
    with caplog.at_level(logging.ERROR):
        shared(Provider(lambda _: 1 / 0), redactor).ask(plan())
    assert "ask_route() of ingress provider fake failed" in caplog.text
