"""Following a log through connections that break."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.server import ServerConnection, serve

from deployer.client.configuration import Profile
from deployer.client.connection import Connection
from deployer.client.errors import ClientError, Refused, Unauthorised, Unreachable
from deployer.client.log_stream import LogStream

Make = Callable[..., LogStream]


@contextmanager
def server(view: Callable[[ServerConnection, int], None]) -> Iterator[tuple[Make, list[int]]]:
    """A server whose viewers are handed to `view` with their `after`, which is noted; and what makes a stream of it."""
    places: list[int] = []

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        (after,) = parse_qs(urlsplit(connection.request.path).query)["after"]
        places.append(int(after))
        view(connection, int(after))

    with serve(handle, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        connection = Connection(Profile(server=f"http://127.0.0.1:{running.socket.getsockname()[1]}"))

        def make(**more: Any) -> LogStream:
            return LogStream(connection, "shop-ns", "x", **more)

        try:
            yield make, places
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.client.log_stream.random.uniform", lambda *_: 0.0)


def test_a_log_is_followed_through_connections_that_break_at_every_message() -> None:
    lines = [f"line {number}" for number in range(6)]

    def view(connection: ServerConnection, after: int) -> None:
        for line in lines[after : after + 1]:
            connection.send(line)
        if after == 2:
            connection.socket.close()
        else:
            connection.close(*((1000, "DEPLOYED") if after == len(lines) else (1001, "")))

    with server(view) as (make, places):
        stream = make()
        assert list(stream.messages()) == lines
        assert (places, stream.status, stream.after) == ([0, 1, 2, 3, 4, 5, 6], "DEPLOYED", 6)
        places.clear()
        stream = make()
        stream.after = 4
        assert list(stream.messages()) == lines[4:]
        assert places == [4, 5, 6]


def test_it_gives_up_when_no_connection_brings_anything_more() -> None:
    def view(connection: ServerConnection, after: int) -> None:
        if after == 0:
            connection.send("the only one")
        connection.close(1013, "the disk is full")

    with server(view) as (make, places):
        messages = make(patience=0.2).messages()
        assert next(messages) == "the only one"
        with pytest.raises(Unreachable, match="broke off: the disk is full"):
            next(messages)
        assert places[0] == 0 and len(places) > 1 and set(places[1:]) == {1}


@pytest.mark.parametrize(
    ("code", "kind"), [(1008, Refused), (4401, Unauthorised), (4403, Unauthorised), (4404, Refused)]
)
def test_a_refusal_is_final(code: int, kind: type[ClientError]) -> None:
    def view(connection: ServerConnection, after: int) -> None:
        if after == 0:
            connection.send("one")
        connection.close(1001 if after == 0 else code, "because")

    with server(view) as (make, places):
        messages = make().messages()
        assert next(messages) == "one"
        with pytest.raises(kind, match="because"):
            next(messages)
        assert places == [0, 1]


def test_nobody_there_is_said_in_the_end() -> None:
    stream = LogStream(Connection(Profile(server="http://127.0.0.1:1")), "shop-ns", "x", patience=0.05)
    with pytest.raises(Unreachable, match=r"no answer from http://127\.0\.0\.1:1: Connection refused"):
        next(stream.messages())


def test_all_of_it_may_have_an_end() -> None:
    with server(lambda connection, after: connection.recv()) as (make, places):
        with pytest.raises(Unreachable, match=r"did not end within 0\.1 s"):
            next(make(timeout=0.1).messages())
        assert places == [0]
