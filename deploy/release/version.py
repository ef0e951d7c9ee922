"""The version: `deployer.__version__` says it, and the files that repeat it for other programs and for readers."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

SOURCE = "src/deployer/__init__.py"
_VERSION = r"(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)"  # as in PEP 440, of which a release needs no more
_IMAGE = rf"registry\.example\.com/kube-deployer:{_VERSION}"
PLACES = (
    (SOURCE, rf'^__version__ = "{_VERSION}"'),
    ("deploy/chart/Chart.yaml", rf"^version: {_VERSION}$"),
    ("deploy/chart/Chart.yaml", rf'^appVersion: "{_VERSION}"'),
    ("deploy/chart/README.md", rf"Chart {_VERSION} installs"),
    ("deploy/chart/README.md", rf"installs release {_VERSION}"),
    ("deploy/kustomize/base/kustomization.yaml", rf'^ +newTag: "{_VERSION}"'),
    ("README.md", _IMAGE),
    ("docs/installation.md", _IMAGE),
)
"""File and pattern, each with the version as its one group; a pattern is found at least once."""

UNRELEASED = "## [Unreleased]\n"


class Refused(Exception):
    """A release cannot be made like this; the text says what is wrong, where, and what to do."""


def version(root: Path) -> str:
    """The version of the sources below `root`."""
    return _found(root, *PLACES[0])[0]


def differing(root: Path) -> list[str]:
    """The places that name another version than the source does, as sentences."""
    ours = version(root)
    return [
        f"{file} names version {other}, and {SOURCE} {ours}; make version VERSION={ours} writes it everywhere"
        for file, pattern in PLACES
        for other in _found(root, file, pattern)
        if other != ours
    ]


def write(root: Path, new: str, today: date) -> None:
    """Write `new` into every place, and give what is unreleased in the changelog its heading, unless it has one.

    Raises:
        Refused: `new` is no version, or there is nothing to release; no file has been changed.
    """
    if not re.fullmatch(_VERSION, new):
        raise Refused(f"'{new}' is no version; give one like 1.2.0 or 1.2.0rc1")
    texts = {file: (root / file).read_text() for file, _ in PLACES}
    for file, pattern in PLACES:
        _found(root, file, pattern)
        texts[file] = re.sub(
            pattern,
            lambda match: match[0].replace(match[1], new),
            texts[file],
            flags=re.MULTILINE,
        )
    changelog = (root / "CHANGELOG.md").read_text()
    if f"\n## [{new}]" not in changelog:
        if not _section(changelog, "Unreleased"):
            raise Refused("CHANGELOG.md has nothing under [Unreleased]; write what a user will notice, then try again")
        heading = f"## [{new}] - {today.isoformat()}\n"
        changelog = changelog.replace(UNRELEASED, f"{UNRELEASED}\n{heading}", 1)
    for file, text in (texts | {"CHANGELOG.md": changelog}).items():
        (root / file).write_text(text)


def notes(root: Path, release: str) -> str:
    """What the changelog says of a release, without its heading.

    Raises:
        Refused: it says nothing.
    """
    found = _section((root / "CHANGELOG.md").read_text(), release)
    if not found:
        raise Refused(f"CHANGELOG.md has no section for {release}; make version VERSION={release} makes it")
    return found


def _section(changelog: str, name: str) -> str:
    """The text below `## [name]`, up to the next heading of that level; empty where there is none."""
    _, _, after = changelog.partition(f"\n## [{name}]")
    _, _, body = after.partition("\n")
    return re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _found(root: Path, file: str, pattern: str) -> list[str]:
    """The versions that a place names."""
    found: list[str] = re.findall(pattern, (root / file).read_text(), re.MULTILINE)
    if not found:
        raise Refused(f"{file} no longer names the version where deploy/release/version.py expects it; mend PLACES")
    return found
