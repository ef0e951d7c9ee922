"""Exports: everything that a store holds, as compressed lines of JSON.

A file is gzip (RFC 1952) of UTF-8 text, a JSON object a line: first `{"format": "deployer-export", "version": 1, ...}`,
then a line for each item, in the order in which they are loaded, last `{"end": ...}` with count and checksum of each
kind. `docs/operations.md` has the fields, for people who read one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deployer
from deployer.core.model import json_codec
from deployer.core.model.records import Document, new_id, timestamp
from deployer.core.ports.store import LogLine
from deployer.store.transfer.files import FileProblem, replacing
from deployer.store.transfer.port import Item, Lines, Row, Token

FORMAT = "deployer-export"
VERSION = 1
"""Goes up when a release of before could not load what is written, or would misread it."""

LOG, TOKEN = "log", "token"
"""What the sums call lines of logs and fencing tokens; all else is a kind of record."""

_LONGEST = 256 * 1024 * 1024  # characters of a line: what is longer is no export


@dataclass(slots=True)
class Sum:
    """Count and checksum of the items of a kind. The checksum is SHA-256 over all of them in their order."""

    count: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, *parts: object) -> None:
        self.count += 1
        self.digest.update(json.dumps(parts).encode() + b"\n")

    def document(self) -> Document:
        """As it stands in a file."""
        return {"count": self.count, "sha256": self.digest.hexdigest()}


class Sums:
    """Of all kinds, whatever store the items come from: the numbers that a store gives to records are left out."""

    def __init__(self) -> None:
        self.items = 0
        self.tokens: dict[tuple[str, str], int] = {}
        self._sums: dict[str, Sum] = {}

    def add(self, item: Item) -> None:
        """Count one more."""
        self.items += 1
        match item:
            case Row():
                document = json_codec.dumps(item.document)
                self._sum(item.kind).add(item.key, item.namespace, item.app, item.tag, document)
            case Lines():
                for line in item.lines:
                    self._sum(LOG).add(item.deployment, line.number, line.time, line.text)
            case Token():
                self.tokens[item.namespace, item.app] = item.token
                self._sum(TOKEN).add(item.namespace, item.app, item.token)

    def _sum(self, kind: str) -> Sum:
        return self._sums.setdefault(kind, Sum())

    def document(self) -> Document:
        """By kind, in their order."""
        return {kind: found.document() for kind, found in sorted(self._sums.items())}


@dataclass(frozen=True, slots=True)
class Header:
    """What an export says of itself.

    id       names this export, so that one import of it is told from another
    created  when its moment was, RFC 3339
    release  of the Deployer that wrote it
    """

    id: str
    created: str
    release: str


def write(target: Path, items: Iterable[Item]) -> Sums:
    """Write an export, readable by its owner only; it is complete or not there. Raises FileProblem and what the items
    raise."""
    sums = Sums()
    header = Header(new_id(), timestamp(), deployer.__version__)
    with replacing(target) as draft, gzip.open(draft, "wt", encoding="utf-8", newline="\n") as out:
        out.write(_line({"format": FORMAT, "version": VERSION, **_fields(header)}))
        for item in items:
            sums.add(item)
            out.write(_line(_document(item)))
        out.write(_line({"end": sums.document()}))
    return sums


class ExportFile:
    """An export that is there. Reading it raises FileProblem for what is none, or is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> tuple[Header, Sums]:
        """Read it to its end: what it says of itself and what is in it, which is what it says in its last line."""
        sums = Sums()
        lines = self._lines()
        header = self._header(next(lines, {}))
        for document in lines:
            if "end" not in document:
                sums.add(self._item(document))
            elif document["end"] != sums.document():
                raise self._damaged("its counts and checksums are others than those of its lines")
            elif next(lines, None) is not None:
                raise self._damaged("something follows its last line")
            else:
                return header, sums
        raise self._damaged("its end is missing")

    def items(self) -> Iterator[Item]:
        """The items, in the order in which they are loaded."""
        lines = self._lines()
        next(lines)
        for document in lines:
            if "end" not in document:
                yield self._item(document)

    def _header(self, document: Document) -> Header:
        if document.get("format") != FORMAT:
            raise FileProblem(f"{self._path} is no export of the Deployer: name a file that `deployer export` wrote")
        version = document.get("version")
        if version != VERSION:
            raise FileProblem(
                f"{self._path} was written by a newer release (format {version!r}, this one reads {VERSION}): import "
                f"it with release {document.get('release')}, or a later one"
            )
        return Header(**{name: str(document.get(name)) for name in Header.__slots__})

    def _lines(self) -> Iterator[Document]:
        number = 0
        try:
            with gzip.open(self._path, "rt", encoding="utf-8", newline="\n") as file:
                while text := file.readline(_LONGEST):
                    number += 1
                    document = json.loads(text)
                    if not isinstance(document, dict) or not text.endswith("\n"):
                        raise self._damaged(f"line {number} is no object")
                    yield document
        except gzip.BadGzipFile as error:
            if number:
                raise self._damaged(f"after line {number} ({error})") from error
            raise FileProblem(
                f"{self._path} is no export of the Deployer: name a file that `deployer export` wrote"
            ) from error
        except (EOFError, zlib.error, ValueError) as error:
            raise self._damaged(f"after line {number} ({error})") from error
        except OSError as error:
            raise FileProblem(f"{self._path} cannot be read ({error.strerror or error})") from error

    def _item(self, document: Document) -> Item:
        try:
            if "record" in document:
                values = dict(document["record"])
                return Row(**values, text=json_codec.dumps(document["document"]))
            if "log" in document:
                lines = tuple(LogLine(int(n), str(time), str(text)) for n, time, text in document["lines"])
                return Lines(str(document["log"]), lines)
            return Token(**document["token"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"a line is none that this release knows ({error})") from error

    def _damaged(self, why: str) -> FileProblem:
        return FileProblem(f"the export {self._path} is damaged: {why}; nothing more is read of it, export again")


def _document(item: Item) -> Document:
    match item:
        case Row():
            values = {name: getattr(item, name) for name in Row.__slots__ if name != "text"}
            return {"record": values, "document": item.document}
        case Lines():
            return {"log": item.deployment, "lines": [[line.number, line.time, line.text] for line in item.lines]}
        case Token():
            return {"token": _fields(item)}


def _fields(thing: Header | Token) -> Document:
    return {name: getattr(thing, name) for name in type(thing).__slots__}


def _line(document: Document) -> str:
    return json.dumps(document, separators=(",", ":")) + "\n"
