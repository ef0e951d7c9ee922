"""What the pages quote of the product's messages is what the product says."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("client", "commands", "core", "descriptor", "kube", "planning", "plugins", "store", "toolkit")

KUBERNETES = {"claim data: storageclass... not found", "external provisioner", "liveness probe failed"}
"""Said by Kubernetes, and passed on."""

_HOLE = "\0"
_PLACEHOLDER = re.compile(r"\b[NMx]\b|\bdata\b|\.\.\.|\b\d+\b")
"""What stands in a quotation for something that differs."""


@functools.cache
def said() -> tuple[str, ...]:
    """Every text in the product's code, with holes for what is put in."""
    return tuple(
        text
        for room in ROOMS
        for file in sorted((ROOT / room).rglob("*.py"))
        for text in _texts(ast.parse(file.read_text(encoding="utf-8")))
    )


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else _HOLE for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_said(quotation: str) -> bool:
    """Each part between what differs stands in the product; a hole of a text may be any word of the quotation."""
    if any(_covers(text, quotation) for text in said()):
        return True
    parts = [part.strip(" :,`\"'") for part in _PLACEHOLDER.split(quotation)]
    return all(any(_fits(part, text) for text in said()) for part in parts if part)


def _covers(text: str, quotation: str) -> bool:
    """Is it the whole text, with something in each hole?"""
    if _HOLE not in text or len(text.replace(_HOLE, "").split()) < 3:
        return False
    return re.fullmatch(re.escape(text).replace(re.escape(_HOLE), ".*"), quotation) is not None


def _fits(part: str, text: str) -> bool:
    if part in text:
        return True
    words = part.split()
    return _HOLE in text and any(
        " ".join(_HOLE if n == at else word for n, word in enumerate(words)) in text for at in range(len(words))
    )


def quotations() -> list[str]:
    """What looks like a message in the page about symptoms: several words in backticks."""
    page = re.sub(r"```.*?```", "", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"`([^`\n]+)`", page)
    return sorted({text for text in found if text.count(" ") >= 1 and "/" not in text and "{" not in text})


@pytest.mark.parametrize("quotation", quotations())
def test_what_is_quoted_is_said(quotation: str) -> None:
    assert quotation in KUBERNETES or is_said(quotation)


def test_what_nobody_says_is_found() -> None:
    assert len(quotations()) > 15
    assert not is_said("the pods are sad on port N")
