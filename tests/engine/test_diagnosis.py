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
        said = r"each of 5 pods, such as pod (shop-1-\w+) at \S+, reports healthy: false"
        found = re.fullmatch(f"the health checks did not pass in time: {said}", failure["message"])
        assert found and found[1] == failure["pod"]
        # Teams can set neither --timeout nor any other flag: the hint is about the app and its descriptor.
        assert "--" not in failure["hint"] and "timeoutSeconds" in failure["hint"] and "/health " in failure["hint"]
        assert log.count("answer of shop-1-") == 1 and '{"healthy": false, "version": "1"}' in log
        assert f"last lines of container web in pod {failure['pod']}:\n  starting version 1" in log
        # Each thing once: when it begins, and why the deployment failed.
        assert log.count("reports healthy: false") == 2, log
        assert f"failed: {failure['message']} ({failure['hint']})\n" in log
        assert log.count("Z FAILURE: Unhealthy, as said above\n") == 1, log
        kept = world.service.health_data(namespace, failed.id)
        assert len(kept) == len({entry["podName"] for entry in kept}) == 5
        for entry in kept:
            assert list(entry)[:2] == ["podName", "value"] and entry["value"] == '{"healthy": false, "version": "1"}'
            assert (entry["healthy"], entry["status"]) == (False, 200)
            assert entry["message"].startswith(f"pod {entry['podName']} at ")
            assert entry["headers"]["content-type"] == "application/json"
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
