"""JSON for people: the same bytes whichever encoder makes them."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

import falcon
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployer.api.http import render, send_record, tag_of

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
# Floats whose spelling has an exponent may look otherwise: `1e16` is `1e+16` as well.
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False).filter(lambda f: "e" not in repr(f))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def expected(document: Any) -> bytes:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


class Colour(StrEnum):
    RED = "red"


@given(DOCUMENTS)
@settings(max_examples=300, deadline=None, database=None)
def test_documents_are_rendered_as_by_the_standard_library(document: Any) -> None:
    assert render(document) == expected(document)


@pytest.mark.parametrize(
    "document",
    [
        {"a": "\udc80", "b": ["\ud83d", "\ud83d\ude00"]},
        {"\ud800": 1},
        {"text": "null", "nothing": None},
        {"n": [2**63, -(2**63), 2**64, 10**40]},
        {"empty": [{}, [], ""], "colour": Colour.RED, "pair": (1, 2)},
        {"controls": "".join(map(chr, range(32))) + '\x7f\u2028</é\U0001f600"\\/'},
    ],
)
def test_what_is_rare(document: Any) -> None:
    assert render(document) == expected(document)


@pytest.mark.parametrize("number", [1e16, 1.5e-7, -1e300])
def test_exponents_mean_the_same(number: float) -> None:
    assert json.loads(render([number])) == [number]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("beside", ["", None, "\udc80"])
def test_what_is_no_number_is_refused(number: float, beside: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        render({"beside": beside, "deep": [{"number": number}]})


WORDY = st.lists(TEXT | st.sampled_from(["status", "Location", "\\", '"', ": "])).map("".join)
NESTED = st.recursive(
    WORDY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDY, inner, max_size=3), max_leaves=10
)


@given(NESTED, st.booleans())
@settings(max_examples=300, deadline=None, database=None)
def test_only_the_records_own_status_can_be_grepped(inner: Any, listed: bool) -> None:
    record = {"id": "1", "status": "DEPLOYED", "descriptor": {"x": inner}, "failure": {"message": inner}}
    resp = falcon.Response()
    send_record(resp, [record, record] if listed else record)
    text = (resp.data or b"").decode("utf-8", "surrogatepass")
    assert json.loads(text) == ([record, record] if listed else record)
    found = [line.strip() for line in text.split("\n") if re.search("status|Location", line)]
    assert found == ['"status": "DEPLOYED",'] * (2 if listed else 1)


def test_what_utf8_cannot_express_has_a_tag_too() -> None:
    """As the answer of a health check may be that has an `ETag`."""
    assert tag_of([{"value": "\udc80"}]) == tag_of([{"value": "\udc80"}]) != tag_of([{"value": "\udc81"}])
