"""What breaks a JSON Schema, in words: the one translator for descriptors, plugins' options and tables of settings."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jsonschema
import referencing
from jsonschema.protocols import Validator

from deployer.core.errors import Problem
from deployer.descriptor.podspec import types as podtypes
from deployer.settings.spelling import similar

MAX_PROBLEMS = 200
MAX_UNKNOWN = 30
"""Unknown fields named of one object; as the bound above, so that answers and the time they take are bounded."""
UNKNOWN = "is not a known field"
MAX_KNOWN = 12
"""Known fields that are named beside an unknown one that looks like none of them."""


def schema_problems(value: Any, schema: Mapping[str, Any], path: str = "", *, secret: bool = False) -> list[Problem]:
    """What is wrong with `value` according to a JSON Schema (2020-12), in words; paths begin with `path`.

    A subschema's `x-rule` is the message for whatever breaks it. References to other documents are never fetched.

    secret  no message shows a value, as some are passwords; names of fields are shown
    """
    validator = _Validator(schema, registry=referencing.Registry())
    found: list[Problem] = []
    for error in itertools.islice(validator.iter_errors(value), MAX_PROBLEMS):
        found += _problems(error, join(path, *error.absolute_path), secret=secret)
    return found


def check_schema(schema: Any) -> str:
    """Why this is no JSON Schema (2020-12); empty when it is one."""
    if not isinstance(schema, Mapping):
        return f"is no JSON Schema but a {type(schema).__name__}"
    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        return f"is no JSON Schema: {error.message}"
    return ""


def join(path: str, *parts: str | int) -> str:
    """`join("podspec", "containers", 0, "name")` is `podspec.containers[0].name`."""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[\w$./-]{1,80}", part) else shown(part)
            path += f".{name}" if path else name
    return path


def shown(value: Any) -> str:
    """A value for a message: in quotes, without control characters, short."""
    return json.dumps(value if not isinstance(value, str) or len(value) <= 60 else value[:57] + "...")


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword as ECMAScript has it: Python's `$` would also match before a newline at the end."""
    strict = pattern[:-1] + r"\Z" if pattern.endswith("$") and not pattern.endswith("\\$") else pattern
    if isinstance(instance, str) and not re.search(strict, instance):
        yield jsonschema.ValidationError(_LIMITS["pattern"].format(pattern))


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
_LIMITS = {
    "maxItems": "must not have more than {} items",
    "maxLength": "must not have more than {} characters",
    "maxProperties": "must not have more than {} fields",
    "minItems": "must have at least {} items",
    "minLength": "must have at least {} characters",
    "minProperties": "must have at least {} fields",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "pattern": "must match the pattern {}",
}


def _problems(error: jsonschema.ValidationError, path: str, *, secret: bool) -> Iterator[Problem]:
    limit: Any = error.validator_value
    given: Any = error.instance
    match error.validator:
        case "required":
            # jsonschema reports one error for each missing name, and the name only in its message.
            missing = next(n for n in limit if n not in given and error.message.startswith(repr(n)))
            yield Problem(join(path, missing), "is required")
        case "dependentRequired":
            missing, name = next(
                (n, name)
                for name, names in limit.items()
                for n in names
                if name in given and n not in given and error.message.startswith(repr(n))
            )
            yield Problem(join(path, missing), f"is required where {name} is given")
        case "additionalProperties" if limit is False:
            known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
            for name in itertools.islice((n for n in given if n not in known), MAX_UNKNOWN):
                yield Problem(join(path, name), UNKNOWN + suggestion(name, known))
        case _:
            yield Problem(path, _said(error, secret=secret))


def _said(error: jsonschema.ValidationError, *, secret: bool) -> str:
    """What is wrong with the value itself."""
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    rule: Any = error.validator
    limit: Any = error.validator_value
    value: Any = error.instance
    match rule:
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            said = f"must be {' or '.join(_KINDS[k] for k in kinds if k != 'null')}, not {podtypes.kind_of(value)}"
            if limit == "string" and isinstance(value, bool | int | float):
                said += ": put it in quotes"
        case "maxItems" | "maxLength":
            said = _LIMITS[rule].format(limit)
        case _ if "x-rule" in schema:
            said = f"{schema['x-rule']}{'' if secret else _not_this(value)}"
        case "minimum" | "maximum" if "minimum" in schema and "maximum" in schema:
            said = f"must be between {schema['minimum']} and {schema['maximum']}"
        case "enum":
            said = f"must be one of {', '.join(shown(choice) for choice in limit)}"
        case "minItems" | "minLength" | "minProperties" if limit == 1:
            said = "must not be empty"
        case _ if rule in _LIMITS:
            said = _LIMITS[rule].format(limit)
        case None:
            said = "is not allowed here"  # a schema that is just `false`
        case _:
            # The message has the value in it: of an object also what is no business of the reader.
            hidden = secret or isinstance(value, Mapping | list)
            said = f"breaks the rule {rule} of its schema" if hidden else error.message[:200]
    return said


def _not_this(value: Any) -> str:
    return f", not {shown(value)}" if isinstance(value, str | int | float | None) else ""


def suggestion(name: str, known: Collection[str]) -> str:
    """`; did you mean x?`, or what there is if that is not much; else an empty text."""
    if near := similar(name, known):
        return f"; did you mean {near[0]}?"
    return f"; available: {', '.join(sorted(known))}" if 0 < len(known) <= MAX_KNOWN else ""
