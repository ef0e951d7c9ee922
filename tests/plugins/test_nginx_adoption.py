"""Tests of taking over what the original deployer exposed: what is recognised, verb by verb, and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.errors import Revoked
from deployer.plugins.ingress_nginx import render
from deployer.sdk.errors import ForeignObject, KubeConflict
from deployer.sdk.ingress import Backend
from deployer.sdk.kube import CONTROLLER, INGRESS, SERVICE
from deployer.testing.ingress.bench import Exhausted
from deployer.toolkit.host_ownership import claimants
from support import originals
from support.nginx import SANDBOX, TWO, Site, nginx

IMAGE = "sample/web:1"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def left(cluster: sandbox.Sandbox, namespace: str) -> Iterator[Site]:
    """Version 1 of the original with both of its Ingresses."""
    made = Site(cluster, namespace)
    originals.leave(made.client, namespace, made.host, IMAGE, version="1", port_name="http", www=True)
    yield made
    made.close()


def backend(name: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = name

    return change


def host(found: dict[str, Any]) -> None:
    found["spec"]["rules"][0]["host"] = "other.example.com"
    found["spec"]["tls"][0]["hosts"] = ["other.example.com"]


def edit(site: Site, kind: Any, name: str, change: Change) -> None:
    """By hand, against controllers that write at the same time."""
    for _ in range(20):
        found = site.client.get(kind, name, site.namespace)
        change(found)
        try:
            site.client.replace(kind, name, found, site.namespace)
        except KubeConflict:
            continue
        return


EDITS: dict[str, tuple[Any, str, Change]] = {
    "labels": (INGRESS, "shop", lambda o: o["metadata"].update(labels={"team": "web"})),
    "another host": (INGRESS, "shop", host),
    "a version that is not live": (INGRESS, "shop", backend("shop-0")),
    "another app's service": (INGRESS, "shop", backend("other-1")),
    "the app's service, which selects another version": (
        SERVICE,
        "shop",
        lambda o: o["spec"]["selector"].update(version="0"),
    ),
    "the app's service is nobody's": (SERVICE, "shop", lambda o: o["metadata"]["labels"].update(team="web")),
    "the versioned service is nobody's": (SERVICE, "shop-1", lambda o: o["metadata"]["labels"].update(team="web")),
    "the controller is nobody's": (CONTROLLER, "shop-1", lambda o: o["metadata"]["labels"].update(team="web")),
    "the controller has another frontend": (
        CONTROLLER,
        "shop-1",
        lambda o: o["metadata"]["annotations"].update(frontend="x.example.com"),
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_one_that_merely_looks_like_it_is_foreign(left: Site, case: str) -> None:
    provider, context = nginx(**SANDBOX), left.context(left.route("2"))
    assert provider.state(context).backends == (Backend("shop-1", 8080),)
    # An older version of the original, which had the same host and is not live.
    for kind, body in originals.objects(left.host, IMAGE, version="0")[:2]:
        left.client.create(kind, body, left.namespace)
    edit(left, *EDITS[case])
    before = left.client.get(INGRESS, "shop", left.namespace)
    for verb in (provider.state, provider.switch):
        with pytest.raises(ForeignObject, match="Ingress shop"):
            verb(context)
    provider.fence(context)
    provider.remove(context)
    found = left.client.get(INGRESS, "shop", left.namespace)
    assert (found["spec"], found["metadata"]["annotations"]) == (before["spec"], before["metadata"]["annotations"])


def test_it_is_no_rival_for_its_own_host(left: Site) -> None:
    hosts = [left.host, f"www.{left.host}"]
    context = left.context(left.route("2"))
    assert claimants(context.kube, hosts, left.log.append, lambda _: True) == {host: [] for host in hosts}
    edit(left, INGRESS, "shop", lambda o: o["metadata"].update(labels={"team": "web"}))
    found = claimants(context.kube, hosts, left.log.append, lambda _: True)
    assert found[left.host] == [f"Ingress shop in namespace {left.namespace}"]


def test_everything_that_the_original_wrote_goes_in_the_edit_that_takes_it_over(left: Site) -> None:
    notes = {"ingress.kubernetes.io/affinity": "cookie", "nginx.ingress.kubernetes.io/proxy-body-size": "64m"}
    edit(left, INGRESS, "shop", lambda o: o["metadata"]["annotations"].update(notes))
    nginx(**SANDBOX).switch(left.context(left.route("2", tls_secret="shop-tls")))
    found = left.client.get(INGRESS, "shop", left.namespace)
    theirs = {key: value for key, value in found["metadata"]["annotations"].items() if "kube-deployer" not in key}
    theirs.pop(render.CUSTOM_HEADERS)
    # What people added stays, as ever.
    assert theirs == {f"{render.PREFIX}proxy-body-size": "64m", f"{render.PREFIX}ssl-redirect": "true"}
    wanted = render.main(None, left.route("2", tls_secret="shop-tls"), render.RenderConfig(), redirect_www=False)[
        "spec"
    ]
    assert {**found["spec"], "rules": found["spec"]["rules"][:1]} == wanted  # others hold on to the version before


@pytest.mark.parametrize("redirect", [False, True])
def test_taking_over_goes_on_after_a_crash_at_any_write(left: Site, redirect: bool) -> None:
    """The redirect of www. is never without an Ingress that answers for it until the version is released."""
    route = left.route("2", redirect_www=redirect)

    def answers_www() -> bool:
        found = left.client.list(INGRESS, left.namespace)[0]
        redirected = {f"{render.PREFIX}from-to-www-redirect": "true"}.items()
        return any(
            f"www.{left.host}" in render.hosts_of(one) or redirected <= (one["metadata"]["annotations"] or {}).items()
            for one in found
        )

    scope = Exhausted(0)
    for point in range(20):
        scope = Exhausted(point)
        try:
            nginx(**SANDBOX).switch(left.context(route, scope=scope))
            break
        except Revoked:
            assert answers_www()
    assert scope.made > 0
    assert answers_www()
    assert ("shop-www-redirect" in left.names(INGRESS)) is not redirect
    provider = nginx(**SANDBOX)
    provider.release(left.context(route))
    assert left.names(INGRESS) == {"shop"}
    assert (
        left.client.get(INGRESS, "shop", left.namespace)["metadata"]["annotations"]["kube-deployer/deployment"] == TWO
    )
    provider.remove(left.context(route))
    assert left.names(INGRESS) == set()
