"""Who else in the cluster answers for a host: found before traffic moves, as data planes keep silent about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from deployer.core.contract.ingress import IngressProvider, RouteContext
from deployer.core.contract.kinds import HTTP_ROUTE, INGRESS
from deployer.core.contract.kube import KubeAccess
from deployer.core.errors import KubeForbidden, KubeNotFound, StepFailed
from deployer.core.model.kind import Kind
from deployer.core.model.records import Document
from deployer.core.settings import www_twin

_REDIRECT = "nginx.ingress.kubernetes.io/from-to-www-redirect"


def require_free(context: RouteContext, provider: IngressProvider) -> None:
    """Raise StepFailed when somebody else's Ingress or HTTPRoute answers for all of the route's host, or the preview's.

    What may not be listed is not checked, and the log says so.
    """
    route = context.route
    hosts = [host for host in (route.host, route.preview.host) if host]
    for host, found in claimants(context.kube, hosts, context.log, provider.contends).items():
        if found:
            raise StepFailed(
                f"{host} is already served by {' and '.join(found)}, which this Deployer did not make for "
                f"{route.app}: which of the two gets the traffic is up to the ingress controller",
                reason="HostTaken",
                hint="remove the other one, or choose another frontend",
            )


def require_only(route_object: str, leads_to: Collection[str], expected: Collection[str], strange: str = "") -> None:
    """Raise StepFailed when somebody changed a route during the deployment.

    route_object   kind and name, as `Ingress shop`
    leads_to       the Services to which it leads
    expected       those to which it may lead
    strange        what else it has that was not written by us, in words; empty for nothing
    """
    wrong = [service for service in leads_to if service not in expected]
    said = f"leads to {' and '.join(wrong)}" if wrong else f"has {strange}" if strange else ""
    if said:
        raise StepFailed(
            f"{route_object} {said}, and not only to {' or '.join(sorted(expected))}: "
            "somebody changed it during the deployment",
            reason="ObjectChanged",
            hint="find out who edits it, restore it, then deploy again",
        )


def www_twin_is_free(context: RouteContext, provider: IngressProvider, log: Callable[[str], None]) -> bool:
    """May the other `www.` host of the route be redirected? False, with a line in the log, when it is taken."""
    twin = www_twin(context.route.host)
    # What could not be checked was said of the host itself already.
    found = claimants(context.kube, [twin], lambda _: None, provider.contends)[twin]
    if found:
        log(f"redirectWww is left out: {' and '.join(found)} has the host {twin}")
    return not found


def claimants(
    kube: KubeAccess, hosts: Collection[str], log: Callable[[str], None], counts: Callable[[Document], bool]
) -> dict[str, list[str]]:
    """For each of these hosts the foreign Ingresses and HTTPRoutes, in words, that lead its path `/` somewhere.

    `counts`: does that object concern the data plane in question?
    """
    found: dict[str, list[str]] = {host: [] for host in hosts}
    for kind in (INGRESS, HTTP_ROUTE):
        for item in _visible(kube, kind, log):
            if _own(kube, item) or item["metadata"].get("deletionTimestamp") or not counts(item):
                continue
            place = f"{kind.kind} {item['metadata']['name']} in namespace {item['metadata']['namespace']}"
            for host in found.keys() & (ingress_hosts(item) if kind == INGRESS else _http_route_hosts(item)):
                found[host].append(place)
    return found


def ingress_hosts(ingress: Mapping[str, Any]) -> set[str]:
    """The hosts whose path `/` an Ingress leads somewhere, those that it redirects included."""
    hosts = set()
    for rule in ingress.get("spec", {}).get("rules") or ():
        paths = (rule.get("http") or {}).get("paths") or [{}]
        if rule.get("host") and any((path.get("path") or "/") == "/" for path in paths):
            hosts.add(rule["host"])
    if (ingress["metadata"].get("annotations") or {}).get(_REDIRECT) == "true":
        hosts |= {www_twin(host) for host in hosts}
    return hosts


def _http_route_hosts(route: Mapping[str, Any]) -> set[str]:
    spec = route.get("spec") or {}

    def whole(match: Mapping[str, Any]) -> bool:
        return (match.get("path") or {}).get("value", "/") == "/" and not match.get("headers")

    if any(whole(match) for rule in spec.get("rules") or [{}] for match in rule.get("matches") or [{}]):
        return set(spec.get("hostnames") or ())
    return set()


def _own(kube: KubeAccess, found: Document) -> bool:
    """Of this very app: another namespace may have one of the same name."""
    here = found["metadata"]["namespace"] == kube.owner.namespace
    return here and (kube.is_ours(found) or kube.is_original(found))


def _visible(kube: KubeAccess, kind: Kind, log: Callable[[str], None]) -> list[Document]:
    try:
        return kube.everywhere(kind)
    except KubeNotFound:
        return []  # a cluster without the Gateway API
    except KubeForbidden:
        log(f"whether an {kind.kind} of another namespace has the host is not checked: no right to list them there")
    try:
        return kube.list(kind) if kind == INGRESS else []
    except KubeForbidden:
        log(f"nor whether one of namespace {kube.owner.namespace} has it")
        return []
