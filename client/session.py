"""What every verb that talks to the service begins with: its flags, the profile, and the connection made from both."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deployer.client import configuration
from deployer.client.errors import ClientError, Unreachable
from deployer.client.output.words import printable

if TYPE_CHECKING:
    from deployer.client.connection import Connection
    from deployer.client.service import Service

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("--server",), "URL", f"The service.  [default: {configuration.DEFAULT_SERVER}; env: DEPLOYER_SERVER]"),
    (
        ("-n", "--namespace"),
        "NAME",
        "Namespace.  [default: that of the profile, else default; env: DEPLOYER_NAMESPACE]",
    ),
    (("--profile",), "NAME", "Profile of the settings, see `deployer config`.  [env: DEPLOYER_PROFILE]"),
    (("--token-file",), "FILE", "File with the token.  [env: DEPLOYER_TOKEN_FILE; DEPLOYER_TOKEN is the token itself]"),
    (("--ca-file",), "FILE", "Authorities for the service's certificate, in PEM.  [env: DEPLOYER_CA_FILE]"),
)
"""Those of every verb that talks to the service: names, metavar, help."""


class Session:
    """One command's way to the service. Nothing is read or asked before it is needed."""

    def __init__(self, flags: dict[str, str | None]) -> None:
        self._flags = flags

    @cached_property
    def profile(self) -> configuration.Profile:
        """Raises Misused."""
        return configuration.load(self._flags)

    @property
    def namespace(self) -> str | None:
        """The one that the flag says; None: it says none."""
        return self._flags.get("namespace")

    @cached_property
    def connection(self) -> Connection:
        """Raises Misused."""
        from deployer.client.auth.tokens import token_source
        from deployer.client.connection import TRIES, TRIES_FOR_PEOPLE, Connection

        tries = TRIES_FOR_PEOPLE if interactive() else TRIES
        return Connection(self.profile, token_source(self.profile), warn, waiting=self.waiting, tries=tries)

    def misunderstood(self, error: Exception) -> ClientError | None:
        """Why a verb failed that could not make sense of an answer; None: nothing was answered, so that it is not that.

        Fields are of the types that the service's document says, unless something else answers, or another version.
        """
        if "connection" not in self.__dict__ or not self.connection.answered:
            return None
        import traceback

        from deployer.client.connection import not_a_deployer

        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__}: {error}, at {place.name}:{place.lineno}"
        return Unreachable(f"{not_a_deployer(self.profile.server)} ({where})")

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Within the block somebody is told when the service takes its time."""
        from deployer.client.waiting import Waiting

        return Waiting(self.profile.server, warn)()

    @cached_property
    def service(self) -> Service:
        """In the namespace of the flag, or of the profile."""
        from deployer.client.service import Service

        return Service(self.connection, self.profile.namespace)


def session(command: F) -> F:
    """Gives a command the flags of the session, and the session as its first argument."""

    @wraps(command)
    def run(**arguments: Any) -> Any:
        names = [flag[0][-1].removeprefix("--").replace("-", "_") for flag in FLAGS]
        session = Session({name: arguments.pop(name) for name in names})
        try:
            return command(session, **arguments)
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            if (misunderstood := session.misunderstood(error)) is None:
                raise
            raise misunderstood from error

    for names, metavar, text in reversed(FLAGS):
        run = click.option(*names, metavar=metavar, default=None, help=text)(run)
    return run  # type: ignore[return-value]


def warn(text: str) -> None:
    """One line on standard error."""
    say(f"deployer: {text}")


def say(text: str) -> None:
    """Progress, which is no data: to standard error."""
    click.echo(printable(text), err=True)


def show(text: str, **style: Any) -> None:
    """What a command found, for people: to standard output, in the `style` of click where there may be colours."""
    from deployer.client.output.formats import colours

    shown = printable(text)
    click.echo(click.style(shown, **style) if style and colours() else shown)


def interactive() -> bool:
    """Is there a person at a terminal that can draw?"""
    import os

    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
