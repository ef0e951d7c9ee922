"""What is printed: tables, documents, templates; and the settings of the client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from deployer.client import configuration
from deployer.client.errors import Misused
from deployer.client.output import formats, jsonpath, words
from support.impostor import Impostor

from .conftest import Run

DOCUMENT: dict[str, Any] = {
    "id": "x",
    "live": None,
    "count": 3,
    "steps": [{"id": "a", "ok": True}, {"id": "b", "more": {"id": "c"}}],
    "labels": {"app.kubernetes.io/name": "shop"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.id}", "x"),
        (".id", "x"),
        ("id", "x"),
        ("{.steps[0].id}/{.steps[-1].id}", "a/b"),
        ("{.steps[*].id}", "a b"),
        ("{..id}", "x a b c"),
        ("{.labels['app.kubernetes.io/name']}", "shop"),
        ('{.count}{"\\n"}', "3\n"),
        ("{.steps[0].ok} {.live}", "true null"),
        ("{.nothing}{.steps[9].id}", ""),
        ("{.steps[0]}", '{"id": "a", "ok": true}'),
        ("id: {$.id}", "id: x"),
    ],
)
def test_jsonpath(template: str, text: str) -> None:
    assert jsonpath.render(template, DOCUMENT) == text


@pytest.mark.parametrize(("template", "text"), [("{.items[*].id}", "a b"), ("{[1].id}", "b"), ("{[*].items}", "")])
def test_the_items_of_a_list_are_the_list_as_kubectl_has_it(template: str, text: str) -> None:
    assert jsonpath.render(template, [{"id": "a"}, {"id": "b"}]) == text


@pytest.mark.parametrize("template", ["{.a", "a}", "{.a[x]}", "{a b}", "{.steps[?(@.ok)]}"])
def test_a_template_that_is_none_is_a_usage_error(template: str) -> None:
    with pytest.raises(click.BadParameter):
        jsonpath.compile_template(template)


def test_a_version_that_is_watched_or_kept_says_for_how_long(run: Run, impostor: Impostor) -> None:
    later = "2999-01-01T00:00:00Z"
    live = {"deployment": "d2", "version": "2", "since": later, "phase": "WATCH", "step": "watch", "deadline": later}
    warm = {"deployment": "d1", "version": "1", "since": later, "phase": "DRAIN", "deadline": later, "waitingFor": "x"}
    app = {"namespace": "default", "appName": "shop", "live": live, "warm": warm}
    impostor.answers = [(200, {"Content-Type": "application/json"}, json.dumps(app).encode())]
    told = dict(line.split(":", 1) for line in run("status", "shop").out.splitlines())
    assert re.fullmatch(r" +version 2, for 0 s, -, watched for \d+ d( \d+ h)? more \(deployment d2\)", told["live"])
    assert "a rollback to it is one switch, kept for" in told["warm"] and "DRAIN" not in told["warm"]


def test_yaml_says_what_json_says() -> None:
    document = DOCUMENT | {"text": "yes", "number": "1", "lines": "a\nb\n", "é": "ü"}
    text = formats.to_yaml(document)
    assert YAML(typ="safe", pure=True).load(text) == document
    assert list(YAML(typ="safe", pure=True).load(text)) == list(document)


def test_tables_are_not_cut_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    formats.table(("A", "B"), [("x", "y" * 300), ("zz", "")], empty="nothing")
    assert capsys.readouterr().out == f"A   B\nx   {'y' * 300}\nzz\n"
    formats.table(("A", "B"), [], empty="nothing is there")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "nothing is there\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


# --- settings ---------------------------------------------------------------------------------------------------------


def test_flags_win_over_variables_and_these_over_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'profile = "a"\n[profiles.a]\nserver = "https://a.example"\nnamespace = "pa"\ntoken_file = "/a"\n'
        '[profiles.b]\nserver = "https://b.example"\n'
    )
    where = {configuration.CONFIG_VARIABLE: str(file)}
    found = configuration.load({}, where)
    assert (found.name, found.server, found.namespace, found.token_file) == ("a", "https://a.example", "pa", "/a")
    found = configuration.load({"namespace": "f"}, where | {"DEPLOYER_NAMESPACE": "v", "DEPLOYER_SERVER": "http://v"})
    assert (found.server, found.namespace) == ("http://v", "f")
    found = configuration.load({}, where | {"DEPLOYER_TOKEN": "t"})
    assert (found.token, found.token_file) == ("t", "")  # one source replaces the others
    assert configuration.load({"profile": "b"}, where).server == "https://b.example"
    assert configuration.load({}, where | {"DEPLOYER_PROFILE": "b"}).namespace == "default"
    with pytest.raises(Misused, match="there is no profile 'c'"):
        configuration.load({"profile": "c"}, where)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profile = [", "is not TOML"),
        ("servr = 1", "unknown key 'servr'"),
        ('[profiles.a]\nservr = "x"', "no key 'servr'; did you mean server?"),
        ('[profiles.a]\ntoken = "x"', "a token stands in a file that token_file names"),
        ('profile = "a"\n[profiles.a]\nserver = "deployer"', "is no URL"),
        ('profile = "a"\n[profiles.a]\nserver = "https://me:pw@deployer"', "neither a name and password"),
        ("profiles = 3", "a table"),
    ],
)
def test_a_file_of_settings_that_is_wrong_is_one_sentence(
    run: Run, environment: pytest.MonkeyPatch, text: str, said: str
) -> None:
    Path("config.toml").write_text(text)
    environment.setenv("DEPLOYER_CLIENT_CONFIG", "config.toml")
    done = run("config", "view")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1


def test_what_is_set_is_read_again(run: Run, tmp_path: Path) -> None:
    assert run("config", "set", "server", "https://x.example", "--profile", "prod").code == 0
    assert run("config", "set", "namespace", 'sh"op', "--profile", "prod").code == 0
    assert run("config", "use", "prod").code == 0
    done = run("config", "view", "-o", "jsonpath={.server} {.namespace} {.profile}")
    assert done.out == 'https://x.example sh"op prod'
    assert run("config", "set", "server", "", "--profile", "prod").code == 0
    assert "prod" in run("config", "profiles").out
    assert run("config", "use", "other").code == 2
    assert (tmp_path / "home" / ".config" / "deployer" / "config.toml").stat().st_mode & 0o077 == 0


def test_the_token_is_never_shown(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DEPLOYER_TOKEN", "very.secret.token")
    done = run("config", "view")
    assert done.code == 0 and "very.secret.token" not in done.out + done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, environment: pytest.MonkeyPatch, shell: str) -> None:
    assert "_DEPLOYER_COMPLETE" in run("completion", shell).out


def test_completion_completes_verbs(run: Run, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("_DEPLOYER_COMPLETE", "bash_complete")
    environment.setenv("COMP_WORDS", "deployer roll")
    environment.setenv("COMP_CWORD", "1")
    assert "rollback" in run().out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("deployer rollback c", ["plain,cart"]),
        ("deployer status ", ["plain,cart", "plain,shop"]),
        ("deployer deploy s", ["plain,shop.yaml", "plain,shop"]),
        ("deployer deploy x", ["file,x"]),
        ("deployer deploy ./s", ["file,./s"]),
        ("deployer lint s", ["file,s"]),
        ("deployer apply -f s", ["file,s"]),
    ],
)
def test_completion_completes_apps_and_files(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, typed: str, expected: list[str]
) -> None:
    listed = [{"appName": "cart"}, {"appName": "shop"}]
    impostor.default = (200, {"Content-Type": "application/json"}, json.dumps(listed).encode())
    Path("shop.yaml").write_text("")
    environment.setenv("_DEPLOYER_COMPLETE", "bash_complete")
    environment.setenv("COMP_WORDS", typed)
    environment.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    done = run()
    assert (done.out.split(), done.err) == (expected, "")


def test_completion_waits_for_no_dead_service(run: Run, impostor: Impostor, environment: pytest.MonkeyPatch) -> None:
    impostor.answers = [(-1, {}, b"")]
    environment.setattr("deployer.client.completion.WAIT", 0.1)
    environment.setenv("_DEPLOYER_COMPLETE", "bash_complete")
    environment.setenv("COMP_WORDS", "deployer status s")
    environment.setenv("COMP_CWORD", "2")
    done = run()
    assert (done.out.strip(), done.err) == ("", "")
