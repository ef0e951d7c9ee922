"""What a switch costs the users of an app: `make bench-switch`, or `--help`.

Constant load goes through a real ingress controller (keep-alive and fresh connections, GET and POST, slow requests of
2 s, downloads of 6 s) while an app is deployed again and again; failed requests are counted, and answers of the old
version on fresh connections after DEPLOYED. For each provider and mode:

    calm        deployments with time between them, as in most of an app's life: nothing else keeps the controller busy
    rollback    deployments, each followed by a rollback to the version before, which is kept warm
    plain       consecutive deployments, a failing one, another app's undeployment, and back to the first version
    slow        pods that take 3 s to start
    neighbour   another tenant changes two routes four times a second, so that the controller throttles
    killed      the service is killed after each of a deployment's writes to the cluster, and started again
    swapped     the same while another ingress provider takes over, and back
    hasty       to see that all this can fail: pods are deleted while they are live

KUBECONFIG names the cluster; what else it needs says tests/support/switching.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import figures
from deployer.core.model.kind import POD
from support.switching import TABLES, Drive, Neighbour, Site, Switch, driving, missing, site
from support.traffic import Report


def plain(drive: Drive, count: int) -> None:
    """The usual life of an app."""
    drive.deploy(count // 2)
    drive.fail()
    drive.undeploy_another()
    drive.deploy(count - count // 2)
    drive.go_back()


def calm(drive: Drive, count: int) -> None:
    """Each when the one before is over, and the controller at rest for longer than it throttles."""
    for _ in range(max(1, count // 4)):
        drive.site.quiet()
        time.sleep(3.0)
        drive.deploy()


def rollback(drive: Drive, count: int) -> None:
    """Each from a version that has just become live to the one before, while that is kept warm."""
    for _ in range(max(1, count // 4)):
        drive.site.quiet()
        drive.switches.append(drive.site.deployed({**drive.site.descriptor(), "keepWarm": 20}))
        time.sleep(3.0)
        drive.switches.append(rolled_back(drive.site))


def rolled_back(site: Site) -> Switch:
    """Once it is over; `took` is from the POST."""
    began = time.time()
    target = f"/rollbacks/?namespace={site.name}&appname=shop"
    status, _, answer = site.user.rest.request("POST", target)
    if status != 202:
        raise SystemExit(f"no rollback: {answer}")
    version = answer["rollback"]["version"]
    while not any(one["version"] == version and one["status"] == "DEPLOYED" for one in site.user.all("shop")):
        if time.time() > began + 60:
            raise SystemExit(f"version {version} did not come back")
        time.sleep(0.05)
    at = time.time()
    return Switch(version, at, at - began)


def slow(drive: Drive, count: int) -> None:
    """Readiness comes late."""
    drive.deploy(max(1, count // 4), SLOW_START="3")


def neighbour(drive: Drive, count: int) -> None:
    """The controller is busy with others."""
    other = Neighbour(drive.site)
    drive.deploy(max(1, count // 4))
    other.stop()


def killed(drive: Drive, _: int) -> None:
    """Killed and started again, everywhere."""
    print(f"    killed after each of {drive.kill_everywhere()} writes")


def swapped(drive: Drive, _: int) -> None:
    """Killed and started again, everywhere, while providers take over from each other."""
    mode = drive.site.mode
    other = "nginx versioned" if mode == "gateway" else "gateway"
    print(f"    killed once in each of {drive.swap_everywhere((other, mode))} swaps with {other}")


def hasty(drive: Drive, _: int) -> None:
    """What happens when the pods of the live version are deleted."""
    drive.deploy()
    for pod in drive.site.eyes.list(POD, drive.site.name)[0]:
        drive.site.eyes.delete(POD, pod["metadata"]["name"], drive.site.name, uid=pod["metadata"]["uid"])


SCENARIOS: dict[str, Callable[[Drive, int], None]] = {
    scenario.__name__: scenario for scenario in (calm, rollback, plain, slow, neighbour, killed, swapped, hasty)
}


RAW: list[dict[str, Any]] = []
"""The figures of every table, for the report."""


def measure(mode: str, scenario: str, count: int) -> bool:
    """Run one scenario and print its figures. True when nothing was lost."""
    with tempfile.TemporaryDirectory() as directory, site(Path(directory), mode) as made:
        began = time.monotonic()
        with driving(made) as drive:
            SCENARIOS[scenario](drive, count)
            made.quiet()
            report = drive.traffic.stop()
        problems = drive.problems(report)
        RAW.append(
            {
                "mode": mode,
                "scenario": scenario,
                "switches": len(drive.switches),
                "answered": sum(account.answered for account in report.kinds.values()),
                "failed": sum(account.failed for account in report.kinds.values()),
                "late": sum(len(drive.late(report, number)) for number in range(len(drive.switches))),
                "took": [switch.took for switch in drive.switches],
            }
        )
        show(f"{mode}, {scenario}: {len(drive.switches)} switches in {time.monotonic() - began:.0f} s", drive, report)
        for problem in problems:
            print(f"    {problem}")
        return not problems


def show(title: str, drive: Drive, report: Report) -> None:
    """A table of the kinds of requests, and how many long ones were under way at a switch."""
    print(f"\n{title}")
    print(f"    {'':<18}{'answered':>10}{'failed':>8}{'closed':>8}")
    for name, account in report.kinds.items():
        print(f"    {name:<18}{account.answered:>10}{account.failed:>8}{account.closed:>8}")
    late = sum(len(drive.late(report, number)) for number in range(len(drive.switches)))
    print(f"    answers of an old version on fresh connections after DEPLOYED: {late}")
    took = [switch.took for switch in drive.switches]
    print(f"    endpoints ready to DEPLOYED: median {statistics.median(took):.2f} s, most {max(took):.2f} s")
    spans = [report.spanning(switch.at).total() for switch in drive.switches]
    if spans:
        print(
            f"    long requests under way at a switch: {min(spans)} to {max(spans)}, median {statistics.median(spans)}"
        )
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """All tables; exits with 1 when something was lost that should not have been."""
    parser = argparse.ArgumentParser(description="Measure what is lost while an app is switched, on a real Kubernetes.")
    parser.add_argument("--count", type=int, default=20, help="deployments one after the other (20)")
    parser.add_argument("--mode", action="append", choices=list(TABLES), help="only this one; may be repeated")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; may be repeated")
    figures.add_option(parser)
    options = parser.parse_args(arguments)
    if not os.environ.get("KUBECONFIG"):
        raise SystemExit("needs a Kubernetes with an ingress controller: set KUBECONFIG")
    good = True
    for mode in options.mode or TABLES:
        if why := missing(mode):
            print(f"\n{mode}: left out: {why}")
            continue
        for scenario in options.scenario or SCENARIOS:
            well = measure(mode, scenario, options.count)
            figures.write(options.json, RAW)
            good = good and (well or scenario == hasty.__name__)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
