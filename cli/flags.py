"""Flags made from the table of settings, and settings made from flags."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from deployer.settings import CONFIG_ENV, OPTIONS, Option, Settings, load

F = TypeVar("F", bound=Callable[..., Any])


class SettingsCommand(click.Command):
    """A command whose help has its flags under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own flags first, then those of settings."""
        subjects = {option.name: option.subject for option in OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if not isinstance(parameter, click.Argument) and (row := parameter.get_help_record(ctx)):
                sections.setdefault(subjects.get(parameter.name or "", "Options"), []).append(row)
        for name, rows in sections.items():
            with formatter.section(name):
                formatter.write_dl(rows)


def settings_flags(refused: Collection[str] = (), why: str = "", shown: Collection[str] = ()) -> Callable[[F], F]:
    """A decorator that gives a command `--config` and a flag for every setting.

    refused   settings whose flags end the command, and `why`
    shown     those that the help names; all by default

    Values reach the command as they were typed: `read_settings` checks them, so that flags, variables and file have
    the same rules and the same words for what is wrong.
    """

    def decorate(command: F) -> F:
        # The last decorator is the first in the help.
        for option in reversed(OPTIONS):
            if option.name in refused:
                command = _refused_flag(option, why)(command)
            elif option.flag:
                command = _flag(option, hidden=bool(shown) and option.name not in shown)(command)
        return config_flag(command)

    return decorate


def config_flag(command: F) -> F:
    """Gives a command `--config`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"TOML file with settings, the tables of plugins included.  [env: {CONFIG_ENV}]",
    )(command)


def read_settings(
    config: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, whole: bool = True
) -> Settings:
    """The settings: flags, then variables (of this process by default), then the file. Raises SettingsError.

    When not `whole`, settings that need others may lack them.
    """
    # A flag that may be repeated arrives as a tuple, each part of which may hold several names.
    given = {name: ",".join(value) if value and isinstance(value, tuple) else value for name, value in flags.items()}
    return load(given, os.environ if environ is None else environ, config, whole=whole)


def _flag(option: Option, *, hidden: bool = False) -> Callable[[F], F]:
    more: dict[str, Any] = {} if option.kind == "switch" else {"metavar": _metavar(option)}
    if option.kind == "names":
        more["multiple"] = True
    if option.choices or option.kind == "path" or option.name.endswith("_file"):
        more["shell_complete"] = functools.partial(_completions, option)
    return click.option(_names(option), option.name, default=None, help=_help(option), hidden=hidden, **more)


def _completions(
    option: Option, _context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem]:
    """What a shell offers for the flag's value."""
    if option.choices:
        return [CompletionItem(choice) for choice in option.choices if choice and choice.startswith(typed)]
    return [CompletionItem(typed, type="dir" if option.kind == "path" else "file")]


def _refused_flag(option: Option, why: str) -> Callable[[F], F]:
    """A flag that is known and has no place here."""

    def refuse(_context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            raise click.UsageError(f"{option.flag} {why}")

    return click.option(
        _names(option), option.name, default=None, hidden=True, expose_value=False, is_eager=True, callback=refuse
    )


def _names(option: Option) -> str:
    """A switch has a second flag that turns it off."""
    return f"{option.flag}/{option.flag.replace('--', '--no-', 1)}" if option.kind == "switch" else option.flag


def _metavar(option: Option) -> str:
    if option.choices:
        return f"[{'|'.join(choice for choice in option.choices if choice)}]"
    return {"integer": "N", "seconds": "SECONDS", "path": "DIR", "names": "NAME,..."}.get(option.kind, "TEXT")


def _help(option: Option) -> str:
    # A switch that is off by default goes without saying.
    default = f"default: {option.shown}; " if option.shown not in ("", "false") else ""
    return f"{option.help}  [{default}env: {option.env}]"
