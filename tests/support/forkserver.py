"""A fork server for tests: one process that has imported everything, from which fresh ones are had in milliseconds.

The server has one thread, so that forking it is safe. Each connection to its Unix socket is one forked child, which
speaks with the test in JSON lines: the test sends, `function(channel)` reads and answers, and once the child has
ended, however it ended, the server adds `{"exit": code}` (negative: killed by that signal). Run as
`python -m support.forkserver SOCKET module:function`; it ends, with its children, when its standard input does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PATIENCE = 90.0
"""Seconds that a child may be silent."""

Message = dict[str, Any]


class Channel:
    """One end of a conversation in JSON lines. What was written arrives even if the writer dies right after it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def write(self, message: Message) -> None:
        """Send a message. Raises OSError when the other end is gone."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self, patience: float = PATIENCE) -> Message:
        """The next message. Raises EOFError at the end, TimeoutError after `patience` seconds."""
        end = time.monotonic() + patience
        while b"\n" not in self._rest:
            self._connection.settimeout(max(0.001, end - time.monotonic()))
            piece = self._connection.recv(65536)
            if not piece:
                raise EOFError("the other end is gone")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        found: Message = json.loads(line)
        return found

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


class Child:
    """A forked process, as the test sees it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.pid: int = channel.read()["pid"]
        self.exit: int | None = None

    def write(self, message: Message) -> None:
        """Tell it something; a child that is dead does not hear it."""
        with contextlib.suppress(OSError):
            self._channel.write(message)

    def read(self, patience: float = PATIENCE) -> Message | None:
        """What it says next; None when it has ended, then `exit` says how. Raises TimeoutError."""
        if self.exit is not None:
            return None
        message = self._channel.read(patience)
        if "exit" in message:
            self.exit = message["exit"]
            self._channel.close()
            return None
        return message

    def close(self) -> None:
        """Make sure that it has ended."""
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            while self.read() is not None:
                pass


class ForkServer:
    """The server, from the test's side."""

    def __init__(self, function: str, directory: Path, python: str = sys.executable) -> None:
        """`function`: module:name of what every child runs. Its log, and the children's, is in `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        self._socket = directory / "socket"
        self.log = directory / "forkserver.log"
        tests = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [python, "-m", "support.forkserver", str(self._socket), function],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path},
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", self.log.read_text()

    def fork(self) -> Child:
        """A new child, which waits for its first message."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._socket))
        return Child(Channel(connection))

    def close(self) -> None:
        """End the server, and whatever it still runs."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


# --- the server's side --------------------------------------------------------------------------------------------


def serve(path: str, function: str) -> None:
    """Fork a child for each connection until standard input ends."""
    module, _, name = function.partition(":")
    run = getattr(importlib.import_module(module), name)
    children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        gc.freeze()  # so that a child's collector does not touch, and so copy, what is shared
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([0, listener.fileno(), *children], [], [])
            if 0 in ready:
                break
            for watched in ready:
                if watched == listener.fileno():
                    connection, _ = listener.accept()
                    pid = os.fork()
                    if pid == 0:
                        _be_child(run, connection, [listener, *(c for _, c in children.values())])
                    Channel(connection).write({"pid": pid})
                    children[os.pidfd_open(pid)] = (pid, connection)
                else:
                    _bury(watched, *children.pop(watched))
        for watched, (pid, connection) in children.items():
            os.kill(pid, signal.SIGKILL)
            _bury(watched, pid, connection)


def _bury(watched: int, pid: int, connection: socket.socket) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(watched)
    with contextlib.suppress(OSError):  # the test may be gone as well
        Channel(connection).write({"exit": code})
    connection.close()


def _be_child(run: Any, connection: socket.socket, others: list[socket.socket]) -> None:
    """Never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        for other in others:
            other.close()
        run(Channel(connection))
        code = 0
    except BaseException:  # noqa: BLE001 - logged; nothing of the server may go on in a child
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
