"""The steps of a canary that no other strategy has: a small start, parts of the requests, pauses, more pods."""

from __future__ import annotations

import copy
import dataclasses

from deployer.plugins.strategy_canary.options import Part
from deployer.sdk.errors import StepFailed
from deployer.sdk.ingress import RequestMatch, RouteContext, Share
from deployer.sdk.kube import CONTROLLER, POD, NotReady
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    Done,
    Outcome,
    Park,
    Phase,
    StartWorkload,
    Step,
    VerifyHealth,
    Work,
    is_ready,
    require_ready,
)

LOOK = 10.0
"""Seconds, at most, between two looks at the new version's pods in a pause."""


class StartSmall(StartWorkload):
    """Create the new version's objects with fewer pods than it has in the end."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def run(self, work: Work) -> Outcome:
        controller = copy.deepcopy(work.plan.objects.controller)
        controller["spec"]["replicas"] = self._replicas
        objects = dataclasses.replace(work.plan.objects, controller=controller)
        plan = dataclasses.replace(work.plan, objects=objects, replicas=self._replicas)
        return super().run(dataclasses.replace(work, plan=plan))


class ScaleUp(Step):
    """As many pods as the next part needs, proven like the first ones. Somebody may have scaled to more."""

    phase = Phase.EXPOSE

    def __init__(self, id: str, replicas: int, budget: float | None) -> None:
        self.id = id
        self.budget = budget
        self._replicas = replicas

    def run(self, work: Work) -> Outcome:
        name = _versioned(work)
        found = work.kube.get(CONTROLLER, name)
        if found is not None and _replicas(found) < self._replicas:
            work.log(f"scaling {name} up from {_replicas(found)} to {self._replicas} pods")
            work.kube.scale(name, self._replicas)
        elif work.recall("scaled", None) is None:
            return Done()
        work.remember("scaled", self._replicas)
        work.kube.wait(
            CONTROLLER, lambda found: any(_replicas(one) >= self._replicas for one in found), labels={"name": name}
        )
        AwaitReady().run(work)
        if work.plan.health:
            VerifyHealth().run(work)
        return AwaitEndpoints().run(work)


class Split(Step):
    """Give the new version its part of the requests, and whatever matches."""

    phase = Phase.EXPOSE
    exposes = True
    budget = 60.0

    def __init__(self, number: int, weight: int, match: RequestMatch | None) -> None:
        self.id = f"split-{number}"
        self._first = number == 1
        self._weight = weight
        self._match = match

    def run(self, work: Work) -> Outcome:
        assert work.ingress
        _require_some_ready(work)
        context = work.route()
        shares = _shares(context, self._weight, self._match)
        work.ingress.split(context, shares)
        work.ingress.confirm_split(context, shares)
        work.log(f"{_what(self._weight, self._match)} of {context.route.host} now go to version {work.plan.version}")
        return Done()

    def undo(self, work: Work) -> None:
        """The first one takes all of it back, however far the others came: undone last, and once."""
        if not self._first or work.ingress is None:
            return
        context = work.route()
        if work.ingress.state(context) is None:
            return  # somebody took the whole route away
        assert context.route.previous
        require_ready(work.kube, context.route.previous.service, work.plan)
        version = work.plan.previous.version if work.plan.previous else ""
        work.log(f"moving all requests of {context.route.host} back to version {version}")
        shares = _shares(context, 0, None)
        work.ingress.split(context, shares)
        work.ingress.confirm_split(context, shares)
        work.scope.pause(work.ingress.minimum_hold)
        work.log(f"all requests of {context.route.host} go to version {version} again")


class Pause(Step):
    """Wait, holding nothing, and look at the new version's pods meanwhile."""

    phase = Phase.EXPOSE
    budget = 60.0

    def __init__(self, number: int, part: Part) -> None:
        self.id = f"pause-{number}"
        self._part = part

    def run(self, work: Work) -> Outcome:
        pods = _require_some_ready(work)
        controller = work.kube.get(CONTROLLER, _versioned(work))
        if controller is None or len(pods) < _replicas(controller):
            AwaitReady().run(work)  # which says what is wrong with them
        began = work.recall("began", None)
        left = work.left("began", self._part.pause)
        if not left:
            return Done()
        until = work.now() + min(left, LOOK)
        work.waiting(f"the end of {self.id}, in which the new version gets a part of the requests", work.now() + left)
        said = f"next step in {left:g} s" if began is None else ""
        return Park(until, said, NotReady.among(pods, {"name": _versioned(work)}))


def _require_some_ready(work: Work) -> list[Document]:
    """The new version's ready pods. Raises StepFailed when there is none: its part of the requests would be lost."""
    pods = work.kube.items(POD, {"name": _versioned(work)})
    ready = [pod for pod in pods if is_ready(pod)]
    if not ready:
        raise StepFailed(
            f"none of the {len(pods)} pods of version {work.plan.version} is ready any more",
            reason="NotReady",
            hint="see in the pods' logs why they end, or their readiness probe fails, under real requests",
        )
    return ready


def _shares(context: RouteContext, weight: int, match: RequestMatch | None) -> tuple[Share, Share]:
    old, new = context.route.previous, context.route.backend
    assert old
    return Share(old.service, old.port, 100 - weight), Share(new.service, new.port, weight, match)


def _what(weight: int, match: RequestMatch | None) -> str:
    parts = [f"{weight} % of the requests"] if weight else []
    return " and ".join([*parts, *(["the requests that match"] if match else [])])


def _replicas(controller: Document) -> int:
    return int(controller["spec"].get("replicas", 1))


def _versioned(work: Work) -> str:
    return f"{work.plan.app}-{work.plan.version}"
