"""`deployer sandbox`, and the README's tour on it as a person would type it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from deployer.cli.sandbox import sample
from deployer.cli.sandbox.playground import INGRESS_PORT
from deployer.core.model.kind import HTTP_ROUTE, INGRESS
from deployer.kube import client as kube_client
from deployer.sandbox import Sandbox
from deployer.settings import Settings
from support.command import COMMAND
from support.shell import needs_curl, shell, welcome
from support.user import User
from support.world import describe

ROOT = Path(__file__).resolve().parents[2]


@needs_curl
@pytest.mark.slow
def test_the_tour_of_the_readme(deployer: Any, tmp_path: Path) -> None:
    [tour] = re.findall(r"<!-- tour -->(.*)<!-- /tour -->", (ROOT / "README.md").read_text(), re.DOTALL)
    script = "".join(re.findall(r"```sh\n(.*?)```", tour, re.DOTALL))
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    process = deployer.start("sandbox", "--deployport=0", "--proxysleep=1", "--data-dir", str(tmp_path / "data"))
    variables = deployer.environment | welcome(process)
    variables["PATH"] = f"{COMMAND.parent}:{variables['PATH']}"
    for first in (1, 4):  # twice in a row, as people do
        said = shell(script, variables, tmp_path)
        served = [int(version) for version in re.findall(r"version (\d+) on shop-\1-", said)]
        assert served == [first, first + 1, first + 1, first], said
        assert "refused, exit code 1" in said and f"shop version {first} is removed" in said
    assert process.end(signal.SIGINT) == 0


@needs_curl
def test_the_first_curl_works_as_it_is_printed(deployer: Any, tmp_path: Path) -> None:
    directory = tmp_path / "a directory with blanks"
    process = deployer.start("sandbox", "--deployport=0", "--data-dir", str(directory))
    welcome(process)
    stored = json.loads(shell(process.line("curl -d"), deployer.environment, tmp_path))
    deploy = process.line("curl -X POST").replace("<id>", stored["id"])
    assert json.loads(shell(deploy, deployer.environment, tmp_path))["status"] == "DEPLOYING"
    assert process.end() == 0
    assert Sandbox.attach(directory / "sandbox") is None


def test_its_terminal_has_no_audit_log_and_its_ingress_the_same_port(deployer: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    variables, said = [], ""
    for _ in range(2):
        process = deployer.start("sandbox", "--deployport=0", "--data-dir", str(data))
        variables.append(welcome(process))
        rest = deployer.client(variables[-1]["API"])
        assert rest.call("POST", "/descriptors/", {})[0] == 400
        assert process.end() == 0
        said += process.rest("out") + process.rest("err")
    assert '"audit":' not in said
    lines = [json.loads(line) for line in (data / "audit.log").read_text().splitlines()]
    assert [(line["method"], line["status"]) for line in lines] == [("POST", 400)] * 2
    if variables[0]["INGRESS"] == f"http://127.0.0.1:{INGRESS_PORT}":  # unless somebody has it here
        assert variables[1]["INGRESS"] == variables[0]["INGRESS"]


def test_a_default_port_that_is_taken_gives_way(deployer: Any, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for port in (8000, INGRESS_PORT):
            with contextlib.suppress(OSError):  # somebody has it already
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        process = deployer.start("sandbox", "--data-dir", str(tmp_path / "data"))
        variables = welcome(process)
        assert variables["API"] != "http://127.0.0.1:8000"
        assert variables["INGRESS"] != f"http://127.0.0.1:{INGRESS_PORT}"
        assert process.end() == 0
        said = process.rest("err")
        assert "port 8000 is taken" in said and f"port {INGRESS_PORT} is taken" in said


@pytest.mark.parametrize(("name", "kind"), [("gateway", HTTP_ROUTE), ("none", None)])
def test_it_takes_the_ingress_provider_that_is_chosen(deployer: Any, tmp_path: Path, name: str, kind: Any) -> None:
    """By a variable, as by a flag or the file; the sandbox's Gateway is known to it."""
    data = tmp_path / "data"
    process = deployer.start("sandbox", "--deployport=0", "--data-dir", str(data), DEPLOYER_INGRESS=name)
    variables = welcome(process)
    rest = deployer.client(variables["API"])
    id = rest.deploy(sample.descriptor())
    user = User(f"{rest.url}/", "default")
    user.ended(id, "DEPLOYED")
    assert user.log(id).rstrip().endswith("DEPLOYED: version 1 is live")
    cluster = Sandbox.attach(data / "sandbox")
    assert cluster is not None
    eyes = kube_client.connect(Settings(kubernetes=cluster.api, own_namespace=""))
    with contextlib.closing(eyes):
        found = {k.plural for k in (INGRESS, HTTP_ROUTE) if eyes.list(k, "default")[0]}
    assert found == ({kind.plural} if kind else set())
    assert process.end() == 0


def test_an_ingress_provider_that_is_not_there_is_one_sentence(deployer: Any, tmp_path: Path) -> None:
    done = deployer.run("sandbox", "--deployport=0", "--data-dir", str(tmp_path / "data"), DEPLOYER_INGRESS="nosuch")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "there is no ingress provider 'nosuch'; installed: gateway, nginx" in done.stderr


def test_settings_about_a_cluster_have_no_effect_and_that_is_said(deployer: Any, tmp_path: Path) -> None:
    process = deployer.start(
        "sandbox", "--deployport=0", "--data-dir", str(tmp_path / "d"), DEPLOYER_KUBERNETES="k:8080"
    )
    welcome(process)
    assert process.end() == 0
    assert "without effect, since the sandbox is the cluster: kubernetes" in process.rest("err")


def test_after_a_crash_it_finds_sandbox_and_records_again(deployer: Any, tmp_path: Path) -> None:
    flags = ["sandbox", "--deployport=0", "--data-dir", str(tmp_path / "data")]
    process, rest = started(deployer, flags)
    id = rest.deploy(describe("default"))
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    before = Sandbox.attach(tmp_path / "data" / "sandbox")
    assert before is not None

    process, rest = started(deployer, flags)
    assert rest.call("GET", f"/deployments/{id}/")[0] == 200
    after = Sandbox.attach(tmp_path / "data" / "sandbox")
    assert after is not None and after.instance == before.instance
    assert process.end() == 0

    process, rest = started(deployer, flags)
    assert rest.call("GET", "/deployments/") == (200, [])
    assert len(list((tmp_path / "data" / "sandbox-stores").iterdir())) == 1
    assert process.end() == 0


def test_a_second_one_in_the_same_directory_does_not_end_the_first(deployer: Any, tmp_path: Path) -> None:
    flags = ["sandbox", "--deployport=0", "--data-dir", str(tmp_path / "data")]
    process, rest = started(deployer, flags)
    second = deployer.run(*flags)
    assert second.returncode == 2
    assert f"in use by process {process.child.pid}" in second.stderr
    assert rest.call("GET", "/readyz")[0] == 200
    assert process.end() == 0


def test_a_start_that_fails_ends_its_sandbox(deployer: Any, tmp_path: Path) -> None:
    done = deployer.run("sandbox", "--deployport=1", "--deployhost=203.0.113.1", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "there is no authentication" in done.stderr
    assert Sandbox.attach(tmp_path / "data" / "sandbox") is None


def test_a_sandbox_that_cannot_start_is_one_sentence(deployer: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = deployer.run("sandbox", "--ingress-port", str(port), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith("deployer: the sandbox did not start within 20 s: ")
    assert "address already in use" in done.stderr and done.stderr.count("\n") == 1


def started(deployer: Any, flags: list[str]) -> tuple[Any, Any]:
    """A process, and a client of it."""
    process = deployer.start(*flags)
    return process, deployer.client(welcome(process)["API"])
