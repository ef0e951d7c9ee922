"""What is told of pods that become ready and are not healthy."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.model.records import Status
from support.world import HEALTHY, World, describe


def test_a_crash_loop_that_is_ready_in_between_is_seen_by_the_health_checks(world: World) -> None:
    failed = world.ended(world.deploy(**HEALTHY, env={"CRASH_AFTER": "1", "HEALTH_PORT": "9998"}), Status.FAILURE)
    log = world.log(failed.id)
    assert "not healthy yet: " in log and "refused the connection" in log
    assert failed.failure and failed.failure["reason"] == "CrashLoop"
    assert "was restarted 3 times, it ended with exit code 3" in failed.failure["message"]
    assert "last lines of container web" in log and "\n  crashing on purpose" in log


def test_an_unhealthy_version_is_told_with_its_answers_and_last_lines(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str
) -> None:
    world = World(cluster, tmp_path, namespace, timeout=1.5).start()
    try:
        failed = world.ended(world.deploy(**HEALTHY, env={"FAIL": "1"}, replicas=5), Status.FAILURE)
        log, failure = world.log(failed.id), failed.failure
        assert failure and failure["reason"] == "Unhealthy" and failure["pod"].startswith("shop-1-")
        said = r"(pod shop-1-\w+ at \S+ reports healthy: false; ){3}2 more did not pass either"
        assert re.fullmatch(f"the health checks did not pass in time: {said}", failure["message"])
        assert log.count("answer of shop-1-") == 3 and '{"healthy": false, "version": "1"}' in log
        assert f"last lines of container web in pod {failure['pod']}:\n  starting version 1" in log
        assert len(json.dumps(failure)) < 2000
    finally:
        world.close()


def test_one_round_that_is_ignored_says_what_it_saw(world: World) -> None:
    ill = world.deployed(**HEALTHY, ignoreHealthCheck=True, env={"FAIL": "1"})
    assert "health checks ignored: pod shop-1-" in world.log(ill.id)


def test_an_app_that_reads_the_variable_of_its_own_service(world: World) -> None:
    """The first version starts; the second has `HEALTH_PORT=tcp://...`, and the hint says so. Then both ways out."""
    probe = {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1}

    def health(**podspec: Any) -> Any:
        descriptor = describe(world.namespace, "health", timeoutSeconds=15)
        descriptor["podspec"] |= podspec
        descriptor["podspec"]["containers"][0]["readinessProbe"] = probe
        return {"podspec": descriptor["podspec"], "timeoutSeconds": 15}

    world.deployed("health", **health())
    failed = world.ended(world.deploy("health", **health()), Status.FAILURE)
    hint = (failed.failure or {})["hint"]
    assert "HEALTH_PORT=tcp://..." in hint and "enableServiceLinks: false" in hint
    world.deployed("health", **health(enableServiceLinks=False))
    world.stop()
    world.settings = dataclasses.replace(world.settings, enable_service_links=False)
    world.start()
    assert world.deployed("health", **health()).version == "4"
