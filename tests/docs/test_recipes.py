"""The commands of the pages for users, run on a sandbox as a person would type them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployer.core.model.kind import CONTROLLER, INGRESS
from deployer.kube import client as kube_client
from deployer.kube.client import KubeClient
from deployer.sandbox import Sandbox
from deployer.settings import Settings
from support.command import COMMAND, of_a_new_user, running
from support.shell import blocks, needs_curl, part, shell, welcome
from support.world import describe

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECIPES = re.findall(r"<!-- recipe: (\w+) -->", (DOCS / "recipes.md").read_text(encoding="utf-8"))

pytestmark = [pytest.mark.slow, needs_curl]


@dataclass(frozen=True)
class Kitchen:
    """The service on a sandbox: the variables of a shell there, a folder to work in, and eyes on the cluster."""

    variables: dict[str, str]
    folder: Path
    cluster: KubeClient

    def run(self, script: str) -> str:
        """What the commands print; the first that fails is a failure."""
        return shell(script, self.variables, self.folder)

    def recipe(self, name: str) -> list[str]:
        """Put the recipe's descriptor into the folder; its blocks of commands."""
        text = part(DOCS / "recipes.md", f"recipe: {name}")
        [descriptor] = blocks(text, "yaml")
        (self.folder / "shop.yaml").write_text(descriptor.replace("pause: 300", "pause: 1"), encoding="utf-8")
        return blocks(text, "sh")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("recipes")
    environment = of_a_new_user(folder)
    with running(environment, folder) as deployer:
        process = deployer.start("sandbox", "--deployport=0", "--proxysleep=1", "--data-dir", str(folder / "data"))
        variables = environment | welcome(process)
        variables["PATH"] = f"{COMMAND.parent}:{variables['PATH']}"
        cluster = Sandbox.attach(folder / "data" / "sandbox")
        assert cluster is not None
        with contextlib.closing(kube_client.connect(Settings(kubernetes=cluster.api, own_namespace=""))) as eyes:
            yield Kitchen(variables, folder, eyes)
        assert process.end() == 0


@pytest.fixture
def kitchen(service: Kitchen) -> Iterator[Kitchen]:
    """The same, with no app of before."""
    yield service
    for app in json.loads(service.run("deployer get apps -o json")):
        if app.get("live"):
            service.run(f"deployer undeploy {app['appName']} --yes")


def live(kitchen: Kitchen) -> Any:
    return json.loads(kitchen.run("deployer status shop -o json"))["live"]


def gates(kitchen: Kitchen) -> Any:
    return json.loads(kitchen.run(f"deployer get deployments {live(kitchen)['deployment']} -o json"))["gates"]


def test_every_recipe_is_tried() -> None:
    assert {f"test_{name}" for name in RECIPES} <= set(globals())


def test_quickstart(kitchen: Kitchen) -> None:
    [script] = blocks(part(DOCS / "quickstart.md", "quickstart"), "sh")
    said = kitchen.run("\n".join(line for line in script.splitlines() if not line.startswith("PATH=")))
    assert "version 1 on hello-1-" in said and "version 2 is live" in said


def test_pipeline(kitchen: Kitchen) -> None:
    for script in kitchen.recipe("pipeline"):
        kitchen.run(script)
    assert live(kitchen)["version"] == "2"  # the job that was tried again made one version
    assert "<testsuite" in (kitchen.folder / "deploy.xml").read_text()


def test_tls(kitchen: Kitchen) -> None:
    [script] = kitchen.recipe("tls")
    kitchen.run(script)
    [tls] = kitchen.cluster.get(INGRESS, "shop", "default")["spec"]["tls"]
    assert tls == {"hosts": ["shop.example.com"], "secretName": "shop-example-com-tls"}


def test_canary(kitchen: Kitchen) -> None:
    [script] = kitchen.recipe("canary")
    kitchen.run(script)
    log = kitchen.run("deployer logs shop")
    assert [re.search(f"{weight} *(%|per cent)", log) is not None for weight in (10, 50)] == [True, True], log


def test_migration(kitchen: Kitchen) -> None:
    [script] = kitchen.recipe("migration")
    assert "migrate" in kitchen.run(script)
    [gate] = gates(kitchen)
    assert (gate["name"], gate["verdict"]) == ("migrate", "passed")


def test_approval(kitchen: Kitchen) -> None:
    until, after = kitchen.recipe("approval")
    assert "approval" in kitchen.run(until)
    kitchen.run(after)
    [gate] = gates(kitchen)
    assert gate["verdict"] == "passed" and "looks fine" in json.dumps(gate)


def test_hpa(kitchen: Kitchen) -> None:
    """What an autoscaler did to the live version is carried over to the next one."""
    [script] = kitchen.recipe("hpa")
    name = kitchen.run(script).split()[0]
    controller = kitchen.cluster.get(CONTROLLER, name, "default")
    controller["spec"]["replicas"] = 3
    kitchen.cluster.replace(CONTROLLER, name, controller, "default")
    following = kitchen.run(script).split()[0]
    assert following != name
    assert kitchen.cluster.get(CONTROLLER, following, "default")["spec"]["replicas"] == 3


@pytest.mark.parametrize("name", ["restore", "move"])
def test_drills(name: str, tmp_path: Path) -> None:
    """What the commands leave is a store from which the service starts, with what was in the first one."""
    environment = of_a_new_user(tmp_path)
    nowhere = "--kubernetes=http://127.0.0.1:1"  # the service starts all the same
    with running(environment, tmp_path) as deployer:
        process, rest = deployer.serve("serve", nowhere, f"--data-dir={tmp_path / 'first'}")
        stored = rest.call("POST", "/descriptors/", describe("default", "shop"))[1]
        variables = environment | {"DATA": str(tmp_path / "first")}
        variables["PATH"] = f"{COMMAND.parent}:{variables['PATH']}"
        for script in blocks(part(DOCS / "drills.md", f"drill: {name}"), "sh"):
            shell(script, variables, tmp_path)
        assert process.end() == 0
        again = tmp_path / {"restore": "restored", "move": "elsewhere"}[name]
        process, rest = deployer.serve("serve", nowhere, f"--data-dir={again}")
        assert [found["id"] for found in rest.call("GET", "/descriptors/")[1]] == [stored["id"]]
        assert process.end() == 0
