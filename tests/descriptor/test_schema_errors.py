"""What breaks a schema is said in words, with its place, and without values where they may be secret."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.descriptor.schema_errors import check_schema, schema_problems

SECRET = "canary-pw"


def said(value: Any, schema: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in schema_problems(value, schema, **options)]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "integer"}, "x", "must be a whole number, not text"),
        ({"type": ["array", "null"]}, {}, "must be a list, not an object"),
        ({"minimum": 1}, 0, "must be at least 1"),
        ({"maximum": 9}, 10, "must be at most 9"),
        ({"minimum": 1, "maximum": 9}, 10, "must be between 1 and 9"),
        ({"exclusiveMinimum": 0}, 0, "must be more than 0"),
        ({"exclusiveMaximum": 5}, 5, "must be less than 5"),
        ({"minLength": 1}, "", "must not be empty"),
        ({"minItems": 2}, [1], "must have at least 2 items"),
        ({"maxLength": 2}, "abc", "must not have more than 2 characters"),
        ({"pattern": "^a$"}, "a\n", "must match the pattern ^a$"),
        ({"enum": ["a", "b"]}, "c", 'must be one of "a", "b"'),
        ({"minLength": 9, "x-rule": "must be long"}, "short", 'must be long, not "short"'),
    ],
)
def test_every_rule_has_its_sentence(schema: dict[str, Any], value: Any, message: str) -> None:
    assert said(value, schema, path="here") == [("here", message)]


def test_missing_and_unknown_fields_are_named_where_they_belong() -> None:
    schema = {
        "type": "object",
        "required": ["size"],
        "dependentRequired": {"cert": ["key", "chain"]},
        "additionalProperties": False,
        "properties": {"size": {}, "cert": {}, "key": {}, "chain": {}},
    }
    assert sorted(said([{"sise": 1, "cert": 2, "other": 3}], {"items": schema})) == [
        ("[0].chain", "is required where cert is given"),
        ("[0].key", "is required where cert is given"),
        ("[0].other", "is not a known field; available: cert, chain, key, size"),
        ("[0].sise", "is not a known field; did you mean size?"),
        ("[0].size", "is required"),
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"const": "x"},
        {"oneOf": [{"type": "integer"}]},
        {"not": {}},
        {"format": "x", "maxLength": 3},
        {"pattern": "^x"},
        {"enum": ["x"]},
        {"type": "integer"},
        {"minLength": 99, "x-rule": "must be long"},
    ],
)
def test_a_value_that_may_be_secret_is_never_said(schema: Any) -> None:
    whole = {"properties": {"password": schema}}
    ((path, message),) = said({"password": SECRET}, whole, secret=True)
    assert path == "password"
    assert message
    assert SECRET not in message


def test_what_is_no_schema_says_so() -> None:
    assert check_schema({"type": "object"}) == ""
    assert check_schema([]) == "is no JSON Schema but a list"
    assert check_schema({"type": "text"}).startswith("is no JSON Schema: 'text' is not valid")


def test_references_are_never_fetched() -> None:
    with pytest.raises(Exception, match=r"http://127\.0\.0\.1:1/"):
        schema_problems(1, {"$ref": "http://127.0.0.1:1/schema.json"})


@pytest.mark.parametrize("rule", [{"not": {"required": ["a"]}}, {"anyOf": [{"required": ["b"]}]}, {"const": {}}])
def test_what_is_in_an_object_is_not_repeated(rule: dict[str, Any]) -> None:
    (problem,) = schema_problems({"a": "hidden"}, {"type": "object", **rule})
    assert problem.message == f"breaks the rule {next(iter(rule))} of its schema"
