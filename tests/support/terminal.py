"""The command in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading

from .command import COMMAND, PATIENCE

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")


class Terminal:
    """The command in a terminal of its own. `text` is all that it has written, escapes included."""

    def __init__(self, arguments: tuple[str, ...], columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.child = subprocess.Popen(
            ["setsid", "--ctty", COMMAND, *arguments],  # whose terminal it is gets Ctrl-C from it
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment | {"TERM": "xterm-256color"},
        )
        os.close(slave)
        self.text = ""
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 65536)
            except OSError:  # EIO: the last one who had it open is gone
                break
            if not piece:
                break
            with self._moved:
                self.text += piece.decode(errors="replace")
                self._moved.notify_all()

    @property
    def plain(self) -> str:
        """Without escapes."""
        return _ESCAPES.sub("", self.text)

    def until(self, text: str) -> None:
        """Wait until that was written."""
        with self._moved:
            assert self._moved.wait_for(lambda: text in self.plain, PATIENCE), self.plain

    def type(self, text: str) -> None:
        """As a person would."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self.child.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return code

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(PATIENCE)
        self._thread.join(PATIENCE)
        os.close(self._master)
