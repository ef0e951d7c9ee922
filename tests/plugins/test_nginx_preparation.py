"""Tests of what the provider `nginx` tries on a warm-up before the public host is touched."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.sdk.errors import KubeRejected, StepFailed
from deployer.sdk.ingress import Preview
from deployer.sdk.kube import INGRESS
from support.nginx import ONE, SANDBOX, TWO, Site, nginx

STABLE = {**SANDBOX, "mode": "stable-service", "version_header": "X-Version"}


def stable(site: Site, version: str, **changes: Any) -> Any:
    """The context of a stable route, on a site whose version 1 has it already."""
    return site.context(site.route(version, stable=True, **changes))


@pytest.fixture
def exposed(site: Site) -> Site:
    site.lead("1")
    site.expose(nginx(**STABLE), "1", stable=True)
    return site


def helpers(site: Site) -> set[str]:
    return {name.split(".")[1] for name in site.names(INGRESS) if "." in name}


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"backend-protocol": "HTTPS"}},
        {"options": {"limit-rps": 5}},
        {"headers": (("X-Frame-Options", "DENY"),)},
        {"sticky": True},
        {"redirect_www": True},
        {"tls_secret": "shop-tls"},
        {"host": "another.example.com"},
    ],
    ids=str,
)
def test_a_stable_route_whose_ingress_would_change_is_warmed_up(exposed: Site, changes: dict[str, Any]) -> None:
    before = exposed.client.get(INGRESS, "shop", exposed.namespace)["spec"]
    provider, context = nginx(**STABLE), stable(exposed, "2", **changes)
    provider.prepare(context)
    assert helpers(exposed) == {"warm-up"}  # it leads to the Service of both, so there is nothing to hold
    assert exposed.client.get(INGRESS, "shop", exposed.namespace)["spec"] == before
    provider.release(context)
    assert helpers(exposed) == set()


def test_a_stable_route_whose_ingress_stays_as_it_is_needs_none(exposed: Site) -> None:
    nginx(**STABLE).prepare(stable(exposed, "2"))
    assert exposed.names(INGRESS) == {"shop"}


def test_a_change_that_the_controller_answers_503_for_never_shows_in_public(exposed: Site, allowing: Any) -> None:
    allowing("X-Deployer-Revision")
    with pytest.raises(StepFailed, match="X-Frame-Options is not allowed") as caught:
        nginx(**STABLE).prepare(stable(exposed, "2", headers=(("X-Frame-Options", "DENY"),)))
    assert caught.value.reason == "RouteRejected"
    assert exposed.fetch()[:2] == (200, "1")


class Webhook:
    """The controller's admission webhook, with a cache that is some requests late: what it refuses, in its words."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
        self.refused = 0
        create, taken = site.client.create, f'host "p" and path "/" is already defined in ingress {site.namespace}/x'
        said = f'admission webhook "validate.nginx.ingress.kubernetes.io" denied the request: {taken}'

        def checked(kind: Any, body: Any, *rest: Any, **more: Any) -> Any:
            if kind == INGRESS and self.refused < late:
                self.refused += 1
                raise KubeRejected(said, status=400, reason="BadRequest", said=said)
            return create(kind, body, *rest, **more)

        monkeypatch.setattr(site.client, "create", checked)


def test_a_webhook_that_has_not_seen_the_earlier_helper_go_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, host = nginx(**SANDBOX), f"preview-{site.namespace}.example.com"
    site.expose(provider, "1", preview=Preview(host, "0123"))
    webhook = Webhook(site, monkeypatch, late=2)
    site.expose(provider, "2", preview=Preview(host, "4567"))
    assert webhook.refused == 2
    assert (site.fetch(host), site.fetch()) == ((200, "2", TWO), (200, "2", TWO))


def test_a_webhook_that_keeps_refusing_names_who_has_the_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = nginx(**SANDBOX)
    site.expose(provider, "1")
    monkeypatch.setattr("deployer.plugins.ingress_nginx.objects._WEBHOOK_LATE", 0.3)
    Webhook(site, monkeypatch, late=10**6)
    with pytest.raises(StepFailed, match=f"already defined in ingress {site.namespace}/x") as caught:
        provider.prepare(site.context(site.route("2")))
    assert caught.value.reason == "HostTaken"
    assert site.fetch() == (200, "1", ONE)
