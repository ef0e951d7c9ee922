"""The suite for environment injectors finds each kind of mistake. `env_etcd` passes it in `test_env_etcd.py`."""

from __future__ import annotations

import itertools
import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from deployer import sandbox
from deployer.sdk.environment import EnvContext, EnvInjector
from deployer.sdk.errors import StepFailed
from deployer.sdk.kube import CONFIG_MAP
from deployer.sdk.plugin import Document
from deployer.testing.environment import CHECKS, Check, InjectorBench

VALUE, OTHER = "s3cret-of-the-source", "s3cret-that-is-broken"


class Vault(EnvInjector):
    """Reads a ConfigMap of the namespace, and a source that may be away; what follows is wrong in one way each."""

    name = "vault"
    options_schema: Any = MappingProxyType(
        {"type": "object", "additionalProperties": False, "properties": {"path": {"type": "string"}}}
    )

    def __init__(self, state: str = "") -> None:
        self.state = state

    def read(self, context: EnvContext) -> str:
        if self.state == "away":
            context.scope.pause(1.5)
            raise StepFailed("the vault gave no answer within 1.5 s", reason="VaultFailed")
        if self.state == "broken":
            raise StepFailed("the vault has something for shop that is no text", reason="VaultFailed")
        found = context.kube.get(CONFIG_MAP, "names")
        return str((found or {"data": {"name": "TOKEN"}})["data"]["name"])

    def environment(self, context: EnvContext) -> Sequence[Document]:
        name = self.read(context)
        return [{"name": name, "value": VALUE}, {"name": "APP", "value": context.app}]


class NoName(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        return [*super().environment(context), {"name": "A=B", "value": VALUE}]


class Number(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        return [*super().environment(context), {"name": "N", "value": 3}]


class Twice(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        return [*super().environment(context), *super().environment(context)]


class Counts(Vault):
    numbers = itertools.count()

    def environment(self, context: EnvContext) -> Sequence[Document]:
        return [*super().environment(context), {"name": "N", "value": str(next(self.numbers))}]


class RemembersTheApp(Vault):
    app = ""

    def environment(self, context: EnvContext) -> Sequence[Document]:
        self.app = self.app or context.app
        return [*super().environment(context), {"name": "FIRST", "value": self.app}]


class Writes(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        context.kube._kube.create(CONFIG_MAP, {"metadata": {"name": "mine"}})
        return super().environment(context)


class Patient(Vault):
    def read(self, context: EnvContext) -> str:
        if self.state == "away":
            threading.Event().wait(2.5)
        return super().read(context)


class MakesDo(Vault):
    def read(self, context: EnvContext) -> str:
        return "TOKEN" if self.state else super().read(context)


class Wordless(Vault):
    def read(self, context: EnvContext) -> str:
        if self.state:
            raise KeyError(OTHER)
        return super().read(context)


class Logs(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        found = super().environment(context)
        context.log(f"the vault gave {found}")
        return found


class LogsForTheService(Vault):
    def environment(self, context: EnvContext) -> Sequence[Document]:
        found = super().environment(context)
        logging.getLogger("vault").debug("the vault gave %s", found)
        return found


class Quotes(Vault):
    def read(self, context: EnvContext) -> str:
        if self.state == "broken":
            raise StepFailed(f"the vault has {OTHER!r} for shop, which is no text", reason="VaultFailed")
        return super().read(context)


class Hints(Vault):
    def read(self, context: EnvContext) -> str:
        if self.state == "broken":
            raise StepFailed("the vault has no text for shop", reason="VaultFailed", hint=f"correct {OTHER}")
        return super().read(context)


class WarnsOfValues(Vault):
    def warnings(self, scope: Any) -> Sequence[str]:
        return [f"the vault holds {VALUE}"]


class WarnsLate(Vault):
    def warnings(self, scope: Any) -> Sequence[str]:
        threading.Event().wait(2.5)
        return []


class Sloppy(Vault):
    options_schema: Any = MappingProxyType({"type": "object"})


def bench(kind: type[Vault], **more: Any) -> InjectorBench:
    return InjectorBench(
        kind,
        away=lambda: kind("away"),
        broken=[lambda: kind("broken")],
        values=[OTHER],
        options={"path": "shop"},
        wrong_options=[{"path": 3}],
        objects={CONFIG_MAP: [{"metadata": {"name": "names"}, "data": {"name": "TOKEN"}}]},
        **more,
    )


BY_NAME = {check.__name__: check for check in CHECKS}
ON_A_SANDBOX = ("containers_get_what_it_gives", "a_source_that_is_away_leaves_the_old_version")
MISTAKES = [
    (NoName, "names_and_values_are_legal", "no valid name"),
    (Number, "names_and_values_are_legal", "type int"),
    (Twice, "names_and_values_are_legal", "is given twice"),
    (Counts, "it_gives_the_same_again", "the second time"),
    (RemembersTheApp, "deployments_may_ask_at_once", "asked with others"),
    (Writes, "it_only_reads", "create ConfigMap mine"),
    (Patient, "a_source_that_is_away_fails_in_time", "it had 1 s"),
    (MakesDo, "a_source_that_is_away_fails_in_time", "although its source is away"),
    (Wordless, "it_says_what_is_wrong", "instead of StepFailed"),
    (Patient, "a_cancellation_ends_it", "goes on although"),
    (Logs, "values_are_never_said", "the log: a value is in"),
    (LogsForTheService, "values_are_never_said", "the log: a value is in"),
    (Quotes, "values_are_never_said", "the error: a value is in"),
    (Hints, "values_are_never_said", "the error: a value is in"),
    (WarnsOfValues, "warnings_are_sentences", "warnings(): a value is in"),
    (WarnsLate, "warnings_are_sentences", "is not back"),
    (Sloppy, "options_are_checked", "are accepted"),
    (LogsForTheService, "containers_get_what_it_gives", "the service's log: a value is in"),
    (MakesDo, "a_source_that_is_away_leaves_the_old_version", "DEPLOYED"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_one_without_a_mistake_passes(check: Check, cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    check(bench(Vault, cluster=cluster, path=tmp_path))


@pytest.mark.parametrize(("faulty", "check", "said"), MISTAKES, ids=lambda value: getattr(value, "__name__", value))
def test_a_mistake_is_found(faulty: Any, check: str, said: str, cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    where: dict[str, Any] = {"cluster": cluster, "path": tmp_path} if check in ON_A_SANDBOX else {}
    with pytest.raises(AssertionError, match=re.escape(said)):
        BY_NAME[check](bench(faulty, **where))


def test_each_check_finds_a_mistake() -> None:
    assert {check for _, check, _ in MISTAKES} == set(BY_NAME)
