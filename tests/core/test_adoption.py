"""Tests of what counts as an Ingress of the original: its exact shape, and nothing that merely looks like it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from deployer.kube.adoption import OriginalIngress, original_ingress
from support.originals import ingress, www_redirect

HOST = "shop.example.com"
GZIP = "gzip on;\ngzip_comp_level 5;\ngzip_types text/css text/plain;\ngzip_proxied any;\n"
HEADERS = "more_set_headers 'X-Frame-Options: DENY' 'Content-Security-Policy: default-src 'self'; img-src *' ;"

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("sticky", [{}, {"affinity": "cookie"}])
@pytest.mark.parametrize("snippet", ["", GZIP, HEADERS, GZIP + HEADERS])
def test_the_apps_ingress(sticky: dict[str, str], snippet: str) -> None:
    notes = sticky | ({"configuration_snippet": snippet} if snippet else {})
    found = ingress("shop", HOST, "shop-41", 8080, "shop-tls", **notes)
    assert original_ingress(found, "shop") == OriginalIngress(HOST, "shop-41", redirect=False)
    # what makes it work with a controller of today
    found["metadata"]["annotations"]["nginx.ingress.kubernetes.io/affinity"] = "cookie"
    assert original_ingress(found, "shop") is not None


@pytest.mark.parametrize("port_name", ["", "http"])
def test_the_redirect_of_www(port_name: str) -> None:
    found = www_redirect("shop", HOST, 8080, port_name, "shop-tls")
    assert original_ingress(found, "shop") == OriginalIngress(HOST, "shop", redirect=True)


def _path(found: dict[str, Any]) -> dict[str, Any]:
    path: dict[str, Any] = found["spec"]["rules"][0]["http"]["paths"][0]
    return path


CHANGES: dict[str, Change] = {
    "labels": lambda o: o["metadata"].update(labels={"app": "shop", "name": "shop", "persistent": "true"}),
    "another name": lambda o: o["metadata"].update(name="shop-2"),
    "another class": lambda o: o["metadata"]["annotations"].update({"kubernetes.io/ingress.class": "edge"}),
    "no class": lambda o: o["metadata"]["annotations"].pop("kubernetes.io/ingress.class"),
    "a class by field": lambda o: o["spec"].update(ingressClassName="nginx"),
    "ours": lambda o: o["metadata"]["annotations"].update({"kube-deployer/instance": "deployer"}),
    "applied": lambda o: o["metadata"]["annotations"].update(
        {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    ),
    "another snippet": lambda o: o["metadata"]["annotations"].update(
        {"ingress.kubernetes.io/configuration-snippet": "return 200;"}
    ),
    "two rules": lambda o: o["spec"]["rules"].append(copy.deepcopy(o["spec"]["rules"][0])),
    "two paths": lambda o: o["spec"]["rules"][0]["http"]["paths"].append(copy.deepcopy(_path(o))),
    "a path": lambda o: _path(o).update(path="/api"),
    "a prefix": lambda o: _path(o).update(pathType="Prefix"),
    "another app's service": lambda o: _path(o)["backend"]["service"].update(name="web-1"),
    "no service": lambda o: _path(o).update(backend={"resource": {"kind": "Bucket", "name": "x"}}),
    "no TLS": lambda o: o["spec"].pop("tls"),
    "TLS for more": lambda o: o["spec"]["tls"][0]["hosts"].append("other.example.com"),
    "TLS twice": lambda o: o["spec"]["tls"].append(copy.deepcopy(o["spec"]["tls"][0])),
    "no host": lambda o: o["spec"]["rules"][0].pop("host"),
    "a default backend": lambda o: o["spec"].update(defaultBackend={"service": {"name": "x", "port": {"number": 1}}}),
}


@pytest.mark.parametrize("redirect", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_is_somebody_elses(change: str, redirect: bool) -> None:
    made = www_redirect("shop", HOST, 8080, "http", "s") if redirect else ingress("shop", HOST, "shop-41", 8080, "s")
    found = copy.deepcopy(made)
    CHANGES[change](found)
    assert original_ingress(made, "shop") is not None
    assert original_ingress(found, "shop") is None


def test_a_redirect_leads_to_the_frontend_of_its_own_host() -> None:
    found = www_redirect("shop", HOST, 8080, "", "s")
    notes = found["metadata"]["annotations"]
    notes["ingress.kubernetes.io/configuration-snippet"] = "rewrite ^/(.*)$ https://evil.example.com/$1 permanent;"
    assert original_ingress(found, "shop") is None


@pytest.mark.parametrize("found", [{}, {"metadata": {"name": "shop"}}, {"metadata": {"name": "shop"}, "spec": None}])
def test_what_is_hardly_an_object(found: dict[str, Any]) -> None:
    assert original_ingress(found, "shop") is None
