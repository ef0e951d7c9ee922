"""Who sent the browser: a page of another origin may not act here with the rights of whoever looks at it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection

REFUSAL = "this request was made by a web page of another origin, which may not use this service (see allowed_origins)"


def foreign(origin: str | None, host: str | None, allowed: Collection[str] = ()) -> bool:
    """True when a browser says that a page of another host or port sent this request (RFC 6454; RFC 9110, 7.2).

    Only browsers send `Origin`; without it there is nobody whose rights could be borrowed. `allowed` are origins that
    the settings name.
    """
    if not origin or origin in allowed:
        return False
    try:
        return urllib.parse.urlsplit(origin).netloc.lower() != (host or "").lower()
    except ValueError:
        return True
