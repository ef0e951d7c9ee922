"""What is shown of apps and deployments on a real Kubernetes: pods that real controllers count."""

from __future__ import annotations

from typing import Any

from falcon import testing

from deployer.api.app import create_app
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Status
from support.real import RealWorld


def get(world: RealWorld, path: str, **headers: str) -> testing.Result:
    app = create_app(world.service, list, list, apps=world.apps)
    client = testing.TestClient(app, headers={"Host": "localhost", **headers})
    return client.simulate_get(f"{path}?namespace={world.namespace}")


def test_pods_are_counted_as_they_come_and_go(world: RealWorld) -> None:
    live = world.deployed(replicas=2)

    def shown() -> Any:
        return get(world, "/apps/").json[0]

    world.until(lambda: shown()["replicas"] == {"wanted": 2, "ready": 2} or None, "both pods to be counted")
    answer = get(world, "/apps/")
    assert get(world, "/apps/", **{"If-None-Match": answer.headers["ETag"]}).status_code == 304
    world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 1}}, world.namespace)
    world.until(lambda: shown()["replicas"] == {"wanted": 1, "ready": 1} or None, "one pod to be counted")
    assert get(world, "/apps/", **{"If-None-Match": answer.headers["ETag"]}).status_code == 200
    never = {"httpGet": {"path": "/error", "port": 9999}, "periodSeconds": 1}
    upcoming = world.deploy(probe=never, replicas=2)
    world.until(
        lambda: shown().get("upcoming", {}).get("waitingFor", "").startswith("1 more of 1 pods to be ready") or None,
        "the pods to be waited for",
    )
    assert shown()["live"]["deployment"] == live.id
    assert shown()["upcoming"]["deployment"] == upcoming.id
    world.service.undeploy(world.namespace, upcoming.id)
    world.ended(upcoming, Status.UNDEPLOYED)
    world.quiet()
    assert "upcoming" not in shown()
    history = get(world, "/apps/shop/history").json
    assert [entry["outcome"] for entry in history] == ["cancelled", "deployed"]
