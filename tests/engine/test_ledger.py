"""What a plugin's step makes is removed by the core, whatever its kind and role, at every end of a deployment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from deployer.core.model.records import Status
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import StepFailed
from deployer.sdk.kube import SECRET
from deployer.sdk.strategy import Done, Outcome, Phase, Plan, Step, Strategy, Work
from support.world import HEALTHY, World


class MakeSecret(Step):
    """Makes an object that only this plugin knows of, and has no undo."""

    id = "make-secret"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        about = {"name": f"token-{work.plan.version}", "annotations": work.kube.annotations("token")}
        work.kube.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": {"t": "1234"}})
        if work.plan.descriptor["strategyOptions"].get("fails"):
            raise StepFailed("made it, and failed")
        return Done()


class WithSecret(Strategy):
    """Blue-green with a Secret for each version."""

    name = "with-secret"
    options_schema = {"type": "object", "properties": {"fails": {"type": "boolean"}}}  # noqa: RUF012

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return [MakeSecret(), *deploy_steps()]


@pytest.fixture
def secretive(world: World) -> World:
    """The world with that strategy."""
    world.stop()
    registry = load_plugins(world.settings)
    strategies = {**registry.strategies, "with-secret": Entry(WithSecret(), "tests", "1", "with-secret")}
    world.start(dataclasses.replace(registry, strategies=strategies))
    return world


def with_secret(*, fails: bool = False) -> dict[str, object]:
    return {**HEALTHY, "deploymentType": "with-secret", "strategyOptions": {"fails": fails}}


def test_it_goes_with_a_version_that_fails(secretive: World) -> None:
    secretive.ended(secretive.deploy(**with_secret(fails=True)), Status.FAILURE)
    secretive.quiet()
    assert (secretive.objects(SECRET), secretive.names()) == ({}, {})


def test_it_goes_with_a_version_that_is_replaced_or_undeployed(secretive: World) -> None:
    secretive.deployed(**with_secret())
    assert set(secretive.objects(SECRET)) == {"token-1"}
    live = secretive.deployed(**with_secret())
    secretive.quiet()
    assert set(secretive.objects(SECRET)) == {"token-2"}
    secretive.service.undeploy(secretive.namespace, live.id)
    secretive.quiet()
    assert (secretive.objects(SECRET), secretive.names()) == ({}, {})


def test_it_goes_although_the_plugin_is_gone(secretive: World) -> None:
    live = secretive.deployed(**with_secret())
    secretive.stop()
    secretive.start()
    secretive.service.undeploy(secretive.namespace, live.id)
    secretive.quiet()
    assert (secretive.objects(SECRET), secretive.names()) == ({}, {})
