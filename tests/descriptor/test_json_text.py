"""What is sent instead of JSON is named, with line and column, and not repeated."""

from __future__ import annotations

import pytest

from deployer.core.errors import Invalid
from deployer.descriptor import parse


def refusal(body: str) -> str:
    with pytest.raises(Invalid) as caught:
        parse(body.encode())
    [problem] = caught.value.problems
    assert problem.path == ""
    return problem.message


@pytest.mark.parametrize(
    ("body", "line", "column", "found"),
    [
        ("namespace: default\nappName: shop\n", 1, 1, "YAML"),
        ("---\nappName: shop\n", 1, 1, "YAML"),
        ("# our shop\n\nappName: shop\n", 1, 1, "YAML"),
        ("- appName: shop", 1, 1, "YAML"),
        ("<descriptor/>", 1, 1, "XML"),
        ("appName=shop", 1, 1, "a form"),
        ("@shop.json", 1, 1, "a file's name"),
        ("/home/jane/shop.json", 1, 1, "a file's name"),
        ("shop.json", 1, 1, "a file's name"),
        ('{\n  "a": 1 // one\n}', 2, 10, "a comment"),
        ('{\n  /* one */ "a": 1}', 2, 3, "a comment"),
        ('{"a": 1 # one\n}', 1, 9, "a comment"),
        ('{"a": "x\ty"}', 1, 9, "a tab in a text; write it as \\t"),
        ('{"a": "x\n"}', 1, 9, "a line break in a text"),
        ('{"a": "\\d"}', 1, 8, "a backslash"),
        ("{'a': 1}", 1, 2, "a single quote"),
        ("{\u201ca\u201d: 1}", 1, 2, "a typographic quotation mark"),
        ("{a: 1}", 1, 2, "where the name of a field is expected"),
        ('{"a": True}', 1, 7, "a word of Python"),
        ('{"a": shop}', 1, 7, "texts need double quotes"),
        ('{"a" 1}', 1, 6, "where a colon is expected"),
        ('{"a": 1\n "b": 2}', 2, 2, "perhaps a comma is missing before it"),
        ('{"a": 1', 1, 8, "the end of the document"),
        ('{"a": "x', 1, 7, "no double quote ends"),
        ('{"a": 1}\n{"b": 2}', 2, 1, "more text after the end"),
        ('"a": 1', 1, 4, "must begin with {"),
    ],
)
def test_what_was_found_is_named_where_it_is(body: str, line: int, column: int, found: str) -> None:
    said = refusal(body)
    start = f"the document is not JSON: line {line} column {column}: expected a JSON object, found "
    assert said.startswith(start) and found in said


@pytest.mark.parametrize("body", ['{"a": 1,}', '{"a": [1, 2,\n]}', '{"a": 1 ,\n\n}'])
def test_a_trailing_comma(body: str) -> None:
    """Releases of Python differ in where they find it."""
    assert "a trailing comma" in refusal(body)


@pytest.mark.parametrize("body", ["", " \r\n\t", "\ufeff"])
def test_an_empty_body(body: str) -> None:
    assert refusal(body).endswith("expected a JSON object, found nothing: it is empty")


@pytest.mark.parametrize(
    ("body", "kind"),
    [("[]", "a list"), ('"x"', "a text"), ("1", "a number"), ("null", "null"), ("true", "true or false")],
)
def test_json_that_is_no_object(body: str, kind: str) -> None:
    assert refusal(body) == f"the document is not a JSON object but {kind}"


def test_gzip_is_named() -> None:
    with pytest.raises(Invalid, match="compressed with gzip"):
        parse(b"\x1f\x8b\x08\x00\x00\x00\x00\x00")


@pytest.mark.parametrize("body", ["secret-word: x", '{"a": secret-word}', '{"a": "secret-word\t"}', "secret-word"])
def test_nothing_of_the_body_is_repeated(body: str) -> None:
    assert "secret" not in refusal(body)
