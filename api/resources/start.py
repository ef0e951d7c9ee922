"""What a browser gets where there is nothing."""

from __future__ import annotations

from deployer.api.openapi.page import whole

Page = tuple[bytes, str]
"""HTML, and the Content-Security-Policy that it needs."""


def missing() -> Page:
    """The 404 of a browser. It repeats nothing of the request."""
    text = 'There is nothing at this address. The <a href="/">start page</a> says what there is.'
    return whole("Not found", f"<header><h1>Not found</h1><p>{text}</p></header>")
