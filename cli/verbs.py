"""The group of all commands: those of the client are loaded when they are used, and the help has headings."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import click

from deployer.client.verbs import VERBS, Verb

SERVICE = "The service"
"""Heading of the commands that are the service, or bring one."""


class Verbs(click.Group):
    """Commands of its own, and the verbs of the client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the headings."""
        return [*(name for verbs in VERBS.values() for name in verbs), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, loaded now."""
        verb = next((verbs[cmd_name] for verbs in VERBS.values() if cmd_name in verbs), None)
        return super().get_command(ctx, cmd_name) if verb is None else load(verb)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A name that is none is told with the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from deployer.client.output.words import did_you_mean

            raise click.UsageError(f"No such command {args[0]!r}{did_you_mean(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under headings, without loading a verb."""
        own = {name: self.commands[name].get_short_help_str(80) for name in sorted(self.commands)}
        sections: Iterable[tuple[str, dict[str, str]]] = [
            *((heading, {name: verb.summary for name, verb in verbs.items()}) for heading, verbs in VERBS.items()),
            (SERVICE, own),
        ]
        for heading, rows in sections:
            with formatter.section(heading):
                formatter.write_dl(list(rows.items()))


def load(verb: Verb) -> click.Command:
    """The command itself."""
    module = importlib.import_module(f"deployer.client.verbs.{verb.module}")
    command = getattr(module, verb.attribute)
    assert isinstance(command, click.Command)
    return command
