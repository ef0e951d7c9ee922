"""A service that is dead, slow, restarted, behind something else, or that does not know the caller."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.command import COMMAND, PATIENCE
from support.impostor import Answer, Impostor, problem

from .conftest import Run, shop


@pytest.fixture
def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def test_a_service_that_is_not_there_is_one_sentence(run: Run, environment: pytest.MonkeyPatch, free_port: int) -> None:
    environment.setattr("deployer.client.connection.random.uniform", lambda *_: 0.001)
    done = run("status", "--server", f"http://127.0.0.1:{free_port}")
    assert (done.code, done.out) == (5, "")
    assert done.err == f"deployer: no answer from http://127.0.0.1:{free_port}: Connection refused\n"


def test_reading_outlasts_a_restart(run: Run, impostor: Impostor) -> None:
    impostor.answers = [(0, {}, b""), problem(503, "the store is busy"), (502, {}, b"<html>Bad gateway</html>")]
    assert run("status").code == 0
    assert [path for _, path, _ in impostor.asked] == ["/apps/?namespace=default"] * 4


def test_it_waits_as_long_as_the_service_says(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    environment.setattr("time.sleep", pauses.append)
    status, headers, body = problem(429, "too many wait")
    impostor.answers = [(status, headers | {"Retry-After": "7"}, body)]
    environment.setattr(
        "deployer.client.connection.Connection.__init__.__kwdefaults__", {"tries": 5, "sleep": pauses.append}
    )
    assert run("status").code == 0
    assert pauses == [7.0]


def test_what_may_have_had_its_effect_is_not_asked_again(run: Run, impostor: Impostor) -> None:
    impostor.answers = [(0, {}, b"")]
    done = run("rollback", "shop", "--no-follow")
    assert done.code == 5
    assert [method for method, _, _ in impostor.asked] == ["POST"]


def test_a_deployment_is_asked_for_again_with_the_same_key(run: Run, impostor: Impostor) -> None:
    stored = {"id": "d1", "namespace": "default", "appName": "shop", "newVersion": "#", "podspec": {}}
    deployment = {"id": "x1", "status": "DEPLOYING", "version": "", "descriptor": stored, "created": ""}
    impostor.answers = [
        (200, {"Content-Type": "application/json"}, json.dumps([stored]).encode()),
        (0, {}, b""),
        problem(503, "not now"),
        (202, {"Content-Type": "application/json"}, json.dumps(deployment).encode()),
    ]
    assert run("deploy", "shop", "--no-follow").code == 0
    keys = [headers["Idempotency-Key"] for method, _, headers in impostor.asked if method == "POST"]
    assert len(keys) == 3 and len(set(keys)) == 1


_STORED = {"id": "d1", "namespace": "default", "appName": "shop", "newVersion": "#", "podspec": {}}
_LIVE = {"id": "x1", "status": "DEPLOYED", "version": "1", "descriptor": _STORED, "created": ""}
_APP = {"appName": "shop", "live": {"deployment": "x1", "version": "1"}}
_BEFORE: dict[str, tuple[list[str], list[object]]] = {
    "the deployment": (["deploy", "shop"], [[_STORED]]),
    "the rollback": (["rollback", "shop", "--no-follow"], []),
    "the removal": (["undeploy", "shop"], [_APP]),
}


def _answers(documents: list[object]) -> list[Answer]:
    return [(200, {"Content-Type": "application/json"}, json.dumps(one).encode()) for one in documents]


@pytest.mark.parametrize("what", _BEFORE)
def test_ctrl_c_before_the_answer_says_what_may_have_begun(impostor: Impostor, what: str) -> None:
    arguments, documents = _BEFORE[what]
    impostor.answers = [*_answers(documents), (-1, {}, b"")]
    with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as child:
        assert impostor.mute.wait(PATIENCE)
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        *_, said = child.stderr.read().splitlines()  # before it, on a busy machine, that no answer has come for 10 s
    assert said == f"deployer: {what} may have begun all the same; `deployer status shop -n default` shows what is so"


@pytest.mark.parametrize("what", _BEFORE)
def test_no_answer_says_what_may_have_begun(run: Run, impostor: Impostor, what: str) -> None:
    arguments, documents = _BEFORE[what]
    impostor.answers = [*_answers(documents), *[(0, {}, b"")] * 5]
    done = run(*arguments)
    assert done.code == 5 and f"; {what} may have begun all the same; `deployer status shop -n default`" in done.err


def test_what_was_never_sent_has_not_begun(run: Run, free_port: int, environment: pytest.MonkeyPatch) -> None:
    environment.setattr("deployer.client.connection.random.uniform", lambda *_: 0.001)
    done = run("rollback", "shop", "--no-follow", "--server", f"http://127.0.0.1:{free_port}")
    assert done.code == 5 and "Connection refused" in done.err and "may have begun" not in done.err


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), 5, "does not answer as a Deployer does"),
        ((200, {"Content-Type": "application/json"}, b"{tru"), 5, "does not answer as a Deployer does"),
        ((404, {"Content-Type": "text/html"}, b"<html>"), 7, "not as a Deployer does"),
        ((302, {"Location": "https://login.example.com/"}, b""), 5, "leads to https://login.example.com/"),
        (problem(401, "the token has ended"), 4, "the token has ended; `deployer login`"),
        (problem(403, "you may not list deployments in namespace default"), 4, "you may not list"),
        (problem(423, "default is frozen: stocktaking"), 7, "default is frozen: stocktaking"),
        (problem(500, "internal error"), 5, "internal error"),
    ],
)
def test_what_comes_back_is_told_in_one_line(
    run: Run, impostor: Impostor, answer: Answer, code: int, said: str
) -> None:
    impostor.default = answer
    done = run("status")
    assert (done.code, done.out) == (code, "")
    assert said in done.err and len(done.err.splitlines()) == 1 and "Traceback" not in done.err


def test_a_redirect_never_gets_the_token(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DEPLOYER_TOKEN", "abc")
    other = Impostor()
    try:
        impostor.default = (307, {"Location": f"{other.url}/apps/"}, b"")
        assert run("status").code == 5
        assert other.asked == [] and impostor.asked[0][2]["Authorization"] == "Bearer abc"
    finally:
        other.close()


def test_a_slow_service_is_given_up_in_time(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setattr("deployer.client.connection.READ", 0.2)
    environment.setattr("deployer.client.connection.random.uniform", lambda *_: 0.001)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        done = run("status", "--server", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.code == 5 and done.err.endswith(": it took too long\n")


def test_a_proxy_is_used_and_loopback_needs_none(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", impostor.url)
    assert run("status", "--server", "http://deployer.invalid").code == 0
    assert impostor.asked.pop()[1] == "http://deployer.invalid/apps/?namespace=default"
    environment.setenv("NO_PROXY", "deployer.invalid")
    assert run("status", "--server", "http://deployer.invalid").code == 5
    assert run("status").code == 0
    assert impostor.asked.pop()[1] == "/apps/?namespace=default"


def test_a_token_in_the_clear_is_warned_of_once(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DEPLOYER_TOKEN", "abc")
    environment.setenv("HTTP_PROXY", impostor.url)
    done = run("status", "--server", "http://deployer.invalid")
    assert done.err.count("the token goes to http://deployer.invalid unencrypted") == 1
    assert "abc" not in done.err


def test_pages_are_read_to_the_last(run: Run, impostor: Impostor) -> None:
    kind = {"Content-Type": "application/json"}
    link = '</apps/?namespace=default&limit=1&continue=a%2Fb>; rel="next"'
    impostor.answers = [
        (200, kind | {"Link": link}, b'[{"appName": "a"}]'),
        (200, kind, b'[{"appName": "b"}]'),
    ]
    assert run("status", "-o", "name").out == "a\nb\n"
    assert impostor.asked[1][1] == "/apps/?namespace=default&limit=1&continue=a%2Fb"


def test_what_others_wrote_cannot_command_the_terminal(run: Run, impostor: Impostor) -> None:
    failure = {"deployment": "x", "version": "1", "reason": "Bad", "message": "\x1b]0;owned\x07\nrow", "at": ""}
    app = {"appName": "shop", "namespace": "default", "lastFailure": failure, "queue": []}
    impostor.default = (200, {"Content-Type": "application/json"}, json.dumps(app).encode())
    out = run("status", "shop").out
    assert "\x1b" not in out and "\x07" not in out


def test_where_no_websocket_passes_the_log_is_asked_for(run: Run, impostor: Impostor) -> None:
    found = {"id": "x1", "status": "DEPLOYED", "version": "2", "appName": "shop", "steps": []}
    html, text = {"Content-Type": "text/html"}, {"Content-Type": "text/plain", "X-Next-After": "1"}
    impostor.answers = [
        (400, html, b"no upgrade here"),
        (200, {"Content-Type": "application/json"}, json.dumps(found).encode()),
        (200, text, b"2026-11-30T10:00:00Z DEPLOYED: version 2 is live\n"),
        (200, {"Content-Type": "application/json"}, json.dumps(found).encode()),
    ]
    done = run("logs", "-f", "3f2b8c1e-6d0a-4c57-9b43-5f1f0c9a7e21")
    assert (done.code, done.out) == (0, "2026-11-30T10:00:00Z DEPLOYED: version 2 is live\n")
    assert impostor.asked[0][2]["Upgrade"] == "websocket" and impostor.answers == []


def test_a_file_with_the_token_is_read_and_checked(run: Run, impostor: Impostor, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one two\n")
    done = run("status", "--token-file", str(file))
    assert done.code == 2 and "must hold one token" in done.err and "one two" not in done.err
    file.write_text("tok.en\n")
    assert run("status", "--token-file", str(file)).code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer tok.en"
    assert run("status", "--token-file", "nowhere").code == 2


def test_the_example_is_no_yaml_with_a_tab(run: Run, impostor: Impostor) -> None:
    Path("shop.yaml").write_text(shop().replace("  containers", "\tcontainers"))
    done = run("deploy", "shop.yaml")
    assert done.code == 7 and "a tab cannot indent YAML" in done.err and impostor.asked == []


@pytest.mark.parametrize("group", ["config", "descriptors"])
def test_a_group_without_a_command_shows_its_help(run: Run, group: str) -> None:
    done = run(group)
    assert (done.code, done.out) == (2, "")
    assert done.err == run(group, "--help").out
