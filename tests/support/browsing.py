"""A browser, and screens in it: what is to be seen there, and everything that goes wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"

WIDTHS = {"phone": {"width": 360, "height": 740}, "desk": {"width": 1280, "height": 800}}

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, for a module: while it is there an event loop runs, and later tests want one of their own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@dataclass
class Screen:
    """A page in the browser, and everything that went wrong on it."""

    page: Page
    url: str
    pictures: Path
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=lambda: ["/descriptors/validate"])
    """Parts of addresses that the service may say no to: Chromium writes each such answer on the console."""

    def said(self, message: ConsoleMessage) -> None:
        """Note what was written on the console, unless it was to be expected."""
        where = message.location.get("url", "")
        expected = message.text.startswith("Failed to load resource") and any(part in where for part in self.refused)
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"{message.text} {where}")

    def open(self, view: str = "") -> Page:
        """Show a view; everything that an address says is behind the `#`."""
        self.page.goto(f"{self.url.rstrip('/')}/ui/#/{view}")
        return self.page

    def picture(self, name: str) -> None:
        """Keep what is to be seen, for people."""
        width = (self.page.viewport_size or {}).get("width", 0)
        self.page.screenshot(path=self.pictures / f"{name}-{width}.png", full_page=True)

    def findings(self) -> list[str]:
        """What axe finds, and whether anything is wider than the window."""
        found = []
        if AXE.exists():
            self.page.evaluate(AXE.read_text())
            result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            for one in result["violations"]:
                found += [f"{one['id']}: {node['html'][:200]} {node.get('failureSummary')}" for node in one["nodes"]]
        beyond = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return found + ([f"{beyond} pixels wider than the window"] if beyond > 0 else [])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: `.run/screens`, or what `SCREENS` names."""
    path = Path(os.environ.get("SCREENS") or ROOT / ".run" / "screens")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def screens(browser: Browser, pictures: Path) -> Iterator[Callable[..., Screen]]:
    """Opens screens: `screens(url, width=..., dark=...)`. In the end nothing may have been said on a console."""
    opened: list[tuple[BrowserContext, Screen]] = []

    def open(url: str, width: str = "desk", *, dark: bool = False, **more: Any) -> Screen:
        context = browser.new_context(
            viewport=WIDTHS[width], color_scheme="dark" if dark else "light", reduced_motion="reduce", **more
        )
        screen = Screen(context.new_page(), url, pictures)

        screen.page.on("console", screen.said)
        screen.page.on("pageerror", lambda error: screen.wrong.append(str(error)))
        opened.append((context, screen))
        return screen

    yield open
    wrong = [text for _, screen in opened for text in screen.wrong]
    for context, _ in opened:
        context.close()
    assert wrong == []
