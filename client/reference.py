"""What docs/cli.md has of the verbs, made from these: `python -m deployer.client.reference docs/cli.md`."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from deployer.client.configuration import KEYS, VARIABLES
from deployer.client.errors import MEANINGS
from deployer.client.session import FLAGS
from deployer.client.verbs import VERBS

_MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- /made -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with its made parts as they are now."""
    parts = {"codes": _codes, "keys": _keys, "verbs": _verbs}
    return _MADE.sub(lambda match: f"{match[1]}{''.join(parts[match[2]]())}{match[3]}", text)


def _codes() -> Iterator[str]:
    yield "| code | when |\n|---|---|\n"
    yield from (f"| {int(code)} | {text} |\n" for code, text in MEANINGS.items())


def _keys() -> Iterator[str]:
    yield "| key | variable |\n|---|---|\n"
    for key in KEYS:
        variable = f"`{VARIABLES[key]}`" if key in VARIABLES else ""
        yield f"| `{key}` | {variable} |\n"


def _verbs() -> Iterator[str]:
    yield from (f"- {_names(names, metavar)}: {_text(text)}\n" for names, metavar, text in FLAGS)
    for heading, verbs in VERBS.items():
        yield f"\n### {heading}\n"
        for name, verb in verbs.items():
            command = getattr(importlib.import_module(f"deployer.client.verbs.{verb.module}"), verb.attribute)
            yield from _verb(f"deployer {name}", command)


def _verb(path: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield f"\n#### `{path}`\n\n{_prose(command.help or '')}\n"
        for name, inner in command.commands.items():
            yield from _verb(f"{path} {name}", inner)
        return
    arguments = " ".join(
        p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
    )
    yield f"\n#### `{f'{path} {arguments}'.strip()}`\n\n{_prose(command.help or '')}\n"
    common = {name for names, _, _ in FLAGS for name in names}
    options = [p for p in command.params if isinstance(p, click.Option) and not common & set(p.opts) and not p.hidden]
    if options:
        yield "\n"
    for option in options:
        names = (*option.opts, *option.secondary_opts)
        metavar = "" if option.is_flag else option.metavar or _choices(option)
        default = f" Default: `{option.default}`." if option.show_default and not option.is_flag else ""
        yield f"- {_names(names, metavar)}: {_text(option.help or '')}{default}\n"


def _choices(option: click.Option) -> str:
    kind = option.type
    return (
        "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else "TEXT" if kind.name == "text" else "N"
    )


def _names(names: tuple[str, ...], metavar: str) -> str:
    return ", ".join(f"`{name}`" for name in names) + (f" `{metavar}`" if metavar else "")


def _prose(text: str) -> str:
    """Paragraphs; what click would leave as it is becomes a block of code."""
    out = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            out.append("```\n" + paragraph.removeprefix("\b\n") + "\n```")
        else:
            out.append(_text(" ".join(paragraph.split())))
    return "\n\n".join(out)


def _text(text: str) -> str:
    """Without what Markdown would read as a tag, or as a link."""
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
