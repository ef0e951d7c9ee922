"""The house stays one in which everything can be found: small modules, short folders, few floors, no circles."""

from __future__ import annotations

import ast
import graphlib
import io
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(link.resolve() for link in (ROOT / "src" / "deployer").iterdir() if link.is_symlink())

LINES = 500
MODULES = 12
LAYERS = 8
CORE = 5_825
"""Lines of code in the core."""

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}

FULLER: set[str] = set()
"""Folders that show more for now; whoever sorts one takes it out."""


def modules() -> Iterator[Path]:
    """Every module of the product."""
    for room in ROOMS:
        yield from room.rglob("*.py")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom."""
    return grimp.build_graph("deployer", include_external_packages=True, cache_dir=None)


def test_the_rooms_are_there() -> None:
    assert {room.name for room in ROOMS} >= {
        "api",
        "cli",
        "commands",
        "core",
        "descriptor",
        "kube",
        "planning",
        "plugin_manager",
        "plugins",
        "redaction",
        "sandbox",
        "sdk",
        "settings",
        "store",
        "toolkit",
    }
    assert sum(1 for _ in modules()) > 100


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}


def lines_of_code(source: str) -> int:
    """Lines that hold code. Blank lines, comments, and the docstrings of modules, classes, functions and fields do not
    count, so that nobody saves on them; a statement over several lines counts as that many."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                lines.difference_update(range(first, last + 1))
    return len(lines)


def test_lines_of_code_are_counted_without_words() -> None:
    source = '"""Words.\n\nMore of them."""\n\nX = (\n    1,  # why\n    2,\n)\n"""Words."""\n# Words.\n'
    assert lines_of_code(source) == 4
    assert lines_of_code('TEXT = """a\nb\nc"""\n') == 3


def test_the_core_is_small() -> None:
    """It carries operations to their end. What else it grows by belongs into a room of its own, behind a port."""
    core = {path: lines_of_code(path.read_text()) for path in (ROOT / "core").rglob("*.py")}
    assert 3_000 < sum(core.values()) <= CORE


def test_no_folder_shows_too_many_modules() -> None:
    folders: dict[str, int] = {}
    for path in modules():
        folder = str(path.parent.relative_to(ROOT))
        folders[folder] = folders.get(folder, 0) + 1
    assert {folder for folder, count in folders.items() if count > MODULES} == FULLER


def test_no_list_of_layers_is_too_long() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {contract["name"]: len(contract["layers"]) for contract in contracts if "layers" in contract}
    assert layers and {name: count for name, count in layers.items() if count > LAYERS} == {}


def test_no_module_imports_itself_by_a_detour(graph: grimp.ImportGraph) -> None:
    ours = {module for module in graph.modules if module.startswith("deployer")}
    imports = {module: graph.find_modules_directly_imported_by(module) & ours for module in ours}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("library", ["kubernetes", "urllib3", "falcon", "sqlite3", "pyetcd", "pluggy", "jsonschema"])
def test_the_core_imports_no_library_for_network_store_plugins_or_schemas(
    graph: grimp.ImportGraph, library: str
) -> None:
    found = graph.find_downstream_modules(library)
    assert found, f"nobody imports {library}: is this test asking for the right name?"
    assert {module for module in found if module == "deployer.core" or module.startswith("deployer.core.")} == set()
