"""Who sent the browser: a page of another origin may not act here with the rights of whoever looks at it."""

from __future__ import annotations

import urllib.parse

REFUSAL = "this request was made by a web page of another origin ({}), which may not talk to this service"


def foreign(origin: str | None, host: str | None) -> bool:
    """True when a browser says that a page of another host or port sent this request (RFC 6454; RFC 9110, 7.2).

    Only browsers send `Origin`; without it there is nobody whose rights could be borrowed.
    """
    if not origin:
        return False
    try:
        return urllib.parse.urlsplit(origin).netloc.lower() != (host or "").lower()
    except ValueError:
        return True
