"""What a client's command can end with: the exit codes, and the errors that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from deployer.core.errors import DeployerError, Problem


class ExitCode(IntEnum):
    """How a command ended. Part of the interface: pipelines branch on it (docs/cli.md)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    RUNNING = 3
    UNAUTHORISED = 4
    UNREACHABLE = 5
    WAITING = 6
    REFUSED = 7
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.DONE: "Done: what you asked for is in effect, or already was",
    ExitCode.FAILED: "The deployment failed, was cancelled, or was rolled back",
    ExitCode.USAGE: "A flag, argument, variable or file of the client is wrong; nothing was sent",
    ExitCode.RUNNING: "Still running when `--timeout` was over; it goes on",
    ExitCode.UNAUTHORISED: "Not authorised: no valid token, or no right to do this",
    ExitCode.UNREACHABLE: "The service cannot be reached, or cannot answer now",
    ExitCode.WAITING: "A person has to decide first: a gate waits for approval, or the deployment is held",
    ExitCode.REFUSED: "Refused: not valid, not there, in conflict with what is there, or frozen",
    ExitCode.INTERRUPTED: "Ctrl-C; what was started goes on",
}
"""Each of them in a sentence, for the documentation."""


class ClientError(DeployerError):
    """A command cannot do what it was asked for. `exit_code` says which kind of reason that is."""

    exit_code = ExitCode.FAILED


class Misused(ClientError):
    """What was typed, or what is in the client's settings, makes no sense."""

    exit_code = ExitCode.USAGE


class Unauthorised(ClientError):
    """No valid token, or no right."""

    exit_code = ExitCode.UNAUTHORISED


class Unreachable(ClientError):
    """There is no answer, or none that makes sense.

    retry_after   seconds after which to ask again, when known
    sent          whether the request may have come to the service, and had its effect
    """

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, retry_after: float | None = None, *, sent: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.sent = sent


class Interrupted(ClientError):
    """Ctrl-C; the message says what goes on."""

    exit_code = ExitCode.INTERRUPTED


class Refused(ClientError):
    """The service said no. `problems` are those of a descriptor, one by one; `status` that of HTTP, 0: not asked."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, problems: Sequence[Problem] = (), status: int = 0) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.status = status


class InvalidInput(Refused):
    """A file does not hold what it should. The message may have several lines, each with its place in the file."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, problems)
