"""The page on a real Kubernetes, under a prefix of the ingress controller that serves the apps."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from deployer.core.model.kind import ENDPOINT_SLICE, INGRESS, NAMESPACE, SERVICE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import connect
from deployer.settings import Settings
from support.browsing import Screen, browser, pictures, screens
from support.command import Rest, awaited, of_a_new_user, running
from support.real import IMAGE
from support.switching import ADDRESS, missing
from support.world import HEALTHY, describe

__all__ = ["browser", "pictures", "screens"]

CONFIG = f"""
ingress = "nginx"
health_via = "direct"
min_ready = 0.0
proxysleep = 120.0
deployhost = "{ADDRESS}"
insecure_no_auth = true
[plugins.ingress_nginx]
addresses = ["{ADDRESS}:80"]
revision_header = "X-Revision"
"""


@dataclass(frozen=True)
class Site:
    """A service, and the address under which the ingress controller has it, once it knows that."""

    url: str
    rest: Rest


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if why := missing("nginx versioned"):
        pytest.skip(why)
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = connect(Settings(own_namespace=""))
    made = admin.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    (tmp_path / "config.toml").write_text(CONFIG)
    environment = of_a_new_user(tmp_path) | {"KUBECONFIG": os.environ["KUBECONFIG"]}
    try:
        with running(environment, tmp_path) as deployer:
            arguments = ["--config", str(tmp_path / "config.toml"), "--data-dir", str(tmp_path / "data")]
            process, rest = deployer.serve("serve", *arguments)
            port = urlsplit(rest.url).port
            assert port
            for kind, body in published(name, port):
                admin.create(kind, body, name)
            yield Site(f"http://{ADDRESS}/{name}", Rest(rest.url, name))
            assert process.end() == 0
    finally:
        admin.delete(NAMESPACE, name, uid=made["metadata"]["uid"])
        admin.close()


def published(name: str, port: int) -> list[tuple[Kind, Document]]:
    """What leads `/<name>/` of the controller to that port of the machine on which the service runs."""
    ports = [{"name": "http", "port": port}]
    labels = {"kubernetes.io/service-name": "page"}
    endpoints = [{"addresses": [ADDRESS], "conditions": {"ready": True}}]
    backend = {"service": {"name": "page", "port": {"number": port}}}
    path = {"path": f"/{name}(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend}
    spec = {"ingressClassName": "nginx", "rules": [{"http": {"paths": [path]}}]}
    nginx = "nginx.ingress.kubernetes.io"
    rewrite = {f"{nginx}/use-regex": "true", f"{nginx}/rewrite-target": "/$2"}
    return [
        (SERVICE, {"metadata": {"name": "page"}, "spec": {"ports": ports}}),
        (
            ENDPOINT_SLICE,
            {
                "metadata": {"name": "page", "labels": labels},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": endpoints,
            },
        ),
        (INGRESS, {"metadata": {"name": "page", "annotations": rewrite}, "spec": spec}),
    ]


def test_from_a_deployment_to_a_rollback_behind_the_controller(screens: Callable[..., Screen], site: Site) -> None:
    namespace, host = site.rest.namespace, f"{site.rest.namespace}.example.com"
    fields = {"image": IMAGE, "pull": "IfNotPresent", "frontend": host, **HEALTHY}
    first = site.rest.deploy(describe(namespace, "shop", **fields))
    awaited(lambda: site.rest.status(first) == "DEPLOYED", "the first version to be live")
    status, second = site.rest.call("POST", "/descriptors/", describe(namespace, "shop", **fields, env={"DRAIN": "1"}))
    assert status == 201, second

    behind = Rest(site.url)
    awaited(lambda: behind.request("GET", "/healthz")[0] == 200, "the controller to have the page")
    screen = screens(site.url)
    page = screen.open(f"{namespace}/descriptors/{second['id']}")
    page.get_by_role("button", name="Deploy", exact=False).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Deploy", exact=True).click()

    # As it happens: the log by WebSocket, the steps, and in the end what became of requests while traffic moved.
    expect(page.get_by_role("log")).to_contain_text(f"switching {host} to version 2")
    expect(page.get_by_role("heading", name=re.compile("shop version 2"))).to_contain_text("Live")
    expect(page.get_by_role("log")).to_contain_text(re.compile(r"answers with version 2 after .*, none was lost"))
    expect(page.locator("figcaption")).to_contain_text(
        re.compile(r"traffic moved at .*; none of \d+ requests to 1 address lost")
    )
    assert page.evaluate("performance.getEntriesByType('resource').every(({name}) => name.includes('/t-'))")
    assert screen.findings() == []
    screen.picture("cluster-deployment")

    page.get_by_role("link", name="shop", exact=True).first.click()
    expect(page.get_by_text("1 of 1 ready").first).to_be_visible()
    page.get_by_role("button", name="Roll back to 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_role("heading", name=re.compile("shop version 1"))).to_contain_text("Live")
    assert site.rest.call("GET", "/apps/shop/")[1]["live"]["version"] == "1"
