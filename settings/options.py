"""What one row of the table of settings is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ENV_PREFIX = "DEPLOYER_"

TABLES = ("table", "tables")
"""Kinds that only a TOML file can express: `[name]`, and `[[name]]` as often as one likes."""

Check = Callable[[Any], str]
"""Given a value, what is wrong with it; an empty text when nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table of settings.

    kind      "text", "path", "integer", "seconds", "switch", "names" (several texts), "table" or
              "tables" (both in the TOML file only)
    default   the value when nothing is said; for computed defaults what they are without an environment
    shown     the default in words, for help and documentation
    original  the flag of the original that means the same, without dashes; empty when there was none
    choices   the only texts allowed; empty when any will do
    secret    never shown
    subject   the heading under which help and documentation have it
    """

    name: str
    kind: str
    default: Any
    shown: str
    help: str
    original: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False
    subject: str = ""

    @property
    def flag(self) -> str:
        """The canonical flag, empty for tables; a switch also has `--no-...`."""
        return "" if self.kind in TABLES else "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The variable, empty for tables."""
        return "" if self.kind in TABLES else ENV_PREFIX + self.name.upper()


def setting(
    kind: str,
    default: Any,
    text: str,
    *,
    shown: str | None = None,
    original: str = "",
    choices: tuple[str, ...] = (),
    secret: bool = False,
    check: Check | None = None,
) -> Any:
    """A dataclass field with a row's metadata. A callable default is given the environment's variables."""
    meta = {"kind": kind, "help": text, "original": original, "choices": choices, "secret": secret, "check": check}
    computed = callable(default)
    if shown is None:
        shown = {"switch": "false", "table": "none", "tables": "none"}.get(kind, "") if not default else plain(default)
    meta |= {"shown": shown, "computed": default if computed else None}
    if computed:
        return field(default_factory=lambda: default(os.environ), metadata=meta, repr=not secret)
    if kind == "table":
        return field(default_factory=lambda: MappingProxyType({}), metadata=meta)
    return field(default=default, metadata=meta, repr=not secret)


def plain(value: Any) -> str:
    """A value as help and sentences show it."""
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
