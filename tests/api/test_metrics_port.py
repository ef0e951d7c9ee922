"""`/metrics` on a port of its own: without a token, and nothing else is there."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest

from deployer.api.figures.port import FiguresPort
from deployer.api.metrics import CONTENT_TYPE, Metrics
from deployer.core.errors import SettingsError


@pytest.fixture
def port() -> Iterator[FiguresPort]:
    """One that listens on loopback."""
    with closing(FiguresPort("127.0.0.1", 0, Metrics().render, CONTENT_TYPE)) as made:
        yield made


def test_figures_are_there_and_nothing_else(port: FiguresPort) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port.port}/metrics?x=1", timeout=10) as answer:
        assert answer.headers["Content-Type"] == CONTENT_TYPE
        assert b"deployer_build_info{" in answer.read()
    for path in ("/", "/healthz", "/deployments/?namespace=shop", "/metrics/.."):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port.port}{path}", timeout=10)
    asked = urllib.request.Request(f"http://127.0.0.1:{port.port}/metrics", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(asked, timeout=10)


def test_a_client_who_says_nothing_keeps_nobody_waiting(port: FiguresPort) -> None:
    silent = socket.create_connection(("127.0.0.1", port.port), timeout=10)
    with silent, urllib.request.urlopen(f"http://127.0.0.1:{port.port}/metrics", timeout=10) as answer:
        assert answer.status == 200


def test_a_port_that_is_taken_is_said(port: FiguresPort) -> None:
    with pytest.raises(
        SettingsError, match=r"cannot listen on 127\.0\.0\.1, port \d+: .*; choose another with --metrics-port"
    ):
        FiguresPort("127.0.0.1", port.port, Metrics().render, CONTENT_TYPE)


def test_nobody_answers_after_the_end() -> None:
    made = FiguresPort("127.0.0.1", 0, Metrics().render, CONTENT_TYPE)
    made.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", made.port), timeout=10)
