"""Deployments whose health checks go through the API server, on the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer import sandbox
from deployer.core.model.records import HealthData, Status
from deployer.plugins.health_simple import Simple
from deployer.sdk.health import HealthTarget, Verdict
from support.world import HEALTHY, World


@pytest.mark.parametrize(("via", "proxied"), [("apiserver", True), ("auto", False), ("direct", False)])
def test_the_verdict_decides_whichever_way_it_comes(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, *, via: str, proxied: bool
) -> None:
    world = World(cluster, tmp_path, namespace, health_via=via, timeout=1.0).start()
    try:
        good = world.deployed(**HEALTHY, replicas=2)
        data = world.store.get(HealthData, good.id)
        assert data and ['"healthy": true' in entry["value"] for entry in data.entries] == [True, True]
        for env, said in (
            ({"FAIL": "1"}, "reports healthy: false"),
            ({"HEALTH_REDIRECT": "http://169.254.169.254/health"}, "answered HTTP 302"),
            ({"HEALTH_BODY_BYTES": "100000"}, "more than 64 KiB"),
        ):
            failed = world.ended(world.deploy(**HEALTHY, env=env), Status.FAILURE)
            assert failed.failure and failed.failure["reason"] == "Unhealthy" and said in failed.failure["message"]
        assert world.live_version() == "1"
        assert bool(world.client.requests["proxy"]) is proxied
    finally:
        world.close()


@pytest.mark.parametrize("via", ["apiserver", "direct"])
def test_the_descriptors_host_is_what_the_pod_is_asked_for(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch, via: str
) -> None:
    """Through whatever the pod is reached; the sample app is called by any name, so the checker tells."""
    world = World(cluster, tmp_path, namespace, health_via=via, timeout=1.0).start()
    asked: list[str] = []

    def check(self: Simple, target: HealthTarget) -> Verdict:
        asked.append(target.host)
        return real(self, target)

    real = Simple.check
    monkeypatch.setattr(Simple, "check", check)
    try:
        simple = {**HEALTHY, "healthCheckType": "SIMPLE"}
        world.deployed(**simple, healthCheckHost="shop.example.com")
        world.deployed(**simple)
        assert set(asked) == {"shop.example.com", ""} and asked[0] and not asked[-1]
    finally:
        world.close()
