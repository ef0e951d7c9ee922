"""The steps that strategies share. Each looks at the cluster, so it can be run and undone any number of times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deployer.core import manifests
from deployer.core.descriptor import health_port
from deployer.core.errors import DeadlineExceeded, Hold, KubeForbidden, StepFailed
from deployer.core.gate import Gate
from deployer.core.health import Verdict
from deployer.core.kube import diagnose
from deployer.core.kube.diagnose import controlled_by, is_active, name_of, ready_endpoints, service_slices
from deployer.core.kube.kinds import CONTROLLER, ENDPOINT_SLICE, POD, SERVICE, Kind
from deployer.core.kube.mirror import CONTROLLED_BY, Gone
from deployer.core.kube.owned import OwnedKube
from deployer.core.kube.pods import has_controller, pods_left, short
from deployer.core.providers import Backend, Done, HealthRounds, Outcome, Park, Phase, Step, Work
from deployer.core.records import Document, Plan

HEALTH_INTERVAL = 1.0
"""Seconds between two rounds of health checks once the first, quick ones have not passed."""

HEALTH_PASSES = 2
"""Rounds in a row that every pod must pass, so that an app that flaps is not switched to."""

PODS_GONE = 30.0
"""Seconds, beyond their own grace time, that pods may take to be gone (contract: no forced deletion)."""

PODS_TOLD = 3
"""Pods that a sentence about unhealthy ones names."""

ANSWER_TOLD = 1000
"""Characters of an unhealthy pod's answer that go to the log; the health check data has all of it."""

SERVICE_HOLD = 10.0
"""Seconds, at most, for which a failed version stays after the unversioned Service was led away from it."""


# --- start --------------------------------------------------------------------------------------------------------


class StartWorkload(Step):
    """Create the versioned Service and the ReplicationController."""

    id = "start-workload"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        objects = work.plan.objects
        if objects["versioned_service"]:
            work.kube.create(SERVICE, objects["versioned_service"])
        controller = work.kube.create(CONTROLLER, objects["controller"])
        work.log(f"created {name_of(controller)}, replicas: {work.plan.replicas}")
        return Done()

    def undo(self, work: Work) -> None:
        remove_workload(work)


class AwaitReady(Step):
    """Wait until as many pods of this very ReplicationController are Ready as it wants."""

    id = "await-ready"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        settings = work.plan.settings
        controller = own_controller(work)
        if service := work.plan.objects["versioned_service"]:
            # So that this mirror has its first list before the pods are ready, not after.
            work.kube.items(ENDPOINT_SLICE, service_slices(name_of(service)))
        pods = diagnose.await_ready(
            work.kube,
            name_of(controller),
            controller["metadata"]["uid"],
            work.log,
            max_restarts=settings["max_restarts"],
            image_pull_attempts=settings["image_pull_attempts"],
            unschedulable_grace=settings["unschedulable_grace"],
            admission_grace=settings["admission_grace"],
        )
        work.log(f"{len(pods)} of {len(pods)} pods ready")
        return Done()


# --- verify -------------------------------------------------------------------------------------------------------


class VerifyHealth(Step):
    """Ask the health checker about every pod until all are healthy, several rounds in a row.

    With `ignoreHealthCheck` one round is asked and recorded, whatever it says.
    """

    id = "verify-health"
    phase = Phase.VERIFY

    def run(self, work: Work) -> Outcome:
        if not work.plan.health:
            return Done()
        if work.health is None:
            raise StepFailed(f"health checker {work.plan.health['name']} is not installed", reason="NoHealthChecker")
        if work.plan.descriptor.get("ignoreHealthCheck"):
            return self._ask_once(work, work.health)
        asked = _Asked()
        try:
            with diagnose.in_time(work.gate) as gate:
                self._until_healthy(work, work.health, asked, gate)
        except DeadlineExceeded:
            raise self._missed(work, asked) from None
        finally:
            if asked.verdicts:
                work.health.keep(asked.pods, asked.verdicts)
        work.log(f"healthy: {len(asked.pods)} of {len(asked.pods)} pods")
        return Done()

    def _until_healthy(self, work: Work, health: HealthRounds, asked: _Asked, gate: Gate) -> None:
        """Ask round after round. Raises StepFailed when the pods come to an end that no round can heal."""
        names = ("max_restarts", "image_pull_attempts", "unschedulable_grace", "admission_grace")
        judge = diagnose.ReadyJudge(*(work.plan.settings[name] for name in names))
        passed: dict[str, int] = {}
        said, rounds = "", 0
        while True:
            controller = own_controller(work)
            pods = self._pods(work.kube.with_gate(gate), controller)
            asked.pods, asked.verdicts = pods, health.check_all(pods, gate)
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
            if isinstance(end, diagnose.Hopeless):
                diagnose.tell(work.kube, end, work.log)
                raise end.failure
            gate.pause(min(HEALTH_INTERVAL, 0.1 * rounds))

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
        states = (diagnose.container_state(c) for p in unhealthy[:1] for c in diagnose.container_statuses(p))
        state = next(filter(None, states), "")
        return StepFailed(
            f"the health checks did not pass in time: {asked.text()}{'; it ' if state else ''}{state}",
            reason="Unhealthy",
            pod=name_of(unhealthy[0]) if unhealthy else "",
            hint="see healthcheckdata and the last lines in the log; --timeout gives all apps more time",
        )

    def _ask_once(self, work: Work, health: HealthRounds) -> Outcome:
        pods = self._pods(work.kube, own_controller(work))
        asked = _Asked(pods, health.check_all(pods, work.gate))
        health.keep(asked.pods, asked.verdicts)
        work.log(f"health checks ignored: {asked.text() if asked.unhealthy() else 'all pods are healthy'}")
        return Done()

    def _pods(self, kube: OwnedKube, controller: Document) -> list[Document]:
        """The pods to ask: those that the controller wants, ready or not, but none that is on its way out."""
        uid = controller["metadata"]["uid"]
        wanted = diagnose.wanted_pods(controller)

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
    containers: list[Document] = pod.get("spec", {}).get("containers") or []
    declares = (c for c in containers if any(p.get("containerPort") == port for p in c.get("ports") or ()))
    return str(next(declares, containers[0] if containers else {}).get("name", ""))


# --- expose -------------------------------------------------------------------------------------------------------


class AwaitEndpoints(Step):
    """Wait until the versioned Service's EndpointSlices hold every pod, ready."""

    id = "await-endpoints"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        await_serving(work, work.log)
        return Done()


class PrepareRoute(Step):
    """Make the new version known to the data plane while the old one still has the public host."""

    id = "prepare-route"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            work.ingress.prepare(work.route())
        return Done()

    def undo(self, work: Work) -> None:
        if work.ingress and work.plan.route:
            work.ingress.release(work.route())


class SwitchRoute(Step):
    """One edit that leads the public host to the new version."""

    id = "switch-route"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            await_serving(work, fresh=True)
            work.log(f"switching {work.plan.route['host']} to version {work.plan.version}")
            work.ingress.switch(work.route())
        return Done()

    def undo(self, work: Work) -> None:
        """Move back, confirm the way back, and hold the new version until nobody is led to it any more."""
        if not (work.ingress and work.plan.route):
            return
        state = work.ingress.state(work.route())
        moved = state is not None and leads_to(state.backends, work.plan.route["backend"]["service"])
        # Once the way back was begun it is confirmed and held to its end, however often that takes.
        if not moved and not work.recall("moving-back", False):
            return
        back = route_back(work.plan)
        if back is None:
            work.ingress.remove(work.route())
            return
        require_ready(work.kube, back["backend"]["service"], work.plan)
        work.remember("moving-back", True)
        work.log(f"moving {back['host']} back to version {back['version']}")
        context = work.route(back)
        work.ingress.switch(context)
        work.ingress.confirm(context)
        work.gate.pause(work.ingress.minimum_hold)
        work.log(f"{back['host']} is led to version {back['version']} again")


class ConfirmRoute(Step):
    """Return only when every address of the data plane answers with the new version."""

    id = "confirm-route"
    phase = Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            began = time.monotonic()
            work.ingress.confirm(work.route())
            taken = time.monotonic() - began
            work.log(f"{work.plan.route['host']} answers with version {work.plan.version} after {taken:.2f} s")
        return Done()


class MoveService(Step):
    """Lead the unversioned Service to the new version: ports and selector in one write."""

    id = "move-service"
    phase = Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        wanted = work.plan.objects["service"]
        if wanted is None:
            return Done()
        await_serving(work, fresh=True)
        before = (work.plan.previous or {}).get("service_object")
        put_service(work.kube, wanted, instead_of=before)
        work.log(f"service {name_of(wanted)} selects version {work.plan.version}")
        return Done()

    def undo(self, work: Work) -> None:
        wanted = work.plan.objects["service"]
        if wanted is None:
            return
        found = work.kube.get(SERVICE, name_of(wanted))
        if found is None or found["spec"].get("selector") != wanted["spec"]["selector"]:
            return
        previous = work.plan.previous or {}
        before = previous.get("service_object")
        if not before:
            work.kube.delete_shared(SERVICE, name_of(wanted))
            return
        require_ready(work.kube, str(previous.get("service")), work.plan)
        # It is marked as the previous deployment's again, and not as this one's, of which nothing may stay.
        put_service(work.kube.for_deployment(str(previous.get("deployment"))), before, instead_of=wanted)
        work.log(f"service {name_of(wanted)} selects version {previous.get('version')} again")
        # Nodes and clients inside the cluster follow a little later.
        work.gate.pause(min(float(work.plan.settings["proxysleep"]), SERVICE_HOLD))


# --- retire and undeploy ------------------------------------------------------------------------------------------


class ReleaseRoute(Step):
    """Drop what the switch needed to lose nothing, before the pods of the old version go."""

    id = "release-route"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            work.ingress.release(work.route())
        return Done()


class RemoveRoute(Step):
    """Remove the app's route, for an undeployment or because the new descriptor has no frontend."""

    id = "remove-route"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            work.ingress.remove(work.route())
            work.log(f"removed the route of {work.plan.route['host']}")
        return Done()


class RemoveService(Step):
    """Remove the unversioned Service."""

    id = "remove-service"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        name = manifests.service_name(work.plan.app)
        there = work.kube.get(SERVICE, name) is not None
        if work.kube.delete_shared(SERVICE, name) and there:
            work.log(f"removed service {name}")
        return Done()


class CheckUnused(Step):
    """Refuse to go on while the Service or the route still selects the version that is to be removed."""

    id = "check-unused"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        plan = work.plan
        service = work.kube.get(SERVICE, manifests.service_name(plan.app))
        if service and (service["spec"].get("selector") or {}).get("version") == plan.version:
            raise Hold(f"service {plan.app} still selects version {plan.version}, which is to be removed; it stays")
        versioned = manifests.versioned_name(plan.app, plan.version)
        if plan.route:
            if work.ingress is None:
                raise Hold(
                    f"nobody can tell whether {plan.route['host']} still leads to {versioned}, which is to be removed: "
                    f"ingress provider {plan.ingress.get('name')} is not installed; it stays"
                )
            state = work.ingress.state(work.route())
            if state and leads_to(state.backends, versioned):
                raise Hold(f"the route of {state.host} still leads to {versioned}, which is to be removed; it stays")
        return Done()


class RemoveWorkload(Step):
    """Remove the ReplicationController, let its pods end, and last the versioned Service.

    Holds nothing while the pods use their grace time. None is ever ended by force; too late ones are told of.
    """

    id = "remove-workload"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        original_ok = bool(work.plan.settings.get("original"))
        uid = work.recall("controller", None)
        if uid is None:
            uid = remove_controller(work, original_ok=original_ok)
        if uid is not None:
            selector = {CONTROLLED_BY: uid} if uid else workload_labels(work.plan)
            # The mirror first, then the server itself: one that lags must not call pods gone that were just made.
            found = work.kube.items(POD, selector) or work.kube.list(POD, workload_labels(work.plan))
            if left := pods_left(found, uid):
                return self._park(work, uid, left, work.kube.gone(POD, selector))
            if uid:
                work.log(f"removed {manifests.versioned_name(work.plan.app, work.plan.version)}")
            _remove_orphans(work, found)
        remove_versioned_service(work, original_ok=original_ok)
        return Done()

    def _park(self, work: Work, uid: str, left: Sequence[Document], event: Gone) -> Outcome:
        began = work.recall("began", 0.0)
        if not began:
            began = time.time()
            work.remember("controller", uid)
            work.remember("began", began)
            work.log(f"waiting for its pods to end, {len(left)} left")
        limit = began + grace_time(work.plan) + PODS_GONE
        if time.time() < limit:
            return Park(limit, event=event)
        raise StepFailed(
            f"its pods were asked to end {time.time() - began:.0f} s ago and {len(left)} have not, like "
            f"{name_of(left[0])}: see whether a finalizer, or a node that does not answer, keeps them"
        )


def deploy_steps(plan: Plan | None = None) -> list[Step]:
    """Blue-green, in the order that loses nothing: the route first, then the Service, nothing removed yet.

    Those that `plan` needs, as each costs a durable note that it has begun; without one, all of them.
    """
    health: list[Step] = [VerifyHealth()] if plan is None or plan.health else []
    route: list[Step] = [PrepareRoute(), SwitchRoute(), ConfirmRoute()] if plan is None or plan.route else []
    return [StartWorkload(), AwaitReady(), *health, AwaitEndpoints(), *route, MoveService()]


def undeploy_steps() -> list[Step]:
    """The live version goes: first what leads to it, then what it consists of."""
    return [RemoveRoute(), RemoveService(), RemoveWorkload()]


def retire_steps() -> list[Step]:
    """The replaced version goes, once nothing selects it."""
    return [CheckUnused(), RemoveWorkload()]


# --- what the steps share -----------------------------------------------------------------------------------------


def own_controller(work: Work, *, fresh: bool = False) -> Document:
    """This deployment's ReplicationController, from the mirror; `fresh`: as the API server has it at this moment.

    Raises StepFailed when somebody removed or replaced it.
    """
    wanted = work.plan.objects["controller"]
    if not fresh:
        for mirrored in work.kube.items(CONTROLLER, {"name": name_of(wanted)}):
            if _is_own(work, mirrored):
                return mirrored
    # One that the mirror does not have may have been created, or replaced, a moment ago.
    return _own(work, CONTROLLER, wanted)


def _is_own(work: Work, found: Document) -> bool:
    """One that is being deleted replaces no pods and is as good as gone."""
    return work.kube.owned_by(found, work.plan.deployment) and not found["metadata"].get("deletionTimestamp")


def _own(work: Work, kind: Kind, wanted: Document) -> Document:
    """An object of this deployment as the API server has it at this moment. Raises StepFailed."""
    found = work.kube.get(kind, name_of(wanted))
    if found is None or not _is_own(work, found):
        raise StepFailed(
            f"{kind.kind.lower()} {name_of(wanted)} was removed or replaced by somebody while it was being deployed",
            reason="ObjectGone",
            hint="deploy again",
        )
    return found


def await_serving(work: Work, log: Callable[[str], None] | None = None, *, fresh: bool = False) -> None:
    """Return when as many pods as the controller wants are ready and in the versioned Service's EndpointSlices.

    Asked again right before traffic moves, with a `fresh` look: somebody may have had a hand in it since. Raises
    StepFailed.
    """
    service = work.plan.objects["versioned_service"]
    if service is None:
        return
    controller = own_controller(work, fresh=fresh)
    if fresh:
        require_selector(_own(work, SERVICE, service), service["spec"]["selector"])
    uid, wanted = controller["metadata"]["uid"], diagnose.wanted_pods(controller)
    seen: list[Document] = []

    def enough(pods: list[Document]) -> list[str] | None:
        seen[:] = [p for p in pods if controlled_by(p, uid)]
        ready = [p["metadata"]["uid"] for p in seen if diagnose.is_ready(p)]
        return ready if len(ready) >= wanted else None

    try:
        uids = work.kube.wait(POD, enough, labels={"name": name_of(controller)})
    except DeadlineExceeded as over:
        raise StepFailed(
            f"the pods did not stay ready: {diagnose.explain_not_ready(controller, seen, lambda _: ())}",
            reason="NotReady",
            hint="see why the containers end, or a readiness probe fails, soon after they start",
        ) from over
    diagnose.await_endpoints(work.kube, name_of(service), uids, log or (lambda _: None))


def require_selector(found: Document, *allowed: Mapping[str, str]) -> None:
    """Raise StepFailed when a Service selects something else: somebody had a hand in it, and may have had reasons."""
    selector = found["spec"].get("selector") or {}
    if selector not in allowed:
        raise StepFailed(
            f"service {name_of(found)} selects {_selector_text(selector)} instead of "
            f"{' or '.join(_selector_text(one) for one in allowed)}: somebody changed it during the deployment",
            reason="ObjectChanged",
            hint="find out who edits it, lead it back, then deploy again",
        )


def _selector_text(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "nothing"


def put_service(kube: OwnedKube, wanted: Document, *, instead_of: Document | None) -> None:
    """Write our fields of the unversioned Service, and only those, in one edit.

    `instead_of`: the Service as it should be until then; None: there should be none. Raises StepFailed when somebody
    led it elsewhere.
    """

    def change(found: Document | None) -> Document:
        if found is None:
            return wanted
        require_selector(found, *(o["spec"]["selector"] for o in (instead_of, wanted) if o is not None))
        found["spec"]["selector"] = wanted["spec"]["selector"]
        found["spec"]["ports"] = keep_node_ports(found["spec"].get("ports") or [], wanted["spec"]["ports"])
        labels = found["metadata"].setdefault("labels", {})
        labels.update(wanted["metadata"]["labels"])
        return found

    kube.put_shared(SERVICE, name_of(wanted), change, role=manifests.ROLE_SERVICE)


def keep_node_ports(old: list[Document], new: list[Document]) -> list[Document]:
    """Carry over `nodePort` by port name, which the API server or an operator chose."""
    numbers = {port.get("name"): port["nodePort"] for port in old if "nodePort" in port}
    return [{**p, "nodePort": numbers[p["name"]]} if p.get("name") in numbers else p for p in new]


def leads_to(backends: Sequence[Backend], service: str) -> bool:
    """True when any traffic may go to that Service."""
    return any(b.service == service and b.weight > 0 for b in backends)


def route_back(plan: Plan) -> Document | None:
    """The route as it was before the switch, or None when there was none.

    What the previous deployment had pinned is used where it is known; an adopted original has only its backend.
    """
    previous = plan.previous
    if plan.route is None or previous is None or not plan.route.get("previous"):
        return None
    if previous.get("route"):
        return {**previous["route"], "previous": plan.route["backend"]}
    return {
        **plan.route,
        "backend": plan.route["previous"],
        "previous": plan.route["backend"],
        "version": previous["version"],
        "deployment": previous["deployment"],
    }


def require_ready(kube: OwnedKube, service: str, plan: Plan) -> None:
    """Raise Hold unless the Service has a ready endpoint: nothing is moved back onto a version that is not there."""
    slices = kube.list(ENDPOINT_SLICE, service_slices(service))
    if next(ready_endpoints(slices), None) is None:
        raise Hold(
            f"version {plan.version} failed after the switch, but {service} has no ready pod to go back to: "
            f"everything is kept as it is; repair one of the two versions"
        )


def remove_workload(work: Work) -> None:
    """ReplicationController, its pods, then the versioned Service: only those of exactly that deployment."""
    uid = remove_controller(work)
    if uid is not None:
        orphans = diagnose.await_pods_gone(work.kube, uid, workload_labels(work.plan))
        if uid:
            work.log(f"removed {manifests.versioned_name(work.plan.app, work.plan.version)}")
        _remove_orphans(work, orphans)
    remove_versioned_service(work)


def remove_controller(work: Work, *, original_ok: bool = False) -> str | None:
    """Its uid, by which its pods are known; empty when it was gone already, and after a crash only their labels are
    left of them. None when the controller of that name is somebody else's, who keeps it.
    """
    name = manifests.versioned_name(work.plan.app, work.plan.version)
    found = next(iter(work.kube.items(CONTROLLER, {"name": name})), None)
    gone = work.kube.delete(CONTROLLER, name, deployment=work.plan.deployment, original_ok=original_ok)
    if not gone and not (found and work.kube.owned_by(found, work.plan.deployment)):
        return None
    return str(found["metadata"]["uid"]) if found else ""


def remove_versioned_service(work: Work, *, original_ok: bool = False) -> None:
    """The last of a version's objects to go."""
    plan = work.plan
    if plan.objects.get("versioned_service"):
        name = manifests.versioned_name(plan.app, plan.version)
        work.kube.delete(SERVICE, name, deployment=plan.deployment, original_ok=original_ok)


def workload_labels(plan: Plan) -> dict[str, str]:
    """The labels of a version's pods."""
    return {"name": manifests.versioned_name(plan.app, plan.version), "app": plan.app, "version": plan.version}


def grace_time(plan: Plan) -> float:
    """Seconds that a version's pods may take to end once they are asked to."""
    podspec = plan.objects.get("controller", {}).get("spec", {}).get("template", {}).get("spec", {})
    grace = podspec.get("terminationGracePeriodSeconds", 30)
    return float(grace if isinstance(grace, int) else 30)


def _remove_orphans(work: Work, pods: Sequence[Document]) -> None:
    """Pods that the controller made and somebody orphaned: the next one of its name would adopt them as its own."""
    prefix = f"{manifests.versioned_name(work.plan.app, work.plan.version)}-"
    for pod in pods:
        if has_controller(pod) or pod["metadata"].get("generateName") != prefix:
            continue
        try:
            work.kube.delete_orphan(pod)
            work.log(f"removed pod {name_of(pod)}, which had no controller any more")
        except KubeForbidden as error:
            work.log(f"pod {name_of(pod)}, which has no controller any more, is left: {error}")
