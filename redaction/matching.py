"""Finds secrets in a text, in every spelling that they usually have, in time linear in the text whatever the secrets.

What counts as a secret, for users in docs/secrets.md:

- A value shorter than 4 characters, and one that everybody would guess (`TRIVIAL`, numbers of up to 5 digits), is
  ignored: replacing every `1` or `true` would make logs unreadable and protect nothing.
- A value of 4 to 7 characters counts when it has characters of two kinds (lower case, upper case, digits, others), and
  is only found as a word of its own.
- Longer ones are found anywhere, also inside other words.
- Each is also found as JSON, Python, HTML and URLs spell it, in base64 (also in the middle of a longer text that was
  encoded), with its white space folded, and line by line; and with its end missing, where a text was cut.
"""

from __future__ import annotations

import base64
import bisect
import html
import itertools
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Iterator

HIDDEN = "***"
SHORTEST = 4
"""Characters that a secret has at least."""
SHORT = 8
"""Characters below which a secret is only looked for as a word of its own."""
PARTIAL = 10
"""Characters of a secret that give it away where a text was cut."""
PIECE = 64
"""Characters above which a secret is looked for in pieces of this length: any of them is hidden."""
SPELLED_VALUES = 500
"""Values of one owner that are looked for in every spelling; the others are looked for as they are, and as JSON."""
SPELLED_SIZE = 32 * 1024
"""Characters of one owner's values that are looked for in every spelling."""

TRIVIAL = frozenset(
    {
        *("true", "false", "none", "null", "auto", "always", "never", "enabled", "disabled", "default", "unknown"),
        *("production", "development", "acceptance", "staging", "testing", "preproduction", "integration"),
        *("localhost", "127.0.0.1", "0.0.0.0", "::1", "info", "debug", "warn", "warning", "error", "critical"),
        *("http://", "https://", "http://localhost", "https://localhost", "utf-8", "UTF-8", "en_US.UTF-8"),
    }
)
_CUT = re.compile(r"\.\.\.|\u2026| \[cut here|\Z")
_KINDS = (str.islower, str.isupper, str.isdigit)

Span = tuple[int, int]
"""Where something begins and ends in a text."""


class Matcher:
    """Finds a fixed set of secrets. Immutable, so that threads can share it.

    Each place of the text costs one look-up, and where a secret begins so, one more for each halving of `PIECE`: the
    longest match is found by a binary search on its length (Waldvogel et al., "Scalable High Speed IP Routing Lookups",
    SIGCOMM 1997). Hence neither the number of secrets nor what they have in common makes a text take longer.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._words: set[str] = set()
        pieces: set[str] = set()
        tails: set[str] = set()
        for spelling, word in _all_spellings(values):
            if word:
                self._words.add(spelling)
            else:
                pieces.update(_pieces(spelling))
                tails.update(_tail(spelling))
        self._starts = {text[:SHORTEST] for text in itertools.chain(pieces, self._words)}
        self._longest = _markers(pieces)
        # For texts that were cut: what may have been the beginning of a piece.
        self._ordered = sorted(text for text in pieces | tails if len(text) > PARTIAL)
        self._beginnings = {text[:PARTIAL] for text in self._ordered}

    def __bool__(self) -> bool:
        return bool(self._starts)

    def clean(self, text: str) -> str:
        """The text with every secret as `***`. Secrets that overlap or touch become one `***`, so that no end shows."""
        return covered(text, self.spans(text)) if self._starts else text

    def spans(self, text: str) -> list[Span]:
        """Where secrets are, in no particular order."""
        found: list[Span] = []
        starts = self._starts
        for at in range(len(text) - SHORTEST + 1):
            if text[at : at + SHORTEST] in starts:
                if length := self._match(text, at):
                    found.append((at, at + length))
                if length := self._word(text, at):
                    found.append((at, at + length))
        if self._ordered:
            ends = {end for start, end in found if end - start == PIECE}
            found += self._cuts(text, ends)
        return found

    def _match(self, text: str, at: int) -> int:
        """Length of the longest piece that the text has at this place, 0 when there is none."""
        longest = self._longest
        low, high, best = SHORTEST, PIECE, 0
        left = len(text) - at
        while low <= high:
            length = (low + high) // 2
            known = longest.get(text[at : at + length]) if length <= left else None
            if known is None:
                high = length - 1
            else:
                best = known or best
                low = length + 1
        return best

    def _word(self, text: str, at: int) -> int:
        """Length of the short secret that stands at this place as a word of its own."""
        if not self._words or _continues(text[at - 1 : at]):
            return 0
        for length in range(SHORTEST, SHORT):
            if text[at : at + length] in self._words and not _continues(text[at + length : at + length + 1]):
                return length
        return 0

    def _cuts(self, text: str, ends: set[int]) -> Iterator[Span]:
        """What is left of secrets whose ends were cut off. `ends`: where pieces of longer ones end."""
        before = -1
        for mark in _CUT.finditer(text):
            cut = mark.start()
            for at in range(max(0, cut - PIECE + 1), cut - PARTIAL + 1):
                if text[at : at + PARTIAL] in self._beginnings and self._begins(text[at:cut]):
                    yield at, cut
                    break
            # Too short to be told from anything else, but it goes on from a piece that is known.
            near = range(max(before + 1, cut - PARTIAL), cut)
            if (end := next((at for at in reversed(near) if at in ends), None)) is not None:
                yield end, cut
            before = cut

    def _begins(self, beginning: str) -> bool:
        at = bisect.bisect_left(self._ordered, beginning)
        return at < len(self._ordered) and self._ordered[at].startswith(beginning)


def _markers(pieces: set[str]) -> dict[str, int]:
    """Piece or beginning of one -> length of the longest piece that it begins with (0: none).

    There is a beginning for every length at which the binary search passes on the way to a piece.
    """
    lengths: dict[str, set[int]] = defaultdict(set)
    for piece in pieces:
        lengths[piece[:SHORTEST]].add(len(piece))
    found = {piece: len(piece) for piece in pieces}
    for piece in pieces:
        low, high = SHORTEST, PIECE
        while (middle := (low + high) // 2) != len(piece):
            if middle > len(piece):
                high = middle - 1
                continue
            low = middle + 1
            marker = piece[:middle]
            if marker not in found:
                shorter = sorted((n for n in lengths[marker[:SHORTEST]] if n < middle), reverse=True)
                found[marker] = next((n for n in shorter if marker[:n] in pieces), 0)
    return found


def _pieces(spelling: str) -> Iterator[str]:
    """The spelling itself, or pieces that cover it."""
    if len(spelling) <= PIECE:
        yield spelling
        return
    yield from (spelling[at : at + PIECE] for at in range(0, len(spelling) - PIECE + 1, PIECE))
    yield spelling[-PIECE:]


def _tail(spelling: str) -> Iterator[str]:
    """What the last whole piece leaves, which a cut may have shortened."""
    rest = len(spelling) % PIECE
    if rest and len(spelling) > PIECE:
        yield spelling[-rest:]


def _continues(character: str) -> bool:
    """True for what is part of a word."""
    return character.isalnum() or character == "_"


def covered(text: str, spans: Iterable[Span]) -> str:
    """The text with `***` for the spans; those that overlap or touch become one."""
    out: list[str] = []
    shown = 0  # everything before this offset is in `out`
    hidden_to = -1  # end of the last `***`
    for start, end in sorted(spans):
        if start > hidden_to:
            out += (text[shown:start], HIDDEN)
        hidden_to = max(hidden_to, end)
        shown = hidden_to
    out.append(text[shown:])
    return "".join(out)


# --- what counts, and how it may be spelled -----------------------------------------------------------------------


def counts(secret: str) -> bool:
    """False for what is too short or too common to be hidden."""
    if len(secret) < SHORTEST or secret.lower() in TRIVIAL or secret in TRIVIAL:
        return False
    if secret.isdigit() and len(secret) <= 5:  # a port, a number of seconds
        return False
    if len(secret) >= SHORT:
        return True
    kinds = {next((n for n, kind in enumerate(_KINDS) if kind(character)), -1) for character in secret}
    return len(kinds) > 1


Spelling = tuple[str, bool]
"""A secret as it may be written; True when it counts only as a word of its own."""


def _all_spellings(values: Iterable[str]) -> Iterator[Spelling]:
    """Every spelling of the values; of very many or very long ones only the plainest, so that none costs too much."""
    size = 0
    for number, value in enumerate(dict.fromkeys(values)):
        size += len(value)
        if number < SPELLED_VALUES and size <= SPELLED_SIZE:
            yield from spellings(value)
        elif counts(value):
            yield from ((text, len(value) < SHORT) for text in {value, json.dumps(value)[1:-1]})


def spellings(secret: str) -> set[Spelling]:
    """How a value, its lines and, of a URL, its password may be written. Empty for what does not count."""
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret.strip() or "\r" in secret.strip() else []
    # A line of a longer value is only hidden when it says something: `}` and `---` do not.
    values = [secret, *(line for line in lines if len(line) >= SHORT)]
    if password := password_of(secret):
        values += [urllib.parse.unquote(password), password]
    return {spelling for value in values if counts(value) for spelling in _spelled(value)}


# The password in a URL: RFC 3986 wants `/` and `@` percent-encoded in it, people do not care. What looks like a port is
# one. Bounded, as what has no end would be searched again from every `://`.
_PASSWORD = r"(://[^/\s:@\"']{0,256}:)(?:([^/\s\"']{1,256})|(?!\d{1,5}/)([^\s\"'@]{1,256}))(?=@)"
URL_PASSWORD = re.compile(_PASSWORD)


def password_of(url: str) -> str:
    """The password in a text that is a URL, as it is written there; empty when there is none."""
    if (found := URL_PASSWORD.search(url)) is None:
        return ""
    return found.group(2) or found.group(3)


def _spelled(value: str) -> Iterator[Spelling]:
    word = len(value) < SHORT
    data = value.encode("utf-8", "surrogatepass")
    as_json = json.dumps(value)[1:-1]
    upper_hex = _JSON_ESCAPE.sub(lambda escape: "\\u" + escape.group(1).upper(), as_json)
    readable = json.dumps(value, ensure_ascii=False)[1:-1]
    quoted = {urllib.parse.quote(data, safe=safe) for safe in _UNQUOTED} | {urllib.parse.quote_plus(data)}
    found = {
        value,
        value.strip(),
        " ".join(value.split()),
        as_json,
        readable,
        json.dumps(as_json)[1:-1],
        # Go escapes what HTML minds, others the solidus; .NET more than that, in upper case.
        *(text.translate(_GO) for text in (as_json, readable)),
        *(text.replace("/", "\\/") for text in (as_json, readable)),
        upper_hex,
        upper_hex.replace('\\"', "\\u0022").translate(_DOTNET),
        repr(value)[1:-1],
        ascii(value)[1:-1],
        repr(data)[2:-1],
        html.escape(value),
        # Go and Jinja number them in decimal.
        html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        html.escape(value, quote=False),
        *quoted,
        *(_ESCAPE.sub(lambda escape: escape.group().lower(), text) for text in quoted),
    }
    yield from ((text, word) for text in found if len(text) >= SHORTEST)
    for written in {data, as_json.encode(), readable.encode("utf-8", "surrogatepass")}:
        for encoded in _in_base64(written):
            yield encoded, False
            yield encoded.translate(_URL_SAFE), False


_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_DOTNET = str.maketrans({character: f"\\u{ord(character):04X}" for character in "'+<>&`"})
_JSON_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
_UNQUOTED = ("", "/", "!'()*", ";,/?:@&=+$!'()*#")
"""What clients leave as it is: Go's QueryEscape, Python's quote, JavaScript's encodeURIComponent and encodeURI."""
_ESCAPE = re.compile("%[0-9A-F]{2}")
_URL_SAFE = str.maketrans("+/", "-_")


def _in_base64(value: bytes) -> Iterator[str]:
    """What is sure to be in the base64 of any text that contains the value, wherever in it: three cases."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value).decode("ascii")
        # The first characters and the last hold bits of the neighbours as well.
        first = -(-before * 8 // 6)
        last = (before + len(value)) * 8 // 6
        if last - first >= SHORT:
            yield encoded[first:last]
