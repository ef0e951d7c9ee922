"""The files of the page under `/ui/`: what browsers may do with them, how they are kept, and how large they are."""

from __future__ import annotations

import gzip
import re
from typing import Any

import pytest

from deployer.api.ui.files import INDEX, files, policy

FIRST_VIEW = 60 * 1024
"""Bytes over the wire until the first view is there."""


def needed(name: str) -> set[str]:
    """The file, and whatever is loaded with it at once."""
    text = files()[name].plain.decode()
    found = {name}
    for other in set(re.findall(r'(?:href|src)="([\w.-]+)"|(?:from|import)\s*"\./([\w.-]+)"', text)):
        found |= needed("".join(other))
    return found


def test_the_first_view_is_small(served: Any) -> None:
    names = needed(INDEX)
    assert len(names) >= 4, "the page loads a script, what it imports, and a style"
    sizes = {}
    for name in names:
        path = "/ui/" if name == INDEX else f"/ui/{name}"
        answer = served.call("GET", path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.body) == files()[name].plain
        sizes[name] = len(answer.body)
    assert sum(sizes.values()) < FIRST_VIEW, sizes


def test_only_its_own_files_may_run(served: Any) -> None:
    answer = served.call("GET", "/ui/")
    found = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in found
    rules = dict(rule.strip().split(" ", 1) for rule in found.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    html = answer.body.decode()
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\son\w+=|style=", html)
    assert not re.search(r"https?://", html)


def test_identity_providers_may_be_talked_to() -> None:
    rules = policy(["https://idp.example.com/realms/dev", "https://idp.example.com/realms/other", "not an address"])
    assert "connect-src 'self' https://idp.example.com;" in rules


def test_browsers_keep_what_cannot_change(served: Any) -> None:
    page = served.call("GET", "/ui/")
    assert page.headers["Cache-Control"] == "no-cache"
    assert served.call("GET", "/ui/", headers={"If-None-Match": page.headers["ETag"]}).status == 304
    for name in files().keys() - {INDEX}:
        answer = served.call("GET", f"/ui/{name}")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert re.search(r"-[A-Z0-9]{8}\.", name), "a name without a hash of the content"
        # Both forms of a file have tags of their own.
        packed = served.call("GET", f"/ui/{name}", headers={"Accept-Encoding": "gzip, br"})
        assert packed.headers["ETag"] != answer.headers["ETag"]
        assert packed.headers["Vary"] == "Accept-Encoding"


def test_the_answers_of_the_api_are_still_kept_by_nobody(served: Any) -> None:
    assert served.call("GET", "/whoami").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/ui/nothing.js", "/ui/index.html", "/ui/..%2Ffiles.py", "/ui/%2e%2e"])
def test_there_is_nothing_else_below_it(served: Any, path: str) -> None:
    assert served.call("GET", path).problem["status"] == 404


def test_relative_addresses_need_the_slash(served: Any) -> None:
    answer = served.call("GET", "/ui")
    assert (answer.status, answer.headers["Location"]) == (308, "ui/")
