"""Tests of the provider `nginx`: what is rendered, and every verb on the sandbox with a real proxy and real pods."""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.descriptor.schema_errors import schema_problems
from deployer.plugins.ingress_nginx import render
from deployer.plugins.ingress_nginx.refusals import Watched
from deployer.sdk.errors import Cancelled, Fenced, ForeignObject, SettingsError, StepFailed
from deployer.sdk.ingress import REVISION_HEADER, Backend, Preview, Route
from deployer.sdk.kube import CONFIG_MAP, INGRESS
from deployer.sdk.plugin import CancelScope
from deployer.testing.ingress.bench import Exhausted
from deployer.toolkit.host_ownership import require_free
from support.nginx import ONE, SANDBOX, TWO, Site, nginx

GOLDEN = Path(__file__).parent / "golden"

PLAIN = Route(
    namespace="web", app="shop", host="shop.example.com", version="1", deployment=ONE, backend=Backend("shop-1", 80)
)
FULL = dataclasses.replace(
    PLAIN,
    version="2",
    deployment=TWO,
    backend=Backend("shop-2", 8080),
    previous=Backend("shop-1", 80),
    tls_secret="shop-tls",
    redirect_www=True,
    sticky=True,
    compression=True,
    headers=(("X-Frame-Options", "DENY"), ("Content-Security-Policy", "default-src 'self'; img-src *")),
)

STABLE = dataclasses.replace(
    FULL,
    stable=True,
    preview=Preview("shop-preview.example.com", "0123456789abcdef", "/health", "preview-tls"),
    options={
        "previewCheck": "/health",
        "backend-protocol": "HTTPS",
        "proxy-body-size": "8m",
        "proxy-buffering": False,
        "proxy-read-timeout": 120,
        "enable-cors": True,
        "whitelist-source-range": "10.0.0.0/8, 2001:db8::/32",
    },
)


# --- what is rendered ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "route", "look", "redirect"),
    [
        ("stable", STABLE, render.RenderConfig(revision_header="X-Revision"), False),
        ("plain", PLAIN, render.RenderConfig(), False),
        ("full", FULL, render.RenderConfig(ingress_class="edge", revision_header=REVISION_HEADER), True),
    ],
)
def test_rendered_objects_equal_the_golden_file(name, route, look, redirect):
    config_map = render.headers_config_map(route, look, stable=route.stable)
    objects = [render.main(None, route, look, redirect_www=redirect), config_map]
    if route.previous:
        objects += [render.warm_up(route, look), render.main(live(route, look), route, look, redirect_www=redirect)]
    assert [o for o in objects if o] == json.loads((GOLDEN / f"ingress_nginx_{name}.json").read_text())


def test_only_our_fields_of_an_ingress_change():
    found = render.main(None, FULL, render.RenderConfig(revision_header=REVISION_HEADER), redirect_www=True)
    found["metadata"] |= {"uid": "u", "labels": {"team": "a"}}
    theirs = {"cert-manager.io/issuer": "x", render.PREFIX + "proxy-body-size": "8m"}
    found["metadata"]["annotations"] |= theirs
    changed = render.main(found, PLAIN, render.RenderConfig(), redirect_www=False)
    assert changed["metadata"]["annotations"] == {
        "cert-manager.io/issuer": "x",
        render.PREFIX + "proxy-body-size": "8m",
    }
    assert (changed["metadata"]["uid"], changed["metadata"]["labels"]) == ("u", {"team": "a"})
    assert changed["spec"] == render.main(None, PLAIN, render.RenderConfig(), redirect_www=False)["spec"]


def test_the_config_map_of_headers_is_named_after_its_contents():
    look = render.RenderConfig(revision_header=REVISION_HEADER)
    names = [
        render.headers_config_map(route, look)["metadata"]["name"]
        for route in (FULL, PLAIN, dataclasses.replace(FULL, headers=(("X-Frame-Options", "SAMEORIGIN"),)))
    ]
    assert len(set(names)) == 3
    assert render.headers_config_map(FULL, look)["metadata"]["name"] == names[0]
    assert render.headers_config_map(PLAIN, render.RenderConfig()) is None


def live(route: Route, look: render.RenderConfig) -> dict[str, Any]:
    """The app's Ingress while the version before is live."""
    before = dataclasses.replace(
        route, version="1", deployment=ONE, backend=route.previous, previous=None, stable=False
    )
    return render.main(None, before, look, redirect_www=False)


def test_helpers_cannot_have_the_name_of_an_app():
    made = render.warm_up(dataclasses.replace(FULL, app="a" * 63), render.RenderConfig())
    assert "." in made["metadata"]["name"]
    assert len(made["metadata"]["name"]) < 253
    for role in (render.ROLE_WARM_UP, render.ROLE_HOLD):
        host = render.private_host(FULL, role)
        assert all(len(label) < 64 for label in host.split("."))
        assert TWO not in host


def test_the_edit_that_moves_the_host_holds_on_to_what_was_there_until_it_is_released():
    look = render.RenderConfig()
    second = render.main(live(FULL, look), FULL, look, redirect_www=False)
    assert render.backends_of(second) == (FULL.backend,)
    assert render.held_services(second) == {"shop-1"}
    assert render.main(copy.deepcopy(second), FULL, look, redirect_www=False) == second
    assert render.strange(second) == ""
    third = dataclasses.replace(FULL, version="3", deployment=ONE, backend=Backend("shop-3", 80), previous=FULL.backend)
    after = render.main(copy.deepcopy(second), third, look, redirect_www=False)
    assert (render.backends_of(after), render.held_services(after)) == ((third.backend,), {"shop-1", "shop-2"})
    assert render.held_services(render.released(copy.deepcopy(after), FULL, ())) == {"shop-2"}
    assert render.held_services(render.released(copy.deepcopy(after), FULL, {"shop-2"})) == set()
    back = dataclasses.replace(PLAIN, host=FULL.host, previous=FULL.backend)
    returned = render.main(copy.deepcopy(second), back, look, redirect_www=False)
    assert (render.backends_of(returned), render.held_services(returned)) == ((back.backend,), {"shop-2"})


# --- hostile input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ['a"b', "a\\b", "a$b", '"; } server { return 200;', "a\nb", "a\r\nB: c", "a\0b", "ü", ""]
)
def test_header_values_that_could_leave_their_quotes_are_refused(value):
    descriptor = {"additionHttpHeaders": [{"Header": "X-Ok", "Value": "1"}, {"Header": "X-Bad", "Value": value}]}
    assert [p.path for p in nginx().check_descriptor(descriptor)] == ["additionHttpHeaders[1].Value"]
    with pytest.raises(ValueError, match="cannot be rendered"):
        render.headers_config_map(dataclasses.replace(PLAIN, headers=(("X-Bad", value),)), render.RenderConfig())


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\nY", "X.Y", "X'Y", "X$Y", "X`Y", "Ü", "X" * 200])
def test_header_names_that_the_controller_refuses_are_refused(name):
    problems = nginx().check_descriptor({"additionHttpHeaders": [{"Header": name, "Value": "1"}]})
    assert [p.path for p in problems] == ["additionHttpHeaders[0].Header"]


def test_semicolons_and_braces_stay_within_the_quotes():
    headers = [{"Header": "Content-Security-Policy", "Value": "default-src 'self'; report-uri /x{y}#z"}]
    assert nginx().check_descriptor({"additionHttpHeaders": headers}) == []


def test_headers_that_the_controller_does_not_allow():
    provider = nginx(allowed_headers=["X-Frame-Options"], revision_header=True)
    headers = [{"Header": h, "Value": "1"} for h in ("x-frame-options", "X-Other", "x-deployer-revision")]
    problems = provider.check_descriptor({"additionHttpHeaders": headers})
    assert [p.path for p in problems] == ["additionHttpHeaders[1].Header", "additionHttpHeaders[2].Header"]
    assert "allowed: X-Frame-Options" in problems[0].message


def test_compression_is_no_reason_to_refuse():
    assert nginx().check_descriptor({"useCompression": True}) == []


@pytest.mark.parametrize(
    "table",
    [
        {"ingress_class": "a b"},
        {"controller": "nowhere"},
        {"addresses": ["example.com:80"]},
        {"addresses": ["127.0.0.1"]},
        {"addresses": ["127.0.0.1:0"]},
        {"addresses": ["127.0.0.1:80"], "controller": "a/b"},
        {"confirmations": 0},
        {"mode": "canary"},
        {"version_header": "X Y"},
        {"revision_header": "X:Y"},
    ],
)
def test_wrong_settings_stop_the_service(table):
    with pytest.raises(SettingsError, match=r"\[plugins\.ingress_nginx\]"):
        nginx(**table)


# --- the verbs, on the sandbox ------------------------------------------------------------------------------------


def test_a_first_version_is_exposed_and_removed(site):
    provider = nginx(**SANDBOX)
    assert provider.state(site.context(site.route("1"))) is None
    context = site.expose(provider, "1", headers=(("X-Frame-Options", "DENY"),))
    assert site.fetch() == (200, "1", ONE)
    state = provider.state(context)
    assert (state.backends, state.host, state.deployment) == ((Backend("shop-1", 80),), site.host, ONE)
    assert site.names(INGRESS) == {"shop"}  # nothing to hold, so no helpers
    (config_map,) = site.names(CONFIG_MAP)
    assert config_map.startswith("shop-headers-")
    notes = site.client.get(INGRESS, "shop", site.namespace)["metadata"]["annotations"]
    assert notes["kube-deployer/role"] == "route"
    assert notes[render.CUSTOM_HEADERS] == f"{site.namespace}/{config_map}"
    provider.remove(context)
    provider.remove(context)
    assert site.names(INGRESS) | site.names(CONFIG_MAP) == set()


def test_a_switch_under_load_loses_nothing_and_leaves_nothing_behind(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    (before,) = site.names(CONFIG_MAP)
    load_ = sandbox.Load(site.cluster.ingress, host=site.host, rate=100)
    load_.start()
    context = site.expose(provider, "2")
    report = load_.stop()
    assert site.fetch() == (200, "2", TWO)
    assert (report.failed, set(report.by_version)) == (0, {"1", "2"})
    helpers = site.names(INGRESS) - {"shop"}
    assert {name.split(".")[1] for name in helpers} == {"warm-up"}
    assert len(site.names(CONFIG_MAP)) == 2
    assert site.fetch(site.hold(context))[:2] == (200, "1")
    provider.release(context)
    provider.release(context)
    assert site.names(INGRESS) == {"shop"}
    assert site.hosts() == [site.host]
    assert before not in site.names(CONFIG_MAP)
    assert len(site.names(CONFIG_MAP)) == 1
    assert site.fetch() == (200, "2", TWO)


def test_what_is_written_comes_in_the_order_that_loses_nothing(site):
    """Headers, warm-up, and nothing of the public host before the controller has answered for the warm-up; then one
    edit that moves it and holds on to the old version."""
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    before = site.names(INGRESS) | site.names(CONFIG_MAP)
    seen: list[set[str]] = []

    def look(_: int) -> None:
        seen.append({name.split(".")[1] if "." in name else name.split("-")[1] for name in _made(site) - before})

    scope = Exhausted(20, look)
    context = site.context(site.route("2"), scope=scope)
    provider.prepare(context)
    prepared = scope.made
    assert seen == [set(), {"headers"}]
    host = render.private_host(context.route, render.ROLE_WARM_UP)
    assert site.fetch(host) == (200, "2", TWO)
    assert backend_of(site) == "shop-1"
    provider.switch(context)
    assert scope.made - prepared == 1
    assert backend_of(site) == "shop-2"
    main = site.client.get(INGRESS, "shop", site.namespace)
    assert (render.backends_of(main), render.held_services(main)) == ((Backend("shop-2", 80),), {"shop-1"})
    assert provider.minimum_hold == SANDBOX["minimum_hold"] and nginx().minimum_hold >= 10


def _made(site: Site) -> set[str]:
    return site.names(INGRESS) | site.names(CONFIG_MAP)


def backend_of(site: Site) -> str:
    found = site.client.get(INGRESS, "shop", site.namespace)
    return found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]


def test_the_warm_up_is_known_before_the_public_host_moves(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    context = site.context(site.route("2"))
    provider.prepare(context)
    assert site.fetch(render.private_host(context.route, render.ROLE_WARM_UP)) == (200, "2", TWO)
    assert site.fetch() == (200, "1", ONE)
    provider.release(context)
    assert site.names(INGRESS) == {"shop"}
    assert len(site.names(CONFIG_MAP)) == 1


def test_a_preview_shows_the_new_version_until_it_is_released(site):
    provider = nginx(**SANDBOX)
    preview = Preview(f"preview-{site.namespace}.example.com", "secret", "/health")
    first = site.expose(provider, "1", preview=preview)
    assert site.fetch(preview.host) == (200, "1", ONE)  # also of a first deployment, which holds nothing
    provider.release(first)
    assert site.fetch_until(404, preview.host)
    context = site.context(site.route("2", preview=preview))
    provider.prepare(context)
    assert site.fetch(preview.host) == (200, "2", TWO)
    assert site.fetch() == (200, "1", ONE)
    provider.check_preview(context)
    provider.release(context)
    assert site.names(INGRESS) == {"shop"}
    assert site.fetch_until(404, preview.host)


@pytest.mark.parametrize("edit", ["another-service", "another-path"])
def test_an_ingress_that_somebody_edited_mid_way_is_not_overwritten(site, edit):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    context = site.context(site.route("2"))
    provider.prepare(context)
    found = site.client.get(INGRESS, "shop", site.namespace)
    paths = found["spec"]["rules"][0]["http"]["paths"]
    if edit == "another-service":
        paths[0]["backend"]["service"]["name"] = "maintenance"
    else:
        paths.append(copy.deepcopy(paths[0]) | {"path": "/api"})
    site.client.replace(INGRESS, "shop", found, site.namespace)
    before = site.client.get(INGRESS, "shop", site.namespace)["spec"]
    with pytest.raises(StepFailed, match=r"Ingress shop (leads to maintenance|has 1 rules with 2 paths)") as caught:
        provider.switch(context)
    assert caught.value.reason == "ObjectChanged"
    assert site.client.get(INGRESS, "shop", site.namespace)["spec"] == before


def test_foreign_annotations_stay_and_options_that_are_dropped_go(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1", options={"proxy-body-size": "8m", "proxy-buffering": False})
    site.client.patch(
        INGRESS,
        "shop",
        {"metadata": {"annotations": {render.PREFIX + "limit-rps": "7", "cert-manager.io/issuer": "x"}}},
        site.namespace,
    )
    site.expose(provider, "2", options={"proxy-read-timeout": 90})
    notes = site.client.get(INGRESS, "shop", site.namespace)["metadata"]["annotations"]
    asked = {k.removeprefix(render.PREFIX): v for k, v in notes.items() if "proxy" in k or "limit" in k}
    assert asked == {"proxy-read-timeout": "90", "limit-rps": "7"}
    assert notes["cert-manager.io/issuer"] == "x"


def test_somebody_elses_route_of_the_host_is_found_in_every_namespace(site):
    other = Site(site.cluster, f"{site.namespace}-other")
    try:
        # An app of the same name, made by this deployer, but of another namespace.
        other.client.create(
            INGRESS,
            render.main(None, other.route("1", host=site.host), render.RenderConfig(), redirect_www=False)
            | {"apiVersion": "networking.k8s.io/v1"},
            other.namespace,
        )
        with pytest.raises(StepFailed, match=f"Ingress shop in namespace {other.namespace}") as caught:
            require_free(site.context(site.route("1")), nginx(**SANDBOX))
        assert caught.value.reason == "HostTaken"
        # Another class is another controller's, another path another app's share of the host.
        require_free(site.context(site.route("1")), nginx(**SANDBOX, ingress_class="internal"))
        found = other.client.get(INGRESS, "shop", other.namespace)
        found["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/api"
        other.client.replace(INGRESS, "shop", found, other.namespace)
        require_free(site.context(site.route("1")), nginx(**SANDBOX))
        # Who redirects www has that host too.
        twin = {"metadata": {"annotations": {render.PREFIX + "from-to-www-redirect": "true"}}}
        found["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/"
        found["spec"]["rules"][0]["host"] = f"www.{site.host}"
        found["metadata"].pop("resourceVersion")
        other.client.replace(INGRESS, "shop", found, other.namespace)
        require_free(site.context(site.route("1")), nginx(**SANDBOX))
        other.client.patch(INGRESS, "shop", twin, other.namespace)
        with pytest.raises(StepFailed, match="is already served by Ingress shop"):
            require_free(site.context(site.route("1")), nginx(**SANDBOX))
    finally:
        other.close()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"configuration-snippet": "return 200;"}, "ingressOptions.configuration-snippet"),
        ({"server-snippet": "x"}, "ingressOptions.server-snippet"),
        ({"auth-url": "http://169.254.169.254/"}, "ingressOptions.auth-url"),
        ({"custom-headers": "kube-system/x"}, "ingressOptions.custom-headers"),
        ({"proxy-body-size": "8m; }"}, "ingressOptions.proxy-body-size"),
        ({"proxy-body-size": "8m\n"}, "ingressOptions.proxy-body-size"),
        ({"proxy-body-size": 8}, "ingressOptions.proxy-body-size"),
        ({"proxy-read-timeout": "60"}, "ingressOptions.proxy-read-timeout"),
        ({"proxy-read-timeout": True}, "ingressOptions.proxy-read-timeout"),
        ({"proxy-read-timeout": 0}, "ingressOptions.proxy-read-timeout"),
        ({"backend-protocol": "FCGI"}, "ingressOptions.backend-protocol"),
        ({"enable-cors": "true"}, "ingressOptions.enable-cors"),
        ({"cors-allow-origin": 'https://a", "b'}, "ingressOptions.cors-allow-origin"),
        ({"cors-allow-origin": "$http_origin"}, "ingressOptions.cors-allow-origin"),
        ({"whitelist-source-range": "10.0.0.0/8; deny all"}, "ingressOptions.whitelist-source-range"),
        ({"previewCheck": "//evil/"}, "ingressOptions.previewCheck"),
        ({"previewCheck": "/a\r\nHost: b"}, "ingressOptions.previewCheck"),
    ],
)
def test_options_that_are_not_in_the_list_or_not_of_the_type_are_refused(options, path):
    problems = schema_problems(options, nginx().options_schema, "ingressOptions")
    assert [problem.path for problem in problems] == [path]


def test_the_options_of_the_golden_file_are_fine():
    assert schema_problems(STABLE.options, nginx().options_schema, "ingressOptions") == []


def test_compression_is_remarked_on_unless_the_controller_does_it():
    (remark,) = nginx().remarks({"useCompression": True})
    assert remark.path == "useCompression" and "use-gzip" in remark.message
    assert list(nginx(use_gzip=True).remarks({"useCompression": True})) == []
    assert list(nginx().remarks({})) == []


def test_the_way_back(site):
    provider = nginx(**SANDBOX)
    first = site.expose(provider, "1").route
    forth = site.expose(provider, "2")
    back = dataclasses.replace(first, previous=forth.route.backend)
    # As in an operation: the handle stays that of the deployment that is being taken back.
    context = dataclasses.replace(forth, route=back)
    provider.switch(context)
    provider.confirm(context)
    assert site.fetch() == (200, "1", ONE)
    assert provider.state(context).deployment == ONE
    provider.release(forth)
    assert site.names(INGRESS) == {"shop"}
    assert site.fetch() == (200, "1", ONE)
    (config_map,) = site.client.list(CONFIG_MAP, site.namespace)[0]
    assert config_map["data"] == {"X-Deployer-Revision": ONE}


def test_every_verb_can_be_repeated(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    context = site.expose(provider, "2")
    before = site.everything()
    # Another process, after a crash, knows nothing of the first one.
    again = nginx(**SANDBOX)
    for verb in (again.fence, again.prepare, again.prepare, again.switch, again.switch, again.confirm, again.confirm):
        verb(context)
    assert site.everything() == before
    assert site.fetch() == (200, "2", TWO)


def test_a_foreign_ingress_is_never_touched(site):
    provider = nginx(**SANDBOX)
    body = render.main(None, site.route("1"), render.RenderConfig(), redirect_www=False)
    site.client.create(INGRESS, body, site.namespace)
    before = site.everything()
    context = site.context(site.route("2"))
    for verb in (provider.state, provider.switch):
        with pytest.raises(ForeignObject, match="Ingress shop"):
            verb(context)
    provider.remove(context)
    provider.fence(context)
    assert {k: v for k, v in site.everything().items() if k.startswith("Ingress")} == before


def test_a_fenced_holder_writes_no_route(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    provider.fence(site.context(site.route("1"), fencing_token=7))
    with pytest.raises(Fenced):
        provider.switch(site.context(site.route("2"), fencing_token=6))
    assert site.fetch() == (200, "1", ONE)


def test_www_is_redirected_unless_somebody_has_that_host(site):
    provider = nginx(**SANDBOX)
    site.expose(provider, "1", redirect_www=True)
    assert site.fetch(f"www.{site.host}")[0] == 308
    other = render.main(
        None, site.route("2", app="other", host=f"www.{site.host}"), render.RenderConfig(), redirect_www=False
    )
    site.client.create(INGRESS, other, site.namespace)
    provider.switch(site.context(site.route("1", redirect_www=True)))
    assert (
        f"redirectWww is left out: Ingress other in namespace {site.namespace} has the host www.{site.host}" in site.log
    )
    notes = site.client.get(INGRESS, "shop", site.namespace)["metadata"]["annotations"]
    assert render.PREFIX + "from-to-www-redirect" not in notes


def test_compression_is_said_to_be_global(site):
    site.expose(nginx(**SANDBOX), "1", compression=True)
    assert "gzip is a setting of the whole ingress-nginx controller (use-gzip)" in "".join(site.log)


def test_a_route_without_endpoints_is_not_confirmed(site):
    provider = nginx(**SANDBOX)
    context = site.context(site.route("1", backend=Backend("nobody", 80)), scope=CancelScope(time.monotonic() + 1.5))
    provider.switch(context)
    with pytest.raises(StepFailed, match=r"127\.0\.0\.1:\d+ answered HTTP 503") as caught:
        provider.confirm(context)
    assert caught.value.reason == "RouteNotConfirmed"


def test_cancelling_a_confirmation_takes_effect_within_a_second(site):
    provider = nginx(**SANDBOX)
    scope = CancelScope()
    context = site.context(site.route("1", backend=Backend("nobody", 80)), scope=scope)
    provider.switch(context)
    timer = threading.Timer(0.5, scope.close, [Cancelled("stop")])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        provider.confirm(context)
    assert time.monotonic() - began < 1.5
    timer.join()


def test_without_the_header_it_waits_and_says_so(site):
    provider = nginx(controller=SANDBOX["controller"], propagation_seconds=0.3)
    site.expose(provider, "1")
    assert site.fetch() == (200, "1", "")
    assert "no response header names the version" in "".join(site.log)
    assert "waiting 0.3 s" in "".join(site.log)
    assert not site.names(CONFIG_MAP)
    site.expose(nginx(propagation_seconds=0.3), "2")
    assert "no addresses of the controller are configured" in "".join(site.log)


def test_without_the_header_an_unknown_host_is_noticed_all_the_same(site):
    provider = nginx(controller=SANDBOX["controller"], propagation_seconds=0.1, ingress_class="another")
    context = site.context(site.route("1"), scope=CancelScope(time.monotonic() + 1.5))
    provider.switch(context)
    with pytest.raises(StepFailed, match="answered HTTP 404"):
        provider.confirm(context)


def test_a_controller_that_is_not_there(site):
    provider = nginx(controller="ingress-nginx/nothing", revision_header=True)
    context = site.context(site.route("1"), scope=CancelScope(time.monotonic() + 0.5))
    provider.switch(context)
    with pytest.raises(StepFailed, match="there is no ready address of the controller"):
        provider.confirm(context)


def test_headers_that_the_controller_refuses_show_before_the_public_host_moves(tmp_path, namespace):
    cluster = sandbox.start(tmp_path, ingress_delay=0.1)
    try:
        site = Site(cluster, namespace)
        try:
            site.run("1")
            site.run("2")
            _allow_only(site, "X-Deployer-Revision")
            provider = nginx(**SANDBOX)
            site.expose(provider, "1")
            context = site.context(site.route("2", headers=(("X-Other", "1"),)))
            with pytest.raises(StepFailed, match=r"AnnotationParsingFailed: .*X-Other is not allowed") as caught:
                provider.prepare(context)
            assert caught.value.reason == "RouteRejected"
            assert site.fetch() == (200, "1", ONE)
            provider.release(context)
            # The same on the public host itself, and the way back is not misled by the Events of the way there.
            provider.switch(context)
            with pytest.raises(StepFailed, match="AnnotationParsingFailed"):
                provider.confirm(context)
            back = dataclasses.replace(context, route=site.route("1", previous=Backend("shop-2", 80)))
            provider.switch(back)
            provider.confirm(back)
            assert site.fetch() == (200, "1", ONE)
        finally:
            site.close()
    finally:
        cluster.stop()


def _allow_only(site: Site, headers: str) -> None:
    name = "ingress-nginx-controller"
    found = site.client.get(CONFIG_MAP, name, "ingress-nginx")
    found["data"]["global-allowed-response-headers"] = headers
    site.client.replace(CONFIG_MAP, name, found, "ingress-nginx")


def test_only_refusals_that_are_newer_count():
    def event(uid: str, reason: str, count: int = 1) -> dict[str, Any]:
        return {"metadata": {"uid": uid}, "reason": reason, "message": f"words of {uid}", "count": count}

    before = [event("a", "AnnotationParsingFailed", 2), event("b", "Sync")]
    watched = Watched({"metadata": {"name": "shop", "uid": "u"}}, before)
    assert watched.refusal(before) == ""
    assert watched.refusal([*before, event("c", "Sync")]) == ""
    assert watched.refusal([event("a", "AnnotationParsingFailed", 3)]) == "AnnotationParsingFailed: words of a"
    assert watched.refusal([*before, event("d", "Rejected")]) == "Rejected: words of d"
