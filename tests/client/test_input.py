"""Files of descriptors, and what flags put into them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.client.descriptors import edits, template
from deployer.client.descriptors.lint import lint
from deployer.client.descriptors.source import Position, Source, located, parse, steps
from deployer.client.errors import InvalidInput, Misused
from deployer.core.errors import Problem

from .conftest import Run, shop

ROOT = Path(__file__).resolve().parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def one(text: str) -> Source:
    [source] = parse(text, "f.yaml")
    return source


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.sampled_from([None, 1, "\t"]))
def test_json_is_read_as_what_it_is(document: dict[str, Any], indent: Any) -> None:
    assert one(json.dumps(document, indent=indent)).document == document


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("on: yes\n", {"on": "yes"}),  # YAML 1.2 knows true and false alone
        ("a: 2026-11-30\n", {"a": "2026-11-30"}),
        ("a: 0777\n", {"a": 777}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("<<: {a: 1}\nb: 2\n", {"a": 1, "b": 2}),
        ("\ufeffa: 1\n", {"a": 1}),
    ],
)
def test_yaml_is_read_as_json_would_say_it(text: str, document: dict[str, Any]) -> None:
    assert one(text.removeprefix("\ufeff")).document == document


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n b: 2", "f.yaml:2:3: a second key in one value: put the value in quotes, or indent the line as"),
        ("a: b: c", "f.yaml:1:5: a second key in one value"),
        ("a:\n   - x: 1\n    y: 2\n", "f.yaml:3:5: does not fit the lines above: check the indentation"),
        ("a: 'it's'\n", "f.yaml:1:8: does not fit the lines above: check the indentation, and the quotes"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2:2: the [ of line 1 is not closed, or a comma is missing"),
        ('{"a": 1,\n "b" 2}', "f.yaml:2:6: the { of line 1 is not closed, or a comma or colon is missing"),
        ('a: 1\nb: "x\n', 'f.yaml:2:4: this quote is not closed\n    b: "x\n       ^'),
        ("a: @x\n", "f.yaml:1:4: no text can begin with @; put it in quotes"),
        ("a: 1\nb\nc: 2\n", "f.yaml:2:1: no colon is behind this key"),
        ("a: *x\n", "f.yaml:1:4: *x needs an anchor &x above"),
        ('{"a": 1, "a": 2}', "f.yaml:1:10: the key a is there twice"),
        ("a: 1\na: 2\n", "f.yaml:2:1: the key a is there twice"),
        ("a:\n\t- b", "f.yaml:2:1: a tab cannot indent YAML; use spaces"),
        ("1: 2", 'f.yaml:1:1: a key must be text: write "1"'),
        ("a: .inf", "f.yaml:1:4: .inf is no number in JSON"),
        ('{"a": NaN}', "f.yaml"),
        ("a: &x [*x]", "f.yaml:1:4: an alias contains itself"),
        ("a: !!python/object:os.system x", "has no meaning in a descriptor"),
        ("a: !!binary aGk=", "has no meaning in a descriptor"),
        ("- a", "f.yaml:1: a descriptor is an object with fields such as appName; several"),
        ("", "f.yaml is empty; `deployer init`"),
        ("{" * 50_000, "f.yaml is nested too deeply"),
        ("a: " + "[" * 3000, "f.yaml is nested too deeply"),
    ],
)
def test_what_is_no_descriptor_is_told_with_its_place(text: str, said: str) -> None:
    if text == '{"a": NaN}':
        assert one(text).document == {"a": "NaN"}  # a text in YAML, which the service will judge
        return
    with pytest.raises(InvalidInput) as caught:
        parse(text, "f.yaml")
    assert str(caught.value).startswith(said) or said in str(caught.value)


def test_ten_lines_cannot_become_a_billion_values() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidInput, match="values, aliases written out"):
        parse("\n".join(lines), "f.yaml")


def test_problems_stand_at_their_lines_in_the_order_of_the_file() -> None:
    source = one(shop())
    problems = [
        Problem("podspec.containers[0].image", "no"),
        Problem("appName", "too long"),
        Problem("frontend", "is required"),
        Problem('podspec.nodeSelector."a b"', "there"),
    ]
    told = located(source, problems)
    assert [line.splitlines()[0] for line in told] == [
        "f.yaml:1:1: appName: too long",
        "f.yaml:1:1: frontend: is required",
        'f.yaml:3:1: podspec.nodeSelector."a b": there',
        "f.yaml:7:7: podspec.containers[0].image: no",
    ]
    assert told[3].splitlines()[1:] == ["          image: sample/web:1", "          ^"]


def test_positions_in_json_with_tabs_are_right() -> None:
    assert one('{\n\t"a": [\n\t\t{"b": 1}]}').position("a[0].b") == Position(3, 4)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.b[0].c", ["a", "b", 0, "c"]),
        ('a."x.y".b', ["a", "x.y", "b"]),
        ("newVersion", ["newVersion"]),
    ],
)
def test_paths(path: str, parts: list[Any]) -> None:
    assert list(steps(path)) == parts


@pytest.mark.parametrize(
    ("setting", "where", "value"),
    [
        ("image=x/y:2", ("podspec", "containers", 0, "image"), "x/y:2"),
        ("image.web=x/y:2", ("podspec", "containers", 0, "image"), "x/y:2"),
        ("newVersion=1", ("newVersion",), "1"),
        ("replicas=3", ("replicas",), 3),
        ('podspec.containers[0].env[0]={"name": "A"}', ("podspec", "containers", 0, "env", 0, "name"), "A"),
        ("frontend=a=b", ("frontend",), "a=b"),
        ("ingressOptions.proxy.x=true", ("ingressOptions", "proxy", "x"), True),
        ("useCompression=true", ("useCompression",), True),
    ],
)
def test_set(setting: str, where: tuple[Any, ...], value: Any) -> None:
    source = one(shop())
    edits.apply(source, [setting])
    found: Any = source.document
    for part in where:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image", "must be PATH=VALUE"),
        ("image.other=x", "there is no such container; available: web"),
        ("podspec.containers[3].image=x", "there is no item 3"),
        ("appName.x=1", "has no place there"),
        ("podspec.terminationGracePeriodSeconds=soon", "must be JSON"),
    ],
)
def test_set_where_there_is_nothing_to_set(setting: str, said: str) -> None:
    with pytest.raises(Misused, match=said):
        edits.apply(one(shop()), [setting])


def test_variables_are_put_into_texts_alone_and_all_that_are_missing_are_named() -> None:
    source = one("a: ${X}-${Y:-y}\nb: [$$X, 1, '${X}']\n${X}: c\n")
    edits.substitute(source, {"X": '"\n: {'})
    assert source.document == {"a": '"\n: {-y', "b": ["$X", 1, '"\n: {'], "${X}": "c"}
    with pytest.raises(InvalidInput, match=r"--env-subst: X, Z;"):
        edits.substitute(one("a: ${X}\nb: ${Z} ${X}\n"), {})


def test_without_the_flag_nothing_is_replaced(run: Run) -> None:
    Path("shop.yaml").write_text(shop("${IMAGE}"))
    assert run("lint", "shop.yaml", "--set", "namespace=default").code == 0
    done = run("lint", "shop.yaml", "--set", "namespace=default", "--env-subst")
    assert done.code == 7 and "IMAGE" in done.err


def test_lint_names_everything_that_needs_no_service(run: Run) -> None:
    Path("a.yaml").write_text(
        "namespace: default\nappName: A_B\nnewVersion: 1.4\nimage: x\npodspec:\n  livenessProbe: {}\n"
        "  containers:\n    - name: web\n      image: x\n      livenesProbe: {}\n      ports: [{containerPort: '80'}]\n"
    )
    done = run("lint", "a.yaml")
    assert done.code == 7
    assert [line for line in done.out.splitlines() if line.startswith("a.yaml")] == [
        "a.yaml:3:1: newVersion: must be text, not a number with a fraction: put it in quotes",
        "a.yaml:4:1: image: is not a known field; it belongs to a container: podspec.containers[0].image",
        "a.yaml:6:3: podspec.livenessProbe: is not a field that Kubernetes 1.34 knows; it belongs to a container: "
        "podspec.containers[0].livenessProbe",
        "a.yaml:10:7: podspec.containers[0].livenesProbe: is not a field that Kubernetes 1.34 knows; did you mean "
        "livenessProbe?",
        "a.yaml:11:16: podspec.containers[0].ports[0].containerPort: must be a whole number, not text",
    ]


def test_lint_takes_what_only_a_service_can_judge() -> None:
    document = json.loads((ROOT / "examples" / "shop.json").read_text())
    extra = {"deploymentType": "own", "strategyOptions": {"x": 1}, "extensions": {"y": {}}}
    gates = {"gates": {"afterSwitch": [{"type": "mine", "name": "a", "options": {"z": 1}}]}}
    assert lint(document | extra | gates) == []


@pytest.mark.parametrize("app", ["my-app", "true", "a1"])
@pytest.mark.parametrize("host", [None, "shop.example.com"])
def test_what_init_writes_is_valid_and_so_is_what_it_has_as_comments(app: str, host: str | None) -> None:
    text = template.descriptor(app, namespace="default", image=None, port=8080, host=host)
    assert one(text).document == template.document(app, namespace="default", image=None, port=8080, host=host)
    assert lint(one(text).document) == []
    whole = re.sub(r"^( *)# (?=[a-zA-Z]+:|  )", r"\1", text, flags=re.MULTILINE)
    assert whole.count("#") < text.count("#") - 8
    assert lint(one(whole).document) == []
    assert max(map(len, text.splitlines())) <= 80


def test_a_descriptor_without_a_namespace_is_as_good_as_deploy_takes_it(run: Run) -> None:
    Path("shop.yaml").write_text(shop())
    done = run("lint", "shop.yaml")
    assert (done.code, done.out) == (0, "")
    Path("shop.yaml").write_text(shop() + "namespace: A_B\n")
    assert "namespace: " in run("lint", "shop.yaml").out


def test_what_a_flag_has_put_in_is_not_looked_for_in_the_file(run: Run) -> None:
    Path("shop.yaml").write_text(shop(replica="2"))
    port = "podspec.containers[0].ports[0].containerPort=99999"
    done = run("lint", "shop.yaml", "--set", "foo=bar", "--set", port, "--set", "image=")
    assert done.code == 7
    *flags, in_file, line, mark = done.out.splitlines()
    assert sorted(flags) == [
        "shop.yaml: --set foo=bar: is not a known field",
        "shop.yaml: --set image=: podspec.containers[0].image: must not be empty",
        f"shop.yaml: --set {port}: must be between 1 and 65535",
    ]
    assert in_file.startswith("shop.yaml:3:1: replica: ") and (line, mark) == ("    replica: 2", "    ^")


def test_init_never_replaces_a_file(run: Run) -> None:
    assert run("init", "shop", "-o", "shop.yaml").code == 0
    before = Path("shop.yaml").read_text()
    done = run("init", "other", "-o", "shop.yaml")
    assert done.code == 2 and "is there already" in done.err and Path("shop.yaml").read_text() == before
    assert run("init", "No App!").code == 2
