"""The documentation says what is true."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from deployer.cli.reference import settings_page
from deployer.cli.sandbox import sample
from deployer.core.contract.environment import EnvInjector
from deployer.core.contract.gate import Gate
from deployer.core.contract.health import HealthChecker
from deployer.core.contract.ingress import IngressProvider
from deployer.core.contract.strategy import Strategy
from deployer.descriptor.schema_errors import schema_problems
from deployer.plugin_manager.hookspecs import Specs
from deployer.plugins.ingress_nginx import options
from deployer.sdk.strategy import Done, Work
from deployer.testing import environment, gates, health, strategies

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("*/*/README.md"),
]


def test_the_page_of_settings_is_made_from_the_table() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page()


def test_every_hook_is_documented_with_its_exact_arguments() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    headings = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    hooks = {name: spec for name, spec in vars(Specs).items() if not name.startswith("_")}
    signatures = [f"{name}({', '.join(list(inspect.signature(spec).parameters)[1:])})" for name, spec in hooks.items()]
    assert headings == signatures


def test_every_method_of_a_provider_is_documented() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    for kind in (Strategy, HealthChecker, Gate, IngressProvider, EnvInjector):
        methods = [name for name in vars(kind) if not name.startswith("_")]
        assert methods and [name for name in methods if f"`{name}" not in text] == []


def test_examples_of_plugin_code_use_exported_names_only() -> None:
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            compile(block, str(page), "exec")
            for kind, names in re.findall(r"from deployer\.sdk\.(\w+) import (.*)", block):
                assert set(names.split(", ")) <= set(importlib.import_module(f"deployer.sdk.{kind}").__all__), page
            assert "from deployer.core" not in block, page


def test_the_example_of_a_step_soaks_for_a_minute() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Soak" in b]
    names: dict[str, Any] = {}
    exec(block, names)
    memory: dict[str, Any] = {}
    clock = [1000.0]
    work = SimpleNamespace(recall=memory.get, remember=memory.__setitem__, now=lambda: clock[0])
    work.left = functools.partial(Work.left, work)
    parked = names["Soak"]().run(work)
    assert parked.until == 1060.0
    clock[0] += 59
    assert names["Soak"]().run(work) == parked
    clock[0] += 1
    assert names["Soak"]().run(work) == Done()


@pytest.mark.slow
def test_the_examples_of_testing_a_plugin_pass(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "testing-plugins.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    for name in ("test_announce", "test_word", "test_notes", "test_open"):
        names[name]()
    names["test_mine"](tmp_path)
    # Of the suites those without a sandbox; what the strategy's does is what tests/plugins/test_strategies.py does.
    for check in health.CHECKS:
        names["test_word_conforms"](check)
    for check in gates.CHECKS:
        names["test_open_conforms"](check)
    for check in environment.CHECKS:
        names["test_notes_conform"](check, None, tmp_path)
    assert names["strategies"].CHECKS is strategies.CHECKS


def test_the_options_of_ingress_nginx_are_documented() -> None:
    text = (ROOT / "docs" / "ingress.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-zA-Z-]+` ?)+)\|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(options.SCHEMA["properties"])
    (block,) = (b for b in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "ingressOptions" in b)
    assert schema_problems(json.loads(block)["ingressOptions"], options.SCHEMA) == []


def test_every_reason_of_a_failure_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    reasons: set[str] = set()
    for file in (
        f
        for room in ("core", "commands", "descriptor", "kube", "original", "planning", "toolkit", "plugins")
        for f in ROOT.glob(f"{room}/**/*.py")
    ):
        source = file.read_text()
        reasons |= set(re.findall(r'reason(?:: str)? ?= ?"([A-Z][A-Za-z]+)"', source))
        reasons |= set(re.findall(r'Obstacle\(.*?, "([A-Z][A-Za-z]+)"', source))
        reasons |= set(re.findall(r'_fail\(.*?, "([A-Z][A-Za-z]+)"', source))
    assert {"Unhealthy", "CrashLoop", "StepFailed", "SchedulerSilent", "ApiServerUnavailable"} <= reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in text) == []


def test_the_example_descriptor_is_the_one_that_the_sandbox_gives() -> None:
    assert json.loads((ROOT / "examples" / "shop.json").read_text()) == sample.descriptor()


def test_rights_are_given_by_namespace_and_one_by_one() -> None:
    """And each file says in the table of its folder's page what it is for."""
    folder = ROOT / "deploy" / "rbac"
    table = (folder / "README.md").read_text()
    for file in folder.glob("*.yaml"):
        assert f"| [{file.name}]({file.name}) |" in table
        documents = list(yaml.safe_load_all(file.read_text()))
        # Tokens and rights are the whole cluster's; nothing else is asked for there but who has a host.
        whole = {"ClusterRole", "ClusterRoleBinding"}
        allowed = {"Namespace", "ServiceAccount", "Role", "RoleBinding"}
        if file.name == "cluster-hosts.yaml":
            allowed = whole  # optional, and only to list
            assert {v for d in documents for rule in d.get("rules", ()) for v in rule["verbs"]} == {"list"}
        if file.name in ("reviews.yaml", "freezes-everywhere.yaml"):
            allowed |= whole
        assert {d["kind"] for d in documents} <= allowed
        for rule in [rule for d in documents for rule in d.get("rules", ())]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(#[^)]*)?\)", page.read_text())
    missing = [target for target, _ in targets if not target.startswith("http") and not (page.parent / target).exists()]
    assert missing == []
