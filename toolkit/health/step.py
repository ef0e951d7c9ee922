"""The step that asks every pod of a new version for its health, and what is told when one does not pass."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import BODY_LIMIT, HealthRounds, HttpAnswer, Verdict
from deployer.core.contract.kube import KubeAccess, is_active
from deployer.core.contract.strategy import Done, Duty, Outcome, Phase, Step, Work
from deployer.core.errors import DeadlineExceeded, StepFailed, require_answers
from deployer.core.model.descriptors import app_containers, health_port
from deployer.core.model.kind import POD
from deployer.core.model.records import Document
from deployer.kube.pods import container_statuses, controlled_by, name_of, short, uid_of, wanted_pods
from deployer.toolkit.health.runner import CHECK_TIMEOUT
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.readiness.explain import container_state
from deployer.toolkit.readiness.judge import Hopeless, ReadyJudge
from deployer.toolkit.workload import own_controller

HEALTH_INTERVAL = 1.0
"""Seconds between two rounds of health checks once the first, quick ones have not passed."""

HEALTH_PASSES = 2
"""Rounds in a row that every pod must pass, so that an app that flaps is not switched to."""

KINDS_TOLD = 3
"""Different answers of unhealthy pods that a sentence has, each with one pod as the example."""

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
        asked = Asked()
        try:
            with diagnose.in_time(work.scope) as scope:
                self._until_healthy(work, work.health, asked, scope)
        except DeadlineExceeded as over:
            require_answers(over)
            raise self._missed(work, asked) from None
        finally:
            if asked.verdicts:
                work.health.keep(asked.pods, asked.verdicts)
        work.log(f"healthy: {len(asked.pods)} of {len(asked.pods)} pods")
        return Done()

    def _until_healthy(self, work: Work, health: HealthRounds, asked: Asked, scope: CancelScope) -> None:
        """Ask round after round. Raises StepFailed when the pods come to an end that no round can heal."""
        names = ("max_restarts", "image_pull_attempts", "unschedulable_grace", "admission_grace")
        judge = ReadyJudge(*(getattr(work.plan.settings, name) for name in names))
        passed: dict[str, int] = {}
        said: set[str] = set()
        rounds = 0
        while True:
            controller = own_controller(work)
            pods = self._pods(work.kube.with_scope(scope), controller)
            asked.pods, asked.verdicts = pods, health.check_all(pods, scope)
            rounds += 1
            # Counted by uid: a pod that was replaced starts again at nothing.
            passed = {uid: passed.get(uid, 0) + 1 if v.healthy else 0 for uid, v in asked.verdicts.items()}
            if pods and all(passed.get(uid_of(p), 0) >= HEALTH_PASSES for p in pods):
                return
            if pods and not asked.unhealthy():
                continue
            if new := asked.kinds().keys() - said:
                work.log(f"not healthy yet: {asked.text(new)}")
                said |= new
            # A container without a readiness probe counts as ready between one crash and the next.
            end = judge.judge(controller, pods, lambda _: (), time.monotonic())
            if isinstance(end, Hopeless):
                diagnose.tell(work.kube, end, work.log)
                raise end.failure
            scope.pause(min(HEALTH_INTERVAL, 0.1 * rounds))

    def _missed(self, work: Work, asked: Asked) -> StepFailed:
        """Why it was not healthy in time, with what the pods answered and wrote."""
        kinds = list(asked.kinds().values())
        for pods in kinds[:KINDS_TOLD]:
            verdict = asked.verdicts.get(uid_of(pods[0]))
            if verdict and verdict.body.strip():
                work.log(f"answer of {name_of(pods[0])}: {short(verdict.body, ANSWER_TOLD)}")
        example = kinds[0][0] if kinds else None
        port = health_port(work.plan.descriptor)
        state = ""
        if example is not None:
            diagnose.tell_last_lines(work.kube, name_of(example), _asked_container(example, port), work.log)
            state = next(filter(None, map(container_state, container_statuses(example))), "")
        return StepFailed(
            f"the health checks did not pass in time: {asked.text()}{'; it ' if state else ''}{state}",
            reason="Unhealthy",
            pod=name_of(example) if example else "",
            hint=hint(asked.verdicts.get(uid_of(example)), work.plan.descriptor, port) if example else _FLAPS,
        )

    def _ask_once(self, work: Work, health: HealthRounds) -> Outcome:
        pods = self._pods(work.kube, own_controller(work))
        asked = Asked(pods, health.check_all(pods, work.scope))
        health.keep(asked.pods, asked.verdicts)
        work.log(f"health checks ignored: {asked.text() if asked.unhealthy() else 'all pods are healthy'}")
        return Done()

    def _pods(self, kube: KubeAccess, controller: Document) -> list[Document]:
        """The pods to ask: those that the controller wants, ready or not, but none that is on its way out."""
        uid = uid_of(controller)
        wanted = wanted_pods(controller)

        def enough(pods: list[Document]) -> list[Document] | None:
            live = [p for p in pods if controlled_by(p, uid) and is_active(p)]
            return live if len(live) >= wanted and all(p.get("status", {}).get("podIP") for p in live) else None

        return kube.wait(POD, enough, labels={"name": name_of(controller)})


@dataclass(slots=True)
class Asked:
    """A round of health checks."""

    pods: list[Document] = field(default_factory=list)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def unhealthy(self) -> list[Document]:
        """The pods that did not pass."""

        def passed(pod: Document) -> bool:
            verdict = self.verdicts.get(uid_of(pod))
            return verdict is not None and verdict.healthy

        return [p for p in self.pods if not passed(p)]

    def kinds(self) -> dict[str, list[Document]]:
        """The unhealthy pods by what is wrong with them, in words without the pod."""
        found: dict[str, list[Document]] = {}
        for pod in self.unhealthy():
            found.setdefault(self._wrong(pod), []).append(pod)
        return found

    def _wrong(self, pod: Document) -> str:
        verdict = self.verdicts.get(uid_of(pod))
        return _parted(pod, verdict)[1] if verdict else "did not answer before the time was up"

    def _subject(self, pods: Sequence[Document]) -> str:
        """The pods, as the subject of a sentence that is true of each."""
        verdict = self.verdicts.get(uid_of(pods[0]))
        example = _parted(pods[0], verdict)[0] if verdict else f"pod {name_of(pods[0])}"
        return example if len(pods) == 1 else f"each of {len(pods)} pods, such as {example},"

    def text(self, kinds: Collection[str] | None = None) -> str:
        """What was wrong (all of it, or these kinds), each thing once: a sentence that stays short however many pods
        there are."""
        if not self.pods:
            return "there was no pod to ask"
        found = {wrong: pods for wrong, pods in self.kinds().items() if kinds is None or wrong in kinds}
        parts = [f"{self._subject(pods)} {wrong}" for wrong, pods in list(found.items())[:KINDS_TOLD]]
        if more := sum(map(len, list(found.values())[KINDS_TOLD:])):
            parts.append(f"{more} more are unhealthy for other reasons")
        return "; ".join(parts) or "no two rounds in a row passed"


def _parted(pod: Document, verdict: Verdict) -> tuple[str, str]:
    """A verdict's sentence as subject and the rest, `pod x at 10.0.0.1:80` and `answered HTTP 500`."""
    name, message = name_of(pod), short(verdict.message)
    found = re.match(rf"(pod {re.escape(name)}(?: at [\[\]0-9a-fA-F.:]+\d)?):? (.+)", message)
    return (found[1], found[2]) if found else (f"pod {name}:", message.replace(name, "the pod"))


def hint(verdict: Verdict | None, descriptor: Document, port: int) -> str:
    """What those who wrote the descriptor can do about an unhealthy pod: the app and the descriptor, no setting."""
    path = f"/{str(descriptor.get('healthCheckPath') or '').lstrip('/')}"
    answer = verdict.answer if verdict else None
    if answer is None:
        asked = f" and answers {path}" if "healthCheckPath" in descriptor else ""
        return (
            f"check that the app listens on port {port} (healthCheckPort) on all addresses{asked} within "
            f"{CHECK_TIMEOUT:g} s; {_SLOW_START}"
        )
    return _about(answer, path, port)


def _about(answer: HttpAnswer, path: str, port: int) -> str:
    """What to do about an answer of a pod that is unhealthy."""
    match answer.status:
        case 400 | 421:
            said = "check that the app takes requests for its pod's address, or name the host that it wants in "
            said += "healthCheckHost"
        case 401 | 403:
            said = f"have the app answer {path} without credentials, or name another path in healthCheckPath"
        case 404 | 405 | 501:
            said = f"correct healthCheckPath, which is {path}, or healthCheckPort, which is {port}"
        case status if 300 <= status <= 399:
            said = f"redirects are not followed: instead of {path} name the path that answers itself in healthCheckPath"
        case _ if answer.ok and answer.truncated:
            said = f"have the app answer {path} to the end within {CHECK_TIMEOUT:g} s, with at most "
            said += f"{BODY_LIMIT >> 10} KiB"
        case _ if answer.ok:
            said = f"the app's own answer to {path} says so: see it in the log or in healthcheckdata; {_SLOW_START}"
        case status:
            said = f"see in the app's last lines in the log why it answers HTTP {status}; {_SLOW_START}"
    return said


_FLAPS = "find out why the app answers its health check well only now and then, such as an overload or a backend"

_SLOW_START = (
    "if the app needs more time to start, give it a readinessProbe: health checks begin when the pods are ready, for "
    "which timeoutSeconds gives more time"
)


def _asked_container(pod: Document, port: int) -> str:
    """The container that the health check asks: the one that declares the port, else the first."""
    containers = app_containers(pod.get("spec", {}))
    declares = (c for c in containers if any(p.get("containerPort") == port for p in c.get("ports") or ()))
    return str(next(declares, containers[0] if containers else {}).get("name", ""))
