"""Files of descriptors: JSON and YAML, several documents, and the line and column of everything that is in them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from deployer.client.errors import InvalidInput, Misused
from deployer.core.errors import Problem

LARGEST = 8 * 1024 * 1024
"""Bytes of a file. One descriptor has at most 1 MiB; the service says so."""

MOST_VALUES = 200_000
"""Values of a file, with aliases written out: ten lines of YAML can mean a billion."""

DEEPEST = 500
"""Brackets that may be open at once; the service takes 64 levels."""

SUFFIXES = (".json", ".yaml", ".yml")

_TEXT = "tag:yaml.org,2002:str"
# JSON has no such things: what looks like a date is the text that stands there.
_AS_TEXT = ("tag:yaml.org,2002:timestamp",)
_KNOWN = frozenset(f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))


@dataclass(frozen=True, slots=True)
class Position:
    """Where something stands; both count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Source:
    """One descriptor as it was read.

    name      of the file, `<stdin>` for standard input
    text      the whole file
    document  what is in this part of it
    """

    name: str
    text: str
    document: dict[str, Any]
    node: Node | None = field(default=None, repr=False)
    flags: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    """Paths that flags have put in, and the flag of each."""

    def flag(self, path: str) -> str:
        """The flag that put in what is at a path; empty: it is in the file."""
        parts = tuple(steps(path))
        return next((flag for set_, flag in self.flags.items() if parts[: len(set_)] == set_), "")

    def position(self, path: str) -> Position | None:
        """Where a path such as `podspec.containers[0].image` stands, or the nearest thing around it that is there; None
        when a flag has put it in."""
        if self.flag(path):
            return None
        if self.node is None:
            self.node = _compose(self.text, self.name)[0]
        node: Node = self.node
        found = node.start_mark
        for part in steps(path):
            key, below = _child(node, part)
            if below is None:
                break
            found, node = (key or below).start_mark, below
        return Position(found.line + 1, found.column + 1)

    def line(self, position: Position) -> str:
        """The line itself, without its line feed."""
        lines = self.text.splitlines()
        return lines[position.line - 1] if position.line <= len(lines) else ""


def read(path: str) -> list[Source]:
    """The descriptors in a file; `-` is standard input. Raises InvalidInput or Misused."""
    name = "<stdin>" if path == "-" else path
    try:
        content = sys.stdin.buffer.read(LARGEST + 1) if path == "-" else _content(Path(path))
    except OSError as error:
        raise Misused(f"{name} cannot be read: {error.strerror or error}") from None
    if len(content) > LARGEST:
        raise InvalidInput(f"{name} has more than {LARGEST >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8: byte {error.start + 1} is none") from None
    return parse(text, name)


def read_all(paths: Sequence[str]) -> list[Source]:
    """Of files, and of the files in directories (`*.json`, `*.yaml`, `*.yml`, by name; not of those below them)."""
    found: list[Source] = []
    for path in paths:
        if path == "-" or not Path(path).is_dir():
            found += read(path)
            continue
        files = sorted(file for file in Path(path).iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise Misused(f"{path} has no files that end with {', '.join(SUFFIXES)}")
        for file in files:
            found += read(str(file))
    return found


def parse(text: str, name: str) -> list[Source]:
    """The descriptors in a text. Raises InvalidInput."""
    try:
        return [
            Source(name, text, _object(json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number), name))
        ]
    except (ValueError, RecursionError):
        pass  # it is YAML, or JSON with a mistake: the other reader says where
    sources = []
    for node in _compose(text, name):
        _check(node, name, text)
        document = _construct(node, name, text)
        if document is not None:  # a `---` with nothing behind it
            sources.append(Source(name, text, _object(document, name, node), node))
    if not sources:
        raise InvalidInput(f"{name} is empty; `deployer init` writes a descriptor to begin with")
    return sources


def shown(name: str, text: str, position: Position, message: str) -> str:
    """A problem with its place: `shop.yaml:3:5: message`, the line, and a mark below it."""
    lines = text.splitlines()
    line = lines[position.line - 1] if 0 < position.line <= len(lines) else ""
    head = f"{name}:{position.line}:{position.column}: {message}"
    if not line.strip():
        return head
    start = max(0, position.column - 60)  # of a file that is one long line the part that matters
    part = line[start : start + 100].replace("\t", " ")
    return f"{head}\n    {part}\n    {' ' * (position.column - 1 - start)}^"


def steps(path: str) -> Iterator[str | int]:
    """`a.b[0]."x y"` as `a`, `b`, 0, `x y`."""
    for match in re.finditer(r'\[(\d+)\]|"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)', path):
        number, quoted, plain = match.groups()
        yield int(number) if number is not None else json.loads(f'"{quoted}"') if quoted is not None else plain


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def _object(document: Any, name: str, node: Node | None = None) -> dict[str, Any]:
    if isinstance(document, dict):
        return document
    where = f"{name}:{node.start_mark.line + 1}" if node is not None else name
    several = "; several descriptors are separated by ---" if isinstance(document, list) else ""
    raise InvalidInput(f"{where}: a descriptor is an object with fields such as appName{several}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is there twice")
    return out


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _too_deep(text: str) -> bool:
    """Are more brackets open than any descriptor needs? The reader would take long to find out."""
    deep = 0
    for character in re.findall(r"[\[\]{}]", text):
        deep = deep + 1 if character in "[{" else max(0, deep - 1)
        if deep > DEEPEST:
            return True
    return False


def _compose(text: str, name: str) -> list[Node]:
    if _too_deep(text):
        raise InvalidInput(f"{name} is nested too deeply")
    # In JSON tabs are white space like any other; in YAML they may not indent. Within texts JSON has none.
    lenient = text.replace("\t", " ") if text.lstrip()[:1] in ("{", "[") else text
    try:
        return [node for node in YAML(typ="safe", pure=True).compose_all(lenient) if node is not None]
    except MarkedYAMLError as error:
        from deployer.client.descriptors.yaml_errors import explained

        message, mark = explained(error)
        if mark is None:
            raise InvalidInput(f"{name}: {message}") from None
        raise InvalidInput(shown(name, text, Position(mark.line + 1, mark.column + 1), message)) from None
    except YAMLError as error:
        raise InvalidInput(f"{name} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InvalidInput(f"{name} is nested too deeply") from None


def _check(root: Node, name: str, text: str) -> None:
    """Refuse what JSON cannot say, and aliases that grow without end."""
    left = [MOST_VALUES]

    def fail(node: Node, message: str) -> InvalidInput:
        return InvalidInput(shown(name, text, Position(node.start_mark.line + 1, node.start_mark.column + 1), message))

    def walk(node: Node, above: tuple[int, ...]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise fail(root, f"has more than {MOST_VALUES} values, aliases written out")
        if id(node) in above:
            raise fail(node, "an alias contains itself")
        if str(node.tag) in _AS_TEXT:
            node.ctag = _tag(_TEXT)
        elif str(node.tag) not in _KNOWN:
            raise fail(node, f"the tag {node.tag} has no meaning in a descriptor")
        inside = (*above, id(node))
        if isinstance(node, SequenceNode):
            for item in node.value:
                walk(item, inside)
        elif isinstance(node, MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, ScalarNode):
                    raise fail(key, "a key must be text")
                if str(key.tag) != _TEXT and not str(key.tag).endswith(":merge"):
                    raise fail(key, f'a key must be text: write "{key.value}"')
                if key.value in seen and not str(key.tag).endswith(":merge"):
                    raise fail(key, f"the key {key.value} is there twice")
                seen.add(key.value)
                walk(value, inside)
        elif str(node.tag).endswith(":float") and re.fullmatch(r"[-+]?\.(inf|nan)", node.value, re.IGNORECASE):
            raise fail(node, f"{node.value} is no number in JSON")

    try:
        walk(root, ())
    except RecursionError:
        raise InvalidInput(f"{name} is nested too deeply") from None


def _tag(suffix: str) -> Any:
    from ruamel.yaml.tag import Tag

    return Tag(suffix=suffix)


def _construct(node: Node, name: str, text: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    try:
        return yaml.constructor.construct_document(node)
    except (MarkedYAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or node.start_mark
        message = getattr(error, "problem", None) or str(error)
        raise InvalidInput(shown(name, text, Position(mark.line + 1, mark.column + 1), str(message))) from None


def _child(node: Node, part: str | int) -> tuple[Node | None, Node | None]:
    """The key's node and the value's; None where there is none."""
    if isinstance(part, int):
        inside = isinstance(node, SequenceNode) and part < len(node.value)
        return None, node.value[part] if inside else None
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    return None, None


def located(source: Source, problems: Sequence[Problem]) -> list[str]:
    """Problems of a descriptor with their places in the file, in the order of the file."""
    found = []
    for problem in problems:
        position = source.position(problem.path)
        message = f"{problem.path}: {problem.message}" if problem.path else problem.message
        if flag := source.flag(problem.path):
            told = flag.startswith(f"--set {problem.path}=")
            message = f"{flag}: {problem.message if told else message}"
        found.append((position, message))
    found.sort(key=lambda item: (item[0].line, item[0].column) if item[0] else (0, 0))
    return [shown(source.name, source.text, p, m) if p else f"{source.name}: {m}" for p, m in found]
