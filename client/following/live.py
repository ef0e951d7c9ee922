"""What happens, as a live picture in a terminal: steps with their times, gates, and the last lines of the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from deployer.client.following import state
from deployer.client.output.words import duration, one_line, printable, seconds_of
from deployer.core.clock import wall_clock

LINES = 6
"""Of the log, below the steps."""

_STATES = {
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "cancelled": ("✗", "yellow"),
    "undone": ("↺", "yellow"),
    "pending": ("·", "dim"),
    "running": ("▸", "cyan"),
}
_VERDICTS = {"passed": "green", "failed": "bold red", "inconclusive": "yellow"}


class LiveView:
    """Draws below what is on the screen, and leaves nothing behind but what scrolled past: the summary follows.

    Times are the service's; the picture goes on by the difference to this machine's clock, whatever that says.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = wall_clock) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._now = now
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES)
        self._deployment: dict[str, Any] = {}
        self._app: dict[str, Any] | None = None
        self._trouble = ""
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=self._console, get_renderable=self.picture, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._deployment:
            self._console.print(self._steps())
            if kind is not None or self._deployment.get("status") == "FAILURE":
                self._console.print(self._log(whole=True))  # the reason stands in its last lines

    # --- told by the follower -------------------------------------------------------------------------------------

    def log(self, line: str) -> None:
        """The last of them are shown; a message of several lines counts as many."""
        time, _, text = line.partition(" ")
        first, *rest = printable(text).split("\n")
        self._lines.append((time[11:19], first))
        self._lines.extend(("", one) for one in rest)

    def show(self, deployment: dict[str, Any], app: dict[str, Any] | None) -> None:
        """The deployment has moved."""
        self._deployment, self._app = deployment, app

    def trouble(self, sentence: str) -> None:
        """Shown as long as it lasts."""
        self._trouble = sentence

    # --- the picture ----------------------------------------------------------------------------------------------

    def picture(self) -> RenderableType:
        """All of it, no higher than the terminal."""
        parts: list[RenderableType] = [self._head(), self._steps()]
        if gates := self._gates():
            parts.append(gates)
        if self._app and self._app.get("previewHosts"):
            hosts = one_line(", ".join(self._app["previewHosts"]))
            parts.append(Text(f"  preview: {hosts}", no_wrap=True, overflow="ellipsis"))
        if waits := state.needs_person(self._deployment) if self._deployment else "":
            parts.append(Text(f"  {one_line(waits)}", style="bold yellow"))
        parts.append(self._log())
        if self._trouble:
            parts.append(Text(f"  {one_line(self._trouble)}; asking again", style="yellow"))
        return Group(*parts)

    def _head(self) -> RenderableType:
        found = self._deployment
        if not found:
            self._spinner.update(text=Text(" asking"))
            return self._spinner
        live = (self._app or {}).get("live", {})
        other = live and live["deployment"] != found["id"]
        replaces = f", replacing version {one_line(live['version'])}" if other else ""
        phase = str(found.get("phase") or found["status"]).lower()
        text = Text.assemble(" ", (one_line(state.name(found)), "bold"), replaces, "  ", (one_line(phase), "dim"))
        self._spinner.update(text=text)
        return self._spinner

    def _steps(self) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=2, justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=8)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        found = self._deployment
        steps = found.get("steps", ())
        room = max(3, self._console.height - LINES - 6)
        for step in steps[-room:]:
            mark, style = _STATES.get(step["state"], ("?", ""))
            more = Text()
            if step["state"] == "running" and step["id"] == found.get("step"):
                more = Text(self._doing(), style="cyan")
            table.add_row(Text(mark, style=style), Text(one_line(step["id"]), style=style), self._took(step), more)
        if not steps and found.get("waitingFor"):
            return Text(f"  waiting for {one_line(found['waitingFor'])}", style="cyan")
        return table

    def _doing(self) -> str:
        found = self._deployment
        parts = []
        if found.get("deadline"):  # in front: what is waited for may be longer than the line
            left = seconds_of(found["deadline"]) - self._now()
            parts.append(f"{duration(left)} left" if left > 0 else "time is up")
        parts.append(one_line(found.get("waitingFor", "")))
        return ", ".join(part for part in parts if part)

    def _took(self, step: dict[str, Any]) -> Text:
        if not step.get("began"):
            return Text("")
        end = seconds_of(step["ended"]) if step.get("ended") else self._now()
        return Text(duration(end - seconds_of(step["began"])), style="dim")

    def _gates(self) -> RenderableType | None:
        gates = self._deployment.get("gates") or ()
        if not gates:
            return None
        table = Table.grid(padding=(0, 1), expand=True)
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for gate in gates:
            verdict = gate["verdict"] or ("running" if gate["began"] else "pending")
            last = (gate.get("measurements") or [{}])[-1]
            value = f"{last['value']} ({last['threshold']})" if last.get("value") is not None else ""
            style = _VERDICTS.get(verdict, "dim")
            table.add_row(
                "  gate",
                Text(one_line(gate["name"])),
                Text(one_line(verdict), style=style),
                Text(one_line(value or gate["reason"] or "")),
            )
        return table

    def _log(self, *, whole: bool = False) -> RenderableType:
        """Its last lines, `whole` in as many lines as they need: what stays on the screen is to be read."""
        table = Table.grid(padding=(0, 1, 0, 0), expand=True)
        table.add_column(width=10, no_wrap=True)
        table.add_column(no_wrap=not whole, overflow="fold" if whole else "ellipsis", ratio=1)
        for time, text in self._lines:
            table.add_row(Text(f"  {time}", style="dim"), Text(text.replace("\t", " ")))
        return table
