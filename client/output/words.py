"""Small things that many sentences need: near names, durations, ages, plurals."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable

# GitHub's runner takes `::` behind white space at the beginning of a line for a command, and the older `##[` anywhere
# (actions/runner, ActionCommand.cs); Azure's takes `##vso[` anywhere, TeamCity's `##teamcity[`.
_RUNNERS = ("GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
_COMMAND = re.compile(r"(?:(?<=[\r\n])|\A)\s*:(?=:)|#(?=#[A-Za-z]*\[)")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or an empty text."""
    from deployer.settings.spelling import similar

    near = similar(word, known)
    return f"; did you mean {near[0]}?" if near else ""


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def seconds_of(time: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 when it is none."""
    try:
        return datetime.datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def age(time: str, now: float) -> str:
    """How long ago a time was, in one unit: `12 s`, `3 min`, `5 h`, `8 d`; empty when there is none."""
    if not time:
        return ""
    ago = max(0, round(now - seconds_of(time)))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if ago >= 2 * size or (ago >= size and unit != "min"):
            return f"{ago // size} {unit}"
    return f"{ago} s"


def one_line(text: str) -> str:
    """Without line feeds, and without control characters and commands, which a terminal or a runner would obey."""
    return no_command(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def printable(text: str) -> str:
    """Lines stay lines; what else a terminal or a runner would obey is replaced."""
    return no_command("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text))


def no_command(text: str) -> str:
    """In a job of a runner that takes commands from what is printed: with a space in the middle of each one's mark, so
    that nobody who writes into a log gives the job orders. Elsewhere the text as it is."""
    if not any(os.environ.get(name) for name in _RUNNERS):
        return text
    return _COMMAND.sub(lambda found: f"{found.group()} ", text)


def count(number: int, noun: str) -> str:
    """`1 problem`, `3 problems`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
