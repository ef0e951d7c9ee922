"""The client of the commands: following a log through connections that break."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.server import ServerConnection, serve

from deployer.cli import rest
from deployer.cli.rest import Client, RequestFailed


@contextmanager
def server(view: Callable[[ServerConnection, int], None]) -> Iterator[tuple[Client, list[int]]]:
    """A server whose viewers are handed to `view` with their `after`, which is noted."""
    places: list[int] = []

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        (after,) = parse_qs(urlsplit(connection.request.path).query)["after"]
        places.append(int(after))
        view(connection, int(after))

    with serve(handle, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{running.socket.getsockname()[1]}", "shop-ns"), places
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_PAUSE", 0.0)


def test_a_log_is_followed_through_connections_that_break_at_every_message() -> None:
    lines = [f"line {number}" for number in range(6)]

    def view(connection: ServerConnection, after: int) -> None:
        for line in lines[after : after + 1]:
            connection.send(line)
        if after == 2:
            connection.socket.close()
        else:
            connection.close(*((1000, "DEPLOYED") if after == len(lines) else (1001, "")))

    with server(view) as (client, places):
        assert list(client.follow("x", 30)) == lines
        assert places == [0, 1, 2, 3, 4, 5, 6]
        places.clear()
        assert list(client.follow("x", 30, 4)) == lines[4:]
        assert places == [4, 5, 6]


def test_it_gives_up_when_no_connection_brings_anything_more() -> None:
    def view(connection: ServerConnection, after: int) -> None:
        if after == 0:
            connection.send("the only one")
        connection.close(1013, "the disk is full")

    with server(view) as (client, places):
        messages = client.follow("x", 30)
        assert next(messages) == "the only one"
        with pytest.raises(RequestFailed, match="broke off: 1013 the disk is full"):
            next(messages)
        assert places == [0] + [1] * rest._TRIES


@pytest.mark.parametrize("code", [1008, 4401, 4403, 4404])
def test_a_refusal_is_final(code: int) -> None:
    def view(connection: ServerConnection, after: int) -> None:
        if after == 0:
            connection.send("one")
        connection.close(1001 if after == 0 else code, "because")

    with server(view) as (client, places):
        messages = client.follow("x", 30)
        assert next(messages) == "one"
        with pytest.raises(RequestFailed, match=f"{code} because"):
            next(messages)
        assert places == [0, 1]


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(RequestFailed, match="cannot be followed"):
        next(Client("http://127.0.0.1:1", "shop-ns").follow("x", 30))


def test_patience_has_an_end() -> None:
    with server(lambda connection, after: connection.recv()) as (client, places):
        with pytest.raises(RequestFailed, match=r"did not end within 0\.1 s"):
            next(client.follow("x", 0.1))
        assert places == [0]
