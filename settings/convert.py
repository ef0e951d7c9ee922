"""Values as they are typed, as the types of the table."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deployer.core.errors import SettingsError
from deployer.settings.options import Check, Option
from deployer.settings.table import Settings

_FIELDS = {f.name: f for f in dataclasses.fields(Settings)}

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def convert(option: Option, value: object, source: str) -> Any:
    """`value` as the option's type, checked. Raises SettingsError that names `source`."""
    try:
        out = _CONVERTERS[option.kind](value)
    except ValueError as error:
        shown = "the value" if option.secret else repr(value)
        raise SettingsError(f"{source}: {shown} is not {error}") from None
    if option.choices and out not in option.choices:
        raise SettingsError(f"{source}: {out!r} is not one of {', '.join(c or 'empty' for c in option.choices)}")
    check: Check | None = _FIELDS[option.name].metadata["check"]
    # Empty means "not set" wherever the default is empty too, so that a variable can be cleared.
    if check and (out != "" or option.default not in ("", None)) and (wrong := check(out)):
        raise SettingsError(f"{source}: {wrong}")
    if option.kind == "table":
        return MappingProxyType({k: tuple(v) if isinstance(v, list) else v for k, v in out.items()})
    return out


def _to_text(value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value.strip()
    raise ValueError("a single line of text")


def _to_integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,15}\s*", value):
        return int(value)
    raise ValueError("a whole number")


def _to_seconds(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise ValueError("a number of seconds")


def _to_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("true or false")


def _to_path(value: object) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    if text := _to_text(value):
        return Path(text).expanduser()
    raise ValueError("a path")


def _to_names(value: object) -> tuple[str, ...]:
    """Several names: a list, or one text in which commas separate them (an empty one means none)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(part.strip() for part in value)
    raise ValueError("a list of names")


def _to_table(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return copy.deepcopy(dict(value))
    raise ValueError("a table")


def _to_tables(value: object) -> tuple[dict[str, Any], ...]:
    if isinstance(value, list | tuple):
        return tuple(map(_to_table, value))
    raise ValueError("a list of tables, each under a line [[...]]")


_CONVERTERS: Mapping[str, Callable[[object], Any]] = {
    "text": _to_text,
    "integer": _to_integer,
    "seconds": _to_seconds,
    "switch": _to_switch,
    "path": _to_path,
    "names": _to_names,
    "table": _to_table,
    "tables": _to_tables,
}
