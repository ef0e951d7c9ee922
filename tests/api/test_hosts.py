"""Names under which the service is asked: a page whose own name leads to this machine gets nothing (DNS rebinding)."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from deployer.api.browsers.hosts import AllowedHosts
from deployer.core.errors import SettingsError
from deployer.core.model.records import Deployment, StoredDescriptor
from deployer.settings import Settings, load

from .conftest import NS, Served, document

OURS = [
    "localhost", "localhost:18081", "LocalHost:1", "localhost.", "localhost.:80", "127.0.0.1", "127.0.0.1:18081",
    "127.200.3.4", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", "[::FFFF:127.0.0.1]",
]  # fmt: skip
OTHERS = [
    "evil.example", "evil.example:18081", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost.example",
    "0.0.0.0", "10.1.2.3:8000", "[::2]", "[fe80::1]:80", "1", "", ":80", "127.1",
]  # fmt: skip
NONE_AT_ALL = ["localhost:80:80", "a b", "localhost, evil.example", "user@localhost", "loc%61lhost", "[::1", "ö", "a/b"]


def talk(served: Served, *lines: str, body: str = "") -> tuple[int, bytes]:
    """What is answered to a request as it stands here."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        head = "\r\n".join([*lines, "Connection: close", f"Content-Length: {len(body)}", "", ""])
        sock.sendall(head.encode() + body.encode())
        data = b""
        while piece := sock.recv(65536):
            data += piece
    head_bytes, _, answer = data.partition(b"\r\n\r\n")
    return int(head_bytes.split(b" ")[1]), answer


def stream(served: Served, target: str, *headers: str) -> int:
    """The status that is answered to a handshake."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall("\r\n".join([f"GET {target} HTTP/1.1", *headers, *upgrade, "", ""]).encode())
        return int(sock.recv(4096).split(b" ")[1])


def log_of(served: Served) -> str:
    return f"/stream/deployments/{served.deployment().id}/logs?namespace={NS}"


# --- as it is without any setting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", OURS)
def test_loopback_names_are_ours(served: Served, host: str) -> None:
    assert talk(served, "GET /plugins HTTP/1.1", f"Host: {host}", f"Origin: http://{host.lower()}")[0] == 200
    assert stream(served, log_of(served), f"Host: {host}", f"Origin: http://{host.lower()}") == 101


@pytest.mark.parametrize("host", OTHERS)
def test_a_page_whose_name_leads_here_does_nothing_and_sees_nothing(
    served: Served, audited: list[Any], host: str
) -> None:
    """To the browser it is of the same origin as what it asks."""
    path = log_of(served)
    stored = len(served.store.find(StoredDescriptor)), len(served.store.find(Deployment))
    origin = f"Origin: http://{host}"
    for line in (f"POST /descriptors/?namespace={NS} HTTP/1.1", "GET /healthz HTTP/1.1", "OPTIONS / HTTP/1.1"):
        status, body = talk(served, line, f"Host: {host}", origin, body=json.dumps(document()))
        problem = json.loads(body)
        assert (status, problem["status"], problem["title"]) == (421, 421, "Misdirected Request")
        assert "allowed_hosts" in problem["detail"]
        assert len(host) < 4 or host not in problem["detail"]
    assert stream(served, path, f"Host: {host}", origin) == 421
    assert (len(served.store.find(StoredDescriptor)), len(served.store.find(Deployment))) == stored
    assert {(a["who"], a["outcome"], a["status"]) for a in audited} == {(None, "refused", 421)}
    assert audited[-1]["method"] == "WEBSOCKET"


@pytest.mark.parametrize("host", NONE_AT_ALL)
def test_what_is_no_host_is_a_400(served: Served, host: str) -> None:
    status, body = talk(served, "GET / HTTP/1.1", f"Host: {host}")
    assert (status, json.loads(body)["status"]) == (400, 400)
    assert stream(served, log_of(served), f"Host: {host}") == 400


def test_no_other_header_says_who_was_asked(served: Served) -> None:
    for name in ("X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host"):
        value = "host=localhost" if name == "Forwarded" else "localhost"
        assert talk(served, "GET / HTTP/1.1", "Host: evil.example", f"{name}: {value}")[0] == 421
        assert stream(served, log_of(served), "Host: evil.example", f"{name}: {value}") == 421
        value = value.replace("localhost", "evil.example")
        assert talk(served, "GET / HTTP/1.1", "Host: localhost", f"{name}: {value}")[0] == 200


def test_the_host_within_the_target_counts_more(served: Served) -> None:
    """RFC 9112, 3.2.2."""
    path = log_of(served)
    for target, host, status in [
        ("http://localhost:1", "evil.example", 200),
        ("http://127.0.0.1", "localhost", 200),
        ("http://evil.example", "localhost", 421),
        ("HTTP://Evil.Example:80", "localhost", 421),
        ("http://localhost@evil.example", "localhost", 400),
        ("http://[", "localhost", 400),
    ]:
        assert talk(served, f"GET {target}/healthz HTTP/1.1", f"Host: {host}")[0] == status, target
        assert stream(served, target + path, f"Host: {host}") == (101 if status == 200 else status), target
    # And it is what `Origin` is compared with.
    line = "GET http://localhost:7/healthz HTTP/1.1"
    assert talk(served, line, "Host: localhost:8", "Origin: http://localhost:7")[0] == 200
    assert talk(served, line, "Host: localhost:8", "Origin: http://localhost:8")[0] == 403


# --- with settings ----------------------------------------------------------------------------------------------------


def admitted(settings: Settings) -> set[str]:
    hosts = AllowedHosts.of(settings)
    candidates = [
        *("localhost:80", "127.0.0.1", "10.1.2.3:8000", "[fd00::1]", "deployer.example.com", "evil.example"),
        *("a.b.example.org:1", "example.org", "badexample.org", "deployer", "0.0.0.0:80"),
    ]
    return {host for host in candidates if hosts.admits(host)}


LOOPBACK = {"localhost:80", "127.0.0.1"}
ADDRESSES = {"10.1.2.3:8000", "[fd00::1]", "0.0.0.0:80"}


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, set()),
        ({"deployhost": "::1"}, set()),
        ({"deployhost": "localhost", "allowed_hosts": ("10.1.2.3", "[fd00:0::1]")}, {"10.1.2.3:8000", "[fd00::1]"}),
        ({"allowed_hosts": ("Deployer.example.com.", "*.example.org")}, {"deployer.example.com", "a.b.example.org:1"}),
        # The kubelet's probes ask by the pod's address, which is of no name that could be rebound.
        ({"deployhost": "0.0.0.0", "insecure_no_auth": True}, ADDRESSES),
        ({"deployhost": "", "insecure_no_auth": True, "allowed_hosts": ("deployer",)}, ADDRESSES | {"deployer"}),
        ({"deployhost": "deployer", "insecure_no_auth": True}, ADDRESSES | {"deployer"}),
        ({"auth": "kubernetes", "allowed_hosts": ("deployer",)}, {"deployer"}),
        ({"auth": "kubernetes", "deployhost": "0.0.0.0", "allowed_hosts": ("deployer",)}, ADDRESSES | {"deployer"}),
    ],
)
def test_what_the_settings_add(settings: dict[str, Any], more: set[str]) -> None:
    assert admitted(Settings(own_namespace="deployer", **settings)) == LOOPBACK | more


def test_with_authentication_every_name_is_good_until_some_are_listed() -> None:
    assert "evil.example" in admitted(Settings(own_namespace="deployer", auth="kubernetes", deployhost="0.0.0.0"))


def test_old_clients_send_no_host(served: Served) -> None:
    """HTTP/1.0, as probes of load balancers speak it; browsers do not."""
    assert talk(served, "GET /healthz HTTP/1.0")[0] == 200
    assert talk(served, "GET /healthz HTTP/1.0", "Host: evil.example")[0] == 421


@pytest.mark.parametrize("name", ["http://a", "a:80", "*", "a.*", "*.", "a/b", "[::1]:80", "a b", "-"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SettingsError, match=r"--allowed-hosts: .* is not a host like"):
        load({"allowed_hosts": (name,)}, {})


def test_the_setting_takes_names_and_addresses() -> None:
    names = "a, my_service, *.example.com, 10.0.0.1, ::1, [fd00::1]"
    assert len(load({}, {"DEPLOYER_ALLOWED_HOSTS": names}).allowed_hosts) == 6
