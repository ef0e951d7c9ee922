"""The conformance suite on the sandbox, in both modes of the provider `nginx`."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.contract.ingress import IngressProvider
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.ingress import PodAnswers
from deployer.settings import Settings
from deployer.testing.ingress import CHECKS, Bench, open_bench, ownership, repeating, routing, splits

MODES: dict[str, dict[str, Any]] = {
    "versioned": {"revision_header": True},
    "stable-service": {"mode": "stable-service", "version_header": "X-Version", "revision_header": True},
}


def make(table: dict[str, Any]) -> IngressProvider:
    found = load_plugins(Settings(own_namespace="", plugins={"ingress_nginx": table})).ingress()
    assert found is not None
    return found


@pytest.fixture(scope="module", params=MODES)
def bench(request: pytest.FixtureRequest, cluster: sandbox.Sandbox) -> Iterator[Bench]:
    """With a listener that takes connections, as the kernel does, and never answers."""
    # Where nothing can be proven the controller gets time that is enough for a busy machine.
    seconds = 1.0 if request.param == "stable-service" else 0.3
    table = {**MODES[request.param], "minimum_hold": 0.1, "propagation_seconds": seconds}
    asked = {**table, "controller": "ingress-nginx/ingress-nginx-controller"}
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = {**table, "addresses": [f"127.0.0.1:{mute.getsockname()[1]}"]}
        with open_bench(
            f"t-{uuid.uuid4().hex[:12]}",
            provider=lambda: make(asked),
            silent=lambda: make(silent),
            ingress=cluster.ingress.removeprefix("http://"),
            image="sample/web:1",
            kubernetes=cluster.api,
        ) as made:
            yield made


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_provider_conforms(bench: Bench, check: Any) -> None:
    check(bench)


SHORT = [
    routing.switching_back_restores_everything,
    repeating.every_verb_can_be_repeated,
    repeating.a_crash_before_any_write_is_mended_by_going_on,
    repeating.a_crash_before_any_write_is_mended_by_going_back,
    ownership.what_others_add_at_the_same_time_is_kept,
]
"""What could differ when the pods were asked, so that nothing is warmed up."""


@pytest.mark.parametrize("check", SHORT, ids=lambda check: check.__name__)
def test_the_provider_conforms_when_the_pods_were_asked_instead(bench: Bench, check: Any) -> None:
    if bench.provider().stable:
        pytest.skip("a stable route is not prepared")
    check(dataclasses.replace(bench, pods=PodAnswers(frozenset({200}), answered=True)))


def test_the_end_of_a_split_is_awaited_although_the_canary_answers_at_once(tmp_path: Path) -> None:
    """Of a controller that lags behind by 0.7 s."""
    table = {
        **MODES["stable-service"],
        "controller": "ingress-nginx/ingress-nginx-controller",
        "minimum_hold": 0.1,
        "propagation_seconds": 1.5,
    }
    slow = sandbox.start(tmp_path, ingress_delay=0.7, options=("--probe-factor", "0.1"))
    try:
        with open_bench(
            f"t-{uuid.uuid4().hex[:12]}",
            provider=lambda: make(table),
            ingress=slow.ingress.removeprefix("http://"),
            image="sample/web:1",
            kubernetes=slow.api,
        ) as bench:
            splits.a_switch_ends_a_split(bench)
    finally:
        slow.stop()
