"""docs/commands.md: the commands of the service, as click knows them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from deployer.cli.commands import cli
from deployer.settings import OPTIONS
from pages.installed import NOTE

_HEAD = f"""\
# Service commands

{NOTE}
`deployer` is the service and its client in one. This page has the commands that run the service, or work on its store;
[Command line](cli.md) has those that talk to a running one. `deployer COMMAND --help` says the same.

Where a command *takes settings*, each of the [settings](settings.md) that it needs is a flag of it, and `--config`
names a file with them.
"""


def commands_page() -> str:
    """The whole page."""
    return _HEAD + "".join("".join(_command(name, cli.commands[name])) for name in sorted(cli.commands))


def _command(name: str, command: click.Command) -> Iterator[str]:
    settings = {option.flag for option in OPTIONS if option.flag}
    arguments = "".join(
        f" {p.make_metavar(click.Context(command))}" for p in command.params if isinstance(p, click.Argument)
    )
    yield f"\n## `deployer {name}{arguments}`\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"\n```\n{paragraph.removeprefix(chr(8)).strip()}\n```\n"
        else:
            yield f"\n{_text(' '.join(paragraph.split()))}\n"
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    own = [option for option in options if not settings & set(option.opts) and "--config" not in option.opts]
    if own:
        yield "\n"
    for option in own:
        names = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
        metavar = "" if option.is_flag else f" `{option.metavar or 'N'}`"
        default = option.show_default if isinstance(option.show_default, str) else option.default
        says = "" if option.is_flag or not option.show_default else f" Default: `{default}`."
        yield f"- {names}{metavar}: {_text(option.help or '')}{says}\n"
    if any(settings & set(option.opts) for option in options):
        yield "\nTakes settings.\n"
    elif len(own) < len(options):
        yield "\n`--config` names the file with the settings.\n"


def _text(text: str) -> str:
    """Without what Markdown would read as a tag."""
    return text.replace("<", "&lt;")
