"""Checking a descriptor without a service: by its schema, and by the rules that need to know nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployer.core.errors import Problem
from deployer.descriptor import GateType, Rules, bounded, examine
from deployer.descriptor.podspec import types as podtypes
from deployer.settings import Settings

_ANY_OPTIONS: Mapping[str, Any] = {}  # a schema that everything fits


class _Anything(Mapping[str, Any]):
    """Whatever is asked for is installed: only a service knows what is not."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, name: str) -> Any:
        return self._value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, name: object) -> bool:
        return True


def lint(document: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with it wherever it is deployed, unknown fields of the podspec included."""
    rules = Rules(
        settings=Settings(own_namespace=""),
        strategies=_Anything(_ANY_OPTIONS),
        health_checkers=_Anything(None),
        ingress=("", _ANY_OPTIONS),
        health_options=_Anything(_ANY_OPTIONS),
        without_path=_Anything(None),
        gates=_Anything(GateType(_ANY_OPTIONS, ("beforeStart", "beforeSwitch", "afterSwitch"))),
        extensions=_Anything((_ANY_OPTIONS,)),
    )
    named = "namespace" in document
    # Every verb that sends it puts a namespace in; any will do here.
    normal, problems = examine(document if named else {**document, "namespace": "default"}, namespace=None, rules=rules)
    known = {problem.path for problem in problems}
    for path in podtypes.unknown_fields(normal.get("podspec", {})):
        if path not in known:
            said = f"is not a field that Kubernetes {podtypes.VERSION} knows{podtypes.advice(path)}"
            problems.append(Problem(path, said))
    return bounded(problems)
