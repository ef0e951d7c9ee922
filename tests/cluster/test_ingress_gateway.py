"""The conformance suite, redirects and refusals with a real Gateway, for the provider `gateway`."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

import pytest

from deployer.core.contract.ingress import IngressProvider
from deployer.core.model.kind import HTTP_ROUTE
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.errors import StepFailed
from deployer.sdk.ingress import Backend
from deployer.sdk.plugin import CancelScope
from deployer.settings import Settings
from deployer.testing.ingress import CHECKS, Bench, checks, open_bench
from support import gateway
from support.real import IMAGE

TABLE = {**gateway.TABLE, "minimum_hold": 2.0}
BOTH = {**TABLE, "https_section": "https", "https_addresses": [f"{gateway.ADDRESS}:443"]}


def make(table: dict[str, Any]) -> IngressProvider:
    found = load_plugins(Settings(own_namespace="", ingress="gateway", plugins={"ingress_gateway": table})).ingress()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    gateway.require()
    with open_bench(
        f"t-gateway-{os.getpid()}",
        provider=lambda: make(TABLE),
        silent=lambda: make({**TABLE, "addresses": ["198.51.100.1:80"]}),
        ingress=f"{gateway.ADDRESS}:80",
        image=IMAGE,
        kubeconfig=os.environ["KUBECONFIG"],
        kinds=(HTTP_ROUTE,),
        crashes=1,
    ) as made:
        yield made


# Splits take minutes here, as a controller takes its time for each; test_canary_strategy.py makes those that matter.
HERE = [check for check in CHECKS if check not in checks.SPLIT_CHECKS]


@pytest.mark.parametrize("check", HERE, ids=lambda check: check.__name__)
def test_the_provider_conforms(bench: Bench, check: Any) -> None:
    check(bench)


def ask(host: str, path: str = "/", *, tls: bool = False) -> tuple[int, str, str]:
    """Status, Location and version of one answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = (
        HTTPSConnection(gateway.ADDRESS, 443, timeout=5, context=context)
        if tls
        else HTTPConnection(gateway.ADDRESS, timeout=5)
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Location", ""), answer.headers.get("X-Version", "")


def await_answer(host: str, wanted: tuple[int, str, str], path: str = "/", *, tls: bool = False) -> None:
    end = time.monotonic() + 10
    while (found := ask(host, path, tls=tls)) != wanted:
        assert time.monotonic() < end, f"{host} answers {found} instead of {wanted}"


def test_redirects_of_www_and_of_http(bench: Bench) -> None:
    """Both listeners: the app answers on HTTPS, everything else redirects there; without them nothing does."""
    bench.reset()
    host, provider = bench.fresh_host(), make(BOTH)
    bench.carry_out(provider, bench.route(host, "1", redirect_www=True))
    assert ask(host, tls=True) == (200, "", "1")
    await_answer(host, (301, f"https://{host}/a?b=c", ""), "/a?b=c")
    await_answer(f"www.{host}", (301, f"https://{host}/a?b=c", ""), "/a?b=c")
    await_answer(f"www.{host}", (301, f"https://{host}/", ""), tls=True)
    plain = make({**BOTH, "https_redirect": False})
    bench.carry_out(plain, bench.route(host, "2"))
    assert ask(host, tls=True) == (200, "", "2")
    await_answer(host, (200, "", "2"))
    await_answer(f"www.{host}", (404, "", ""))
    plain.release(bench.context(bench.route(host, "2")))
    assert list(bench.objects()) == ["HTTPRoute shop"]
    bench.reset()


@pytest.mark.parametrize(
    ("table", "reason", "words"),
    [
        (
            {"section": "nope"},
            "RouteRejected",
            "Accepted is False for Gateway infra/edge, listener nope: NoMatchingParent",
        ),
        ({"gateway": "infra/nobody"}, "RouteNotAccepted", "there is no Gateway nobody in namespace infra"),
    ],
)
def test_refusals_are_explained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], reason: str, words: str
) -> None:
    monkeypatch.setattr("deployer.plugins.ingress_gateway.conditions.SILENCE", 2.0)
    bench.reset()
    provider = make({**TABLE, **table})
    context = bench.context(bench.route(bench.fresh_host(), "1"))
    with pytest.raises(StepFailed, match=words) as caught:
        provider.prepare(context)
    assert caught.value.reason == reason
    assert caught.value.hint
    provider.release(context)
    assert bench.objects() == {}


def test_a_service_that_is_missing_is_named(bench: Bench) -> None:
    bench.reset()
    route = bench.route(bench.fresh_host(), "1", backend=Backend("shop-9", 8080))
    with pytest.raises(StepFailed, match=r"ResolvedRefs is False .*BackendNotFound.*shop-9") as caught:
        make(TABLE).prepare(bench.context(route, CancelScope(time.monotonic() + 20)))
    assert caught.value.reason == "RouteRejected"
    bench.reset()
