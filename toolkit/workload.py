"""What the steps share: looking at a version's objects, leading the Service to them, removing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from deployer.core.contract.kube import KubeAccess, is_ready
from deployer.core.contract.strategy import Work
from deployer.core.errors import (
    NO_WAY_BACK,
    DeadlineExceeded,
    KubeForbidden,
    OperatorNeeded,
    StepFailed,
    require_answers,
)
from deployer.core.model.kind import CONTROLLER, ENDPOINT_SLICE, POD, SERVICE, Kind
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Backend, Route
from deployer.core.model.records import Document, Plan
from deployer.kube import ownership
from deployer.kube.pods import controlled_by, has_controller, name_of, ready_endpoints, service_slices, wanted_pods
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.readiness.explain import explain_not_ready


def own_controller(work: Work, *, fresh: bool = False) -> Document:
    """This deployment's ReplicationController, from the informer; `fresh`: as the API server has it at this moment.

    Raises StepFailed when somebody removed or replaced it.
    """
    wanted = work.plan.objects.controller
    if not fresh:
        for mirrored in work.kube.items(CONTROLLER, {"name": name_of(wanted)}):
            if _is_own(work, mirrored):
                return mirrored
    # One that the informer does not have may have been created, or replaced, a moment ago.
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
    service = work.plan.objects.versioned_service
    if service is None:
        return
    controller = own_controller(work, fresh=fresh)
    if fresh:
        require_selector(_own(work, SERVICE, service), service["spec"]["selector"])
    uid, wanted = controller["metadata"]["uid"], wanted_pods(controller)
    seen: list[Document] = []

    def enough(pods: list[Document]) -> list[str] | None:
        seen[:] = [p for p in pods if controlled_by(p, uid)]
        ready = [p["metadata"]["uid"] for p in seen if is_ready(p)]
        if len(ready) < wanted:
            work.waiting(f"{wanted - len(ready)} more of {wanted} pods to be ready")
        return ready if len(ready) >= wanted else None

    try:
        uids = work.kube.wait(POD, enough, labels={"name": name_of(controller)})
    except DeadlineExceeded as over:
        require_answers(over)
        raise StepFailed(
            f"the pods did not stay ready: {explain_not_ready(controller, seen, lambda _: ())}",
            reason="NotReady",
            hint="see why the containers end, or a readiness probe fails, soon after they start",
        ) from over
    diagnose.await_endpoints(work.kube, name_of(service), uids, log or (lambda _: None), work.waiting)


def require_selector(found: Document, *allowed: Mapping[str, str]) -> None:
    """Raise StepFailed when a Service selects something else: somebody had a hand in it, and may have had reasons."""
    selector = found["spec"].get("selector") or {}
    if selector not in allowed:
        raise StepFailed(
            f"service {name_of(found)} selects {_selector_text(selector)} instead of "
            f"{' or '.join(_selector_text(one) for one in allowed)}: somebody changed it during the deployment",
            reason="ObjectChanged",
            hint="find out who edits it, restore it, then deploy again",
        )


def _selector_text(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "nothing"


def put_service(kube: KubeAccess, wanted: Document, *, instead_of: Document | None) -> None:
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

    kube.put_shared(SERVICE, name_of(wanted), change, role=ownership.ROLE_SERVICE)


def keep_node_ports(old: list[Document], new: list[Document]) -> list[Document]:
    """Carry over `nodePort`, which the API server or an operator chose: by the port's name, else by its number, as a
    Service's only port needs no name, and those of the original often have none."""
    chosen = [port for port in old if "nodePort" in port]
    by_name = {port["name"]: port["nodePort"] for port in chosen if port.get("name")}
    again = {port.get("name") for port in new} & by_name.keys()
    by_number = {_number(port): port["nodePort"] for port in chosen if port.get("name") not in again}
    kept = (by_name.get(port.get("name")) or by_number.get(_number(port)) for port in new)
    return [{**port, "nodePort": number} if number else port for port, number in zip(new, kept, strict=True)]


def _number(port: Document) -> tuple[int, str]:
    return port["port"], port.get("protocol") or "TCP"


def leads_to(backends: Sequence[Backend], service: str) -> bool:
    """True when any traffic may go to that Service."""
    return any(b.service == service and b.weight > 0 for b in backends)


def route_back(plan: Plan) -> Route | None:
    """The route as it was before the switch, or None when there was none.

    What the previous deployment had pinned is used where it is known, or what could be seen of the original's.
    """
    previous = plan.previous
    if plan.route is None or previous is None or plan.route.previous is None:
        return None
    before = previous.last_route or dataclasses.replace(
        plan.route, backend=plan.route.previous, version=previous.version, deployment=previous.deployment
    )
    displaces = plan.ingress.name if plan.ingress and plan.displaced else ""
    return dataclasses.replace(before, previous=plan.route.backend, displaces=displaces)


def require_ready(kube: KubeAccess, service: str, plan: Plan) -> None:
    """Raise OperatorNeeded unless the Service has a ready endpoint: nothing moves back onto what is not there."""
    slices = kube.list(ENDPOINT_SLICE, service_slices(service))
    if next(ready_endpoints(slices), None) is None:
        raise OperatorNeeded(
            f"version {plan.version} failed after the switch, but {service} has no ready pod to go back to: "
            f"everything is kept as it is; repair one of the two versions",
            reason=NO_WAY_BACK,
        )


def remove_workload(work: Work) -> None:
    """ReplicationController and versioned Service: only those of exactly that deployment, to which nothing leads.

    For undoing. Waits for no pods, which end by themselves: an undo does that for all that a deployment began.
    """
    if remove_controller(work):
        work.log(f"removed {versioned_name(work.plan.app, work.plan.version)}")
    remove_versioned_service(work)


def remove_controller(work: Work, *, original_ok: bool = False) -> str | None:
    """Its uid, by which its pods are known; empty when it was gone already, and after a crash only their labels are
    left of them. None when the controller of that name is somebody else's, who keeps it.
    """
    name = versioned_name(work.plan.app, work.plan.version)
    found = next(iter(work.kube.items(CONTROLLER, {"name": name})), None)
    gone = work.kube.delete(CONTROLLER, name, deployment=work.plan.deployment, original_ok=original_ok)
    if not gone and not (found and work.kube.owned_by(found, work.plan.deployment)):
        return None
    return str(found["metadata"]["uid"]) if found else ""


def remove_versioned_service(work: Work, *, original_ok: bool = False) -> None:
    """The last of a version's objects to go."""
    plan = work.plan
    if plan.objects.versioned_service:
        name = versioned_name(plan.app, plan.version)
        work.kube.delete(SERVICE, name, deployment=plan.deployment, original_ok=original_ok)


def workload_labels(plan: Plan) -> dict[str, str]:
    """The labels of a version's pods."""
    return {"name": versioned_name(plan.app, plan.version), "app": plan.app, "version": plan.version}


def remove_orphans(work: Work, pods: Sequence[Document]) -> None:
    """Pods that the controller made and somebody orphaned: the next one of its name would adopt them as its own."""
    delete_orphans(work.kube, work.plan, pods, work.log)


def delete_orphans(kube: KubeAccess, plan: Plan, pods: Sequence[Document], log: Callable[[str], None]) -> None:
    """See `remove_orphans`."""
    prefix = f"{versioned_name(plan.app, plan.version)}-"
    for pod in pods:
        if has_controller(pod) or pod["metadata"].get("generateName") != prefix:
            continue
        try:
            kube.delete_orphan(pod)
            log(f"removed pod {name_of(pod)}, which had no controller any more")
        except KubeForbidden as error:
            log(f"pod {name_of(pod)}, which has no controller any more, is left: {error}")


def backends_behind(kube: KubeAccess, app: str, backends: Sequence[Backend]) -> tuple[Backend, ...]:
    """The same backends, with the versioned Service that the unversioned one stands for now in place of that; without
    it when it is not there or selects no version."""
    found: list[Backend] = []
    for backend in backends:
        if backend.service != app:
            found.append(backend)
            continue
        service = kube.get(SERVICE, app)
        selector = (service or {}).get("spec", {}).get("selector") or {}
        if version := selector.get("version"):
            found.append(dataclasses.replace(backend, service=f"{app}-{version}"))
    return tuple(dict.fromkeys(found))
