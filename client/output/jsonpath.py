"""The templates of `-o jsonpath=`: the part of kubectl's language that selects.

https://kubernetes.io/docs/reference/kubectl/jsonpath/ has the language. Known here: `{.items[0].id}`, `{.steps[*].id}`,
`{..image}`, `{.metadata['a.b']}`, `{.steps[-1].id}`, `{"\\n"}`; outside of braces is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

Step = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\.\.(?P<deep>[\w-]+)
      | \.(?P<name>[\w-]+|\*)
      | \[(?P<index>-?\d+|\*)\]
      | \[(?P<quote>['"])(?P<key>(?:\\.|(?!(?P=quote)).)*)(?P=quote)\]""",
    re.VERBOSE,
)


def compile_template(template: str) -> list[str | list[Step]]:
    """Texts and paths in turn. Raises click.BadParameter."""
    parts: list[str | list[Step]] = []
    at = 0
    for match in re.finditer(r"\{((?:\"(?:\\.|[^\"])*\"|'(?:\\.|[^'])*'|[^{}\"'])*)\}", template):
        parts.append(template[at : match.start()])
        parts.append(_expression(match.group(1).strip(), template))
        at = match.end()
    rest = template[at:]
    if "{" in rest or "}" in rest:
        raise click.BadParameter(f"the jsonpath {template!r} has a brace that is not closed")
    if not parts and rest:  # `.id` alone, as kubectl takes it
        return [_path(rest if rest.startswith((".", "[", "$")) else f".{rest}", template)]
    return [part for part in [*parts, rest] if part != ""]


def render(template: str, document: Any) -> str:
    """The template filled in; several values are separated by blanks, what is not there is empty."""
    return "".join(p if isinstance(p, str) else _found(p, document) for p in compile_template(template))


def _found(path: list[Step], document: Any) -> str:
    values = [document]
    for step in path:
        values = [found for value in values for found in step(value)]
    return " ".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values)


def _expression(text: str, template: str) -> str | list[Step]:
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
        escaped = text[1:-1].replace('\\"', '"').replace('"', '\\"').replace("\\'", "'")
        try:
            return str(json.loads(f'"{escaped}"'))
        except ValueError:
            raise click.BadParameter(f"the jsonpath {template!r} has a text that is none: {text}") from None
    return _path(text, template)


def _path(text: str, template: str) -> list[Step]:
    text = text.removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(text) and text != ".":
        match = _TOKEN.match(text, at)
        if match is None:
            raise click.BadParameter(
                f"the jsonpath {template!r} cannot be understood at {text[at:]!r}; known are .name, ['name'], [0], [*] "
                "and ..name"
            )
        steps.append(_step(match))
        at = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    deep, name, index, key = (match[n] for n in ("deep", "name", "index", "key"))
    if deep is not None:
        return lambda value: _deep(value, deep)
    if "*" in (name, index):
        return lambda value: iter(
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
    if index is not None:
        return lambda value: _item(value, int(index))
    wanted = name if name is not None else re.sub(r"\\(.)", r"\1", key)
    return lambda value: _field(value, wanted)


def _field(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict) and name in value:
        yield value[name]
    elif isinstance(value, list) and name == "items":  # kubectl's lists are objects with items, ours are arrays
        yield value


def _item(value: Any, index: int) -> Iterator[Any]:
    if isinstance(value, list) and -len(value) <= index < len(value):
        yield value[index]


def _deep(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for item in value.values():
            yield from _deep(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _deep(item, name)
