"""The pages at `/docs` and where there is nothing: they need nothing from elsewhere, and work in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deployer.api.openapi import document as openapi
from deployer.api.openapi import page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def html(served: Any) -> str:
    answer = served.call("GET", "/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text: str = answer.body.decode()
    return text


def test_it_shows_every_operation_and_field(served: Any, html: str) -> None:
    document = served.call("GET", "/openapi.json").json
    elements = Elements(html)
    assert elements.open == []
    ids = {attributes.get("id") for _, attributes in elements.found}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["operationId"] in ids
            assert operation["summary"] in elements.text
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in elements.text
        assert path in elements.text
    for field in document["components"]["schemas"]["Descriptor"]["properties"]:
        assert f"<code>{field}</code>" in html
    assert 'curl -d @descriptor.json "$API/descriptors?namespace=default"' in elements.text
    assert 'wscat -c "${API/http/ws}/stream/deployments/$ID/logs?namespace=default"' in elements.text
    # Links within the page lead to something on it.
    anchors = {a["href"][1:] for _, a in elements.found if (a.get("href") or "").startswith("#")}
    assert anchors - {""} <= ids


def test_nothing_comes_from_elsewhere_and_nothing_else_may_run(served: Any, html: str) -> None:
    policy = served.call("GET", "/docs/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in Elements(html).found:
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert re.match(r"(#|/openapi\.json$|data:,$)", attributes.get(name) or "#"), attributes


def test_what_plugins_write_is_text_there(served: Any) -> None:
    """Names and descriptions come from schemas of plugins too."""
    document = openapi.build(served.service.descriptors.rules, secured=True)
    document["components"]["schemas"]["Descriptor"]["properties"]["appName"]["description"] = (
        "<script>alert(1)</script>"
    )
    document["paths"]["/plugins"]["get"]["summary"] = '"><img src=x onerror=alert(1)>'
    html = page.page(document)[0].decode()
    assert "<script>alert" not in html and "<img" not in html
    assert html.count("<script>") == 1
    assert "Authorization: Bearer $TOKEN" in html


def test_a_browser_goes_on_to_the_page_and_programs_get_json(served: Any) -> None:
    answer = served.call("GET", "/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (answer.status, answer.headers["Location"]) == (302, "ui/")  # relative: a proxy may have put a prefix before
    assert served.call("GET", "/", headers={"Accept": "*/*"}).json["links"]["page"] == "/ui/"


def test_where_there_is_nothing_a_browser_is_led_to_the_start(served: Any) -> None:
    path = "/<script>alert(1)</script>?q=secret-word"
    answer = served.call("GET", path, headers={"Accept": "text/html", "Referer": "secret-word"})
    assert answer.status == 404 and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    html = answer.body.decode()
    assert "alert" not in html and "secret-word" not in html
    assert [attributes["href"] for tag, attributes in Elements(html).found if tag == "a"] == ["/"]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(("path", "examples"), [("/docs", 20), ("/nowhere", 0)])
def test_a_browser_runs_it(served: Any, tmp_path: Path, path: str, examples: int) -> None:
    """Its script may run: every example got a button, and the address of the service."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"),
            f"http://127.0.0.1:{served.port}{path}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    assert done.stdout.count("<button") == done.stdout.count("<pre>") >= examples
    origin = f'API=<span class="origin">http://127.0.0.1:{served.port}</span>'
    assert done.stdout.count(origin) == min(examples, 1)
