"""What RFC 9112 demands of a request's head, of REST's and of the log stream's alike."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from .conftest import NS, Served

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def exchange(served: Served, data: bytes) -> bytes:
    """Everything that comes until the other side closes, or says that the log has ended."""
    answer = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while not answer.endswith(b"DEPLOYED") and (piece := sock.recv(65536)):
                answer += piece
    return answer


def refused(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1."), answer
    assert b"application/problem+json" in head
    assert b"\r\nConnection: close" in head
    return json.loads(body)


@pytest.mark.parametrize("path", ["/healthz", f"/stream/deployments/x/logs?namespace={NS}"])
@pytest.mark.parametrize(
    "hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"], ["evil.example", "localhost"]]
)
def test_http_1_1_has_exactly_one_host(served: Served, path: str, hosts: list[str]) -> None:
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts)
    problem = refused(exchange(served, head.encode() + UPGRADE + b"\r\n"))
    assert problem["status"] == 400
    assert "Host" in problem["detail"]


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 0\r\n"])
def test_leave_to_send_nothing_is_not_waited_for(served: Served, framing: bytes) -> None:
    """RFC 9110, 10.1.1: a request without content has nothing to expect."""
    request = b"DELETE /descriptors/x/?namespace=a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n" + framing
    answer = exchange(served, request + b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"404", b"200"], answer


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("path", [b"/descriptors/?namespace=a", b"/stream/deployments/x/logs?namespace=a"])
@pytest.mark.parametrize(
    ("version", "headers"),
    [
        (b"1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        (b"1.1", b"transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked, chunked\r\n"),
        (b"1.1", b"Transfer-Encoding:\r\n chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked, \r\n"),
        (b"1.1", b"Transfer-Encoding:\r\nContent-Length: 5\r\n"),
        (b"1.0", b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"),
        (b"1.2", b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"),
        (b"1.1", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
        (b"1.1", b"Content-Length: 5, 6\r\n"),
        (b"1.1", b"Content-Length: +5\r\n"),
        (b"1.1", b"Content-Length: " + b"9" * 5000 + b"\r\n"),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_what_could_be_told_apart_in_two_ways_closes_the_connection(
    served: Served, method: bytes, path: bytes, version: bytes, headers: bytes
) -> None:
    """RFC 9112, 6.3: what follows may be a body to one and a request to the other."""
    head = b"%s %s HTTP/%s\r\nHost: localhost\r\n" % (method, path, version)
    answer = exchange(served, head + headers + b"\r\n0\r\n\r\n" + SMUGGLED)
    problem = refused(answer)
    assert problem["status"] in (400, 501)
    assert len(re.findall(rb"HTTP/1\.\d \d{3} ", answer)) == 1
    assert b"9999" not in answer


def test_a_chunked_body_is_read_and_the_connection_kept(served: Served) -> None:
    head = b"POST /descriptors/?namespace=a HTTP/1.1\r\nHost: localhost\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    answer = exchange(served, head + chunked + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"400", b"200"]


@pytest.mark.parametrize(
    "data",
    [
        b"Z4Z5Z6Z7\r\n\r\n",
        b"GET / HTTP/1.1\r\nZ4Z5Z6Z7\r\n\r\n",
        b"GET / HTTP/1.1\r\n Z4Z5Z6Z7: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rZ4Z5Z6Z7\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: Z4Z5Z6Z7\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Z4Z5Z6Z7\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZ4Z5Z6Z7\r\n",
        b"GET / HTTP/1.1\r\nHost: Z4 Z5Z6Z7\r\n\r\n",
        b"GET /stream/Z4Z5Z6Z7 HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n",
        b"GET /stream/deployments/x/logs?namespace=a HTTP/1.1\r\nHost: localhost\r\nUpgrade: Z4Z5Z6Z7\r\n\r\n",
        b"GET /stream/deployments/x/logs?namespace=a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, Z4Z5Z6Z7\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: Z4Z5Z6Z7\r\n\r\n",
        b"GET /stream/deployments/x/logs?namespace=a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://Z4Z5Z6Z7\r\n"
        + UPGRADE
        + b"\r\n",
    ],
)
def test_nothing_of_a_request_that_is_none_comes_back(served: Served, data: bytes) -> None:
    answer = exchange(served, data)
    assert 400 <= refused(answer)["status"] <= 501
    assert b"Z4" not in answer and b"z4" not in answer


# --- what leads to the log stream -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "/", "///", "http://localhost", "http://localhost/", "/%73tream/..//"])
def test_slashes_at_the_beginning_count_as_one(served: Served, before: str) -> None:
    deployment = served.deployment()
    path = f"{before}/stream/deployments/{deployment.id}/logs?namespace={NS}"
    served.end(deployment.id)
    answer = exchange(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + UPGRADE + b"\r\n")
    if "%" in before:
        assert refused(answer)["status"] == 404
    else:
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"queued: deployment of shop" in answer


@pytest.mark.parametrize("piece", [1, 700, 2048, 7000])
@pytest.mark.parametrize("path", ["/healthz", "/stream/deployments/{id}/logs?namespace=shop-ns"])
def test_a_long_head_may_come_in_pieces(served: Served, path: str, piece: int) -> None:
    """The log stream gets it whole, and nobody waits for it."""
    deployment = served.deployment()
    served.end(deployment.id)
    head = f"GET {path.format(id=deployment.id)} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 6000}\r\n".encode()
    head += UPGRADE if "stream" in path else b"Connection: close\r\n"
    # One byte at a time only at the beginning and at the end, where something is decided.
    early, middle, late = head[:40], head[40:], b"\r\n"
    cuts = [early[n : n + 1] for n in range(len(early))] if piece == 1 else [early]
    cuts += [middle] if piece == 1 else [middle[n : n + piece] for n in range(0, len(middle), piece)]
    cuts += [late[:1], late[1:]]
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in cuts:
            sock.sendall(cut)
            assert served.call("GET", "/healthz").status == 200
        answer = b""
        while not answer.endswith(b"DEPLOYED") and (part := sock.recv(65536)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 101 " if "stream" in path else b"HTTP/1.1 200 ")


def test_a_head_that_is_too_long_is_a_431(served: Served) -> None:
    for path in ("/healthz", f"/stream/deployments/x/logs?namespace={NS}"):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + b"X: " + b"x" * 70_000 + b"\r\n" + UPGRADE
        assert refused(exchange(served, head + b"\r\n"))["status"] == 431


def test_a_path_is_decoded_as_rest_does(served: Served) -> None:
    deployment = served.deployment()
    served.end(deployment.id)
    query = f"namespace={NS}"
    for path, status in [
        (f"/stream/deployments/{deployment.id}/l%6Fgs/?{query}", 101),
        (f"/%73tream/deployments/{deployment.id}/logs?{query}", 101),
        (f"/stream/deployments/{deployment.id}%2Flogs?{query}", 101),
        (f"/stream/deployments/a%2Fb/logs?{query}", 404),
        (f"/stream/deployments/{deployment.id}/logs//?{query}", 404),
    ]:
        answer = exchange(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + UPGRADE + b"\r\n")
        assert int(answer.split(b" ")[1]) == status, path
        # REST, where there is no socket, has the same idea of what is there.
        assert served.call("HEAD", path).status == {101: 426, 404: 404}[status], path


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "", "namespace=", "namespace", "Namespace=shop-ns", "NAMESPACE=shop-ns", "name_space=shop-ns", "name-space=a",
        "namespace=shop-ns&Namespace=shop-ns", "namespace=shop-ns&namespace=shop-ns", "namespace=&namespace=shop-ns",
        "namespace=shop-ns&namespace=", "namespace=%ff", "namespace=shop+ns", "namespace=shop%2Bns", "namespace=A",
        "namespace=shop-ns;after=1", "namespace=shop-ns%26after=1", "namespace=shop-ns&After=1", "namespace=kube%00",
        "namespace=shop-ns,other", "%6Eamespace=shop_ns",
    ],
)  # fmt: skip
def test_a_query_that_rest_refuses_the_stream_refuses(served: Served, query: str) -> None:
    deployment = served.deployment()
    rest = served.call("GET", f"/deployments/{deployment.id}/logs?{query}")
    assert rest.status == 400
    path = f"/stream/deployments/{deployment.id}/logs?{query}"
    problem = refused(exchange(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + UPGRADE + b"\r\n"))
    assert problem["status"] == 400
    assert problem["detail"] == rest.problem["detail"]


@pytest.mark.parametrize(
    "query",
    [
        "namespace=shop-ns", "namespace=shop%2Dns", "%6eamespace=shop-ns", "&&namespace=shop-ns&",
        "x=1&namespace=shop-ns", "namespace=shop-ns&x=1&x=2&x", "namespace=shop-ns&after=0",
        "namespace=shop-ns&after=%30",
    ],
)  # fmt: skip
def test_a_query_that_rest_takes_the_stream_takes(served: Served, query: str) -> None:
    deployment = served.deployment()
    served.end(deployment.id)
    assert served.call("GET", f"/deployments/{deployment.id}/logs?{query}").status == 200
    path = f"/stream/deployments/{deployment.id}/logs?{query}"
    answer = exchange(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + UPGRADE + b"\r\n")
    assert b"queued: deployment of shop" in answer


@pytest.mark.parametrize("after", ["", "-1", "x", "1&after=2", "9" * 30])
def test_after_is_the_same_number_on_both(served: Served, after: str) -> None:
    deployment = served.deployment()
    rest = served.call("GET", f"/deployments/{deployment.id}/logs?namespace={NS}&after={after}")
    with served.watch(deployment.id, after=after) as viewer:
        if rest.status == 200:
            assert "queued" in viewer.recv(timeout=20)
            return
        with pytest.raises(ConnectionClosed):
            viewer.recv(timeout=20)
        assert (viewer.close_code, viewer.close_reason) == (1008, rest.problem["detail"][:123])
