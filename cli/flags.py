"""Flags made from the table of settings, and settings made from flags."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from deployer.core.settings import CONFIG_ENV, OPTIONS, Option, Settings, load

F = TypeVar("F", bound=Callable[..., Any])


def settings_flags(without: Collection[str] = ()) -> Callable[[F], F]:
    """A decorator that gives a command `--config` and a flag for every setting but those `without`.

    Values reach the command as they were typed: `read_settings` checks them, so that flags, variables and file have
    the same rules and the same words for what is wrong.
    """

    def decorate(command: F) -> F:
        # The last decorator is the first in the help.
        for option in reversed(OPTIONS):
            if option.flag and option.name not in without:
                command = _flag(option)(command)
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


def read_settings(config: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings: flags, then variables (of this process by default), then the file. Raises SettingsError."""
    # A flag that may be repeated arrives as a tuple, each part of which may hold several names.
    given = {name: ",".join(value) if value and isinstance(value, tuple) else value for name, value in flags.items()}
    return load(given, os.environ if environ is None else environ, config)


def _flag(option: Option) -> Callable[[F], F]:
    more: dict[str, Any] = {"metavar": _metavar(option)}
    names = option.flag
    if option.kind == "switch":
        names, more = f"{option.flag}/{option.flag.replace('--', '--no-', 1)}", {"is_flag": True}
    elif option.kind == "names":
        more["multiple"] = True
    return click.option(names, option.name, default=None, help=_help(option), **more)


def _metavar(option: Option) -> str:
    if option.choices:
        return f"[{'|'.join(choice for choice in option.choices if choice)}]"
    return {"integer": "N", "seconds": "SECONDS", "path": "DIR", "names": "NAME,..."}.get(option.kind, "TEXT")


def _help(option: Option) -> str:
    # A switch that is off by default goes without saying.
    default = f"default: {option.shown}; " if option.shown and option.shown != "false" else ""
    return f"{option.help}  [{default}env: {option.env}]"
