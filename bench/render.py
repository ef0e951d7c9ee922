"""The report, from raw figures: Markdown, and a plot in SVG for each part.

Colours are those of Okabe and Ito, which people who see fewer colours can tell apart.
"""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "report", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False}
mpl.rcParams |= {"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "figure.figsize": (7.0, 3.4)}

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INTRODUCTION = """\
# Measurements

Made by `make bench`; the raw figures are in `bench/report/`. Other work on the machine makes figures worse and none
better: the load that each run names is the average of a minute before and after it, and compares with the number of
cores. [Sizing](../docs/sizing.md) says what follows from all this.
"""


def report(raw: Path) -> str:
    """The text of the report on the figures in the directory `raw`, where the plots go, too."""
    about = json.loads((raw / "about.json").read_text())
    parts = [INTRODUCTION]
    for name, (title, section) in SECTIONS.items():
        said, file = about.get(name), raw / f"{name}.json"
        parts.append(f"## {title}\n")
        if file.exists():
            text, draw = section(json.loads(file.read_text()))
            plot(raw / f"{name}.svg", draw)
            parts += [text, f"![{title}](report/{name}.svg)\n"]
        else:
            (raw / f"{name}.svg").unlink(missing_ok=True)
            why = said.get("left out") or said.get("failed") if said else "it has not been run"
            parts.append(f"Not measured: {why}.\n")
        if said:
            parts.append(run(said, measured=file.exists()))
    return "".join(map(wrapped, "\n".join(parts).splitlines(keepends=True)))


def wrapped(line: str) -> str:
    """A paragraph, in lines that can be read in an editor; a row of a table and a picture stay as they are."""
    if line.startswith(("|", "!", "\n")):
        return line
    return textwrap.fill(line, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def run(said: dict[str, Any], measured: bool) -> str:
    """Where figures come from, in a paragraph."""
    text = f"`{said['command']}`, {said['date']}, commit {said['commit']}, {said['machine']}"
    if measured:
        text += f"; {said['seconds']:.0f} s, load {said['load before']:.1f} before and {said['load after']:.1f} after"
        if said.get("note"):
            text += f"; {said['note']}"
        if said.get("failed"):
            text += f". **Something was not as it should be: {said['failed']}**"
    return f"*{text}.*\n"


def plot(to: Path, draw: Callable[[Axes], None]) -> None:
    """One plot, with the same bytes for the same figures."""
    figure, axes = pyplot.subplots(layout="constrained")
    draw(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    figure.savefig(to, metadata={"Date": None})
    pyplot.close(figure)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; all but the first column are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def bars(axes: Axes, names: Sequence[str], series: dict[str, tuple[Sequence[float], str]], digits: int) -> None:
    """Groups of bars with their values above them."""
    width = 0.8 / len(series)
    for number, (label, (values, colour)) in enumerate(series.items()):
        places = [at + (number - (len(series) - 1) / 2) * width for at in range(len(names))]
        drawn = axes.bar(places, values, width, label=label, color=colour)
        axes.bar_label(drawn, fmt=f"%.{digits}f", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)


Section = tuple[str, Callable[[Axes], None]]


def cluster(rows: list[dict[str, Any]]) -> Section:
    """Overhead beside a bare switch; API calls and memory."""
    names = [str(row["apps"]) for row in rows]

    def draw(axes: Axes) -> None:
        for label, key, colour in (("Deployer", "overhead", BLUE), ("bare selector switch", "bare", ORANGE)):
            middle = [statistics.median(row[key]) * 1e3 for row in rows]
            most = [max(row[key]) * 1e3 for row in rows]
            axes.plot(names, middle, "o-", color=colour, label=f"{label}, median")
            axes.plot(names, most, "^--", color=colour, alpha=0.6, label=f"{label}, most")
        axes.set_yscale("log")
        axes.set_xlabel("apps deployed at once")
        axes.set_ylabel("ms, logarithmic")

    text = (
        "What the Deployer adds to a deployment: from the moment at which its last pod is Ready to DEPLOYED in the log "
        "stream. That includes two rounds of health checks, and the wait for ready endpoints. The bare switch is one "
        "PATCH of a Service's selector until a watch shows it, for as many Services at once: it waits for nothing and "
        "checks nothing.\n\n"
    )
    text += table(
        ["apps at once", "median, ms", "most, ms", "bare median, ms", "bare most, ms", "API calls each", "CPU each, ms",
         "resident, MB"],
        [
            [
                row["apps"],
                *(f"{how(row[key]) * 1e3:.0f}" for key in ("overhead", "bare") for how in (statistics.median, max)),
                f"{sum(row['calls'].values()):.1f}",
                f"{row['cpu'] * 1e3:.0f}",
                f"{row['resident']:.0f}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    spent = "; ".join(
        f"{row['apps']}: " + ", ".join(f"{verb} {number:.1f}" for verb, number in row["calls"].items() if number)
        for row in rows
    )
    return (
        f"{text}\nAPI calls for each deployment, by verb: {spent}. One app is deployed again and again, so "
        "that the removal of the version before is part of its calls.\n",
        draw,
    )


def api(rows: list[dict[str, Any]]) -> Section:
    """Requests a second against stored records, and viewers."""
    sizes = {part: [row for row in rows if row.get("part") == part] for part in ("get", "lists")}
    watched = [row for row in rows if row.get("part") == "viewers"]

    def draw(axes: Axes) -> None:
        for part, label, colour in (("get", "one deployment", BLUE), ("lists", "an app's 20 deployments", ORANGE)):
            stored = [row["stored"] for row in sizes[part]]
            axes.plot(stored, [row["rate"] for row in sizes[part]], "o-", color=colour, label=label)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("deployments stored, logarithmic")
        axes.set_ylabel("requests a second")

    names = {"get": "one deployment", "lists": "an app's 20 deployments"}
    text = "How fast REST reads, however many deployments are stored:\n\n"
    text += table(
        ["what", "stored", "requests a second", "p50, ms", "p99, ms"],
        [
            [
                names[part],
                f"{row['stored']:,}",
                f"{row['rate']:,.0f}",
                f"{row['p50'] * 1e3:.1f}",
                f"{row['p99'] * 1e3:.1f}",
            ]
            for part in names
            for row in sizes[part]
        ],
    )
    text += "\nHow soon a line that is logged reaches everybody who follows that log:\n\n"
    text += table(
        ["lines", "viewers", "p50, ms", "p99, ms"],
        [[row["name"], f"{row['viewers']:,}", *(f"{row[cut] * 1e3:.0f}" for cut in ("p50", "p99"))] for row in watched],
    )
    return text, draw


def soak(found: dict[str, Any]) -> Section:
    """Memory against deployments."""
    samples = found["samples"]

    def draw(axes: Axes) -> None:
        axes.plot([one["deployments"] for one in samples], [one["resident"] for one in samples], "o-", color=BLUE)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("deployments so far")
        axes.set_ylabel("resident, MB")

    rows = [
        [one["deployments"], f"{one['resident']:.0f}", one["threads"], one["descriptors"], f"{one['database']:.1f}"]
        for one in samples
    ]
    grown = "; ".join(found["grown"]) or "nothing grows beyond what its rule in `bench/soak.py` allows"
    text = "What the process has when everything rests, on the sandbox. The clients are in the same process.\n\n"
    text += table(["deployments", "resident, MB", "threads", "file descriptors", "database, MB"], rows)
    return f"{text}\nBetween the second quarter and the last one: {grown}.\n", draw


def recovery(found: dict[str, Any]) -> Section:
    """From a kill to normal."""
    kinds = (("answers", "REST answers"), ("deployed", f"all {found['apps']} deployments have ended"))
    took = {words: [one[key] for one in found["rounds"]] for key, words in kinds}

    def draw(axes: Axes) -> None:
        middle = [statistics.median(values) for values in took.values()]
        bars(axes, list(took), {"median": (middle, BLUE), "most": ([max(v) for v in took.values()], ORANGE)}, 2)
        axes.set_ylabel("seconds")

    text = (
        "One process with its store in a file is killed (`kill -9`) in the middle of deployments on the sandbox, and "
        "started again at once. Seconds from that start:\n\n"
    )
    rows = [[words, f"{statistics.median(v):.2f}", f"{max(v):.2f}", len(v)] for words, v in took.items()]
    return text + table(["until", "median, s", "most, s", "times"], rows), draw


def rollback(rows: list[dict[str, Any]]) -> Section:
    """POST to selector."""

    def draw(axes: Axes) -> None:
        names = [f"{row['apps']} at once" for row in rows]
        middle = [statistics.median(row["seconds"]) * 1e3 for row in rows]
        most = [max(row["seconds"]) * 1e3 for row in rows]
        bars(axes, names, {"median": (middle, BLUE), "most": (most, ORANGE)}, 0)
        axes.set_ylabel("ms")

    text = (
        "From the POST of a rollback to a version that is kept warm until a watch shows the Service selecting it.\n\n"
    )
    return text + table(
        ["apps at once", "rollbacks", "median, ms", "most, ms"],
        [
            [
                row["apps"],
                len(row["seconds"]),
                f"{statistics.median(row['seconds']) * 1e3:.0f}",
                f"{max(row['seconds']) * 1e3:.0f}",
            ]
            for row in rows
        ],
    ), draw


def switch(rows: list[dict[str, Any]]) -> Section:
    """Failed requests."""

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            each = row["failed"] / max(1, row["switches"])
            drawn = axes.barh(number, each, color=RED if row["scenario"] == "hasty" else GREEN)
            axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
        axes.set_yticks(range(len(rows)), [f"{row['mode']}, {row['scenario']}" for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(left=0, right=max([1.0, *(1.15 * row["failed"] / max(1, row["switches"]) for row in rows)]))
        axes.set_xlabel("failed requests per switch")

    text = (
        "Constant load through a real ingress controller, while an app is switched; `bench/switch.py` says what each "
        "scenario does. A switch took the time from ready endpoints to DEPLOYED, a rollback that from its POST. "
        "`hasty` deletes the pods of the live version, to show that a failed request would be seen.\n\n"
    )
    text += table(
        ["provider, scenario", "switches", "answered", "failed", "failed per switch", "old version after DEPLOYED",
         "took, median, s"],
        [
            [
                f"{row['mode']}, {row['scenario']}",
                row["switches"],
                f"{row['answered']:,}",
                row["failed"],
                f"{row['failed'] / max(1, row['switches']):.1f}",
                row["late"],
                f"{statistics.median(row['took']):.2f}" if row["took"] else "-",
            ]
            for row in rows
        ],
    )  # fmt: skip
    return text, draw


def takeover(rows: list[dict[str, Any]]) -> Section:
    """From a blow to one of three replicas."""
    names = [row["blow"].replace("_", " ") for row in rows]

    def draw(axes: Axes) -> None:
        over, ended = [row["takeover"] for row in rows], [row["ended"] for row in rows]
        bars(axes, names, {"taken over": (over, BLUE), "all have ended": (ended, ORANGE)}, 1)
        axes.set_ylabel("seconds")

    text = (
        "One of three replicas on etcd is killed, stands still or is cut off in the middle of deployments. Seconds "
        "until another one had gone on with the last of what it had begun, and until all deployments had ended:\n\n"
    )
    figures = [
        [name, row["deployments"], f"{row['takeover']:.1f}", f"{row['ended']:.1f}"]
        for name, row in zip(names, rows, strict=True)
    ]
    return text + table(["what happens to it", "deployments", "taken over, s", "all ended, s"], figures), draw


SECTIONS: dict[str, tuple[str, Callable[[Any], Section]]] = {
    "cluster": ("Overhead of a deployment", cluster),
    "api": ("REST and viewers", api),
    "soak": ("Memory over time", soak),
    "switch": ("Failed requests", switch),
    "rollback": ("Rollback", rollback),
    "recovery": ("Recovery of one process", recovery),
    "takeover": ("Takeover between replicas", takeover),
}
"""By the name of the raw figures: the title of the section, and what makes its text and draws its plot."""
