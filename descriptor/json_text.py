"""What a text has that is not JSON, for people: YAML, comments, trailing commas and the like are named."""

from __future__ import annotations

import json
import re

# The beginning of a whole document.
_DOCUMENTS = (
    (r"---|-\s|(#[^\n]*\n\s*)*[A-Za-z_][\w.-]*:(\s|\Z)|#", "what looks like YAML"),
    (r"<", "what looks like XML or HTML"),
    (r"[@./~]\S+\s*\Z|\S+\.json\s*\Z", "what looks like a file's name (curl reads a file with --data @file.json)"),
    (r"%7[Bb]|[\w.-]+=", "what looks like a form (send the JSON text itself)"),
)

# What stands where the reading of JSON ended.
_PLACES = (
    (r"\Z", "the end of the document; a bracket, a brace or a value is missing"),
    (r"//|/\*|#", "a comment; JSON has none"),
    (r"'", "a single quote; JSON puts names and texts into double quotes"),
    ("[\u2018-\u201f\u00ab\u00bb]", 'a typographic quotation mark; JSON needs "'),
    (r"(True|False|None)\b", "a word of Python; JSON has true, false and null, in lower case"),
)

_REASONS = (
    ("Unterminated string", "a text that no double quote ends"),
    ("Invalid control character", "a control character in a text; write it as an escape such as \\u0007"),
    ("Invalid \\", "a backslash in a text that begins no escape; a backslash itself is written \\\\"),
    ("Expecting property name", "something where the name of a field is expected, in double quotes"),
    ("Expecting ':'", "something where a colon is expected"),
    ("Expecting ','", "something where a comma or the end is expected; perhaps a comma is missing before it"),
    ("Extra data", "more text after the end of the document"),
    ("Expecting value", "something that is no value; texts need double quotes"),
)
_CONTROLS = {"\t": "a tab in a text; write it as \\t", "\n": "a line break in a text; write it as \\n, or end the text"}


def explain(error: json.JSONDecodeError) -> str:
    """Where the text is no JSON, and what is there instead, in one sentence that repeats nothing of it."""
    found = _found(error) if error.doc.strip() else "nothing: it is empty"
    return f"the document is not JSON: line {error.lineno} column {error.colno}: expected a JSON object, found {found}"


def _found(error: json.JSONDecodeError) -> str:
    text, position = error.doc, error.pos
    before, rest = text[:position].rstrip(), text[position:]
    if not before:
        for pattern, what in _DOCUMENTS:
            if re.match(pattern, rest):
                return what
    if "control character" in error.msg and rest[:1] in _CONTROLS:
        return _CONTROLS[rest[0]]
    # Where it is found depends on the release of Python: at the comma, or at what follows it.
    if re.match(r",\s*[}\]]", rest) or (before.endswith(",") and rest[:1] in ("}", "]")):
        return "a trailing comma, after which nothing follows"
    if error.msg == "Extra data" and rest.startswith(":"):
        return "the value of a field outside of any object; the document must begin with {"
    if "string" not in error.msg and "escape" not in error.msg:
        for pattern, what in _PLACES:
            if re.match(pattern, rest.lstrip() if pattern == r"\Z" else rest):
                return what
    return next((what for said, what in _REASONS if error.msg.startswith(said)), "something that is not JSON")
