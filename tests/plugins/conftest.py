"""What the tests of plugins share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from deployer import sandbox
from deployer.sdk.kube import CONFIG_MAP
from support.nginx import Site


@pytest.fixture
def site(cluster: sandbox.Sandbox, namespace: str) -> Iterator[Site]:
    made = Site(cluster, namespace)
    made.run("1")
    made.run("2")
    yield made
    made.close()


@pytest.fixture
def allowing(site: Site) -> Iterator[Callable[[str], None]]:
    """Sets `global-allowed-response-headers` of the sandbox's controller until the test has ended."""
    key = "global-allowed-response-headers"

    def write(headers: str | None) -> None:
        found = site.client.get(CONFIG_MAP, "ingress-nginx-controller", "ingress-nginx")
        found["data"].pop(key, None)
        found["data"] |= {} if headers is None else {key: headers}
        site.client.replace(CONFIG_MAP, "ingress-nginx-controller", found, "ingress-nginx")

    before = site.client.get(CONFIG_MAP, "ingress-nginx-controller", "ingress-nginx")["data"].get(key)
    yield write
    write(before)
