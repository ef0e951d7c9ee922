"""Everything that is measured, as one report: `make bench`, or

    python bench/make_report.py [--quick] [--only NAME ...] [--draw] [--into DIR]

Each program writes its raw figures into `report/` beside this file, and `report.md` is made of what lies there: tables
and plots. A part that cannot be measured here says why in the report, and its old figures are removed. `--only`
measures these parts and keeps the figures of the others; `--draw` measures nothing, and makes the report anew.

KUBECONFIG names the cluster for the parts that need one; without it they are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import render

import figures

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Part:
    """A program that measures something, its arguments, and those for a small sample instead."""

    name: str
    program: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    cluster: bool = False
    """Whether it needs one."""


API_QUICK = ("--seconds", "1", "--repeat", "1", "--sizes", "100", "1000", "10000", "--viewers", "200", "--lines", "40")
SOAK_QUICK = ("--deployments", "80", "--apps", "4", "--samples", "8", "--keep", "5")
CLUSTER_QUICK = ("--single", "5", "--at-once", "5", "20")
PARTS = (
    Part("cluster", "cluster.py", ("--at-once", "20", "60", "100"), CLUSTER_QUICK, cluster=True),
    Part("api", "api.py", ("get", "lists", "viewers"), ("get", "lists", "viewers", *API_QUICK)),
    Part("soak", "soak.py", ("--deployments", "800"), SOAK_QUICK),
    Part("recovery", "recovery.py", (), ("--apps", "4", "--rounds", "2")),
    Part("rollback", "rollback.py", (), ("--at-once", "1", "5", "--rounds", "2"), cluster=True),
    Part(
        "switch",
        "switch.py",
        ("--scenario", "calm", "--scenario", "rollback", "--scenario", "neighbour", "--scenario", "killed",
         "--scenario", "hasty"),
        ("--scenario", "calm", "--scenario", "rollback", "--scenario", "hasty", "--count", "4",
         "--mode", "nginx versioned", "--mode", "gateway"),
        cluster=True,
    ),
    Part("takeover", "tests/cluster/test_replicas.py", ("--kill=all",), ("--kill=all", "-k", "kill"), cluster=True),
)  # fmt: skip


def main() -> int:
    """Measure and write; 1 when a part failed."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small sample, in a few minutes")
    parser.add_argument("--only", nargs="+", default=[], choices=[part.name for part in PARTS], metavar="NAME")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--note", default="", metavar="TEXT", help="what else the machine does; stands in the report")
    parser.add_argument("--into", type=Path, default=HERE, metavar="DIR", help="where report.md and report/ go")
    options = parser.parse_args()
    raw = options.into / "report"
    raw.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {}
    if (raw / "about.json").exists():
        about = json.loads((raw / "about.json").read_text())
    failed = False
    for part in () if options.draw else PARTS:
        if part.name in options.only or not options.only:
            said = measure(part, raw / f"{part.name}.json", options.quick)
            about[part.name] = said | ({"note": options.note} if options.note else {})
            figures.write(raw / "about.json", about)
            failed = failed or bool(said.get("failed"))
    report = render.report(raw)
    (options.into / "report.md").write_text(report)
    print(f"The report is {options.into / 'report.md'}")
    return int(failed)


def measure(part: Part, to: Path, quick: bool) -> dict[str, Any]:
    """Run the program; what the report says about it, with `left out` or `failed` and why."""
    command = [sys.executable, str(HERE / part.program), *(part.quick if quick else part.full), "--json", str(to)]
    about = {
        "command": f"bench/{part.program} {' '.join(command[2:-2])}".strip(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
        "load before": os.getloadavg()[0],
    }
    to.unlink(missing_ok=True)
    if part.cluster and not os.environ.get("KUBECONFIG"):
        why = "it needs a Kubernetes, and KUBECONFIG names none"
        print(f"{part.name} is left out: {why}", flush=True)
        return {**about, "left out": why}
    print(f"--- {part.name}", flush=True)
    began = time.monotonic()
    code = (
        takeover(part, to, about, quick) if part.name == "takeover" else subprocess.run(command, check=False).returncode
    )
    about |= {"seconds": time.monotonic() - began, "load after": os.getloadavg()[0]}
    if to.exists() and json.loads(to.read_text()):
        return about | ({"failed": f"it ended with {code}"} if code else {})
    to.unlink(missing_ok=True)
    if code:
        return {**about, "failed": f"it ended with {code} and has no figures"}
    return {**about, "left out": "the cluster has no ingress controller that the programs know"}


def takeover(part: Part, to: Path, about: dict[str, Any], quick: bool) -> int:
    """The figures of the test that measures it, whose setting is too large to be built twice."""
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "junit.xml"
        arguments = [part.program, "-m", "cluster", "-q", *(part.quick if quick else part.full)]
        arguments += [f"--junitxml={found}", "-o", "junit_family=xunit1"]  # the family that has properties
        about["command"] = f"pytest {part.program} {' '.join(part.quick if quick else part.full)}"
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode
        cases = ElementTree.parse(found).iter("testcase") if found.exists() else ()
        read = [{one.attrib["name"]: one.attrib["value"] for one in case.iter("property")} for case in cases]
    numbers = [
        {
            "blow": one["blow"],
            "deployments": int(one["deployments"]),
            "takeover": float(one["takeover"]),
            "ended": float(one["ended"]),
        }
        for one in read
        if "takeover" in one
    ]
    figures.write(to, numbers)
    return code


def machine() -> str:
    """The machine, in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """What is checked out, and whether it is changed."""
    git = ("git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*")
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
