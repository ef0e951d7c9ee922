"""What happens, as lines on standard error: for pipelines, files, and terminals that cannot draw."""

from __future__ import annotations

from typing import Any

import click

from deployer.client.output.words import printable


class PlainView:
    """One line for each event; the log is what the service says of it."""

    def __init__(self, prefix: str = "") -> None:
        """`prefix`: in front of each line, where several are followed."""
        self._prefix = prefix
        self._trouble = ""

    def log(self, line: str) -> None:
        """The time of day is enough: a runner's own log has the day."""
        time, _, text = line.partition(" ")
        self._say(f"{time[11:19]} {text}")

    def show(self, deployment: dict[str, Any], app: dict[str, Any] | None) -> None:
        """The log says it."""

    def trouble(self, sentence: str) -> None:
        """Once, and when it is over."""
        if sentence and not self._trouble:
            self._say(f"         {sentence}; asking again")
        elif not sentence and self._trouble:
            self._say("         the service answers again")
        self._trouble = sentence

    def _say(self, text: str) -> None:
        for line in printable(text).split("\n"):
            click.echo(f"{self._prefix}{line}", err=True)
