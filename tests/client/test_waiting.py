"""A service that takes its time: whoever waits is told, and nothing of that is in the way of what was asked for."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from support.command import PATIENCE
from support.impostor import Impostor

from .conftest import Open, Run


@pytest.fixture
def held(environment: pytest.MonkeyPatch) -> Iterator[tuple[str, threading.Event]]:
    """The URL of a service that answers when the event is set."""
    go = threading.Event()
    app = {"namespace": "default", "appName": "shop"}
    body = json.dumps([app]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            go.wait(PATIENCE)
            connection.sendall(head + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", go
        go.set()
        thread.join(PATIENCE)


def test_in_a_terminal_a_line_counts_until_the_answer_is_there(
    terminal: Open, held: tuple[str, threading.Event]
) -> None:
    url, go = held
    shown = terminal("status", "--server", url)
    shown.until(f"waiting for {url}, 2 s")
    go.set()
    assert shown.end() == 0
    *_, erased, table = shown.text.partition("\r\x1b[K")
    assert erased and table.startswith("\x1b[1mAPP") and "waiting" not in table.rpartition("\x1b[K")[2]


def test_the_line_is_no_longer_than_the_terminal(terminal: Open, held: tuple[str, threading.Event]) -> None:
    url, go = held
    shown = terminal("status", "--server", url, columns=20)
    shown.until("waiting for http://")
    go.set()
    assert shown.end() == 0
    lines = [line for line in shown.plain.split("\r") if line.startswith("waiting")]
    assert lines and all(len(line) < 20 for line in lines)


def test_in_a_pipe_it_is_said_once_for_each_answer(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setattr("deployer.client.waiting.LATE", 0.05)
    environment.setattr("deployer.client.connection.READ", 0.3)
    environment.setattr("deployer.client.connection.random.uniform", lambda *_: 0.001)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = run("status", "--server", url)
    said = done.err.splitlines()
    assert said[0] == f"deployer: {url} has not answered for 0.05 s; still waiting"
    assert len(said) == 2 and done.code == 5 and done.out == ""


def test_what_answers_in_time_is_not_mentioned(run: Run, impostor: Impostor) -> None:
    done = run("status", "-o", "json")
    assert (done.code, done.out, done.err) == (0, "[]\n", "")
