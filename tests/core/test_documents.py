"""What a store wrote is what it reads, whichever decoder does it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployer.core.model.json_codec import dumps, loads

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
DOCUMENTS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=20,
    ),
    max_size=5,
)


def shape(value: Any) -> Any:
    """The value with the types of its numbers: 1 is no 1.0 here."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.slow
@given(DOCUMENTS)
@settings(max_examples=300, deadline=None, database=None)
def test_everything_comes_back(document: dict[str, Any]) -> None:
    text = dumps(document)
    assert text.isascii()
    # Two halves of a surrogate pair that met in a text are one character afterwards; otherwise nothing changes.
    assert list(loads(text).items()) == list(json.loads(text).items())
    assert shape(loads(text)) == shape(json.loads(text))


@pytest.mark.parametrize("value", ["\udc80", "\ud800a\ud800\udc00", 2**64, -(10**40), 1e400, "\x00", None, 5e-324])
def test_what_strict_decoders_refuse(value: Any) -> None:
    text = dumps({"value": value})
    assert shape(loads(text)) == shape(json.loads(text))


def test_what_is_no_number_comes_back_too() -> None:
    assert str(loads(dumps({"value": float("nan")}))["value"]) == "nan"
