"""What listeners of a real Gateway refuse: hosts that they do not cover, routes of namespaces that they do not take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from deployer.core.contract.ingress import IngressProvider
from deployer.core.model.kind import HTTP_ROUTE
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.errors import StepFailed
from deployer.settings import Settings
from deployer.testing.ingress import Bench, open_bench
from support import gateway
from support.real import IMAGE

LISTENERS = [
    {"name": "elsewhere", "hostname": "*.elsewhere.example", "allowedRoutes": {"namespaces": {"from": "All"}}},
    {
        "name": "closed",
        "hostname": "*.example.com",
        "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "of-nobody"}}}},
    },
]


def make(**table: Any) -> IngressProvider:
    found = load_plugins(Settings(own_namespace="", ingress="gateway", plugins={"ingress_gateway": table})).ingress()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Its namespace has a Gateway of the class that the tests' Gateway has."""
    gateway.require()
    with open_bench(
        f"t-listeners-{os.getpid()}",
        provider=lambda: make(**gateway.TABLE),
        ingress=f"{gateway.ADDRESS}:80",
        image=IMAGE,
        kubeconfig=os.environ["KUBECONFIG"],
        kinds=(HTTP_ROUTE,),
    ) as made:
        namespace, _, name = gateway.NAME.partition("/")
        class_ = made.client.get(gateway.KIND, name, namespace)["spec"]["gatewayClassName"]
        listeners = [{"port": 80, "protocol": "HTTP", **listener} for listener in LISTENERS]
        body = {"metadata": {"name": "narrow"}, "spec": {"gatewayClassName": class_, "listeners": listeners}}
        made.client.create(
            gateway.KIND, {"apiVersion": gateway.KIND.api_version, "kind": "Gateway", **body}, made.namespace
        )
        yield made


@pytest.mark.parametrize(
    ("section", "words", "hint"),
    [
        ("elsewhere", "listener elsewhere: NoMatchingListenerHostname", "hostname cover"),
        ("closed", "listener closed: NotAllowedByListeners", "allowedRoutes"),
    ],
)
def test_the_listener_refuses_in_words(bench: Bench, section: str, words: str, hint: str) -> None:
    bench.reset()
    provider = make(**{**gateway.TABLE, "gateway": f"{bench.namespace}/narrow", "section": section})
    context = bench.context(bench.route(bench.fresh_host(), "1"))
    with pytest.raises(StepFailed, match=f"Accepted is False .*{words}") as caught:
        provider.prepare(context)
    assert (caught.value.reason, hint in caught.value.hint) == ("RouteRejected", True), caught.value.hint
    provider.release(context)
    assert bench.objects() == {}
