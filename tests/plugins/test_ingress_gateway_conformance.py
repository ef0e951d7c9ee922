"""The conformance suite on the sandbox, with the provider `gateway`."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.contract.ingress import IngressProvider
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.ingress import PodAnswers
from deployer.settings import Settings
from deployer.testing.ingress import CHECKS, Bench, open_bench, ownership, repeating, routing

TABLE = {"gateway": "infra/edge", "section": "http", "minimum_hold": 0.1}


def make(**table: Any) -> IngressProvider:
    plugins = {"ingress_gateway": {**TABLE, **table}}
    found = load_plugins(Settings(own_namespace="", ingress="gateway", plugins=plugins)).ingress()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bench(cluster: sandbox.Sandbox) -> Iterator[Bench]:
    """With a listener that takes connections, as the kernel does, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"127.0.0.1:{mute.getsockname()[1]}"
        with open_bench(
            f"t-{uuid.uuid4().hex[:12]}",
            provider=lambda: make(controller="ingress-nginx/ingress-nginx-controller"),
            silent=lambda: make(addresses=[silent]),
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
    check(dataclasses.replace(bench, pods=PodAnswers(frozenset({200}), answered=True)))
