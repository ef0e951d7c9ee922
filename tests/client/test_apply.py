"""`deployer apply`, `descriptors` and `get`: what is stored, from files and in an editor."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest

from support.command import Rest
from support.impostor import Answer, Impostor, problem
from support.playground import Playground

from .conftest import Run, shop


def stored(service: Rest) -> dict[str, dict]:
    return {d["appName"]: d for d in service.call("GET", "/descriptors/")[1]}


def deployed(service: Rest) -> list[tuple[str, str]]:
    return sorted((d["descriptor"]["appName"], d["version"]) for d in service.call("GET", "/deployments/")[1])


def test_applying_twice_changes_nothing(run: Run, service: Rest) -> None:
    Path("both.yaml").write_text(f"{shop()}---\n{shop(app='cart')}")
    done = run("apply", "-f", "both.yaml")
    where = service.namespace
    assert (done.code, done.out) == (0, f"{where}/shop: descriptor created\n{where}/cart: descriptor created\n")
    before = stored(service)
    done = run("apply", "-f", "both.yaml", "-o", "json")
    assert [entry["result"] for entry in json.loads(done.out)] == ["unchanged", "unchanged"]
    assert stored(service) == before and deployed(service) == []


def test_only_what_changed_is_deployed(run: Run, service: Rest) -> None:
    directory = Path("apps")
    directory.mkdir()
    (directory / "shop.yaml").write_text(shop())
    (directory / "cart.yml").write_text(shop(app="cart"))
    (directory / "README.md").write_text("not a descriptor")
    done = run("apply", "-f", "apps", "--deploy")
    assert done.code == 0, done.err
    assert sum("DEPLOYED: version 1 is live" in line for line in done.err.splitlines()) == 2
    assert deployed(service) == [("cart", "1"), ("shop", "1")]
    (directory / "cart.yml").write_text(shop("sample/web:2", app="cart"))
    done = run("apply", "-f", "apps", "--deploy")
    assert done.code == 0 and "cart: descriptor updated; is deployed (changed: podspec)" in done.out
    assert deployed(service) == [("cart", "1"), ("cart", "2"), ("shop", "1")]


def test_the_gravest_end_is_the_exit_code(run: Run, service: Rest) -> None:
    Path("both.yaml").write_text(f"{shop('sample/web:crash')}---\n{shop(app='cart')}")
    done = run("apply", "-f", "both.yaml", "--deploy")
    assert done.code == 1 and "shop version 1 failed" in done.out and "cart version 1 is live" in done.out
    assert all(line.startswith(("shop: ", "cart: ", "deployer: ")) for line in done.err.splitlines())


def test_one_mistake_in_many_files_stores_nothing(run: Run, service: Rest) -> None:
    Path("a.yaml").write_text(shop())
    Path("b.yaml").write_text(shop(app="cart", frontnd="x", replcas=3))
    done = run("apply", "-f", "a.yaml", "-f", "b.yaml")
    assert done.code == 7 and stored(service) == {}
    assert [line.split(": ")[0] for line in done.err.splitlines() if line.startswith("b.yaml:")] == [
        "b.yaml:3:1",
        "b.yaml:4:1",
        "b.yaml",
    ]


def test_a_diff_shows_what_would_change_and_does_nothing(run: Run, service: Rest) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("apply", "-f", "shop.yaml").code == 0
    before = stored(service)
    done = run("apply", "-f", "shop.yaml", "--set", "image=sample/web:2", "--diff", "--deploy")
    assert done.code == 0 and "would be updated; would be deployed (nothing is live)" in done.out
    assert "-    image: sample/web:1\n+    image: sample/web:2\n" in done.out
    assert run("apply", "-f", "shop.yaml", "--set", "replicas=3", "--dry-run").code == 0
    assert stored(service) == before and deployed(service) == []


def test_a_namespace_is_never_guessed_against_the_file(run: Run, service: Rest) -> None:
    Path("shop.yaml").write_text(f"namespace: other\n{shop()}")
    done = run("apply", "-f", "shop.yaml", "-n", service.namespace)
    assert done.code == 2 and "is for namespace other" in done.err


def test_an_editor_is_opened_until_it_is_right(
    run: Run, service: Rest, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("apply", "-f", "shop.yaml").code == 0
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^replicas: .*/replicas: $(cat "$0.count")/" "$1"\necho 2 > "$0.count"\n')
    editor.chmod(0o755)
    (tmp_path / "editor.count").write_text("many")
    environment.setenv("EDITOR", str(editor))
    environment.setattr("click.confirm", lambda *_, **__: True)
    done = run("descriptors", "edit", "shop")
    assert done.code == 0 and "replicas: must be a whole number" in done.err
    assert stored(service)["shop"]["replicas"] == 2
    environment.setenv("EDITOR", "true")
    assert "nothing changed" in run("descriptors", "edit", "shop").err


_EDITED = {"id": "d1", "namespace": "default", "appName": "shop", "newVersion": "#", "podspec": {}}


@pytest.mark.parametrize(
    ("refusal", "code"),
    [(problem(401, "the token has ended"), 4), (problem(500, "internal error"), 5), (problem(423, "not now"), 7)],
)
def test_what_was_typed_in_an_editor_is_never_lost(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch, refusal: Answer, code: int
) -> None:
    json_type = {"Content-Type": "application/json"}
    one = json.dumps(_EDITED).encode()
    impostor.answers = [(200, json_type, b"[%s]" % one), (200, {**json_type, "ETag": '"1"'}, one), refusal]
    editor = Path("editor").resolve()
    editor.write_text('#!/bin/sh\necho "# typed" >> "$1"\n')
    editor.chmod(0o755)
    environment.setenv("EDITOR", str(editor))
    environment.setattr("sys.stdin", StringIO())  # nobody is there to answer a question
    done = run("descriptors", "edit", "shop")
    found = re.search(r"^what you wrote is in (/\S+)$", done.err, re.MULTILINE)
    assert found is not None and "# typed" in Path(found[1]).read_text() and done.code == code
    Path(found[1]).unlink()


def test_an_editor_that_fails_the_second_time_loses_nothing(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch
) -> None:
    json_type = {"Content-Type": "application/json"}
    one = json.dumps(_EDITED).encode()
    impostor.answers = [(200, json_type, b"[%s]" % one), (200, {**json_type, "ETag": '"1"'}, one)]
    impostor.default = problem(400, "not valid")
    editor = Path("editor").resolve()
    editor.write_text('#!/bin/sh\ngrep -q typed "$1" && exit 1\necho "# typed" >> "$1"\n')
    editor.chmod(0o755)
    environment.setenv("EDITOR", str(editor))
    environment.setattr("click.confirm", lambda *_, **__: True)
    done = run("descriptors", "edit", "shop")
    found = re.search(r"^what you wrote is in (/\S+)$", done.err, re.MULTILINE)
    assert found is not None and "# typed" in Path(found[1]).read_text() and done.code == 2
    Path(found[1]).unlink()


def test_descriptors_are_listed_shown_and_deleted(run: Run, service: Rest) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("apply", "-f", "shop.yaml").code == 0
    [name] = run("descriptors", "list", "-o", "name").out.split()
    id = name.removeprefix("descriptor/")
    assert "image: sample/web:1" in run("descriptors", "get", "shop").out
    assert run("get", "descriptor", id, "-o", "jsonpath={.appName}").out == "shop"
    assert run("descriptors", "delete", id).code == 0
    assert stored(service) == {}
    assert run("descriptors", "get", "shop").code == 7
    assert run("validate", "shop.yaml").out == "shop.yaml: shop is valid\n"


def test_what_there_is_not_is_said_on_standard_error(run: Run, service: Rest) -> None:
    for arguments in (("status",), ("get", "deployments"), ("get", "descriptors")):
        done = run(*arguments)
        assert (done.code, done.out) == (0, "") and service.namespace in done.err
    for arguments in (("get", "deployments", "shop"), ("descriptors", "list", "shop"), ("get", "descriptors", "shop")):
        assert f"of shop in namespace {service.namespace}" in run(*arguments).err
    assert run("status", "-o", "json").out == "[]\n"
    assert run("history", "shop").code == 7
    assert run("get", "nothing").code == 2
    assert "ok" in run("get", "plugins").out


def test_which_address_answers_with_which_version(run: Run, service: Rest, playground: Playground) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("deploy", "shop.yaml").code == 0
    done = run("status", "shop", "--addresses")
    assert (done.code, "version 1" in done.out) == (0, True)
    assert "no address was asked: no host leads to the live version: its descriptor has no frontend" in done.err
    Path("shop.yaml").write_text(shop(frontend=f"{service.namespace}.example.com"))
    assert run("deploy", "shop.yaml").code == 0
    address = playground.cluster.ingress.removeprefix("http://")
    head, line = run("status", "shop", "--addresses").out.splitlines()[-2:]
    assert head.split() == ["ADDRESS", "VERSION", "HTTP", "TOOK", "REMARK"]
    assert line.split()[:3] == [address, "2", "200"] and line.endswith(" ms  live")
    [told] = json.loads(run("status", "shop", "--addresses", "-o", "json").out)["dataPlane"]["addresses"]
    assert (told["address"], told["version"], told["live"]) == (address, "2", True)
    assert run("status", "--addresses").code == 2


def test_health_is_what_pods_answered(run: Run, service: Rest) -> None:
    text = shop(useHealthCheck="true", healthCheckType="probe", healthCheckPort=9999, healthCheckPath="health")
    Path("shop.yaml").write_text(text)
    assert run("deploy", "shop.yaml").code == 0
    [line] = run("health", "shop").out.splitlines()[1:]
    assert line.startswith("shop-1-") and " healthy " in line
