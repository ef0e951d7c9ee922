"""`deployer sandbox`, and the README's tour on it as a person would type it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployer.sandbox import Sandbox
from support.world import describe

ROOT = Path(__file__).resolve().parents[2]
needs_curl = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs bash and curl")


def welcome(process: Any) -> dict[str, str]:
    """The variables that it tells people to set."""
    words = shlex.split(process.line("export API="))
    return dict(word.split("=", 1) for word in words[1:])


def shell(script: str, variables: dict[str, str], directory: Path) -> str:
    """What a shell prints that stops at the first command that fails."""
    whole = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(whole, env=variables, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_curl
@pytest.mark.slow
def test_the_tour_of_the_readme(deployer: Any, tmp_path: Path) -> None:
    [tour] = re.findall(r"<!-- tour -->(.*)<!-- /tour -->", (ROOT / "README.md").read_text(), re.DOTALL)
    script = "".join(re.findall(r"```sh\n(.*?)```", tour, re.DOTALL))
    process = deployer.start("sandbox", "--deployport=0", "--proxysleep=1", "--data-dir", str(tmp_path / "data"))
    said = shell(script, deployer.environment | welcome(process), ROOT)
    assert re.findall(r"version (\d) on shop-\1-", said) == ["1", "2", "2"]
    assert re.findall(r'^  "status": "([A-Z]+)"', said, re.MULTILINE) == [
        *("DEPLOYED", "DEPLOYED", "FAILURE"),  # what is waited for
        *("UNDEPLOYING", "UNDEPLOYED"),  # what DELETE answers, and what is waited for
    ]
    assert "crashing on purpose" in said
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


def started(deployer: Any, flags: list[str]) -> tuple[Any, Any]:
    """A process, and a client of it."""
    process = deployer.start(*flags)
    return process, deployer.client(welcome(process)["API"])
