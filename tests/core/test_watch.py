"""What the watch of a new version remembers of its containers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.core.errors import StepFailed
from deployer.core.operations.execution.handles import MOST_REMEMBERED
from deployer.toolkit.steps.watch import WatchVersion


def pod(number: int, *restarts: int) -> dict[str, Any]:
    statuses = [{"name": f"container-{at}", "restartCount": count} for at, count in enumerate(restarts)]
    uid = f"00000000-0000-4000-8000-{number:012}"
    return {"metadata": {"name": f"shop-{number}", "uid": uid}, "status": {"containerStatuses": statuses}}


def test_a_large_version_is_remembered_in_little() -> None:
    memory: dict[str, Any] = {}
    work: Any = SimpleNamespace(recall=memory.get, remember=memory.__setitem__, now=lambda: 0.0)
    pods = [pod(number, 0, 0, 0) for number in range(1000)]
    WatchVersion(0.0, 5.0)._check_crashes(work, pods)
    assert len(json.dumps(memory)) < MOST_REMEMBERED


def test_restarts_count_from_when_the_watch_began() -> None:
    memory: dict[str, Any] = {}
    kube = SimpleNamespace(pod_log=lambda *_, **__: "", scope=SimpleNamespace(pause=lambda _: None))
    work: Any = SimpleNamespace(
        recall=memory.get, remember=memory.__setitem__, kube=kube, log=lambda _: None, now=lambda: 0.0
    )
    watch = WatchVersion(0.0, 5.0)
    for restarts in (3, 4):
        watch._check_crashes(work, [pod(1, restarts)])
    with pytest.raises(StepFailed, match="crashed 2 times since the switch"):
        watch._check_crashes(work, [pod(1, 5)])
