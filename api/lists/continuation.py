"""`continue`: where the next page of a list begins, as text that means something to this service only.

It names the list that it belongs to and a place in it, and nothing else. So it needs no signature: whoever makes one up
sees what the list shows them anyway. A place stays one whatever becomes of the record there, so tokens do not expire.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import falcon

from deployer.api import http
from deployer.core.errors import Invalid, Problem
from deployer.core.ports.store import Place

NAME = "continue"
"""The parameter, as Kubernetes calls it. Empty it asks for the first page."""

PAGE = 500
"""Entries of a page when its size is not given, and at most."""

_LONGEST = 4096  # characters of a token
_FOREIGN = "does not belong to this list; leave it empty to begin with the first page"


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is asked for: at most `limit` entries, from behind the place `after` on; None for the first page."""

    limit: int
    after: Place | None


def requested(req: falcon.Request, *of: Hashable) -> Page:
    """The page. `of` is what the list depends on: its name, the namespace, what it is narrowed to. Raises Invalid."""
    limit = min(http.number(req, "limit", least=1) or PAGE, PAGE)
    token = http.text(req, NAME)
    return Page(limit, None if token is None else _place(token, of))


def link(path: str, query: Mapping[str, object], after: Place, *of: Hashable) -> str:
    """The header `Link` (RFC 8288) to the page that comes after that place."""
    given = {name: value for name, value in query.items() if value is not None}
    return f'<{path}?{urllib.parse.urlencode(given | {NAME: _token(after, of)})}>; rel="next"'


def _token(after: Place, of: tuple[Hashable, ...]) -> str:
    return base64.urlsafe_b64encode(json.dumps([*after, *of], separators=(",", ":")).encode()).decode().rstrip("=")


def _place(token: str, of: tuple[Hashable, ...]) -> Place:
    """The place that a token of this list names. Raises Invalid."""
    try:
        if len(token) > _LONGEST:
            raise ValueError
        sequence, key, *rest = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        if rest != list(of) or not isinstance(sequence, int) or not 0 <= sequence < 2**62 or not key.isascii():
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise Invalid([Problem(NAME, _FOREIGN)]) from None
    return sequence, str(key)
