"""`deployer plugins`: lines for programs, a table for people, and the example plugin from the README in use."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer.cli.sandbox import sample
from deployer.sandbox import Sandbox
from support.user import User
from support.world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A directory with an installed distribution whose plugin cannot be imported."""
    site = tmp_path / "site"
    info = site / "deployer_broken-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deployer-broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[deployer.plugins]\nbroken = deployer_broken\n")
    (site / "deployer_broken.py").write_text('raise RuntimeError("[red]not today")\n')
    return site


@pytest.fixture(scope="session")
def word(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip has installed the example plugin."""
    source = tmp_path_factory.mktemp("plugin") / "plugin_word"
    shutil.copytree(ROOT / "examples" / "plugin_word", source)
    site = source.parent / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", "--target", site, source], check=True, timeout=100)
    return site


def test_piped_it_is_a_line_for_each_plugin(deployer: Any) -> None:
    done = deployer.run("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(line) == 4 for line in lines)
    ours = {name: provides for name, source, state, provides in lines if source.startswith("kube-deployer ")}
    assert ours["strategy_bluegreen"] == "strategy blue-green"
    assert {"health_probe", "health_simple", "ingress_nginx", "env_etcd"} < set(ours)


def test_settings_of_others_need_not_be_complete(deployer: Any, tmp_path: Path) -> None:
    """Who lists plugins has perhaps not what the service is given: its secrets, a table of one of its plugins."""
    file = tmp_path / "deployer.toml"
    file.write_text('auth = "jwt"\ningress = "gateway"\nkubernetes_username = "u"\n')
    done = deployer.run("plugins", "--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    states = {line.split("\t")[0]: line.split("\t")[2:] for line in done.stdout.splitlines()}
    assert states["ingress_nginx"][0] == "ok"
    assert states["ingress_gateway"] == [
        "quarantined",
        '[plugins.ingress_gateway] gateway: name the Gateway, like "infra/edge"',
    ]


def test_a_table_that_nobody_reads_is_named_after_the_list(deployer: Any, tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text("[plugins.ingres_nginx]\nuse_gzip = true\n")
    done = deployer.run("plugins", "--config", str(file))
    assert done.returncode == 2 and "ingress_nginx\t" in done.stdout
    assert done.stderr.startswith("deployer: [plugins.ingres_nginx]: there is no plugin of that name; with settings: ")
    assert "health_probe" not in done.stderr  # it takes none


def test_a_quarantined_one_is_there_with_the_reason(deployer: Any, broken: Path) -> None:
    done = deployer.run("plugins", PYTHONPATH=str(broken))
    [line] = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert line.split("\t")[1:3] == ["deployer-broken 2.0", "quarantined"]
    assert "RuntimeError: [red]not today" in line
    assert (done.returncode, done.stderr) == (0, "")
    assert "Traceback" not in done.stdout
    shown = deployer.run("plugins", "--traceback", PYTHONPATH=str(broken)).stdout
    assert 'raise RuntimeError("[red]not today")' in shown


def test_on_a_terminal_it_is_red(deployer: Any, broken: Path) -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "150", "PYTHONPATH": str(broken)}
    shown = deployer.run("plugins", **terminal).stdout
    assert re.search(r"\x1b\[31m ?broken", shown)
    assert "[red]not today" in shown
    assert "\x1b[31m" not in deployer.run("plugins", **terminal, NO_COLOR="1").stdout


def test_two_that_clash_are_both_named(deployer: Any, broken: Path) -> None:
    (broken / "deployer_broken.py").write_text(
        "from deployer.plugins.health_probe import Probe\nfrom deployer.sdk.plugin import hookimpl\n"
        "@hookimpl\ndef register_health_checkers():\n    return [Probe()]\n"
    )
    for command, code in (("plugins", 0), ("serve", 1)):  # the one shows whatever is there, clash or not
        done = deployer.run(command, PYTHONPATH=str(broken))
        assert done.returncode == code
        [line] = [line for line in (done.stdout + done.stderr).splitlines() if "two plugins" in line]
        assert "'probe'" in line and "kube-deployer" in line and "deployer-broken 2.0" in line


def test_a_signal_ends_a_service_whose_plugin_hangs(deployer: Any, broken: Path) -> None:
    code = "import threading\nprint('hanging', flush=True)\nthreading.Event().wait()\n"
    (broken / "deployer_broken.py").write_text(code)
    process = deployer.start("serve", "--log-level=debug", "--deployport=0", PYTHONPATH=str(broken))
    process.line("hanging")
    process.line("loading plugin deployer-broken:broken", "err")
    assert process.end() == 128 + signal.SIGTERM


def test_the_plugin_of_the_readme_is_the_example() -> None:
    readme = (ROOT / "README.md").read_text()
    for file, language in (("deployer_word.py", "python"), ("pyproject.toml", "toml")):
        assert f"```{language}\n{(ROOT / 'examples' / 'plugin_word' / file).read_text()}```\n" in readme
    code = (ROOT / "examples" / "plugin_word" / "deployer_word.py").read_text()
    assert sum(1 for line in code.splitlines() if line.strip()) <= 20


def test_the_plugin_of_the_readme_decides_over_a_deployment(
    deployer: Any, word: Path, cluster: Sandbox, world: World, tmp_path: Path
) -> None:
    """The sample app answers `ok` at /simple. `world` is here for its namespace; its own engine sleeps."""
    world.stop()
    file = tmp_path / "deployer.toml"
    flags = ["serve", "--kubernetes", cluster.api, "--loopback-pods", "--ingress=none", "--timeout=2"]
    flags += ["--data-dir", str(tmp_path / "data"), "--config", str(file)]
    descriptor = sample.descriptor() | {"namespace": world.namespace, "frontend": None}
    descriptor |= {"healthCheckType": "word", "healthCheckPath": "/simple"}
    for table, expected in (("", "DEPLOYED"), ('[plugins.word]\nword = "fine"\n', "FAILURE")):
        file.write_text(table)
        process, rest = deployer.serve(*flags, PYTHONPATH=str(word))
        rest.namespace = world.namespace
        id = rest.deploy(descriptor)
        ended(rest, id)
        assert rest.call("GET", f"/deployments/{id}/")[1]["status"] == expected
        data = rest.call("GET", f"/deployments/{id}/healthcheckdata")[1]
        assert [entry["value"] for entry in data] == ["ok", "ok"]
        assert ("said 'ok'" in rest.call("GET", f"/deployments/{id}/logs")[1]) == (expected == "FAILURE")
        assert process.end() == 0


def ended(rest: Any, id: str) -> None:
    """Wait for the end of a deployment's log."""
    User(rest.url, rest.namespace).follow(id)
