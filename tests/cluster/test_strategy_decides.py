"""The API server takes what a strategy adds to the manifests, and the old version goes when the strategy says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.conftest import RealWorld
from deployer.core.model.kind import CONTROLLER, SERVICE
from deployer.core.model.records import Plan, Status
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.strategy import Step, Strategy, Workload, WorkloadContext, render_workload
from support.strategies import restart_with
from support.world import HEALTHY


class Labelled(Strategy):
    """A label of the pods and an annotation of the Service more; the old version is kept for no time."""

    name = "labelled"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return deploy_steps(plan)

    def workload(self, context: WorkloadContext) -> Workload:
        made = render_workload(context)
        made.controller["spec"]["template"]["metadata"]["labels"]["team"] = "blue"
        assert made.service is not None
        made.service["metadata"]["annotations"]["example.com/scrape"] = "true"
        return made

    def drain(self, plan: Plan) -> float:
        return 0.0


@pytest.fixture
def world(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """One that keeps old versions for an hour, when the strategy does not know better."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, proxysleep=3600.0)
    made.start()
    yield made
    made.close()


def test_manifests_and_drain_time_of_a_strategy(world: RealWorld) -> None:
    restart_with(world, Labelled())
    world.deployed(**HEALTHY, deploymentType="labelled")
    second = world.deployed(**HEALTHY, deploymentType="labelled")
    world.quiet()
    assert set(world.objects(CONTROLLER)) == {"shop-2"} and world.live_version() == "2"
    pods = [pod for pod in world.pods().values() if not pod["metadata"].get("deletionTimestamp")]
    assert [pod["metadata"]["labels"]["team"] for pod in pods] == ["blue"]
    assert world.objects(SERVICE)["shop"]["metadata"]["annotations"]["example.com/scrape"] == "true"
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.quiet()
    assert world.names() == {}
