"""Patterns for the values of claims, in which `*` stays between two separators.

| in a pattern | matches |
|---|---|
| `*` | any characters but `/` and `:` |
| `**` | any characters |
| `?` | one character but `/` and `:` |
| `{name}` | a whole part between two separators that is a DNS label; its text is what `{name}` means in a namespace |

Everything else is itself, upper and lower case apart. A value is only ever matched, never read as a pattern.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from deployer.core.model.hosts import DNS_LABEL

LONGEST = 512
"""Characters of a pattern, and of a value that one is matched with."""

_TOKEN = re.compile(r"\*\*|\*|\?|\{[a-z][a-z0-9_]*\}|[/:]|[^*?{}/:]+|.", re.DOTALL)
_CAPTURE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_SEPARATORS = ("/", ":")
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class Pattern:
    """One of them. Matching takes time linear in the value, or quadratic with `**`, as others choose the values."""

    def __init__(self, text: str) -> None:
        """Raises ValueError: what is wrong with it, in a sentence."""
        if not text or len(text) > LONGEST or not text.isprintable():
            raise ValueError(f"{text!r} is not a pattern of 1 to {LONGEST} printable characters")
        self.text = text
        self.names = tuple(_CAPTURE.findall(text))
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"{text!r} has a name in braces twice")
        tokens = _TOKEN.findall(text)
        if tokens.count("**") > 1:
            raise ValueError(f"{text!r} has ** more than once")
        self._regex = re.compile("".join(self._parts(tokens)), re.DOTALL)

    def _parts(self, tokens: list[str]) -> Iterator[str]:
        """The regular expression, token by token."""
        for place, token in enumerate(tokens):
            if token == "**":
                yield ".*"
            elif token == "*":
                yield _star(tokens[place + 1 :])
            elif (capture := _CAPTURE.fullmatch(token)) is not None:
                around = (*tokens[max(0, place - 1) : place], *tokens[place + 1 : place + 2])
                if not set(around) <= set(_SEPARATORS):
                    # Two readings of one value would let one pass for another.
                    raise ValueError(f"{self.text!r}: {token} must be a whole part between two of / and :, or an end")
                yield f"(?P<{capture.group(1)}>{_LABEL})"
            elif token in "{}":
                raise ValueError(f"{self.text!r} has a brace without a name like {{app}}")
            else:
                yield _fixed(token)

    @property
    def says_nothing(self) -> bool:
        """True when it has nothing but wildcards, at least at its beginning."""
        return self.text[0] in "*?{"

    @property
    def tenant_fixed(self) -> bool:
        """True when it says whose something is: `acme/*` does, `acme*/shop` may be anybody's."""
        return not set(self.text.partition("/")[0]) & set("*?{")

    def match(self, value: str) -> Mapping[str, str] | None:
        """What its names stand for in a value that it matches; None for one that it does not."""
        if len(value) > LONGEST:
            return None
        found = self._regex.fullmatch(value)
        return None if found is None else found.groupdict()


def _fixed(token: str) -> str:
    return "[^/:]" if token == "?" else re.escape(token)


def _star(after: Sequence[str]) -> str:
    """`*` before these tokens. What stands between two of them in one part is taken where it comes first, for good, as
    no other place could do better: so nothing is tried twice."""
    between = list(itertools.takewhile(lambda token: token not in ("*", "**", *_SEPARATORS), after))
    if after[len(between) : len(between) + 1] == ["*"]:
        return f"(?>[^/:]*?(?={''.join(map(_fixed, between))}))"
    return "[^/:]*"


def filled(template: str, captured: Mapping[str, str]) -> str:
    """A namespace with the names in braces replaced; empty when that is no namespace."""
    name = _CAPTURE.sub(lambda found: captured[found.group(1)], template)
    return name if DNS_LABEL.fullmatch(name) else ""


def names_in(template: str) -> frozenset[str]:
    """The names in braces."""
    return frozenset(_CAPTURE.findall(template))


def with_values(template: str) -> str:
    """The template with a harmless label in the place of each name, to check the rest of it."""
    return _CAPTURE.sub("a", template)
