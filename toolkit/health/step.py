"""The step that asks every pod of a new version for its health, and what is told when one does not pass."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthRounds, Verdict
from deployer.core.contract.kube import KubeAccess, is_active
from deployer.core.contract.strategy import Done, Duty, Outcome, Phase, Step, Work
from deployer.core.descriptor import health_port
from deployer.core.errors import DeadlineExceeded, StepFailed
from deployer.core.model.kind import POD
from deployer.core.model.records import Document
from deployer.core.podspec.rules import app_containers
from deployer.kube.pods import container_statuses, controlled_by, name_of, short, wanted_pods
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.readiness.explain import container_state
from deployer.toolkit.readiness.judge import Hopeless, ReadyJudge
from deployer.toolkit.workload import own_controller

HEALTH_INTERVAL = 1.0
"""Seconds between two rounds of health checks once the first, quick ones have not passed."""

HEALTH_PASSES = 2
"""Rounds in a row that every pod must pass, so that an app that flaps is not switched to."""

PODS_TOLD = 3
"""Pods that a sentence about unhealthy ones names."""

ANSWER_TOLD = 1000
"""Characters of an unhealthy pod's answer that go to the log; the health check data has all of it."""


class VerifyHealth(Step):
    """Ask the health checker about every pod until all are healthy, several rounds in a row.

    With `ignoreHealthCheck` one round is asked and recorded, whatever it says.
    """

    id = "verify-health"
    phase = Phase.VERIFY
    fulfils = (Duty.HEALTH,)

    def run(self, work: Work) -> Outcome:
        if not work.plan.health:
            return Done()
        if work.health is None:
            raise StepFailed(f"health checker {work.plan.health.name} is not installed", reason="NoHealthChecker")
        if work.plan.descriptor.get("ignoreHealthCheck"):
            return self._ask_once(work, work.health)
        asked = _Asked()
        try:
            with diagnose.in_time(work.scope) as scope:
                self._until_healthy(work, work.health, asked, scope)
        except DeadlineExceeded:
            raise self._missed(work, asked) from None
        finally:
            if asked.verdicts:
                work.health.keep(asked.pods, asked.verdicts)
        work.log(f"healthy: {len(asked.pods)} of {len(asked.pods)} pods")
        return Done()

    def _until_healthy(self, work: Work, health: HealthRounds, asked: _Asked, scope: CancelScope) -> None:
        """Ask round after round. Raises StepFailed when the pods come to an end that no round can heal."""
        names = ("max_restarts", "image_pull_attempts", "unschedulable_grace", "admission_grace")
        judge = ReadyJudge(*(getattr(work.plan.settings, name) for name in names))
        passed: dict[str, int] = {}
        said, rounds = "", 0
        while True:
            controller = own_controller(work)
            pods = self._pods(work.kube.with_scope(scope), controller)
            asked.pods, asked.verdicts = pods, health.check_all(pods, scope)
            rounds += 1
            # Counted by uid: a pod that was replaced starts again at nothing.
            passed = {uid: passed.get(uid, 0) + 1 if v.healthy else 0 for uid, v in asked.verdicts.items()}
            if pods and all(passed.get(p["metadata"]["uid"], 0) >= HEALTH_PASSES for p in pods):
                return
            if pods and not asked.unhealthy():
                continue
            if (text := asked.text()) != said:
                work.log(f"not healthy yet: {text}")
                said = text
            # A container without a readiness probe counts as ready between one crash and the next.
            end = judge.judge(controller, pods, lambda _: (), time.monotonic())
            if isinstance(end, Hopeless):
                diagnose.tell(work.kube, end, work.log)
                raise end.failure
            scope.pause(min(HEALTH_INTERVAL, 0.1 * rounds))

    def _missed(self, work: Work, asked: _Asked) -> StepFailed:
        """Why it was not healthy in time, with what the pods answered and wrote."""
        unhealthy = asked.unhealthy()
        for pod in unhealthy[:PODS_TOLD]:
            verdict = asked.verdicts.get(pod["metadata"]["uid"])
            if verdict and verdict.body.strip():
                work.log(f"answer of {name_of(pod)}: {short(verdict.body, ANSWER_TOLD)}")
        if unhealthy:
            container = _asked_container(unhealthy[0], health_port(work.plan.descriptor))
            diagnose.tell_last_lines(work.kube, name_of(unhealthy[0]), container, work.log)
        states = (container_state(c) for p in unhealthy[:1] for c in container_statuses(p))
        state = next(filter(None, states), "")
        return StepFailed(
            f"the health checks did not pass in time: {asked.text()}{'; it ' if state else ''}{state}",
            reason="Unhealthy",
            pod=name_of(unhealthy[0]) if unhealthy else "",
            hint="see healthcheckdata and the last lines in the log; --timeout gives all apps more time",
        )

    def _ask_once(self, work: Work, health: HealthRounds) -> Outcome:
        pods = self._pods(work.kube, own_controller(work))
        asked = _Asked(pods, health.check_all(pods, work.scope))
        health.keep(asked.pods, asked.verdicts)
        work.log(f"health checks ignored: {asked.text() if asked.unhealthy() else 'all pods are healthy'}")
        return Done()

    def _pods(self, kube: KubeAccess, controller: Document) -> list[Document]:
        """The pods to ask: those that the controller wants, ready or not, but none that is on its way out."""
        uid = controller["metadata"]["uid"]
        wanted = wanted_pods(controller)

        def enough(pods: list[Document]) -> list[Document] | None:
            live = [p for p in pods if controlled_by(p, uid) and is_active(p)]
            return live if len(live) >= wanted and all(p.get("status", {}).get("podIP") for p in live) else None

        return kube.wait(POD, enough, labels={"name": name_of(controller)})


@dataclass(slots=True)
class _Asked:
    """A round of health checks."""

    pods: list[Document] = field(default_factory=list)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def unhealthy(self) -> list[Document]:
        """The pods that did not pass."""

        def passed(pod: Document) -> bool:
            verdict = self.verdicts.get(pod["metadata"]["uid"])
            return verdict is not None and verdict.healthy

        return [p for p in self.pods if not passed(p)]

    def text(self) -> str:
        """What was wrong, as a sentence that stays short however many pods there are."""
        parts = []
        unhealthy = self.unhealthy()
        for pod in unhealthy[:PODS_TOLD]:
            verdict = self.verdicts.get(pod["metadata"]["uid"])
            message = short(verdict.message) if verdict else "did not answer before the time was up"
            parts.append(message if name_of(pod) in message else f"pod {name_of(pod)}: {message}")
        if len(unhealthy) > PODS_TOLD:
            parts.append(f"{len(unhealthy) - PODS_TOLD} more did not pass either")
        if not self.pods:
            return "there was no pod to ask"
        return "; ".join(parts) or "no two rounds in a row passed"


def _asked_container(pod: Document, port: int) -> str:
    """The container that the health check asks: the one that declares the port, else the first."""
    containers = app_containers(pod.get("spec", {}))
    declares = (c for c in containers if any(p.get("containerPort") == port for p in c.get("ports") or ()))
    return str(next(declares, containers[0] if containers else {}).get("name", ""))
