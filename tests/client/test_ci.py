"""What runners of pipelines are told, and what names a job."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.client.ci import junit, runner
from deployer.client.errors import ExitCode
from deployer.client.following.state import Outcome
from support.command import Rest

from .conftest import Run, shop

ROOT = Path(__file__).resolve().parents[2]
GITHUB = {"GITHUB_RUN_ID": "77", "GITHUB_JOB": "deploy", "GITHUB_REPOSITORY": "org/shop"}


def key(environ: dict[str, str], app: str = "shop", **descriptor: str) -> str:
    return runner.idempotency_key(None, "ns", app, descriptor, environ)


def test_a_job_that_is_tried_again_has_the_same_key_and_another_job_has_not() -> None:
    first = key(GITHUB | {"GITHUB_RUN_ATTEMPT": "1"})
    assert first and first == key(GITHUB | {"GITHUB_RUN_ATTEMPT": "2"})
    others = [key(GITHUB | {"GITHUB_RUN_ID": "78"}), key(GITHUB | {"GITHUB_JOB": "b"}), key(GITHUB, "other")]
    assert len({first, *others, key(GITHUB, image="another")}) == 5
    gitlab = {"CI_PIPELINE_ID": "5", "CI_JOB_NAME": "deploy: [prod, é]", "CI_PROJECT_ID": "1"}
    assert key(gitlab | {"CI_JOB_ID": "100"}) == key(gitlab | {"CI_JOB_ID": "101"})
    assert key({}) == ""


@given(st.text(min_size=1, max_size=300), st.text(max_size=80))
def test_every_key_is_one_that_http_can_carry(name: str, app: str) -> None:
    found = runner.idempotency_key(name, "ns", app, {})
    assert re.fullmatch(r"[A-Za-z0-9:/._-]{1,200}", found)


# jenkinsci/xunit-plugin, junit-10.xsd: what an element may have, those that are required first.
_JUNIT = {
    "testsuites": ((), ("name", "time", "tests", "failures", "errors")),
    "testsuite": (("name", "tests", "failures", "errors"), ("time", "skipped", "timestamp", "hostname", "id")),
    "properties": ((), ()),
    "property": (("name", "value"), ()),
    "testcase": (("name",), ("time", "classname")),
    "failure": ((), ("type", "message")),
    "error": ((), ("type", "message")),
    "skipped": ((), ("type", "message")),
    "system-out": ((), ()),
}


@given(st.text(max_size=60), st.text(max_size=200))
def test_junit_is_well_formed_whatever_is_said(message: str, log: str) -> None:
    gate = {"point": "beforeSwitch", "name": message, "verdict": "failed", "reason": message, "dryRun": False}
    deployment = {
        "id": "x",
        "status": "FAILURE",
        "appName": "shop",
        "version": "1",
        "failure": {"reason": "Bad", "message": message},
        "steps": [{"id": "a", "phase": "START", "state": "failed"}, {"id": "b", "phase": "EXPOSE", "state": "pending"}],
        "gates": [gate | {"began": None, "ended": None}],
    }
    root = ElementTree.fromstring(junit.document(Outcome(ExitCode.FAILED, message, deployment), log).encode())
    for element in root.iter():
        required, optional = _JUNIT[element.tag]
        assert set(required) <= set(element.keys()) <= {*required, *optional}
    [suite] = root
    cases = suite.findall("testcase")
    assert [len(case.findall("failure")) for case in cases] == [1, 0, 1, 1]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "3", "1")


def test_github_gets_annotations_outputs_and_a_summary(
    run: Run, service: Rest, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    environment.setenv("GITHUB_OUTPUT", "output")
    environment.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("shop.yaml").write_text(shop(frontnd="x"))
    done = run("deploy", "shop.yaml")
    assert done.code == 7
    assert "::error file=shop.yaml,line=3,col=1::frontnd: is not a known field; did you mean frontend?" in done.err
    Path("shop.yaml").write_text("a:\n\t- b")
    assert "::error file=shop.yaml,line=2,col=1::a tab cannot indent YAML; use spaces" in run("lint", "shop.yaml").err
    host = f"{service.namespace}.example.com"
    Path("shop.yaml").write_text(shop(frontend=host))
    done = run("deploy", "shop.yaml")
    assert done.code == 0, done.err
    outputs = dict(line.split("=", 1) for line in Path("output").read_text().splitlines())
    assert outputs["version"] == "1" and outputs["status"] == "DEPLOYED" and outputs["url"] == f"http://{host}"
    assert outputs["deployment-id"] in done.out and outputs["exit-code"] == "0"
    summary = Path("summary.md").read_text()
    assert "### ✅ shop version 1: DEPLOYED" in summary and "| switch-route | done |" in summary
    Path("shop.yaml").write_text(shop("sample/web:crash"))
    done = run("deploy", "shop.yaml")
    assert done.code == 1 and "::error title=Deployment failed::shop version 2 failed (CrashLoop)" in done.err


def test_a_dotenv_report_has_what_gitlab_reads(run: Run, service: Rest) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("deploy", "shop.yaml", "--report", "deploy.env", "--junit", "deploy.xml").code == 0
    lines = dict(line.split("=", 1) for line in Path("deploy.env").read_text().splitlines())
    assert re.fullmatch(r"[0-9a-f-]{36}", lines.pop("DEPLOYMENT_ID"))
    assert lines == {"DEPLOYMENT_VERSION": "1", "DEPLOYMENT_STATUS": "DEPLOYED", "DEPLOYMENT_URL": ""}
    names = [case.get("name") for case in ElementTree.parse("deploy.xml").iter("testcase")]
    assert names[0] == "START start-workload" and names[-1] == "deployment"


@pytest.mark.slow
@pytest.mark.parametrize("example", ["github.yml", "gitlab.yml", "Jenkinsfile"])
def test_the_command_of_each_example_deploys(
    run: Run, service: Rest, environment: pytest.MonkeyPatch, example: str
) -> None:
    """As the runner's shell would run it, with a sample image and this service in the place of theirs."""
    text = (ROOT / "examples" / "ci" / example).read_text()
    [command] = re.findall(r"(deployer deploy .*?)'?$", text, re.MULTILINE)
    command = re.sub(r"image=\S+", "image=sample/web:2", command)
    Path("deploy").mkdir()
    Path("deploy/shop.yaml").write_text(shop())
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from deployer.cli import main; sys.exit(main())", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert service.call("GET", "/descriptors/")[1][0]["podspec"]["containers"][0]["image"] == "sample/web:2"
