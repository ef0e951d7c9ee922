"""The pictures of the documentation: each is shown, can be read aloud, and the demo's is of the demo as it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_says_what_it_shows(picture: Path) -> None:
    if picture.suffix == ".svg":
        root = ElementTree.parse(picture).getroot()
        assert all(root.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    assert any(re.search(rf"!\[[^]]{{20,}}\]\([^)]*{picture.name}\)", page) for page in pages)


def test_the_recorded_demo_is_the_demo() -> None:
    """Every title and every row of the summary that the demo has now, and what it is there to show."""
    root = ElementTree.parse(ROOT / "docs" / "pictures" / "demo.svg").getroot()
    lines = ["".join(line.itertext()) for line in root.iter(f"{SVG}text")]
    source = (ROOT / "cli" / "sandbox" / "demo.py").read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    titles = [call.args[0].value for call in calls if _named(call, "title") and isinstance(call.args[0], ast.Constant)]
    labels = [call.args[0].value for call in calls if _named(call, "row") and isinstance(call.args[0], ast.Constant)]
    assert len(titles) >= 4 and set(titles) <= set(lines)
    assert len(labels) >= 6 and all(any(line.startswith(f"  {label}  ") for line in lines) for label in labels)
    assert any(re.match(r"  requests +\d+ sent, 0 failed$", line) for line in lines)


def _named(call: ast.Call, name: str) -> bool:
    function = call.func
    return name in (getattr(function, "attr", ""), getattr(function, "id", ""))
