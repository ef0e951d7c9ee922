"""Who else in the cluster answers for a host: found before traffic moves, as data planes keep silent about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from deployer.core.calls import Invocation, no_list
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RouteClaim, RouteContext, RouteReader
from deployer.core.contract.kube import KubeAccess
from deployer.core.errors import DeployerError, KubeForbidden, Revoked, StepFailed
from deployer.core.model.hosts import www_twin
from deployer.core.model.kind import HTTP_ROUTE, INGRESS
from deployer.core.model.records import Document

logger = logging.getLogger(__name__)

DEADLINE = 15.0
"""Seconds in which a provider must have said who has hosts."""

MOST_NAMED = 3
"""Other routes of a host that a sentence names."""

_HINT = "ask the plugin's author"
_REDIRECT = "nginx.ingress.kubernetes.io/from-to-www-redirect"


def require_free(context: RouteContext, provider: IngressProvider) -> None:
    """Raise StepFailed when somebody else's object answers for all of the route's host, or the preview's: an Ingress,
    an HTTPRoute, or one of those kinds that the provider knows (`host_claims`).

    What may not be listed is not checked, and the log says so.
    """
    route = context.route
    hosts = [host for host in (route.host, route.preview.host) if host]
    found = claimants(context.kube, hosts, context.log, provider.contends)
    for claim in _claims(context, provider, hosts):
        for host in found.keys() & set(claim.hosts):
            found[host].append(_place(claim.found))
    for host, places in found.items():
        if places:
            raise StepFailed(
                f"{host} is already served by {_and(places)}, which this Deployer did not make for "
                f"{route.app}: which of the two gets the traffic is up to the ingress controller",
                reason="HostTaken",
                hint="remove the other one, or choose another frontend",
            )


def _and(places: Sequence[str]) -> str:
    """The first of them, in a sentence."""
    more = len(places) - MOST_NAMED
    return " and ".join([*places[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


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
    reader = RouteReader(kube, log)
    for kind, hosts_of in ((INGRESS, ingress_hosts), (HTTP_ROUTE, _http_route_hosts)):
        for item in reader.visible(kind, here=kind == INGRESS):
            if not _is_foreign(kube, item, original_ok=True) or not counts(item):
                continue
            for host in found.keys() & hosts_of(item):
                found[host].append(_place(item))
    return found


def _place(found: Document) -> str:
    """All that is said of somebody else's object."""
    return f"{found['kind']} {found['metadata']['name']} in namespace {found['metadata']['namespace']}"


# --- of other kinds -----------------------------------------------------------------------------------------------


def _claims(context: RouteContext, provider: IngressProvider, hosts: Sequence[str]) -> list[RouteClaim]:
    """What the provider says of others who have these hosts. Asked in a thread of its own, which is left behind when it
    hangs. Raises StepFailed naming the provider, KubeError, and what the scope raises.
    """
    if type(provider).host_claims is IngressProvider.host_claims:
        return []
    title = f"ingress provider {provider.name}"
    with context.scope.earlier(0.0) as scope:
        kube = context.kube.with_scope(scope)

        def ask() -> list[RouteClaim]:
            found = []
            claims = provider.host_claims(RouteReader(kube, context.log))
            if wrong := no_list(claims):
                raise StepFailed(f"host_claims() of {title} {wrong}", hint=_HINT)
            for claim in claims:
                scope.check()
                _check(claim, title)
                if not set(hosts).isdisjoint(claim.hosts) and _is_foreign(kube, claim.found):
                    found.append(claim)
            return found

        return _answer(Invocation(ask, "host-claims"), scope, title, context.log)


def _answer(
    call: Invocation[list[RouteClaim]], scope: CancelScope, title: str, log: Callable[[str], None]
) -> list[RouteClaim]:
    forget = scope.on_close(call.wake)
    back = call.wait(scope.remaining(DEADLINE))
    forget()
    scope.check()
    if not back:
        scope.close(Revoked("this took too long"))
        raise StepFailed(f"{title} did not come back from host_claims() within {DEADLINE:g} s", hint=_HINT)
    try:
        return call.result()
    except KubeForbidden as error:
        log(f"other routes are not checked for the host: {error}")
        return []
    except DeployerError:
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        logger.exception("%s failed", title, exc_info=error)
        said = f"{title} raised {type(error).__name__} in host_claims(); the service's log has the details"
        raise StepFailed(said, hint=_HINT) from error


def _check(claim: object, title: str) -> None:
    """Raise StepFailed for what is no claim."""
    wrong = "" if isinstance(claim, RouteClaim) else f"a {type(claim).__name__}, which is no RouteClaim"
    if isinstance(claim, RouteClaim):
        found = claim.found
        metadata = found.get("metadata") if isinstance(found, dict) else None
        if not (isinstance(metadata, dict) and found.get("kind") and {"name", "namespace"} <= metadata.keys()):
            wrong = "a claim without the object as it was read"
        elif isinstance(claim.hosts, str) or not all(isinstance(host, str) for host in claim.hosts):
            wrong = "a claim whose hosts are no list of texts"
    if wrong:
        raise StepFailed(f"{title} gave {wrong}, in host_claims()", hint=_HINT)


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


def _is_foreign(kube: KubeAccess, found: Document, *, original_ok: bool = False) -> bool:
    """Not of this very app (another namespace may have one of the same name), and not about to go."""
    if found["metadata"].get("deletionTimestamp"):
        return False
    here = found["metadata"]["namespace"] == kube.owner.namespace
    return not (here and (kube.is_ours(found) or (original_ok and kube.is_original(found))))
