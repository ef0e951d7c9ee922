"""The head of a request: what HTTP demands of it, and whether it asks for the log stream."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from waitress.parser import HTTPRequestParser, ParsingError, split_uri

from deployer.api.browsers.hosts import is_authority

MAX_HEADERS = 64 * 1024
"""Bytes of a request's headers."""

NO_HOST = "a request of HTTP/1.1 needs the header Host, once, with a name or address (RFC 9112, 3.2)"
FAULTY_FRAMING = (
    "the length of the body cannot be told: send Content-Length, or Transfer-Encoding: chunked in HTTP/1.1, and not "
    "both (RFC 9112, 6.3)"
)
MALFORMED = "the request is not valid HTTP; check its first line and its headers"
SENTENCES = frozenset({NO_HOST, FAULTY_FRAMING, MALFORMED})
"""What is said here. The library's own sentences may repeat the request."""

_CODING = re.compile(rb"^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Target(NamedTuple):
    """What a request is for (RFC 9112, 3.2).

    authority  of the absolute form (`GET http://host/path`); empty in the origin form
    path       decoded; slashes at the beginning count as one
    query      as it was sent
    """

    authority: str
    path: str
    query: str

    @classmethod
    def of(cls, text: str) -> Target:
        """Raises ValueError for what is no target."""
        parts: Any = split_uri(text.encode())  # texts, whatever its type hints say
        _, authority, path, query, _ = parts
        decoded = path.encode("latin-1").decode(errors="replace")
        return cls(authority, "/" + decoded.lstrip("/"), query)


class HeadParser(HTTPRequestParser):
    """waitress' parser, with what RFC 9112 permissions of `Host` and of the framing."""

    headers: dict[str, str]
    version: str
    proxy_netloc: str
    completed: bool
    chunked: bool
    content_length: int
    expect_continue: bool
    error: Any
    body_rcv: Any
    path: str

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ParsingError with one of `SENTENCES`, or with one of waitress' own."""
        try:
            super().parse_header(header_plus)
        except ValueError:  # waitress does not expect them of addresses, and of numbers of 5,000 digits
            raise ParsingError(MALFORMED) from None
        codings = _CODING.findall(header_plus)
        if codings and (
            self.version != "1.1" or "CONTENT_LENGTH" in self.headers or [c.lower() for c in codings] != [b"chunked"]
        ):
            raise ParsingError(FAULTY_FRAMING)
        host = self.headers.get("HOST")
        # Two headers arrive as one with a comma, which no host has.
        if not is_authority(host) if host is not None else self.version not in ("", "1.0"):
            raise ParsingError(NO_HOST)
        if self.proxy_netloc:
            # The target's own host is the one that counts (RFC 9112, 3.2.2).
            if not is_authority(self.proxy_netloc):
                raise ParsingError(MALFORMED)
            self.headers["HOST"] = self.proxy_netloc
        if not self.content_length and not self.chunked:
            # Nobody waits for leave to send nothing. waitress would wait for it after that all the same.
            self.expect_continue = False


def asks_for_stream(data: bytes, parser: HeadParser) -> bool | None:
    """True when the first bytes of a request are the whole head of one for the log stream.

    None while it takes more of them to tell. What is refused anyway stays with REST, which says why.
    """
    if not data.startswith(b"GET "):
        return None if b"GET ".startswith(data) else False
    line, end, _ = data.partition(b"\n")
    if not end:
        return None
    try:
        path = Target.of(line.split()[1].decode("ascii")).path
    except (IndexError, ValueError):
        return False
    if not path.startswith("/stream/"):
        return False
    parser.received(data)
    if not parser.completed:
        return None if parser.body_rcv is None else False
    return parser.error is None and parser.body_rcv is None
