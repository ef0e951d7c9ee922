"""Tests of asking a version's pods themselves: what they answer, what refuses, what speaks TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployer.core.contract.health import HealthTarget, PodUnreachable
from deployer.core.contract.ingress import ProbeResponse
from deployer.sdk.ingress import Backend, Route
from deployer.sdk.plugin import CancelScope
from deployer.toolkit.dataplane import pods as backend
from deployer.toolkit.health.transport import Direct

Start = Callable[..., int]
PLAIN = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@pytest.fixture
def server() -> Iterator[Start]:
    """Starts servers that answer every connection with the same bytes, over TLS where there is a context."""
    listeners: list[socket.socket] = []

    def run(listener: socket.socket, answer: bytes, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                    sock = stack.enter_context(connection)
                    sock.settimeout(10)
                    if tls:
                        sock = stack.enter_context(tls.wrap_socket(sock, server_side=True))
                    sock.recv(4096)
                    sock.sendall(answer)

    def start(answer: bytes = PLAIN, tls: ssl.SSLContext | None = None) -> int:
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=run, args=(listeners[-1], answer, tls), daemon=True).start()
        return int(listeners[-1].getsockname()[1])

    yield start
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Of a server with a certificate that nobody knows."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both = private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "both.pem").write_bytes(both)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return context


def ask(port: int, pods: int = 1, way: Any = None) -> list[ProbeResponse]:
    route = Route(
        namespace="web",
        app="shop",
        host="shop.example.com",
        version="2",
        deployment="d",
        backend=Backend("shop-2", port),
        path="/status",
    )
    made = [{"metadata": {"name": f"p{n}", "uid": f"u{n}"}, "status": {"podIP": "127.0.0.1"}} for n in range(pods)]
    return list(backend.probe(way or Direct(), loopback=True)(made, route, CancelScope(time.monotonic() + 10)))


def test_some_pods_are_asked(server):
    assert ask(server(), pods=2) == [ProbeResponse(204)] * 2
    assert ask(server(), pods=100) == [ProbeResponse(204)] * backend.PODS_ASKED


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ask(port, pods=3) == [ProbeResponse(refused=True)]


def test_a_port_that_speaks_tls_is_known_by_its_words_or_by_trying(server, tls):
    assert ask(server(GO)) == [ProbeResponse(400, tls=True)]
    assert ask(server(tls=tls)) == [ProbeResponse(tls=True)]


def test_what_is_no_http_and_no_tls_tells_nothing(server):
    assert ask(server(b"SSH-2.0-x\r\n")) == [ProbeResponse()]
    assert ask(server(b"")) == [ProbeResponse()]


def test_pods_that_may_not_be_asked_tell_nothing(server):
    class Forbidden(Direct):
        def exchange(self, target: HealthTarget, *_: Any) -> Any:
            raise PodUnreachable(f"{target.where} is not asked, as the Deployer lacks the right")

        connect = exchange

    assert ask(server(), way=Forbidden()) == [ProbeResponse()]
