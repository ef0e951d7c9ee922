"""`-o`: what a command found, as a document for programs, or as a table for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from deployer.client.errors import Misused
from deployer.client.output.words import one_line, printable

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = "json|yaml|name|jsonpath=TEMPLATE"
_JSONPATH = "jsonpath="


def output_flag(command: F) -> F:
    """Gives a command `-o`, as `output`; None: for people."""
    text = "Print a document instead of a text for people; `name` are names alone, for scripts."
    return click.option("-o", "--output", metavar=FORMATS, callback=_checked, help=text)(command)


def _checked(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or value in ("json", "yaml", "name"):
        return value
    if value.startswith(_JSONPATH):
        from deployer.client.output import jsonpath

        jsonpath.compile_template(value.removeprefix(_JSONPATH))
        return value
    raise click.BadParameter(f"{value!r} is none of {FORMATS.replace('|', ', ')}")


def emit(output: str, document: Any, names: Iterable[str]) -> None:
    """Print a document as `-o` says; `names` are for `name`, one a line."""
    if output == "name":
        for name in names:
            click.echo(_as_it_is(name))
    elif output == "json":
        click.echo(to_json(document))
    elif output == "yaml":
        click.echo(_as_it_is(to_yaml(document)), nl=False)
    elif output.startswith(_JSONPATH):
        from deployer.client.output import jsonpath

        click.echo(_as_it_is(jsonpath.render(output.removeprefix(_JSONPATH), document)), nl=False)
    else:
        raise Misused(f"-o {output}: no such form")


def to_json(document: Any) -> str:
    """Indented. What a terminal or a pipeline's runner would obey is spelled in the other way that JSON has."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return re.sub(r"#(?=#)|[^\n\x20-\x7e]", _spelled, text)


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    if character == "#":
        return "\\u0023"
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _as_it_is(text: str) -> str:
    """For programs; a person at a terminal gets nothing that it would obey."""
    return printable(text) if sys.stdout.isatty() else text


def to_yaml(document: Any) -> str:
    """As YAML, in the order of the document."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, wide: int = -1, expendable: Sequence[int] = ()
) -> None:
    """Columns with a header. In a terminal a line fits: `expendable` columns go as far as they must, the first of them
    first, and column `wide` (default: the last) gives way. Elsewhere nothing is cut.

    empty  is said on standard error when there are no rows
    """
    lines = [[one_line(cell) for cell in row] for row in rows]
    if not lines:
        click.echo(empty, err=True)
        return
    whole = [list(head), *lines]
    widths = [max(len(row[n]) for row in whole) for n in range(len(head))]
    shown = list(range(len(head)))
    if sys.stdout.isatty():
        n = wide % len(widths)
        least = min(widths[n], 12)

        def excess() -> int:
            """Columns of the terminal that are missing."""
            return sum(widths[m] for m in shown) + 2 * (len(shown) - 1) - _columns()

        for m in expendable:
            if excess() - (widths[n] - least if n in shown else 0) > 0:
                shown.remove(m)
        widths[n] = max(least, widths[n] - max(0, excess()))
    for number, row in enumerate(whole):
        cells = [_cut(row[m], widths[m]).ljust(widths[m]) for m in shown]
        line = "  ".join(cells).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 and colours() else line)


def colours() -> bool:
    """May the output have any? https://no-color.org"""
    import os

    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Lines of `name: value`, values in a column; what is empty is left out. Plain text, wrapped in a terminal."""
    found = [(" " * (len(name) - len(name.lstrip(" "))) + one_line(name), value) for name, value in pairs if value]
    width = max((len(name) for name, _ in found), default=0) + 2
    for name, value in found:
        text = f"{name + ':':<{width}}"
        if sys.stdout.isatty():
            import textwrap

            room = max(40, _columns())
            indent = " " * width
            folded = textwrap.fill(
                one_line(value), room, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )  # an id stays in one piece
            click.echo(text + folded[width:])
        else:
            click.echo(text + one_line(value))
