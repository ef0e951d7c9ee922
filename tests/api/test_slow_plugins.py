"""Providers that hang while clients wait for an answer: the others are answered, and the plugin is named."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.commands import provider_calls
from deployer.core.contract.strategy import Strategy
from deployer.core.errors import Problem
from deployer.core.model.records import Document
from deployer.core.registry import Entry, Registry

NS = "shop-ns"
PATH = f"/descriptors/?namespace={NS}"


class Slow(Strategy):
    """Hangs in `check_descriptor` for apps that are named so, until a test lets it go."""

    name = "slow"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = threading.Semaphore(0)

    def deploy_steps(self, plan: Any) -> Any:
        return []

    def check_descriptor(self, descriptor: Document) -> list[Problem]:
        if descriptor["appName"] == "hang":
            self.inside.release()
            self.go.wait(30)
        return []

    def remarks(self, descriptor: Document) -> list[Problem]:
        if descriptor["appName"] == "broken":
            raise TimeoutError("secret-value")
        return []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr(provider_calls, "DEADLINE", 60.0)
    found = Slow()
    yield found
    found.go.set()


@pytest.fixture
def registry(registry: Registry, slow: Slow) -> Registry:
    entry = Entry(slow, "acme-slow", "1.2", "slow")
    return dataclasses.replace(registry, strategies={**registry.strategies, "slow": entry})


@pytest.fixture
def hang(served: Any, make_document: Callable[..., Document]) -> Callable[[], Any]:
    return lambda: served.call("POST", PATH, make_document("hang", deploymentType="slow"))


def test_sixteen_that_hang_leave_a_thread_for_the_others(
    served: Any, slow: Slow, hang: Any, run: Any, make_document: Any
) -> None:
    requests = [run(hang) for _ in range(16)]
    for _ in range(16):
        assert slow.inside.acquire(timeout=20)
    # All of them hang still: nothing but a free thread can answer this.
    assert served.call("GET", "/healthz").status == 200
    assert served.call("POST", PATH, make_document()).status == 201
    assert not slow.go.is_set()
    refused = hang()  # the calls that were left behind count
    assert refused.status == 503
    assert refused.headers["Retry-After"]
    assert refused.problem["detail"] == (
        "strategy slow of acme-slow 1.2 does not answer: 16 calls hang in it; restart the service without it"
    )
    slow.go.set()
    answers = sorted(request.get(timeout=20).status for request in requests)
    assert answers.count(201) >= provider_calls.PATIENT  # and those that had only begun to wait
    assert set(answers) == {201, 503}
    # It answers again as soon as it does.
    assert hang().status == 201


def test_one_that_takes_too_long_is_named(served: Any, slow: Slow, hang: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_calls, "DEADLINE", 0.1)
    answer = hang()
    assert answer.status == 503
    assert answer.problem["detail"] == (
        "strategy slow of acme-slow 1.2 did not look at the descriptor within 0.1 s; try again later"
    )
    assert json.loads(served.call("GET", PATH).body) == []
    slow.go.set()


def test_one_that_raises_is_named_with_its_method(served: Any, make_document: Any) -> None:
    answer = served.call(
        "POST", f"/descriptors/validate?namespace={NS}", make_document("broken", deploymentType="slow")
    )
    assert answer.status == 500
    assert answer.problem["detail"] == (
        "strategy slow of acme-slow 1.2 raised TimeoutError in remarks(); the service's log has the details"
    )
