"""What plugin authors test with: the fakes, and a service that is given plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.records import Status
from deployer.plugins.health_simple import Simple
from deployer.sdk.errors import Cancelled, ForeignObject, SettingsError, StepFailed
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER, SERVICE
from deployer.sdk.plugin import hookimpl
from deployer.sdk.strategy import AwaitReady, StartWorkload
from deployer.testing.descriptors import plan_of
from deployer.testing.fakes import FakeEnvironment, FakeWork
from deployer.testing.service import HEALTHY, SandboxedService, describe

# --- fakes --------------------------------------------------------------------------------------------------------


def test_shared_steps_run_on_a_fake_with_the_plan_of_a_descriptor() -> None:
    fake = FakeWork(plan_of("2", previous="1", replicas=3, frontend="shop.example.com", **HEALTHY))
    assert fake.plan.route and fake.plan.route.previous and fake.plan.route.previous.service == "shop-1"
    for _ in range(2):  # as after a crash
        StartWorkload().run(fake.work)
    assert fake.kube.writes == ["create Service shop-2", "create ReplicationController shop-2"]
    assert fake.kube.objects[CONTROLLER, "shop-2"]["spec"]["replicas"] == 3
    with pytest.raises(StepFailed):
        AwaitReady().run(fake.work)
    assert set(fake.waits) == {"3 more of 3 pods to be ready"}
    StartWorkload().undo(fake.work)
    assert fake.kube.objects == {}


def test_what_belongs_to_others_is_theirs_on_a_fake_too() -> None:
    fake = FakeWork(plan_of("2"))
    theirs = fake.kube.put(SERVICE, {"metadata": {"name": "shop-2"}})
    with pytest.raises(ForeignObject, match=r"Service shop-2 .* belongs to no known owner"):
        StartWorkload().run(fake.work)
    assert fake.kube.objects == {(SERVICE, "shop-2"): theirs}
    earlier = {"metadata": {"name": "shop-1"}, "spec": {"replicas": 2}}
    fake.kube.put(CONTROLLER, earlier, deployment="d1")
    assert not fake.work.kube.delete(CONTROLLER, "shop-1")
    assert fake.work.kube.scale("shop-1", 0, deployment="d1")
    assert fake.kube.writes[-1] == "update ReplicationController shop-1"
    assert fake.work.kube.delete(CONTROLLER, "shop-1", deployment="d1")


def test_a_cancelled_step_writes_nothing_on_a_fake() -> None:
    fake = FakeWork(plan_of("2"))
    work = fake.work
    work.scope.close(Cancelled("stop"))
    with pytest.raises(Cancelled):
        StartWorkload().run(work)
    assert (fake.kube.writes, fake.kube.objects) == ([], {})


def test_an_injector_reads_what_was_put_there() -> None:
    fake = FakeEnvironment(options={"map": "notes"})
    assert fake.context.kube.get(CONFIG_MAP, "notes") is None
    fake.kube.put(CONFIG_MAP, {"metadata": {"name": "notes", "labels": {"a": "b"}}, "data": {"A": "1"}})
    assert [found["data"] for found in fake.context.kube.list(CONFIG_MAP, {"a": "b"})] == [{"A": "1"}]
    assert fake.context.kube.list(CONFIG_MAP, {"a": "c"}) == []
    assert fake.context.options == {"map": "notes"}


# --- a service ----------------------------------------------------------------------------------------------------


def module(**hooks: Any) -> Any:
    made = ModuleType("given")
    for name, hook in hooks.items():
        setattr(made, name, hookimpl(hook))
    return made


def checkers() -> Any:
    def settings_schema() -> Any:
        return {"required": ["name"], "properties": {"name": {"type": "string"}}, "additionalProperties": False}

    def register_health_checkers(settings: Any) -> Any:
        made = Simple()
        made.name = settings.table["name"]
        return [made]

    return module(settings_schema=settings_schema, register_health_checkers=register_health_checkers)


@pytest.fixture
def given(cluster: sandbox.Sandbox, tmp_path: Path) -> Iterator[SandboxedService]:
    tables = {"mine": {"name": "calm"}}
    with SandboxedService(cluster, tmp_path, modules={"mine": checkers()}, plugins=tables, timeout=2.0) as service:
        yield service


def test_a_module_is_a_plugin_with_its_table_of_settings(given: SandboxedService) -> None:
    fields = {**HEALTHY, "healthCheckType": "calm", "healthCheckPath": "simple", "frontend": "calm.example.com"}
    first = given.deploy_descriptor(describe(given.namespace, **fields))
    assert given.await_status(first, Status.DEPLOYED).status is Status.DEPLOYED
    assert given.answer("calm.example.com")[0] == 200
    second = given.deploy_descriptor(describe(given.namespace, **fields, env={"FAIL": "1"}))
    with pytest.raises(AssertionError, match=f"deployment {second} is FAILURE, not DEPLOYED\n(.|\n)*503"):
        given.await_status(second, Status.DEPLOYED)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"modules": {"mine": module(register_strategies=lambda: None)}}, "plugin mine cannot be used: .* `return`"),
        ({"modules": {"mine": ModuleType("empty")}}, "plugin mine cannot be used: it implements no hook"),
        ({"providers": [Simple]}, "is no object of a kind of provider"),
    ],
)
def test_what_could_not_be_loaded_says_so(cluster: sandbox.Sandbox, tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said), SandboxedService(cluster, tmp_path, **given):
        pass


def test_a_wrong_table_says_so(cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    tables = {"mine": {"nmae": "calm"}}
    with (
        pytest.raises(SettingsError, match=r"\[plugins.mine\] .*nmae"),
        SandboxedService(cluster, tmp_path, modules={"mine": checkers()}, plugins=tables),
    ):
        pass
