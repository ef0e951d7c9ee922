"""Ingresses of class nginx on a real controller: the conformance suite, and what only a real one can show."""

from __future__ import annotations

import dataclasses
import http.client
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.core.model.records import Status
from deployer.kube.client import connect
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.ingress import IngressProvider
from deployer.sdk.kube import INGRESS, SECRET, SERVICE
from deployer.sdk.plugin import CancelScope
from deployer.settings import Settings
from deployer.testing.ingress import CHECKS, Bench, checks, open_bench
from support import originals
from support.controller import Controller, find
from support.original_import import bring
from support.original_records import Records, deployment, descriptor
from support.traffic import CALM, Traffic
from support.world import HEALTHY

pytestmark = pytest.mark.cluster

MODES: dict[str, dict[str, Any]] = {
    "versioned": {},
    "stable-service": {"mode": "stable-service", "version_header": "X-Version"},
}


@pytest.fixture(scope="module")
def controller() -> Controller:
    client = connect(Settings())
    try:
        found = find(client)
    finally:
        client.close()
    if isinstance(found, str):
        pytest.skip(f"needs an ingress controller: {found}")
    return found


# --- the suite ----------------------------------------------------------------------------------------------------


def make(table: dict[str, Any]) -> IngressProvider:
    found = load_plugins(Settings(own_namespace="", plugins={"ingress_nginx": table})).ingress()
    assert found is not None
    return found


@pytest.fixture(scope="module", params=MODES)
def bench(request: pytest.FixtureRequest, controller: Controller) -> Iterator[Bench]:
    table = controller.settings(**MODES[request.param])
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = {"addresses": [f"127.0.0.1:{mute.getsockname()[1]}"], **MODES[request.param]}
        with open_bench(
            f"t-{uuid.uuid4().hex[:12]}",
            provider=lambda: make(table),
            silent=lambda: make(silent),
            ingress=controller.http,
            image=IMAGE,
            crashes=1,
        ) as made:
            yield made


# Splits take minutes here, as a controller takes its time for each; test_canary_strategy.py makes those that matter.
HERE = [check for check in CHECKS if check not in checks.SPLIT_CHECKS]


@pytest.mark.parametrize("check", HERE, ids=lambda check: check.__name__)
def test_the_provider_conforms(bench: Bench, check: Any) -> None:
    check(bench)


# --- deployments --------------------------------------------------------------------------------------------------


class Site:
    """A Deployer in a namespace of its own, and a browser."""

    def __init__(self, world: RealWorld, controller: Controller) -> None:
        self.world, self.controller = world, controller
        self.host = f"{world.namespace}.example.com"

    def get(self, host: str = "", path: str = "/", tls: bool = False, **headers: str) -> http.client.HTTPResponse:
        """The answer, read to its end."""
        address = self.controller.https if tls else self.controller.http
        where, _, port = address.rpartition(":")
        name = host or self.host
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = _Named(name, where, int(port), context)
        else:
            connection = http.client.HTTPConnection(where, int(port), timeout=5)
        connection.request("GET", path, headers={"Host": name, "Connection": "close", **headers})
        answer = connection.getresponse()
        answer.body = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def version(self, host: str = "") -> str:
        """`version 2`, or the status."""
        answer = self.get(host)
        body: str = answer.body  # type: ignore[attr-defined]
        return " ".join(body.split()[:2]) if answer.status == 200 else str(answer.status)

    def until(self, wanted: Callable[[], bool], seconds: float = 10.0) -> None:
        """The controller may follow a little later."""
        scope = CancelScope()
        for _ in range(int(seconds / 0.1)):
            if wanted():
                return
            scope.pause(0.1)
        raise AssertionError(f"not after {seconds:g} s")

    def told(self) -> set[tuple[str, bool, bool]]:
        """Which version each address of the controller names, whether it is live, and whether it was asked over TLS."""
        found = self.world.apps.data_plane(self.world.namespace, "shop")
        return {(answer.get("version", ""), answer.get("live", False), answer["tls"]) for answer in found["addresses"]}

    def deployed(self, **fields: Any) -> str:
        """The version that is live then; what is asked right after is answered by it."""
        made = self.world.deployed(**{"frontend": self.host, **HEALTHY, **fields})
        return f"version {made.version}"


class _Named(http.client.HTTPSConnection):
    """Speaks to an address, and names a host in the TLS handshake."""

    def __init__(self, name: str, address: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(address, port, timeout=5, context=context)
        self._name, self._tls = name, context

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), 5)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self._name)


@pytest.fixture
def site(tmp_path: Path, namespace: str, controller: Controller) -> Iterator[Site]:
    world = RealWorld(None, tmp_path, namespace, plugins={"ingress_nginx": controller.settings()})
    world.start()
    yield Site(world, controller)
    world.close()


def restart(site: Site, table: dict[str, Any], **settings: Any) -> None:
    site.world.stop()
    site.world.settings = dataclasses.replace(site.world.settings, plugins={"ingress_nginx": table}, **settings)
    site.world.start()


def test_headers_sticky_sessions_and_options(site: Site) -> None:
    headers = [{"Header": "X-Demo", "Value": "yes; {indeed}"}, {"Header": "X-Frame-Options", "Value": "DENY"}]
    fields: dict[str, Any] = {"additionHttpHeaders": headers, "useStickySessions": True, "useCompression": True}
    version = site.deployed(**fields, replicas=2, ingressOptions={"proxy-read-timeout": 30, "proxy-body-size": "2m"})
    answer = site.get()
    assert answer.getheader("X-Demo") == "yes; {indeed}"
    assert answer.getheader("X-Frame-Options") == "DENY"
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    assert cookie.startswith("deployer-affinity=")
    pods = {site.get(Cookie=cookie).body for _ in range(10)}  # type: ignore[attr-defined]
    assert len(pods) == 1 and pods.pop().startswith(version)
    (deployment,) = site.world.service.deployments(site.world.namespace)
    assert "useCompression has no effect here" in site.world.log(deployment.id)


def test_www_is_redirected(site: Site) -> None:
    site.deployed(redirectWww=True)
    site.until(lambda: site.get(f"www.{site.host}").status in (301, 302, 307, 308))
    assert site.get(f"www.{site.host}", "/a?b=c").getheader("Location") in (
        f"http://{site.host}/a?b=c",
        f"https://{site.host}/a?b=c",
    )


def certificate(site: Site, path: Path, name: str) -> Path:
    """A Secret of that name with a certificate for the site's host; the file of it."""
    if not site.controller.https:
        pytest.skip("the controller does not listen on port 443")
    if not shutil.which("openssl"):
        pytest.skip("the program openssl is missing")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName=DNS:{site.host},DNS:www.{site.host}"]
    command += ["-keyout", str(path / "key"), "-out", str(path / "crt")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    data = {f"tls.{end}": b64encode((path / end).read_bytes()).decode() for end in ("crt", "key")}
    secret = {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data}
    site.world.eyes.create(SECRET, secret, site.world.namespace)
    return path / "crt"


def test_tls(site: Site, tmp_path: Path) -> None:
    """With a Secret named like the host's domain; the confirmation asks with TLS then."""
    certificate(site, tmp_path, site.host)
    version = site.deployed()
    answer = site.get(tls=True)
    assert (answer.status, answer.body.startswith(version)) == (200, True)  # type: ignore[attr-defined]
    redirect = site.get()
    assert (redirect.status // 100, redirect.getheader("Location")) == (3, f"https://{site.host}/")
    assert site.deployed() == "version 2"
    assert site.get(tls=True).body.startswith("version 2")  # type: ignore[attr-defined]
    assert site.told() == {("2", True, True)}


@pytest.mark.parametrize("imported", [False, True])
def test_what_the_original_exposed_is_taken_over_under_load(site: Site, tmp_path: Path, imported: bool) -> None:
    """As it left it, with TLS that only its Ingress knows of: every connection shows that certificate, no request is
    lost, www. is redirected and the Service keeps its nodePort. With its records or without."""
    authority, world = certificate(site, tmp_path, "shop-tls"), site.world
    notes = {"affinity": "cookie", "configuration_snippet": "gzip on;\ngzip_comp_level 5;\n"}
    originals.leave(world.eyes, world.namespace, site.host, IMAGE, port_name="http", www=True, **notes)
    world.eyes.patch(SERVICE, "shop", {"spec": {"type": "NodePort"}}, world.namespace)
    (port,) = world.objects(SERVICE)["shop"]["spec"]["ports"]
    site.until(lambda: site.get(tls=True).status == 200, 30)
    where, _, number = site.controller.https.rpartition(":")
    kinds = [kind for kind in CALM if kind.path == "/"]
    traffic = Traffic((where, int(number)), site.host, kinds, authority=str(authority))
    try:
        site.until(lambda: all(account.answered for account in traffic.report().kinds.values()), 30)
        if imported:
            world.stop()
            of = descriptor(world.namespace, image=IMAGE, frontend=site.host, redirectWww=True)
            bring(world, Records().descriptor(of).deployment(deployment("0b5b5a6e", "41", "DEPLOYED", of)))
            world.start()
        made = world.deployed(frontend=site.host, redirectWww=True, **HEALTHY)
        at = time.time()
        assert made.version == "42"
        assert ("adopting" in world.log(made.id)) is not imported
        site.until(lambda: site.get(f"www.{site.host}", tls=True).status in (301, 302, 307, 308))
        world.quiet()
        report = traffic.stop()
    finally:
        traffic.close()
    assert (report.failed, report.late("42", at)) == (0, []), report.explain()
    assert {version for account in report.kinds.values() for version in account.versions} == {"41", "42"}
    found = world.objects(INGRESS)
    assert set(found) == {"shop"}
    assert found["shop"]["spec"]["tls"] == [{"hosts": [site.host], "secretName": "shop-tls"}]
    assert not [n for n in found["shop"]["metadata"]["annotations"] if n.startswith(("ingress.", "kubernetes.io/"))]
    assert world.objects(SERVICE)["shop"]["spec"]["ports"][0]["nodePort"] == port["nodePort"]


@pytest.mark.parametrize("mode", MODES)
def test_the_preview_shows_the_new_version_first(site: Site, mode: str) -> None:
    table = site.controller.settings(**MODES[mode])
    restart(site, table, preview_host="{app}-{namespace}.preview.example.com", preview_check="/")
    preview = f"shop-{site.world.namespace}.preview.example.com"
    site.deployed()
    site.world.quiet()
    made = site.world.deployed(frontend=site.host, **HEALTHY)
    log = site.world.log(made.id)
    assert f"can be looked at under {preview}" in log
    assert "preview check passed: /" in log
    assert site.version() == "version 2"
    site.world.quiet()
    assert set(site.world.objects(INGRESS)) == {"shop"}
    site.until(lambda: site.version(preview) == "404")


def test_a_protocol_that_the_app_does_not_speak_never_shows_in_public(site: Site) -> None:
    """In mode stable-service too, where the Ingress itself is what changes."""
    restart(site, site.controller.settings(**MODES["stable-service"]), expose_timeout=6.0)
    site.deployed()
    where, _, number = site.controller.http.rpartition(":")
    traffic = Traffic((where, int(number)), site.host, [kind for kind in CALM if kind.path == "/"])
    try:
        wrong = {"ingressOptions": {"backend-protocol": "HTTPS"}}
        failed = site.world.ended(site.world.deploy(frontend=site.host, **HEALTHY, **wrong), Status.FAILURE)
        site.world.quiet()
        report = traffic.stop()
    finally:
        traffic.close()
    assert failed.failure and "the warm-up" in failed.failure["message"]
    assert report.failed == 0, report.explain()
    assert {version for account in report.kinds.values() for version in account.versions} == {"1"}


def test_the_mode_can_be_changed_back_and_forth(site: Site) -> None:
    """Each time with one deployment, whose confirmation is true."""
    leads = []
    for number, mode in enumerate(("versioned", "stable-service", "stable-service", "versioned"), 1):
        restart(site, site.controller.settings(**MODES[mode]))
        assert site.deployed() == f"version {number}"
        assert {site.version() for _ in range(5)} == {f"version {number}"}
        assert site.told() == {(str(number), True, False)}
        rule, *_held = site.world.objects(INGRESS)["shop"]["spec"]["rules"]
        leads.append(rule["http"]["paths"][0]["backend"]["service"]["name"])
    assert leads == ["shop-1", "shop", "shop", "shop-4"]


def test_a_host_of_somebody_else_is_found(site: Site) -> None:
    backend = {"service": {"name": "theirs", "port": {"number": 80}}}
    rule = {"host": site.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    theirs = {"metadata": {"name": "theirs"}, "spec": {"ingressClassName": "nginx", "rules": [rule]}}
    site.world.eyes.create(INGRESS, theirs, site.world.namespace)
    failed = site.world.ended(site.world.deploy(frontend=site.host, **HEALTHY), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "HostTaken"
