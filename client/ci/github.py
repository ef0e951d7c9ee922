"""GitHub Actions: annotations at lines, outputs of the step, and its summary.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from deployer.client.descriptors.source import Source
from deployer.client.following.state import Outcome
from deployer.client.following.state import name as named
from deployer.client.output.words import duration, one_line, printable, seconds_of
from deployer.core.errors import Problem


def there() -> bool:
    """Is this a job of GitHub Actions?"""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(source: Source, problems: Iterable[Problem]) -> None:
    """An error at the line of each problem."""
    for problem in problems:
        position = source.position(problem.path)
        place = f",line={position.line},col={position.column}" if position else ""
        message = f"{problem.path}: {problem.message}" if problem.path else problem.message
        _command("error", f"file={_property(source.name)}{place}", message)


def annotate_text(text: str) -> None:
    """The same for `file:line:column: message`."""
    head = text.splitlines()[0]
    match = re.fullmatch(r"(.+?):(\d+):(\d+): (.*)", head)
    if match is None:
        _command("error", "", head)
    else:
        _command("error", f"file={_property(match[1])},line={match[2]},col={match[3]}", match[4])


def tell(outcome: Outcome, urls: Sequence[str], *, error: bool) -> None:
    """Outputs, the summary, and an annotation when it failed."""
    found = outcome.deployment
    if error:
        _command("error", "title=Deployment failed", outcome.sentence)
    _append(
        "GITHUB_OUTPUT",
        "".join(
            f"{key}={one_line(value)}\n"
            for key, value in {
                "deployment-id": str(found["id"]),
                "version": str(found.get("version", "")),
                "status": str(found["status"]),
                "url": urls[0] if urls else "",
                "exit-code": str(int(outcome.exit_code)),
            }.items()
        ),
    )
    _append("GITHUB_STEP_SUMMARY", _summary(outcome, urls))


def _summary(outcome: Outcome, urls: Sequence[str]) -> str:
    """Markdown."""
    found = outcome.deployment
    mark = "✅" if outcome.exit_code == 0 else "❌" if outcome.exit_code == 1 else "⏳"
    lines = [f"### {mark} {_text(named(found))}: {_text(str(found['status']))}", "", _text(outcome.sentence), ""]
    lines += ["<" + re.sub(r"[<>\s]", "", url) + ">" for url in urls] + [""] * bool(urls)
    if steps := found.get("steps"):
        lines += ["| step | state | took |", "|---|---|---|"]
        lines += [f"| {_text(s['id'])} | {_text(s['state'])} | {_took(s)} |" for s in steps]
        lines.append("")
    if gates := found.get("gates"):
        lines += ["| gate | verdict | reason |", "|---|---|---|"]
        lines += [f"| {_text(g['name'])} | {_text(g['verdict'] or '-')} | {_text(g['reason'])} |" for g in gates]
        lines.append("")
    lines.append(f"Deployment {_text(str(found['id']))}")
    return "\n".join(lines) + "\n\n"


def _took(step: dict[str, Any]) -> str:
    if not step.get("began") or not step.get("ended"):
        return ""
    return duration(seconds_of(step["ended"]) - seconds_of(step["began"]))


def _text(text: str) -> str:
    """As Markdown in a cell of a table: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line(text))


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            click.echo(f"deployer: {variable} cannot be written: {error.strerror or error}", err=True)


def _command(name: str, properties: str, message: str) -> None:
    """A command to the runner, which reads both streams; data goes to the other one."""
    escaped = printable(message).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    click.echo(f"::{name}{' ' if properties else ''}{properties}::{escaped}", err=True)


def _property(value: str) -> str:
    value = printable(value)
    for character, escape in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        value = value.replace(character, escape)
    return value
