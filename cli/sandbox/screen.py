"""What the demo shows: lines that scroll, and below them, on a terminal, how the load is doing right now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from deployer.sandbox import Load, Report


class Screen:
    """Plain lines when standard output is no terminal; without colours when NO_COLOR is set."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._whole = not self._console.is_terminal  # lines that programs read are never broken into several

    def say(self, text: str, style: str = "") -> None:
        """One line, whatever is in it: it is not markup."""
        self._console.print(Text(text, style=style), soft_wrap=self._whole)

    def title(self, text: str) -> None:
        """What happens next."""
        self.say(f"\n{text}", "bold")

    def log(self, line: str) -> None:
        """A message of a deployment's log, `RFC3339 text`; of its time only the time of day is shown."""
        time, _, text = line.partition(" ")
        self._console.print(Text.assemble("  ", (time[11:23], "dim"), " ", text), soft_wrap=self._whole)

    def row(self, label: str, text: str, style: str = "") -> None:
        """A line of the summary."""
        self._console.print(Text.assemble(f"  {label:<12}", (text, style)), soft_wrap=self._whole)

    @contextlib.contextmanager
    def following(self, load: Load) -> Iterator[None]:
        """Show the load's counts at the bottom of a terminal; elsewhere nothing."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console,
            get_renderable=lambda: counts(load.snapshot()),
            refresh_per_second=4,
            transient=True,
        ):
            yield


def counts(report: Report) -> Text:
    """A load so far, in one line."""
    failed = (f"{report.failed} failed", "bold red" if report.failed else "green")
    return Text.assemble(f"  load: {report.sent} sent, ", failed, f"; {by_version(report)}")


def by_version(report: Report) -> str:
    """`version 1: 120, version 2: 340`."""
    return ", ".join(f"version {name or '?'}: {count}" for name, count in sorted(report.by_version.items()))
