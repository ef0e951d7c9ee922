"""What is wrong with a text that is not YAML, in the words of somebody who writes it rather than of a parser."""

from __future__ import annotations

from typing import Any

from ruamel.yaml.error import MarkedYAMLError

# What ruamel.yaml says of where it was and of what it found, and what that means; whether the place is where it began.
_MEANINGS: tuple[tuple[str, str, str, bool], ...] = (
    ("", "'\\t'", "a tab cannot indent YAML; use spaces", False),
    ("", "\t", "a tab cannot indent YAML; use spaces", False),
    ("", "cannot start any token", "no text can begin with {quoted}; put it in quotes", False),
    (
        "",
        "mapping values are not allowed",
        "a second key in one value: put the value in quotes, or indent the line as its neighbours are",
        False,
    ),
    ("", "expected <block end>", "does not fit the lines above: check the indentation, and the quotes", False),
    ("flow sequence", "", "the [ of line {line} is not closed, or a comma is missing", False),
    ("flow mapping", "", "the {{ of line {line} is not closed, or a comma or colon is missing", False),
    ("quoted scalar", "end of stream", "this quote is not closed", True),
    ("", "could not find expected ':'", "no colon is behind this key, or its line is indented differently", True),
    (
        "",
        "undefined alias",
        "*{quoted} needs an anchor &{quoted} above; put a text that begins with * in quotes",
        False,
    ),
)


def explained(error: MarkedYAMLError) -> tuple[str, Any]:
    """A sentence, and the mark of the place that it is about; None when there is none."""
    context, problem = error.context or "", error.problem or ""
    mark, began = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    quoted = problem.split("'")[1] if problem.count("'") > 1 else ""
    for where, what, text, at_beginning in _MEANINGS:
        if where in context and what in problem:
            line = began.line + 1 if began is not None else "?"
            return text.format(quoted=quoted, line=line), began if at_beginning else mark
    return f"is not YAML: {' '.join(part for part in (context, problem) if part)}", mark
