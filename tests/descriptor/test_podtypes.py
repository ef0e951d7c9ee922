"""Types and fields of podspecs, as far as they are known without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.descriptor.podspec.types import VERSION, type_problems, unknown_fields, with_whole_numbers


def podspec(pod: Any = None, **container: Any) -> Any:
    return {"containers": [{"name": "web", "image": "i", **container}], **(pod or {})}


def test_whole_floats_become_whole_numbers_where_such_belong_and_nowhere_else() -> None:
    sent = podspec(
        {"terminationGracePeriodSeconds": 30.0, "nonsense": 1.0, "overhead": {"cpu": 1.0}},
        ports=[{"containerPort": 8080.0}, {"containerPort": 1.5}],
        readinessProbe={"httpGet": {"port": 8080.0}, "periodSeconds": 2.0},
        env=[{"name": "A", "value": 1.0}],
        resources={"limits": {"cpu": 2.0}},
    )
    found = with_whole_numbers(sent)
    (web,) = found["containers"]
    whole = [found["terminationGracePeriodSeconds"], web["ports"][0]["containerPort"]]
    whole += [web["readinessProbe"]["httpGet"]["port"], web["readinessProbe"]["periodSeconds"]]
    assert whole == [30, 8080, 8080, 2] and all(type(number) is int for number in whole)
    others = [found["nonsense"], web["env"][0]["value"], web["resources"]["limits"]["cpu"], found["overhead"]["cpu"]]
    assert all(type(number) is float for number in others) and web["ports"][1]["containerPort"] == 1.5
    assert with_whole_numbers(found) == found
    assert type(sent["terminationGracePeriodSeconds"]) is float, "what was sent is another's"


@pytest.mark.parametrize(
    ("sent", "path", "message"),
    [
        (podspec(env=[{"name": "A", "value": 1}]), "env[0].value", "text, not a number: put it in quotes"),
        (podspec(env=[{"name": "A", "value": True}]), "env[0].value", "text, not true: put it in quotes"),
        (podspec(env=[{"name": "A", "value": ["a"]}]), "env[0].value", "text, not a list"),
        (
            podspec(ports=[{"containerPort": "80"}]),
            "ports[0].containerPort",
            "whole number, not text: leave the quotes",
        ),
        (podspec(ports=[{"containerPort": 1.5}]), "ports[0].containerPort", "not a number with a fraction"),
        (podspec(ports=[{"containerPort": True}]), "ports[0].containerPort", "a whole number, not true"),
        (podspec(ports=[{"hostPort": 1 << 31}]), "ports[0].hostPort", "not a number of more than 32 bits"),
        (podspec(command="sh"), "command", "must be a list, not text"),
        (podspec(args=["-v", 2]), "args[1]", "must be text, not a number: put it in quotes"),
        (podspec(tty="true"), "tty", "must be true or false, not text: leave the quotes out"),
        (podspec(resources={"limits": {"cpu": True}}), "resources.limits.cpu", "a quantity"),
        (podspec(readinessProbe={"httpGet": {"port": 1.5}}), "readinessProbe.httpGet.port", "a whole number or a name"),
        (podspec(readinessProbe=[]), "readinessProbe", "must be an object, not a list"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_path_and_both_types(sent: Any, path: str, message: str) -> None:
    (problem,) = type_problems(sent)
    assert problem.path == f"podspec.containers[0].{path}" and message in problem.message


def test_everything_wrong_is_said_at_once_and_no_value_is_repeated() -> None:
    sent = podspec({"hostNetwork": "yes", "nodeSelector": {"a b": 1}}, env=[{"name": 4711, "value": 4712}])
    found = {problem.path: problem.message for problem in type_problems(sent)}
    assert sorted(found) == [
        "podspec.containers[0].env[0].name",
        "podspec.containers[0].env[0].value",
        "podspec.hostNetwork",
        'podspec.nodeSelector."a b"',
    ]
    assert "471" not in "".join(found.values())


def test_what_every_cluster_takes_is_no_problem() -> None:
    sent = podspec(
        {"tolerations": None, "securityContext": {"runAsUser": 1 << 40}, "overhead": {"cpu": 0.5, "memory": "1Gi"}},
        env=[{"name": "A", "value": None}],
        livenessProbe={"tcpSocket": {"port": "http"}},
    )
    assert not list(type_problems(sent)) and not list(unknown_fields(sent))


def test_unknown_fields_are_found_wherever_they_are_and_judged_by_nobody() -> None:
    sent = podspec({"futureField": {"a": 1}}, imagePullSecrets=[], ports=[{"containerport": 1}])
    assert list(unknown_fields(sent)) == [
        "podspec.containers[0].imagePullSecrets",
        "podspec.containers[0].ports[0].containerport",
        "podspec.futureField",
    ]
    assert not list(type_problems(sent))
    assert VERSION.startswith("1.")


@pytest.mark.parametrize("podspec", [None, 1, [], {"containers": 3}, {"containers": [None, 1]}])
def test_anything_at_all_can_be_looked_at(podspec: Any) -> None:
    with_whole_numbers(podspec)
    list(type_problems(podspec))
    list(unknown_fields(podspec))
