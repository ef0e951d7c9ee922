"""Alerts and dashboard of the chart: when alerts fire, and that every figure in them is one that the service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deployer.sandbox import Sandbox
from support.command import Rest, awaited, of_a_new_user, running
from support.world import describe

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "chart" / "files" / "alerts.yaml"
DASHBOARD = json.loads((ROOT / "deploy" / "chart" / "files" / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
PANELS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"]}
VARIABLES = {"$job": "one", "$namespace": "shop", "$__rate_interval": "5m"}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus"
)


def promtool(*arguments: str) -> str:
    """What it says; it must end well."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    cases = (Path(__file__).parent / "alerts.yaml").read_text()
    (tmp_path / "cases.yaml").write_text(cases.replace("RULES", json.dumps(str(ALERTS))))
    promtool("test", "rules", str(tmp_path / "cases.yaml"))
    tried = [t for case in yaml.safe_load(cases)["tests"] for t in case["alert_rule_test"]]
    fired = {t["alertname"] for t in tried if t["exp_alerts"]}
    silent = {t["alertname"] for t in tried if not t["exp_alerts"]}
    assert fired == silent == {rule["alert"] for rule in RULES}


@needs_promtool
def test_prometheus_takes_rules_and_panels(tmp_path: Path) -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))
    panels = [
        {"record": f"panel:{number}", "expr": filled(expression)}
        for number, expression in enumerate(expression for found in PANELS.values() for expression in found)
    ]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}))
    assert f"SUCCESS: {len(panels)} rules found" in promtool("check", "rules", str(tmp_path / "panels.yaml"))


def filled(expression: str) -> str:
    """With values in the place of Grafana's variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@pytest.fixture(scope="module")
def figures(cluster: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The samples of a service that has deployed something, and one app in vain, with their labels."""
    path = tmp_path_factory.mktemp("figures")
    with running(of_a_new_user(path), path) as deployer:
        flags = ["--kubernetes", cluster.api, "--loopback-pods", "--ingress", "none", "--proxysleep", "0"]
        _, user = deployer.serve("serve", *flags, "--data-dir", str(path / "data"))
        good = user.deploy(describe("default", app="figures-good"))
        awaited(lambda: user.status(good) == "DEPLOYED", "the app to be deployed")
        bad = user.deploy(describe("default", app="figures-bad", image="sample/web:crash"))
        awaited(lambda: user.status(bad) == "FAILURE", "the other one to fail")
        awaited(lambda: 'status="FAILURE"} 1.0' in scrape(user), "it to be counted")
        user.deploy(describe("default", app="figures-slow", env={"SLOW_START": "600"}))  # is open meanwhile
        awaited(lambda: "deployer_operations_open{" in scrape(user), "an operation")
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(scrape(user)):
            found[family.name if family.type != "counter" else f"{family.name}_total"] = {NO_SAMPLE}
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, set()) - {NO_SAMPLE} | set(sample.labels)
        yield found


def scrape(user: Rest) -> str:
    with urllib.request.urlopen(f"{user.url}metrics", timeout=10) as answer:
        return str(answer.read().decode())


NO_SAMPLE = "(no sample)"
BY_PLUGIN = {"deployer_observer_errors_total", "deployer_observer_events_dropped_total"}
"""They have no sample before a plugin fails."""


@pytest.mark.parametrize(
    "expression", sorted({e for found in PANELS.values() for e in found} | {r["expr"] for r in RULES})
)
def test_the_service_has_every_figure_and_label(expression: str, figures: dict[str, set[str]]) -> None:
    named = re.findall(r"\b((?:deployer|process)_\w+)(?:\{(.*?)\})?", filled(expression))
    assert named
    labels = set()
    for name, selector in named:
        assert name in figures
        assert NO_SAMPLE not in figures[name] or name in BY_PLUGIN, name
        known = ({"plugin"} if name in BY_PLUGIN else figures[name]) | {"job", "instance"}
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known
        labels |= known
    for grouped in re.findall(r"\b(?:by|on|group_left) ?\(([^)]*)\)", expression):
        assert set(filter(None, re.split(r",\s*", grouped))) <= labels


def test_every_alert_says_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(Deployer[A-Za-z]+)` \| (\w+) \|", page, re.MULTILINE))
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}
