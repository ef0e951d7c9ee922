"""What it costs to hide secrets: seconds for each million characters, and how that grows with text and values.

    python bench/redaction.py

Each row has one kind of text and of values. Twice the text should take twice the time (`text x2` near 2), and ten times
the values should take no longer (`values x10` near 1), also when everything begins alike.
"""

from __future__ import annotations

import random
import statistics
import string
import time
from collections.abc import Callable

from deployer.redaction.matching import Matcher
from deployer.redaction.redactor import clean_credentials

REPEAT = 5
TEXT = 100_000  # characters
VALUES = 200

_random = random.Random(1)


def ordinary(count: int) -> list[str]:
    """Values as they are in environments."""
    return [
        "".join(_random.choices(string.ascii_letters + string.digits, k=_random.randint(8, 40))) for _ in range(count)
    ]


def alike(count: int) -> list[str]:
    """Values that begin alike, of all lengths."""
    return ["A" * (8 + number % 50) + f"{number:06d}" for number in range(count)]


def prose(length: int) -> str:
    """A text of words."""
    words = (
        "pod",
        "is",
        "not",
        "ready",
        "container",
        "was",
        "restarted",
        "connection",
        "refused",
        "by",
        "the",
        "server",
    )
    text = " ".join(_random.choices(words, k=length // 4))
    return text[:length]


KINDS: dict[str, tuple[Callable[[int], list[str]], Callable[[int], str]]] = {
    "ordinary values, prose": (ordinary, prose),
    "ordinary values, one long run": (ordinary, lambda length: "A" * length),
    "values alike, one long run": (alike, lambda length: "A" * length),
    "values alike, cut again and again": (alike, lambda length: ("A" * 60 + "...") * (length // 63)),
}


def seconds(clean: Callable[[str], str], text: str) -> float:
    """The median of some runs."""
    taken = []
    for _ in range(REPEAT):
        began = time.perf_counter()
        clean(text)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """Print a row for each kind."""
    print(f"{'':36}{'s a million':>12}{'text x2':>10}{'values x10':>12}{'s to learn':>12}")
    for name, (values, text) in KINDS.items():
        few, many = values(VALUES), values(10 * VALUES)
        began = time.perf_counter()
        matcher = Matcher(few)
        learnt = time.perf_counter() - began
        once, twice = seconds(matcher.clean, text(TEXT)), seconds(matcher.clean, text(2 * TEXT))
        more = seconds(Matcher(many).clean, text(TEXT))
        print(f"{name:36}{once / TEXT * 1e6:12.3f}{twice / once:10.2f}{more / once:12.2f}{learnt:12.3f}")
    hostile = "://a:x" * (TEXT // 6)
    once, twice = seconds(clean_credentials, hostile), seconds(clean_credentials, hostile * 2)
    print(f"{'forms of credentials, beginnings only':36}{once / TEXT * 1e6:11.3f}{twice / once:10.2f}")


if __name__ == "__main__":
    main()
