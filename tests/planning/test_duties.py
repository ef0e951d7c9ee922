"""What a strategy's steps must do for an app, known before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.core.errors import StepFailed
from deployer.planning.duties import require_fulfilled
from deployer.plugins.strategy_bluegreen import BlueGreen
from deployer.plugins.strategy_canary import Canary
from deployer.plugins.strategy_recreate import Recreate
from deployer.sdk.ingress import Backend, Preview, Route
from deployer.sdk.strategy import (
    AwaitReady,
    Done,
    Duty,
    MoveService,
    Outcome,
    Phase,
    Plan,
    ProviderRef,
    StartWorkload,
    Step,
    SwitchRoute,
    VerifyHealth,
    Work,
    Workload,
)

ROUTE = Route(
    namespace="team", app="shop", host="shop.example", version="2", deployment="id", backend=Backend("shop-2", 80)
)


def plan(*, route: Route | None = None, service: bool = False, health: bool = False, **more: Any) -> Plan:
    return Plan(
        namespace="team",
        app="shop",
        deployment="id",
        version="2",
        descriptor={},
        strategy=ProviderRef("acme"),
        health=ProviderRef("probe") if health else None,
        route=route,
        objects=Workload(service={"kind": "Service"} if service else None),
        **more,
    )


class Own(Step):
    """A stranger's step, which does it all in its own way."""

    id = "own"
    phase = Phase.EXPOSE

    def __init__(self, *fulfils: Any) -> None:
        self.fulfils = fulfils

    def run(self, work: Work) -> Outcome:
        return Done()


@pytest.mark.parametrize(
    ("what", "steps", "words"),
    [
        ({"route": ROUTE}, [StartWorkload(), MoveService()], "leads shop.example to the new version (`route` in"),
        ({"service": True}, [StartWorkload(), SwitchRoute()], "has service shop select the new version (`service` in"),
        ({"health": True}, [StartWorkload(), AwaitReady()], "asks health checker probe, as useHealthCheck wants it"),
    ],
)
def test_a_strategy_that_does_not_do_what_the_app_has_is_refused(
    what: dict[str, Any], steps: list[Step], words: str
) -> None:
    with pytest.raises(StepFailed) as caught:
        require_fulfilled(steps, plan(**what))
    assert str(caught.value).startswith(f"strategy acme has no step that {words}")
    assert (caught.value.reason, bool(caught.value.hint)) == ("BadStrategy", True)
    require_fulfilled(steps, plan())


@pytest.mark.parametrize("own", [Own(*Duty), Own("route", "service", "health"), Own("health", "route", "service")])
def test_a_strangers_own_steps_will_do(own: Step) -> None:
    require_fulfilled([StartWorkload(), own], plan(route=ROUTE, service=True, health=True))


def test_a_subclass_does_what_its_base_does() -> None:
    class Mine(SwitchRoute):
        pass

    require_fulfilled([Mine(), MoveService(), VerifyHealth()], plan(route=ROUTE, service=True, health=True))


@pytest.mark.parametrize("wrong", ["route", ["routes"], [3], 7, None])
def test_what_fulfils_something_unknown_is_refused(wrong: Any) -> None:
    own = Own()
    own.fulfils = wrong
    with pytest.raises(StepFailed, match="strategy acme gave step own, which fulfils something that is none of route"):
        require_fulfilled([own], plan())


@pytest.mark.parametrize("strategy", [BlueGreen(), Canary(), Recreate()], ids=lambda strategy: str(strategy.name))
@pytest.mark.parametrize("check", ["", "/health"])
@pytest.mark.parametrize("has", [{}, {"service": True}, {"route": ROUTE, "service": True, "health": True}])
def test_what_ships_fulfils_everything(strategy: Any, check: str, has: dict[str, Any]) -> None:
    made = plan(**has)
    if made.route:
        made = plan(
            **{
                **has,
                "route": Route(**{f: getattr(ROUTE, f) for f in ROUTE.__slots__} | {"preview": Preview(check=check)}),
            }
        )
    require_fulfilled(strategy.deploy_steps(made), made)
