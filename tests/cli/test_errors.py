"""What a newcomer does wrong: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import deployer as package
from deployer.cli import wiring
from deployer.cli.main import arrange, main
from deployer.core.errors import SettingsError
from deployer.settings import Settings

COMMAND = Path(sys.executable).with_name("deployer")
NOBODY = "http://127.0.0.1:1"


def sentence(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on standard error."""
    assert (done.returncode, done.stdout) == (code, ""), done
    [line] = done.stderr.splitlines()
    assert line.startswith("deployer: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--deployport", "http"], "flag --deployport: 'http' is not a whole number"),
        (["serve", "--nope"], "No such option '--nope'"),
        (["serf"], "No such command 'serf'"),
        (["serve", "--config", "/does/not/exist"], "file /does/not/exist cannot be read"),
        (["plugins", "--config", "/does/not/exist"], "file /does/not/exist cannot be read"),
        (["-kubernetes", "ftp://x"], "flag --kubernetes: 'ftp://x' is not an address"),
        (["serve", "--kubernetes", NOBODY, "--deployhost", "0.0.0.0"], "there is no authentication"),
        (["demo", "--rate", "fast"], "'fast' is not a valid float range"),
        (["sandbox", "--kubernetes", NOBODY], "--kubernetes has no place here: the sandbox is the cluster"),
        (["sandbox", "--skip-server-cert-validation"], "--skip-server-cert-validation has no place here"),
        (["sandbox", "--ingress-port", "99999"], "99999 is not in the range"),
    ],
)
def test_a_wrong_flag_is_named(deployer: Any, arguments: list[str], said: str) -> None:
    assert said in sentence(deployer.run(*arguments), 2)


def test_a_variable_that_means_nothing_is_named(deployer: Any) -> None:
    line = sentence(deployer.run("plugins", DEPLOYER_TIMOUT="5"), 2)
    assert "DEPLOYER_TIMOUT" in line and "DEPLOYER_TIMEOUT" in line


def test_without_a_cluster_to_connect_to(deployer: Any) -> None:
    line = sentence(deployer.run("serve"), 2)
    assert "kubeconfig" in line and "deployer sandbox" in line


def test_a_file_that_is_no_kubeconfig(deployer: Any, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("root:x:0\n")
    line = sentence(deployer.run("serve", "--kubeconfig", str(file)), 2)
    assert line.endswith(f"the kubeconfig {file} cannot be used: it does not have the form of a kubeconfig")


@pytest.mark.parametrize("command", [["serve", "--kubernetes", NOBODY], ["sandbox"]])
def test_an_ingress_provider_that_is_not_installed(deployer: Any, command: list[str], tmp_path: Path) -> None:
    """Found before anything is started or made."""
    data = tmp_path / "data"
    line = sentence(deployer.run(*command, "--data-dir", str(data), "--ingress", "traefik"), 2)
    assert "--ingress" in line and "'traefik'" in line and "gateway, nginx" in line and "none" in line
    assert not data.exists()


def test_a_data_directory_that_cannot_be_used(deployer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in (["serve", "--kubernetes", NOBODY], ["sandbox"]):
        line = sentence(deployer.run(*command, "--data-dir", str(tmp_path / "file" / "data")), 2)
        assert str(tmp_path / "file" / "data") in line and "choose a directory" in line


def test_a_port_that_is_taken(deployer: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = sentence(deployer.run("serve", "--kubernetes", NOBODY, "--deployport", port), 2)
    assert port in line and "--deployport" in line


def test_a_data_directory_that_is_in_use(deployer: Any, tmp_path: Path) -> None:
    arguments = ("serve", "--kubernetes", NOBODY, "--data-dir", str(tmp_path / "data"))
    first, _ = deployer.serve(*arguments)
    line = sentence(deployer.run(*arguments, "--deployport=0"), 2)
    assert f"in use by process {first.child.pid}" in line
    assert "several replicas share an etcd (--etcd)" in line
    assert first.end() == 0


@pytest.mark.slow
def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(
            kubernetes=NOBODY, data_dir=tmp_path, own_namespace="", deployport=taken.getsockname()[1], ingress="none"
        )
        with pytest.raises(SettingsError):
            wiring.start(settings)
    assert set(threading.enumerate()) <= threads
    wiring.start(Settings(kubernetes=NOBODY, data_dir=tmp_path, own_namespace="", deployport=0)).stop()
    assert set(threading.enumerate()) <= threads


def test_without_arguments_it_says_where_to_begin(deployer: Any) -> None:
    done = deployer.run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) <= 80
    named = re.findall(r"^  deployer (\w+)", done.stdout, re.MULTILINE)
    assert {"demo", "sandbox", "serve"} <= set(named)
    listed = re.findall(r"^  (\w+)  ", deployer.run("--help").stdout, re.MULTILINE)
    assert set(named) <= set(listed)


def test_an_ingress_provider_that_there_is_not_is_a_wrong_flag(deployer: Any, tmp_path: Path) -> None:
    done = deployer.run("serve", "--ingress=nonsense", f"--kubernetes={NOBODY}", f"--data-dir={tmp_path / 'data'}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("deployer: --ingress: there is no ingress provider 'nonsense'; installed: gateway, nginx")
    assert not (tmp_path / "data").exists()


def test_version_and_help(deployer: Any) -> None:
    assert deployer.run("--version").stdout == f"deployer {package.__version__}\n"
    shown = deployer.run().stdout + deployer.run("--help").stdout + deployer.run("serve", "-h").stdout
    assert all(word in shown for word in ("serve", "sandbox", "demo", "plugins", "--start-timeout", "DEPLOYER_ETCD"))


def test_a_reader_that_has_seen_enough_is_no_error(deployer: Any) -> None:
    """As `deployer serve --help | head -1` has it."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--help"], env=deployer.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said and b"Exception" not in said, said


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], []),
        (["--help"], ["--help"]),
        (["help"], ["--help"]),
        (["help", "serve"], ["serve", "--help"]),
        (["--version"], ["--version"]),
        (["plugins", "-timeout"], ["plugins", "-timeout"]),
        (["serve", "-timeout", "5"], ["serve", "--timeout=5"]),
        (
            ["-kubernetes", "http://k", "-etcd=http://e", "-skipServerCertValidation"],
            ["serve", "--kubernetes=http://k", "--etcd=http://e", "--skip-server-cert-validation"],
        ),
        (["--kubernetesusername", "u", "-kubernetespassword=p"], None),
    ],
)
def test_flags_alone_mean_serve(given: list[str], meant: list[str] | None) -> None:
    expected = ["serve", "--kubernetes-username=u", "--kubernetes-password=p"] if meant is None else meant
    assert arrange(given) == expected


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert main(["--version"]) == 0
    assert "nonsense" in capsys.readouterr().err
