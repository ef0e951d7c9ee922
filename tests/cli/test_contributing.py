"""What the pages for people who change the Deployer name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md", ROOT / "docs" / "architecture.md"]
ROOMS = "api|cli|core|kube|plugins|sandbox|sdk|store|testing|toolkit|tests|docs|deploy|bench|examples"
PATH = re.compile(rf"(?<![\w./-])(?:{ROOMS})/[\w./-]*\w/?")
"""A file or a folder of this repository."""


def missing(page: str) -> set[str]:
    """The files, `make` targets and options that a page names and that are not there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ((?:[a-z][a-z-]*(?: |\b))+)", "\n".join(_code(page))))
    absent = {f"make {target}" for words in named for target in words.split() if target not in targets}
    absent |= {path for path in PATH.findall(page) if not (ROOT / path).exists()}
    options = (ROOT / "tests" / "conftest.py").read_text()
    return absent | {option for option in re.findall(r"(--(?:kill|seed))=", page) if f'"{option}"' not in options}


def _code(page: str) -> list[str]:
    """What stands in backticks, on a line or in a block of its own."""
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", page, re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    assert missing(page.read_text()) == set()


def test_what_is_not_there_is_found() -> None:
    page = "`core/nowhere.py` and core/model/ and `make test-never lint`, `--seed=1`, see docs/api.md."
    assert missing(page) == {"core/nowhere.py", "make test-never"}


def test_every_support_module_is_told_of() -> None:
    page = (ROOT / "tests" / "README.md").read_text()
    modules = {f"tests/support/{file.name}" for file in (ROOT / "tests" / "support").glob("*.py")}
    assert modules - {"tests/support/__init__.py"} == set(
        re.findall(r"^\| `(tests/support/\w+\.py)`", page, re.MULTILINE)
    )


def test_every_folder_of_tests_is_told_of() -> None:
    page = (ROOT / "tests" / "README.md").read_text()
    folders = {f"tests/{folder.parent.name}/" for folder in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(re.findall(r"^\| `(tests/\w+/)` ", page, re.MULTILINE))


def test_every_room_is_in_the_picture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {link.name for link in (ROOT / "src" / "deployer").iterdir() if link.is_symlink()}
    assert {room for room in rooms if f"{room}/" not in page.split("```")[1]} == set()


@pytest.mark.slow
def test_the_tests_that_are_named_are_tests() -> None:
    """The commands for one test select some."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    commands = re.findall(r"^\.venv/bin/pytest (.*)$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", *command.split()]
        assert subprocess.run(run, cwd=ROOT, capture_output=True, check=False).returncode == 0, command
