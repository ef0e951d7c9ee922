"""Tests of the provider `gateway`: what is rendered, what is refused, and what the controller's words become."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.kind import HTTP_ROUTE, SERVICE
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.ingress_gateway import conditions, render
from deployer.plugins.ingress_gateway.provider import Gateway
from deployer.sdk.errors import ForeignObject, SettingsError, StepFailed
from deployer.sdk.ingress import Backend, Preview, Route
from deployer.sdk.plugin import CancelScope
from deployer.settings import Settings
from deployer.testing.ingress import Bench, open_bench

GOLDEN = Path(__file__).parent / "golden"
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SANDBOX = {
    "gateway": "infra/edge",
    "section": "http",
    "controller": "ingress-nginx/ingress-nginx-controller",
    "minimum_hold": 0.1,
}

PLAIN = Route(
    namespace="web", app="shop", host="shop.example.com", version="1", deployment=ONE, backend=Backend("shop-1", 80)
)
FULL = dataclasses.replace(
    PLAIN,
    version="2",
    deployment=TWO,
    backend=Backend("shop-2", 8080),
    previous=Backend("shop-1", 80),
    redirect_www=True,
    headers=(("X-Frame-Options", "DENY"), ("Content-Security-Policy", "default-src 'self'; img-src *; x=\"$\\\"")),
    preview=Preview("shop-preview.example.com", "0123456789abcdef"),
)
LOOK = render.RenderConfig("infra/edge", "http", "https", revision_header="X-Deployer-Revision")


def gateway(**table: Any) -> Gateway:
    """The provider as the service gets it, with this table of settings."""
    plugins = {"ingress_gateway": {"gateway": "infra/edge", **table}}
    found = load_plugins(Settings(own_namespace="", ingress="gateway", plugins=plugins)).ingress()
    assert isinstance(found, Gateway)
    return found


# --- what is rendered ---------------------------------------------------------------------------------------------


def test_rendered_objects_equal_the_golden_file() -> None:
    during = [
        render.preview_rule(FULL, LOOK),
        render.public_rule(PLAIN, LOOK, [PLAIN.backend, Backend("shop-2", 8080, 0)]),
    ]
    after = [render.public_rule(FULL, LOOK, [FULL.backend])]
    bare = render.RenderConfig("infra/edge")
    objects = [
        render.edit(None, FULL, hosts=[FULL.host], parents=LOOK.serving, rules=during),
        render.edit(None, FULL, hosts=[FULL.host], parents=LOOK.serving, rules=after),
        render.preview(FULL, LOOK),
        render.redirect(None, FULL, LOOK, render.ROLE_WWW),
        render.redirect(None, FULL, LOOK, render.ROLE_HTTPS),
        render.edit(
            None,
            PLAIN,
            hosts=[PLAIN.host],
            parents=bare.serving,
            rules=[render.public_rule(PLAIN, bare, [PLAIN.backend])],
        ),
        render.redirect(None, FULL, bare, render.ROLE_WWW),
    ]
    assert objects == json.loads((GOLDEN / "ingress_gateway.json").read_text())


def test_the_value_of_the_preview_header_says_nothing_and_differs_each_time() -> None:
    tokens = {
        render.token(route) for route in (FULL, PLAIN, dataclasses.replace(FULL, preview=Preview(token="another")))
    }
    assert len(tokens) == 3
    assert all(len(token) == 32 and TWO not in token for token in tokens)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["useCompression", "useStickySessions"])
def test_what_the_api_lacks_is_refused_and_the_provider_that_can_is_named(field: str) -> None:
    (problem,) = gateway().check_descriptor({"frontend": "a.example", field: True})
    assert (problem.path, "provider nginx" in problem.message) == (field, True)
    assert gateway().check_descriptor({"frontend": "a.example", field: False}) == []


@pytest.mark.parametrize("value", ["a\nb", "a\r\nB: c", "a\0b", "ü", "", "x" * 5000])
def test_header_values_that_the_api_refuses_are_refused(value: str) -> None:
    problems = gateway().check_descriptor({"additionHttpHeaders": [{"Header": "X-Bad", "Value": value}]})
    assert [p.path for p in problems] == ["additionHttpHeaders[0].Value"]
    with pytest.raises(ValueError, match="cannot be rendered"):
        render.preview_rule(dataclasses.replace(PLAIN, headers=(("X-Bad", value),)), LOOK)


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\nY", "Ü", "X" * 300, "x-deployer-revision"])
def test_header_names_that_cannot_be_are_refused(name: str) -> None:
    problems = gateway().check_descriptor({"additionHttpHeaders": [{"Header": name, "Value": "1"}]})
    assert [p.path for p in problems] == ["additionHttpHeaders[0].Header"]


def test_more_headers_than_a_filter_takes_are_refused() -> None:
    headers = [{"Header": f"X-{n}", "Value": "1"} for n in range(16)]
    assert [p.path for p in gateway().check_descriptor({"additionHttpHeaders": headers})] == ["additionHttpHeaders"]
    assert gateway().check_descriptor({"additionHttpHeaders": headers[:15]}) == []
    assert gateway(revision_header=False).check_descriptor({"additionHttpHeaders": headers}) == []


def test_a_secret_for_tls_is_remarked_upon() -> None:
    (remark,) = gateway().remarks({"tlsSecretName": "shop-tls"})
    assert (remark.path, "Gateway infra/edge" in remark.message) == ("tlsSecretName", True)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"gateway": ""}, "gateway"),
        ({"gateway": "edge"}, "gateway"),
        ({"section": "a b"}, "section"),
        ({"https_section": "https"}, "name the listener for HTTP"),
        ({"section": "http", "https_section": "https", "addresses": ["10.0.0.7:80"]}, "https_addresses"),
        ({"addresses": ["example.com:80"]}, "addresses"),
        ({"addresses": ["127.0.0.1:80"], "controller": "a/b"}, "exclude each other"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_wrong_settings_stop_the_service(table: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=r"\[plugins\.ingress_gateway\].*" + words):
        gateway(**table)


def test_no_table_is_needed_for_who_does_not_choose_it() -> None:
    assert load_plugins(Settings(own_namespace="")).entry("ingress", "gateway").provider.name == "gateway"
    with pytest.raises(SettingsError, match="name the Gateway"):
        load_plugins(Settings(own_namespace="", ingress="gateway"))


# --- on the sandbox -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(cluster: sandbox.Sandbox) -> Iterator[Bench]:
    with open_bench(
        f"t-{uuid.uuid4().hex[:12]}",
        provider=lambda: gateway(**SANDBOX),
        ingress=cluster.ingress.removeprefix("http://"),
        image="sample/web:1",
        kubernetes=cluster.api,
        kinds=(HTTP_ROUTE,),
    ) as made:
        yield made
        made.reset()


def main(bench: Bench) -> dict[str, Any]:
    return bench.client.get(HTTP_ROUTE, "shop", bench.namespace)


def weights(bench: Bench) -> dict[str, int]:
    return {b.service: b.weight for b in render.backends_of(render.public_rule_of(main(bench)))}


def test_a_switch_is_one_replace_that_swaps_weights_and_revision(bench: Bench) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    bench.carry_out(provider, bench.route(host, "1"))
    provider.release(bench.context(bench.route(host, "1")))
    assert (weights(bench), len(render.rules_of(main(bench)))) == ({"shop-1": 1}, 1)
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    assert weights(bench) == {"shop-1": 1, "shop-2": 0}
    preview, public = render.rules_of(main(bench))
    assert [render.is_preview(preview), render.is_preview(public)] == [True, False]
    bench.require_version(host, "1")
    generation = main(bench)["metadata"]["generation"]
    provider.switch(context)
    assert main(bench)["metadata"]["generation"] == generation + 1
    assert weights(bench) == {"shop-1": 0, "shop-2": 1}
    provider.confirm(context)
    bench.require_version(host, "2")
    provider.release(context)
    assert (weights(bench), len(render.rules_of(main(bench)))) == ({"shop-2": 1}, 1)


def test_a_switch_under_load_loses_nothing(bench: Bench, cluster: sandbox.Sandbox) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    bench.carry_out(provider, bench.route(host, "1"))
    load_ = sandbox.Load(cluster.ingress, host=host, rate=100)
    load_.start()
    bench.carry_out(provider, bench.route(host, "2"))
    report = load_.stop()
    assert (report.failed, set(report.by_version)) == (0, {"1", "2"})


def test_a_frontend_that_changes_is_prepared_beside_the_old_one_and_taken_back(bench: Bench) -> None:
    bench.reset()
    old, new, provider = bench.fresh_host(), bench.fresh_host(), bench.provider()
    bench.carry_out(provider, bench.route(old, "1"))
    provider.release(bench.context(bench.route(old, "1")))
    context = bench.context(bench.route(new, "2"))
    provider.prepare(context)
    assert main(bench)["spec"]["hostnames"] == [old, new]
    provider.release(context)
    assert main(bench)["spec"]["hostnames"] == [old]
    provider.prepare(context)
    provider.switch(context)
    assert main(bench)["spec"]["hostnames"] == [new]


def test_an_earlier_release_leaves_what_a_later_deployment_needs(bench: Bench) -> None:
    """The retirement of the version before may come late, when the next deployment has begun."""
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    first = bench.route(host, "1")
    bench.carry_out(provider, first)
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    provider.release(bench.context(first))
    assert weights(bench) == {"shop-1": 1, "shop-2": 0}
    assert len(render.rules_of(main(bench))) == 2
    provider.switch(context)
    provider.release(bench.context(first))
    assert weights(bench) == {"shop-1": 0, "shop-2": 1}  # the hold on the old version is the later one's


def test_a_route_that_somebody_edited_mid_way_is_not_overwritten(bench: Bench) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    bench.carry_out(provider, bench.route(host, "1"))
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    public = copy.deepcopy(render.public_rule_of(main(bench)))

    def lead_elsewhere(found: dict[str, Any]) -> None:
        rule = render.public_rule_of(found)
        assert rule is not None
        rule["backendRefs"][0]["name"] = "shop-other"

    def add(found: dict[str, Any]) -> None:
        found["spec"]["rules"][-1] = public
        path = {"type": "PathPrefix", "value": "/api"}
        found["spec"]["rules"].append({**copy.deepcopy(public or {}), "matches": [{"path": path}]})

    for edit, words in ((lead_elsewhere, "leads to shop-other"), (add, "has 2 rules instead of one")):
        bench.edit(HTTP_ROUTE, "shop", edit)
        before = main(bench)["spec"]
        with pytest.raises(StepFailed, match=f"HTTPRoute shop {words}") as caught:
            provider.switch(context)
        assert caught.value.reason == "ObjectChanged"
        assert main(bench)["spec"] == before


def test_www_redirects_and_is_left_out_when_somebody_has_it(bench: Bench) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    bench.carry_out(provider, bench.route(host, "1", redirect_www=True))
    bench.await_answer(f"www.{host}", lambda answer: answer == "HTTP 301")
    bench.carry_out(provider, bench.route(host, "2"))
    assert set(bench.objects()) == {"HTTPRoute shop"}
    bench.await_answer(f"www.{host}", lambda answer: answer == "HTTP 404")
    theirs = render.edit(
        None,
        bench.route(host, "1", app="theirs"),
        hosts=[f"www.{host}"],
        parents=render.RenderConfig("infra/edge").serving,
        rules=[{"backendRefs": [{"name": "shop-1", "port": 8080}]}],
    )
    bench.client.create(HTTP_ROUTE, theirs, bench.namespace)
    bench.carry_out(provider, bench.route(host, "2", redirect_www=True))
    assert set(bench.objects()) == {"HTTPRoute shop", "HTTPRoute theirs"}
    assert (
        f"redirectWww is left out: HTTPRoute theirs in namespace {bench.namespace} has the host www.{host}"
        in bench.said
    )


def test_a_foreign_redirect_is_not_touched(bench: Bench) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    theirs = render.redirect(None, bench.route(bench.fresh_host(), "1"), LOOK, render.ROLE_WWW)
    bench.client.create(HTTP_ROUTE, theirs, bench.namespace)
    before = bench.objects()
    with pytest.raises(ForeignObject, match="HTTPRoute shop-www-redirect"):
        bench.carry_out(provider, bench.route(host, "1", redirect_www=True))
    provider.remove(bench.context(bench.route(host, "1")))
    assert bench.objects() == before


@pytest.mark.parametrize("asked", ["sticky", "compression"])
def test_what_would_be_lost_silently_fails_a_deployment_of_an_older_descriptor(bench: Bench, asked: str) -> None:
    bench.reset()
    with pytest.raises(StepFailed, match="provider nginx") as caught:
        bench.provider().prepare(bench.context(bench.route(bench.fresh_host(), "1", **{asked: True})))
    assert (caught.value.reason, bench.objects()) == ("NotSupported", {})


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
def test_refusals_are_explained_word_by_word(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], reason: str, words: str
) -> None:
    monkeypatch.setattr(conditions, "SILENCE", 0.5)
    monkeypatch.setattr(conditions, "PATIENCE", 0.2)
    bench.reset()
    provider = gateway(**{**SANDBOX, **table})
    context = bench.context(bench.route(bench.fresh_host(), "1"))
    with pytest.raises(StepFailed, match=words) as caught:
        provider.prepare(context)
    assert (caught.value.reason, bool(caught.value.hint)) == (reason, True)
    provider.release(context)
    assert bench.objects() == {}


def test_a_service_that_goes_is_named_and_one_that_comes_late_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    late = bench.client.get(SERVICE, "shop-2", bench.namespace)
    bench.delete(SERVICE, "shop-2")
    try:
        monkeypatch.setattr(conditions, "PATIENCE", 0.2)
        with pytest.raises(StepFailed, match=r"ResolvedRefs is False .*BackendNotFound.*shop-2") as caught:
            provider.prepare(bench.context(bench.route(host, "2", previous=None)))
        assert caught.value.reason == "RouteRejected"
    finally:
        spec = {"selector": late["spec"]["selector"], "ports": late["spec"]["ports"]}
        bench.client.create(
            SERVICE,
            {"metadata": {"name": "shop-2", "labels": late["metadata"]["labels"]}, "spec": spec},
            bench.namespace,
        )
    provider.prepare(bench.context(bench.route(host, "2", previous=None)))


def test_a_cluster_without_the_api_is_named(tmp_path: Path) -> None:
    bare = sandbox.start(tmp_path, options=("--no-gateway-api",))
    try:
        with open_bench(
            "web",
            provider=lambda: gateway(**SANDBOX),
            ingress=bare.ingress.removeprefix("http://"),
            image="sample/web:1",
            kubernetes=bare.api,
        ) as bench:
            provider, context = (
                bench.provider(),
                bench.context(bench.route("a.example", "1"), CancelScope(time.monotonic() + 10)),
            )
            provider.fence(context)
            assert provider.state(context) is None
            with pytest.raises(StepFailed, match="does not know HTTPRoutes") as caught:
                provider.prepare(context)
            assert (caught.value.reason, "CRDs" in caught.value.hint) == ("NoGatewayAPI", True)
            provider.release(context)
            provider.remove(context)
    finally:
        bare.stop()
