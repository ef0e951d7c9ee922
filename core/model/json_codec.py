"""Records as JSON text: how every store reads what it wrote."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from deployer.core.model.records import Document


def dumps(document: Document) -> str:
    """The text of a document, without spaces and in ASCII, so that it can hold whatever a record does."""
    return json.dumps(document, separators=(",", ":"))


def loads(text: str) -> Any:
    """The document of a text that `dumps` wrote.

    The fast decoder refuses what strict JSON does not have (lone surrogates, `NaN`); the other one reads that.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return json.loads(text)
