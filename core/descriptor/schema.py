"""The JSON Schema of descriptors, and what is wrong with a value according to a schema, in words."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import jsonschema
import referencing
from jsonschema.protocols import Validator

from deployer.core.errors import Problem
from deployer.core.podspec import types as podtypes

SCHEMA: Mapping[str, Any] = json.loads(
    resources.files(__package__).joinpath("descriptor.schema.json").read_text("utf-8")
)
"""JSON Schema (2020-12) of a descriptor as users send it."""

MAX_PROBLEMS = 200
MAX_UNKNOWN = 30
"""Unknown fields named of one object; as the bound above, so that answers and the time they take are bounded."""


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword as ECMAScript has it: Python's `$` would also match before a newline at the end."""
    strict = pattern[:-1] + r"\Z" if pattern.endswith("$") and not pattern.endswith("\\$") else pattern
    if isinstance(instance, str) and not re.search(strict, instance):
        yield jsonschema.ValidationError("does not have the right form")


_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _pattern}
)
_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def schema_problems(value: Any, schema: Mapping[str, Any], path: str = "") -> list[Problem]:
    """What is wrong with `value` according to a JSON Schema (2020-12), in words; paths begin with `path`.

    A subschema's `x-rule` is the message for whatever breaks it. References to other documents are never fetched.
    """
    validator = _Validator(schema, registry=referencing.Registry())
    found: list[Problem] = []
    for error in itertools.islice(validator.iter_errors(value), MAX_PROBLEMS):
        found += _problems(error, join(path, *error.absolute_path))
    return found


def join(path: str, *parts: str | int) -> str:
    """`join("podspec", "containers", 0, "name")` is `podspec.containers[0].name`."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[\w$./-]{1,80}", part) else shown(part)
            path += f".{name}" if path else name
    return path


def _problems(error: jsonschema.ValidationError, path: str) -> Iterator[Problem]:
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    limit: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "required":
            # jsonschema reports one error for each missing name, and the name only in its message.
            missing = next(n for n in limit if n not in instance and error.message.startswith(repr(n)))
            yield Problem(join(path, missing), "is required")
        case "additionalProperties" if limit is False:
            known = schema.get("properties", {})
            for name in itertools.islice((n for n in instance if n not in known), MAX_UNKNOWN):
                yield Problem(join(path, name), f"is not a known field{meant(name, known)}")
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            wanted = " or ".join(_KINDS[k] for k in kinds if k != "null")
            yield Problem(path, f"must be {wanted}, not {podtypes.kind_of(instance)}")
        case "maxItems" | "maxLength":
            yield Problem(
                path, f"must not have more than {limit} {'items' if error.validator == 'maxItems' else 'characters'}"
            )
        case _ if "x-rule" in schema:
            yield Problem(path, f"{schema['x-rule']}{_not_this(instance)}")
        case "minimum" | "maximum" if "minimum" in schema and "maximum" in schema:
            yield Problem(path, f"must be between {schema['minimum']} and {schema['maximum']}")
        case "enum":
            yield Problem(path, f"must be one of {', '.join(shown(choice) for choice in limit)}")
        case "minItems" | "minLength" if limit == 1:
            yield Problem(path, "must not be empty")
        case None:
            yield Problem(path, "is not allowed here")  # a schema that is just `false`
        case _:
            yield Problem(path, error.message[:200])


def shown(value: Any) -> str:
    """A value for a message: in quotes, without control characters, short."""
    return json.dumps(value if not isinstance(value, str) or len(value) <= 60 else value[:57] + "...")


def _not_this(value: Any) -> str:
    return f", not {shown(value)}" if isinstance(value, str | int | float | None) else ""


def meant(name: str, known: Iterable[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower()[:100], by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
