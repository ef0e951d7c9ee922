"""What others wrote (a container's log, a reason, a service that lies) commands neither a terminal nor a runner."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tracemalloc
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from deployer.client.following.live import LiveView
from deployer.client.following.plain import PlainView
from support.command import COMMAND, PATIENCE
from support.impostor import PROBLEM, Answer, Impostor, problem

from .conftest import Run

JSON = {"Content-Type": "application/json"}
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202e"
COMMANDS = (
    "x ##[set-output name=a]1\n::set-output name=status::DEPLOYED\n \u2003::stop-commands::x\r::error::y ##vso[task.x]"
)
EVIL = f"{ESCAPES}{COMMANDS}"
RUNNERS = ["GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION"]


def obeyed(said: str) -> list[str]:
    """What a terminal or a runner would obey in what was printed. Runners end a line at a carriage return as well."""
    controls = [character for character in said if not character.isprintable() and character not in "\n\t"]
    lines = [line for line in re.split(r"[\r\n]", said) if line.lstrip().startswith("::")]
    return [*controls, *lines, *re.findall(r"##[a-z]*\[", said)]


def deployment(status: str = "FAILURE", **more: object) -> dict[str, object]:
    failure = {"reason": EVIL, "message": EVIL, "hint": EVIL}
    step = {"id": EVIL, "phase": "START", "state": "failed", "began": "", "ended": ""}
    found = {"id": "x1", "status": status, "appName": EVIL, "version": EVIL, "created": "", "failure": failure}
    return found | {"steps": [step], "gates": [], **more}


def answer(document: object) -> Answer:
    return 200, JSON, json.dumps(document).encode()


def app(**more: object) -> dict[str, object]:
    live = {"version": EVIL, "deployment": EVIL, "since": ""}
    return {"appName": EVIL, "namespace": EVIL, "hosts": [EVIL], "live": live, **more}


FREEZE = {"namespace": EVIL, "source": EVIL, "by": EVIL, "reason": EVIL, "until": EVIL}
ID = "00000000-0000-4000-8000-000000000000"
CASES = {
    "a problem": (["status"], problem(403, EVIL)),
    "a redirect": (["status"], (302, {"Location": "https://x/\x9b31m##[set-output name=a]"}, b"")),
    "a server's name": (["status"], (500, {"Server": "\x9b31m##[set-output name=a]"}, b"")),
    "apps": (["status"], answer([app()])),
    "an app": (["status", "shop"], answer(app())),
    "a freeze": (["freeze", "--reason=x"], answer(FREEZE)),
    "freezes": (["get", "freezes"], answer([FREEZE])),
    "a lifted freeze": (["unfreeze"], answer([FREEZE])),
    "a deployment": (["get", "deployment", ID], answer(deployment())),
    "a deployment as JSON": (["get", "deployment", ID, "-o", "json"], answer(deployment())),
    "a cancellation": (["cancel", ID], answer(deployment())),
    "an approval": (["approve", ID], answer({"by": EVIL, "gate": EVIL, "approve": True})),
    "health": (["health", ID], answer([{"podName": EVIL, "value": EVIL}])),
    "the service's version": (["version"], answer({"version": EVIL})),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("runner", RUNNERS)
def test_no_answer_is_obeyed(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, name: str, runner: str
) -> None:
    environment.setenv(runner, "true")
    arguments, impostor.default = CASES[name]
    done = run(*arguments)
    assert "set-output" in done.out + done.err
    assert obeyed(done.out + done.err) == []


def test_what_is_followed_is_not_obeyed(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TF_BUILD", "True")
    impostor.default = answer(deployment())
    done = run("wait", ID)
    assert done.code == 1 and "set-output" in done.out
    assert obeyed(done.out + done.err) == []


def test_lines_of_a_log_are_no_commands_of_a_runner(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    impostor.default = (200, {"Content-Type": "text/plain; charset=utf-8", "X-Next-After": "9"}, COMMANDS.encode())
    assert run("logs", ID).out == COMMANDS  # as it is, for other programs
    environment.setenv("GITHUB_ACTIONS", "true")
    assert obeyed(re.sub(r"[\r\u2003]", "\n", run("logs", ID).out)) == []
    PlainView().log(f"2026-01-01T00:00:00Z {EVIL}")
    assert obeyed(capfd.readouterr().err) == []


def test_the_live_picture_is_not_obeyed(environment: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), width=400, height=60, color_system=None)
    view = LiveView(console=console)
    environment.setenv("GITHUB_ACTIONS", "true")
    gate = {"name": f"[link=https://x]{EVIL}", "verdict": "", "began": "", "reason": EVIL, "waitsForApproval": True}
    shown = deployment("DEPLOYING", step=EVIL, phase=EVIL, waitingFor=EVIL, gates=[gate])
    view.log(f"2026-01-01T00:00:00Z {EVIL}")
    view.trouble(EVIL)
    view.show(shown, app(previewHosts=[EVIL]))
    console.print(view.picture())
    view.show(deployment("DEPLOYING", steps=[], waitingFor=EVIL), None)
    console.print(view.picture())
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[link=https://x]" in said and obeyed(said) == []


def test_documents_stay_what_they_are(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    impostor.default = answer(deployment())
    assert json.loads(run("get", "deployment", ID, "-o", "json").out) == deployment()


def test_the_identity_provider_is_not_obeyed_either(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    run("config", "set", "issuer", impostor.url)
    run("config", "set", "client_id", "x")
    found = {"issuer": impostor.url, "token_endpoint": impostor.url, "device_authorization_endpoint": impostor.url}
    device = {"device_code": "c", "user_code": EVIL, "verification_uri": EVIL, "verification_uri_complete": EVIL}
    service = answer({"version": EVIL, "authentication": EVIL})
    impostor.answers = [service, answer(found), answer(device | {"interval": 0.01})]
    impostor.default = (400, PROBLEM, json.dumps({"error": EVIL, "error_description": EVIL}).encode())
    done = run("login")
    assert done.code == 4 and "set-output" in done.err
    assert obeyed(done.err) == []


ELSE: list[object] = [{}, [], [{}], [1], "ok", 5, {"message": "hello"}]
"""What something else than a Deployer may answer with a 200."""
VERBS = [
    ["status"],
    ["status", "shop"],
    ["status", "shop", "--addresses"],
    ["get", "deployments"],
    ["get", "deployment", ID],
    ["get", "descriptors"],
    ["get", "freezes"],
    ["get", "plugins"],
    ["descriptors", "get", ID],
    ["deploy", "shop"],
    ["deploy", "shop.json"],
    ["apply", "-f", "shop.json", "--deploy"],
    ["validate", "shop.json"],
    ["rollback", "shop"],
    ["undeploy", "shop", "-y"],
    ["cancel", ID],
    ["approve", ID],
    ["wait", ID],
    ["logs", "shop"],
    ["logs", "-f", ID],
    ["history", "shop"],
    ["health", ID],
    ["freeze", "--reason=x"],
    ["unfreeze"],
    ["version"],
]


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_what_is_no_answer_of_a_deployer_is_one_sentence(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    descriptor = {"namespace": "default", "appName": "shop", "newVersion": "1", "podspec": {"containers": []}}
    (tmp_path / "shop.json").write_text(json.dumps(descriptor))
    environment.setattr("deployer.client.following.follower.PATIENCE", 0.2)
    for document in ELSE[:2] if arguments[0] == "wait" else ELSE:  # which asks for a while
        impostor.default = answer(document)
        done = run(*arguments)  # a traceback is an exception here
        assert done.code in (0, 5, 7), (document, done)
        if done.code == 5:
            assert "as a Deployer does" in done.err.splitlines()[-1], (document, done.err)


_ODD: dict[str, bytes] = {
    "nested deeply": b"[" * 200_000,
    "no number": b'[{"appName": "shop", "live": NaN}]',
    "infinite": b'[{"appName": "shop", "replicas": {"wanted": 1e999, "ready": 1}, "live": "x"}]',
    "other types": b'[{"appName": {"a": 1}, "live": "x", "replicas": [1]}]',
}


@pytest.mark.parametrize("what", _ODD)
def test_an_answer_of_the_wrong_shape_is_one_sentence(run: Run, impostor: Impostor, what: str) -> None:
    impostor.default = (200, {"Content-Type": "application/json"}, _ODD[what])
    done = run("status")
    assert done.code == 5 and "does not answer as a Deployer does" in done.err
    assert len(done.err.splitlines()) == 1 and done.out == ""


def test_no_more_of_an_answer_is_held_than_is_allowed(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("deployer.client.connection.LARGEST", 3 << 20)
    packed = gzip.compress(b" " * (200 << 20))
    impostor.default = (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, packed)
    tracemalloc.start()
    done = run("status")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done.code == 5 and "is larger than 3 MiB" in done.err
    assert peak < 50 << 20


@pytest.mark.parametrize(("closed", "shown"), [("<&-", True), (">&-", False), ("2>&-", True), ("<&- >&- 2>&-", False)])
def test_a_stream_that_is_closed_is_no_reason_to_fail(impostor: Impostor, closed: str, shown: bool) -> None:
    impostor.default = answer([{"appName": "shop"}])
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} status {closed}"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("shop" in done.stdout) == shown


def test_a_descriptor_of_a_standard_input_that_is_closed_is_empty(impostor: Impostor) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} lint - <&-"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 7 and "<stdin> is empty" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "what", [{"interval": "0.02s"}, {"expires_in": [9]}, {"verification_uri": None}, {"user_code": None}]
)
def test_an_identity_provider_that_lies_is_one_sentence(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, what: dict[str, object]
) -> None:
    environment.setattr("deployer.client.auth.device._INTERVAL", 0.01)
    run("config", "set", "issuer", impostor.url)
    run("config", "set", "client_id", "x")
    found = {"issuer": impostor.url, "token_endpoint": impostor.url, "device_authorization_endpoint": impostor.url}
    device = {"device_code": "c", "user_code": "u", "verification_uri": "https://x", "interval": 0.01} | what
    impostor.answers = [answer(found), answer({name: value for name, value in device.items() if value is not None})]
    impostor.default = answer({"access_token": "t", "expires_in": "soon"})
    done = run("login")
    assert done.code in (0, 4, 5) and "Traceback" not in done.err


def test_a_question_is_not_obeyed(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    environment.setattr("deployer.client.verbs.change.interactive", lambda: True)
    impostor.default = answer(app())
    done = run("undeploy", "shop")
    assert "set-output" in done.err and obeyed(done.err) == []
    assert {method for method, _, _ in impostor.asked} == {"GET"}


def test_an_annotation_has_no_more_than_its_own_command(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "shop.json").write_text('{"appName": "shop"}')
    impostor.default = problem(400, "wrong", errors=[{"path": EVIL, "message": EVIL}])
    done = run("validate", "shop.json")
    found = obeyed(done.err)
    assert len(found) == 1 and found[0].startswith("::error file=shop.json")


def test_the_summary_of_a_step_is_text(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("GITHUB_ACTIONS", "true")
    for variable in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        environment.setenv(variable, str(tmp_path / variable))
    markup = "\n\n# <img src=x>[a](https://x)|"
    gate = {"name": markup, "point": "", "verdict": markup, "began": "", "ended": "", "reason": markup, "dryRun": False}
    descriptor = {"appName": "shop", "frontend": f"x>{markup}"}
    found = deployment(markup, id=markup, version=markup, descriptor=descriptor, gates=[gate])
    impostor.default = answer(found | {"status": "FAILURE"})
    assert run("wait", ID).code == 1
    summary = re.sub("<http[^<> ]*>", "", (tmp_path / "GITHUB_STEP_SUMMARY").read_text())
    assert not re.search(r"(?<!\\)(<img|\[a\])|^# ", summary, re.MULTILINE)
    assert [line.partition("=")[0] for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines()] == [
        *("deployment-id", "version", "status", "url", "exit-code")
    ]
