"""Reading JSON strictly, from bytes that anybody sent."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Document
from deployer.descriptor import json_text
from deployer.descriptor.schema_errors import MAX_PROBLEMS, join

MAX_BODY = 1 << 20
"""Bytes."""
MAX_NESTING = 64

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def parse(body: bytes) -> Document:
    """The JSON object in `body`. Raises Invalid for whatever is not strictly one, or too large or deep."""
    if len(body) > MAX_BODY:
        _refuse(f"the document is larger than {MAX_BODY} bytes")
    if body[:2] == b"\x1f\x8b":
        _refuse("the document is not UTF-8: it is compressed with gzip; send the JSON uncompressed")
    if b"\0" in body[:4] or body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _refuse("the document is not UTF-8: it looks like UTF-16 or UTF-32")
    repeating: list[_Repeating] = []
    try:
        document = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=functools.partial(_object, repeating),
            parse_constant=lambda word: _refuse(f"{word} is not a JSON value"),
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        _refuse(f"the document is not UTF-8: byte {error.start} is wrong")
    except json.JSONDecodeError as error:
        _refuse(json_text.explain(error))
    except RecursionError:
        _refuse(_TOO_DEEP)
    if not isinstance(document, dict):
        _refuse(f"the document is not a JSON object but {_kind(document)}")
    _inspect(document)
    if repeating:
        raise Invalid(list(itertools.islice(_keys_twice(document), MAX_PROBLEMS)))
    return document


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_TOO_DEEP = f"the document is nested more than {MAX_NESTING} levels deep"


def _refuse(message: str) -> NoReturn:
    raise Invalid([Problem("", message)])


class _Repeating(dict[str, Any]):
    """An object some of whose keys appear twice."""

    keys_twice: list[str]


def _object(repeating: list[_Repeating], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) == len(pairs):
        return out
    found = _Repeating(out)
    found.keys_twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    repeating.append(found)
    return found


def _keys_twice(thing: Any, path: str = "") -> Iterator[Problem]:
    """Keys that appear twice in one object: of which value would count, parsers are not of one mind (RFC 8259, 4)."""
    for name in getattr(thing, "keys_twice", ()):
        yield Problem(join(path, name), "appears twice in one object")
    for step, part in thing.items() if isinstance(thing, dict) else enumerate(thing):
        if isinstance(part, dict | list):
            yield from _keys_twice(part, join(path, step))


def _integer(digits: str) -> int:
    # What does not fit into 64 bits fits nowhere in Kubernetes either, and Python refuses very long numbers itself.
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        _refuse(f"a number of {len(digits.lstrip('-'))} digits is too large")
    return int(digits)


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        _refuse("a number is too large for a floating-point number")
    return value


def _inspect(document: Document) -> None:
    """Refuse lone surrogates, which nothing can encode, and deep nesting. Goes level by level, without recursion."""
    level: list[Any] = [document]
    for _ in range(MAX_NESTING):
        texts = [t for thing in level for t in _parts(thing) if isinstance(t, str)]
        if any(_SURROGATE.search(text) for text in texts):
            _refuse("the document contains half of a surrogate pair, which is not a character")
        level = [part for thing in level for part in _parts(thing) if isinstance(part, dict | list)]
        if not level:
            return
    _refuse(_TOO_DEEP)


def _parts(thing: Any) -> Iterable[Any]:
    return itertools.chain(thing, thing.values()) if isinstance(thing, dict) else thing
