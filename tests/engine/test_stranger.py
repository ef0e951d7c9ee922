"""A stranger's package, built, installed with pip into an environment of its own, used, killed, and uninstalled."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import sysconfig
import uuid
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER
from support.forkserver import ForkServer
from support.history import History, broken
from support.remote import Remote
from support.world import World

SOURCE = Path(__file__).parent / "stranger"
STEPS = (
    "announce",
    "start-workload",
    "await-ready",
    "verify-health",
    "rest",
    "await-endpoints",
    "compare",
    "move-service",
    "sign",
)
UNDONE = ("announce", "start-workload", "compare", "move-service", "sign")
AT_ONCE = 3

LIVE = {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}, "configmaps": {"shop-1-announcement"}}


# --- the environment ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Environment:
    """A virtual environment that sees what ours has, so that nothing has to be downloaded."""

    python: Path

    def pip(self, *arguments: str) -> None:
        """Run our pip for it."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "-q"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def make_environment(path: Path, wheel: Path) -> Environment:
    """A new one, in which the wheel is installed."""
    venv.create(path, with_pip=False)
    made = Environment(path / "bin" / "python")
    ours = sysconfig.get_path("purelib")
    theirs = sysconfig.get_path("purelib", vars={"base": str(path), "platbase": str(path)})
    (Path(theirs) / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    made.pip("install", "--no-deps", "--no-index", str(wheel))
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stranger's package, built from a copy of its source."""
    path = tmp_path_factory.mktemp("stranger")
    source = shutil.copytree(SOURCE, path / "source")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(path.glob("*.whl"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """A sandbox whose watches tell often how far they are, so that a test can see every state there was."""
    path = tmp_path_factory.mktemp("sandbox")
    running = sandbox.start(path, ingress_delay=0.1, options=("--bookmark-interval", "0.1"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Services in an environment with the stranger's package."""
    path = tmp_path_factory.mktemp("installed")
    running = ForkServer("support.remote:run", path / "server", str(make_environment(path / "venv", wheel).python))
    yield running
    running.close()


@pytest.fixture
def remote_world(cluster: sandbox.Sandbox, tmp_path: Path) -> Iterator[World]:
    """A namespace, and settings with the stranger's table. The service itself runs elsewhere."""
    made = make_world(cluster, tmp_path)
    yield made
    made.close()


def make_world(cluster: sandbox.Sandbox, path: Path) -> World:
    path.mkdir(exist_ok=True)
    table = {"motto": "slow and steady", "diary": str(path / "diary")}
    return World(cluster, path, f"t-{uuid.uuid4().hex[:12]}", ingress="none", plugins={"stranger": table})


def careful(end: str = "signs", rest: float = 0.0) -> dict[str, Any]:
    """A descriptor's fields."""
    return {
        "deploymentType": "careful",
        "strategyOptions": {"rest": rest, "end": end},
        "useHealthCheck": True,
        "healthCheckPort": 9999,
        "healthCheckPath": "health",
        "healthCheckType": "handshake",
    }


def diary(world: World) -> list[list[str]]:
    """What observers were told, each thing once: at least once is what they are promised."""
    lines = (world.settings.data_dir / "diary").read_text().splitlines()
    return [json.loads(line) for line in dict.fromkeys(lines)]


# --- used ---------------------------------------------------------------------------------------------------------


def test_a_strangers_package_is_found_and_used_by_name(remote_world: World, server: ForkServer) -> None:
    world = remote_world
    with Remote(server, world) as service:
        found = next(p for p in service.ask("plugins") if p["name"] == "stranger")
        assert (found["distribution"], found["version"], found["state"]) == ("strangers-plugin", "2.7.1", "ok")
        assert {"strategy careful", "health checker handshake", "environment injector motto"} <= set(found["provides"])

        first = service.ask("deploy", **careful(rest=0.3))
        assert service.ask("ended", id=first) == "DEPLOYED"
        deployment = service.ask("report")["deployments"][0]
        assert "resting" in deployment["log"]
        assert "injected environment: MOTTO" in deployment["log"]
        assert deployment["health"][0]["value"].startswith("shook hands: ")
        assert world.names() == LIVE
        container = world.objects(CONTROLLER)["shop-1"]["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "MOTTO", "value": "slow and steady shop 1"} in container["env"]

        failing = service.ask("deploy", **careful("fails"))
        assert service.ask("ended", id=failing) == "FAILURE"
        report = service.ask("report")
        assert report["deployments"][1]["failure"]["reason"] == "Unsigned"
        assert (world.names(), world.live_version()) == (LIVE, "1")

        service.ask("remove")
        assert (world.names(), world.pods()) == ({}, {})
        assert diary(world) == [
            ["started", "1", "DEPLOYING"],
            ["finished", "1", "DEPLOYED"],
            ["started", "2", "DEPLOYING"],
            ["finished", "2", "FAILURE"],
            ["finished", "1", "UNDEPLOYED"],
        ]


# --- killed -------------------------------------------------------------------------------------------------------


def test_a_kill_in_each_of_its_steps_is_survived(cluster: sandbox.Sandbox, server: ForkServer, tmp_path: Path) -> None:
    points = [f"{step}:run:{when}" for step in STEPS for when in ("before", "after")]
    run_all(cluster, server, tmp_path, "signs", points)


def test_a_kill_in_each_undo_is_survived(cluster: sandbox.Sandbox, server: ForkServer, tmp_path: Path) -> None:
    points = [f"{step}:undo:{when}" for step in UNDONE for when in ("before", "after")]
    run_all(cluster, server, tmp_path, "fails", points)


def run_all(cluster: sandbox.Sandbox, server: ForkServer, path: Path, end: str, points: list[str]) -> None:
    """Some at a time; all failures are told."""

    def case(point: str) -> str:
        world = make_world(cluster, path / point.replace(":", "-"))
        history = History(world.eyes, world.namespace)
        try:
            killed(world, server, history, end, point)
        except (AssertionError, EOFError) as error:
            return f"{point}: {error}"
        finally:
            history.close()
            world.close()
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [failure for failure in pool.map(case, points) if failure]
    assert not failures, "\n\n".join(failures)


def killed(world: World, server: ForkServer, history: History, end: str, point: str) -> None:
    """Version 1 is live; the process dies at `point` of version 2; another one brings it to its end."""
    with Remote(server, world) as service:
        first = service.ask("deploy", **careful())
        assert service.ask("ended", id=first) == "DEPLOYED"
    with Remote(server, world, {"STRANGER_KILL": point}) as service:
        service.ask("deploy", **careful(end, rest=0.2))
        service.dies()
    with Remote(server, world) as service:
        report = service.ask("report")
        statuses = [d["status"] for d in report["deployments"]]
        live = "1" if end == "fails" else "2"
        assert statuses == (["DEPLOYED", "FAILURE"] if end == "fails" else ["UNDEPLOYED", "DEPLOYED"])
        assert "resumed" in report["deployments"][1]["log"] or ":undo:" in point
        assert (report["plans"], report["held"]) == ([report["live"]], "")
        assert world.live_version() == live
        assert world.names() == {
            "replicationcontrollers": {f"shop-{live}"},
            "services": {"shop", f"shop-{live}"},
            "configmaps": {f"shop-{live}-announcement"},
        }
        served = history.now()
        service.ask("remove")
    assert (world.names(), world.pods()) == ({}, {})
    history.now()
    assert broken(history, "shop", served) == []
    told = [line for line in diary(world) if line[1] == "2"]
    assert told[:2] == [["started", "2", "DEPLOYING"], ["finished", "2", "FAILURE" if end == "fails" else "DEPLOYED"]]


# --- uninstalled --------------------------------------------------------------------------------------------------


@pytest.fixture
def own(wheel: Path, tmp_path: Path) -> Iterator[tuple[ForkServer, Environment]]:
    """An environment that a test may change."""
    made = make_environment(tmp_path / "venv", wheel)
    running = ForkServer("support.remote:run", tmp_path / "server", str(made.python))
    yield running, made
    running.close()


def without_stranger(world: World) -> None:
    """The operator removes the plugin's table, without which the service would not start."""
    world.settings = dataclasses.replace(world.settings, plugins={})


def test_uninstalled_in_the_middle_of_a_deployment(remote_world: World, own: tuple[ForkServer, Environment]) -> None:
    world, (server, environment) = remote_world, own
    with Remote(server, world) as service:
        first = service.ask("deploy", **careful())
        assert service.ask("ended", id=first) == "DEPLOYED"
        second = service.ask("deploy", **careful(rest=600))
        service.ask("parked", id=second)
        assert "shop-2-announcement" in world.objects(CONFIG_MAP)
        environment.pip("uninstall", "-y", "strangers-plugin")
    without_stranger(world)
    with Remote(server, world) as service:
        assert not any(p["name"] == "stranger" for p in service.ask("plugins"))
        # It was parked for long, but what is gone is not waited for.
        assert service.ask("ended", id=second) == "FAILURE"
        report = service.ask("report")
        failure = report["deployments"][1]["failure"]
        assert "there is no strategy 'careful'" in failure["message"]
        assert (world.names(), world.live_version()) == (LIVE, "1")
        assert all(name.startswith("shop-1-") for name in world.pods())

        # What the stranger deployed earlier can be replaced and removed without it, its own objects included.
        third = service.ask("deploy")
        assert service.ask("ended", id=third) == "DEPLOYED"
        service.ask("report")
        assert world.names() == {"replicationcontrollers": {"shop-3"}, "services": {"shop", "shop-3"}}
        service.ask("remove")
        assert (world.names(), world.pods()) == ({}, {})


def test_uninstalled_after_the_traffic_has_moved(
    remote_world: World, own: tuple[ForkServer, Environment], wheel: Path
) -> None:
    """Neither version is removed until the plugin is back, and then everything ends."""
    world, (server, environment) = remote_world, own
    with Remote(server, world) as service:
        first = service.ask("deploy", **careful())
        assert service.ask("ended", id=first) == "DEPLOYED"
        second = service.ask("deploy", **careful("waits"))
        service.ask("parked", id=second)
        assert world.live_version() == "2"
        environment.pip("uninstall", "-y", "strangers-plugin")
    both = world.names()
    assert both["services"] == {"shop", "shop-1", "shop-2"}
    pods = set(world.pods())
    table = world.settings.plugins
    without_stranger(world)
    with Remote(server, world) as service:
        held = "everything is kept as it is until the plugin is back (strangers-plugin:stranger)"
        service.ask("logged", id=second, line=held)
        assert [d["status"] for d in service.ask("state")["deployments"]] == ["DEPLOYED", "DEPLOYING"]
        assert (world.names(), set(world.pods()), world.live_version()) == (both, pods, "2")
        environment.pip("install", "--no-deps", "--no-index", str(wheel))
    world.settings = dataclasses.replace(world.settings, plugins=table)
    with Remote(server, world) as service:
        assert service.ask("ended", id=second) == "FAILURE"
        service.ask("report")
        assert (world.names(), world.live_version()) == (LIVE, "1")
        service.ask("remove")
        assert (world.names(), world.pods()) == ({}, {})
