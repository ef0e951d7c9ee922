"""Pages of the documentation that are made from the product: `python -m pages` writes them, a test compares them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployer.cli.reference import settings_page
from deployer.client.reference import page as client_page
from pages.commands import commands_page
from pages.descriptor import descriptor_page
from pages.rest import rest_page

DOCS = Path(__file__).resolve().parents[2]


def made() -> Mapping[str, str]:
    """Every page that is made, by its name in docs/, as it should be now."""
    return {
        "cli.md": client_page((DOCS / "cli.md").read_text(encoding="utf-8")),
        "commands.md": commands_page(),
        "descriptor.md": descriptor_page(),
        "rest.md": rest_page(),
        "settings.md": settings_page(),
    }
