"""Starting, finding and stopping the sandbox's process from another one."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STATE_FILE = "sandbox.json"
PROBE_TIMEOUT = 5.0
"""Seconds for the question whether a sandbox answers."""
# Kept so that an ended child can be waited for; a sandbox outlives this process otherwise.
_children: dict[int, "subprocess.Popen[bytes]"] = {}


class SandboxError(Exception):
    """The sandbox could not be started or stopped; the message says why."""


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox."""

    pid: int
    api: str
    ingress: str
    kubeconfig: str
    state: Path
    instance: str
    start_ticks: int

    @classmethod
    def attach(cls, state_dir: Path) -> "Sandbox | None":
        """The live sandbox of a state directory, None when there is none (a left-over sandbox.json does not count)."""
        try:
            found = json.loads((state_dir / STATE_FILE).read_text())
            sandbox = cls(state=state_dir, **found)
        except (OSError, ValueError, TypeError):
            return None
        return sandbox if sandbox.is_alive() and sandbox._answers() else None

    def is_alive(self) -> bool:
        """Whether the process is still this sandbox, and not another one with its number."""
        return start_ticks(self.pid) == self.start_ticks

    def _answers(self) -> bool:
        # Without a proxy, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.api}/version", timeout=PROBE_TIMEOUT) as answer:
                return bool(json.load(answer).get("gitCommit") == self.instance)
        except (OSError, ValueError):
            return False

    def stop(self, timeout: float = 10) -> None:
        """Ends the sandbox and its pods; kills it, and so its pods, when it does not end within `timeout` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_alive():
                break
            try:
                watched = os.pidfd_open(self.pid)
            except ProcessLookupError:
                break
            try:
                # Asked again: the descriptor names one process for good, the number does not.
                if self.is_alive():
                    signal.pidfd_send_signal(watched, number)
                    select.select([watched], [], [], timeout)
            except ProcessLookupError:
                break
            finally:
                os.close(watched)
        if child := _children.pop(self.pid, None):
            child.wait(timeout)
        if self.is_alive():
            raise SandboxError(f"the sandbox (process {self.pid}) does not end")
        with contextlib.suppress(FileNotFoundError):  # left behind when it was killed
            if json.loads((self.state / STATE_FILE).read_text()).get("instance") == self.instance:
                (self.state / STATE_FILE).unlink()


def start(
    state_dir: Path,
    *,
    ingress_delay: float = 0.5,
    port: int = 0,
    ingress_port: int = 0,
    timeout: float = 20.0,
    options: tuple[str, ...] = (),
) -> Sandbox:
    """Starts a sandbox that survives this process, or finds the one that already runs in the directory.

    `options` are further arguments of `python -m deployer.sandbox`. Returns when the sandbox answers; raises
    SandboxError with the end of its log when it does not within `timeout` seconds.
    """
    state_dir = state_dir.absolute()
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once the second attaches
        try:
            print(os.getpid(), file=lock, flush=True)
        except OSError as error:  # on a full disk a sandbox could not even say why it does not start
            raise SandboxError(f"{state_dir} cannot be used ({error.strerror}); free space on its disk") from error
        if found := Sandbox.attach(state_dir):
            return found
        command = [sys.executable, "-m", "deployer.sandbox", "--state", str(state_dir), "--port", str(port)]
        command += ["--ingress-port", str(ingress_port), "--ingress-delay", str(ingress_delay), *options]
        return _spawn(command, state_dir, timeout)


def _spawn(command: list[str], state_dir: Path, timeout: float) -> Sandbox:
    log_file = state_dir / "sandbox.log"
    with log_file.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            cwd=state_dir,
        )
    if child.stdout is None:
        raise SandboxError("the sandbox has no standard output")
    try:
        line = _first_line(child.stdout, timeout)
    except BaseException:  # an interrupt: nobody would know of the process
        child.kill()
        child.wait(timeout)
        raise
    sandbox = Sandbox.attach(state_dir) if line.endswith(b"\n") else None
    if sandbox is None:
        child.kill()
        child.wait(timeout)
        told = log_file.read_text(errors="replace").strip().splitlines()[-5:]
        raise SandboxError(
            f"the sandbox did not start within {timeout:g} s: {' | '.join(told) or 'it said nothing'} (log: {log_file})"
        )
    _children[child.pid] = child
    return sandbox


def _first_line(pipe: IO[bytes], timeout: float) -> bytes:
    """What the process says until the end of its first line, which is missing when it does not get that far."""
    line, end = b"", time.monotonic() + timeout
    with pipe:
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(pipe.fileno(), 4096) if ready else b""
            if not piece:
                break
            line += piece
    return line


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: no later process of that number has it. None when it ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in ("Z", "X") else int(fields[18])
