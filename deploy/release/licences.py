"""The licences of the packages in a lock, from the metadata of those that are installed.

Sources: PEP 639 (License-Expression), the SPDX licence list, https://pypi.org/classifiers/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from release.version import Refused

PERMISSIVE = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "CC0-1.0", "ISC", "MIT", "MIT-0",
    "PSF-2.0", "Python-2.0", "Unlicense", "ZPL-2.1", "Zlib",
})  # fmt: skip
WITHIN_FILES = {"certifi": "MPL-2.0"}
"""Packages under a licence that asks for their own files to stay under it and for nothing else, used as they are."""

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
}
"""What `License :: OSI Approved :: ...` means to SPDX. "BSD License" leaves the clauses open; all are permissive."""
FREE_TEXT = {
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache license v2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "mpl-2.0": "MPL-2.0",
}
"""What people write into `License:`, in small letters."""


@dataclass(frozen=True)
class Package:
    """A package of a lock."""

    name: str
    """In its normal form, as PEP 503 has it."""
    version: str
    hashes: tuple[str, ...]
    """SHA-256 of its files, in hex."""
    licence: str
    """An SPDX expression."""
    requires: tuple[str, ...] = field(default=())
    """Names of the packages of the lock that it needs."""


def read(lock: Path) -> list[Package]:
    """The packages of a lock that this Python needs, by name.

    Raises:
        Refused: one is not installed in the version of the lock, or does not say its licence.
    """
    locked = {canonicalize_name(name): (version, hashes) for name, version, hashes in _entries(lock.read_text())}
    return [_package(name, version, hashes, frozenset(locked)) for name, (version, hashes) in sorted(locked.items())]


def refused(packages: list[Package]) -> list[str]:
    """The packages whose licence is not on the list, as sentences."""
    return [
        f"{one.name} {one.version} is licensed under {one.licence}, which is not on the list in "
        "deploy/release/licences.py; use another package"
        for one in packages
        if not permissive(one.licence) and WITHIN_FILES.get(one.name) != one.licence
    ]


def permissive(expression: str) -> bool:
    """Whether a way through an SPDX expression asks for permissive licences only. `AND` binds closer than `OR`."""
    words = re.findall(r"[()]|[^\s()]+", expression)
    found, rest = _either(words)
    return found and not rest


def table(packages: list[Package]) -> str:
    """The list for people, in Markdown."""
    rows = (f"| {one.name} | {one.version} | {one.licence} |\n" for one in packages)
    return "# Licences\n\n| package | version | licence (SPDX) |\n|---|---|---|\n" + "".join(rows)


def _either(words: list[str]) -> tuple[bool, list[str]]:
    """The value of `a OR b ...` at the beginning of the words, and the words behind it."""
    found, words = _all(words)
    while words and words[0].upper() == "OR":
        other, words = _all(words[1:])
        found = found or other
    return found, words


def _all(words: list[str]) -> tuple[bool, list[str]]:
    """The same of `a AND b ...`."""
    found, words = _one(words)
    while words and words[0].upper() == "AND":
        other, words = _one(words[1:])
        found = found and other
    return found, words


def _one(words: list[str]) -> tuple[bool, list[str]]:
    """The same of a licence or of an expression in parentheses. An exception (`WITH`) only ever allows more."""
    if not words:
        return False, []
    if words[0] == "(":
        found, rest = _either(words[1:])
        return (found, rest[1:]) if rest[:1] == [")"] else (False, rest)
    rest = words[3:] if words[1:2] == ["WITH"] else words[1:]
    return words[0] in PERMISSIVE, rest


def _entries(text: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Name, version and hashes of what a lock asks this Python to install."""
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)(?: ; ([^\\\n]+))?", entry)
        if found and (not found[3] or Marker(found[3].strip()).evaluate()):
            yield found[1], found[2], tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))


def _package(name: str, version: str, hashes: tuple[str, ...], locked: frozenset[str]) -> Package:
    try:
        about = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        about = None
    if about is None or about.version != version:
        raise Refused(f"{name} {version} of the lock is not what is installed; rm -r .venv, then try again")
    needs = {canonicalize_name(re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0]) for one in about.requires or ()}
    return Package(name, version, hashes, _licence(name, about), tuple(sorted(needs & locked - {name})))


def _licence(name: str, about: metadata.Distribution) -> str:
    """By the expression, else by the classifiers, else by the text, as PEP 639 ranks them.

    Several classifiers leave open whether one may choose; `AND` is what is never too little.
    """
    if expression := about.metadata.get("License-Expression"):
        return expression
    known = [one.rpartition(" :: ")[2] for one in about.metadata.get_all("Classifier", []) if "License :: " in one]
    if known and all(one in CLASSIFIERS for one in known):
        return " AND ".join(sorted({CLASSIFIERS[one] for one in known}))
    text = (about.metadata.get("License") or "").strip()
    if text.lower() in FREE_TEXT:
        return FREE_TEXT[text.lower()]
    said = text.splitlines()[0] if text else ", ".join(known) or "nothing"
    raise Refused(
        f"{name}: its metadata has no licence that is known here ({said}); "
        "add how it writes it to deploy/release/licences.py"
    )
