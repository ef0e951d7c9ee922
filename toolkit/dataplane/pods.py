"""Asking a version's own pods on the port to which its route leads, before the data plane is asked, or blamed."""

from __future__ import annotations

import dataclasses
import ssl
import time
from collections.abc import Callable, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthTarget, PodRefused, PodUnreachable, Way
from deployer.core.contract.ingress import PodAnswers, ProbeResponse, RouteContext
from deployer.core.contract.kube import is_active, is_ready
from deployer.core.contract.strategy import Work
from deployer.core.errors import DeadlineExceeded, StepFailed, require_answers
from deployer.core.model.descriptors import http_ports, named_port
from deployer.core.model.kind import POD
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Route
from deployer.core.model.records import Document
from deployer.toolkit.dataplane.probe import WANTS_TLS

PODS_ASKED = 3
"""Pods of a version that are asked: all of them run the same image."""

TIMEOUT = 1.0
"""Seconds for one pod. One that takes longer, or that a NetworkPolicy hides, is asked through the data plane only."""

PAUSE = 0.5
"""Seconds between two rounds while nothing listens yet."""

SAY_AFTER = 2.0
"""Seconds before the log says that nothing listens yet."""


def probe(way: Way, *, loopback: bool) -> Callable[[Sequence[Document], Route, CancelScope], Sequence[ProbeResponse]]:
    """What `Work.ask_pods` is. `loopback`: pods may be on 127.0.0.0/8, as in a sandbox."""

    def ask(pods: Sequence[Document], route: Route, scope: CancelScope) -> list[ProbeResponse]:
        found = []
        for pod in pods[:PODS_ASKED]:
            target = HealthTarget(
                name=pod["metadata"]["name"],
                uid=pod["metadata"]["uid"],
                namespace=route.namespace,
                address=pod.get("status", {}).get("podIP", ""),
                port=route.backend.port,
                path=route.path,
                scope=scope,
                host_network=bool(pod.get("spec", {}).get("hostNetwork")),
                timeout=TIMEOUT,
                allow_loopback=loopback,
                way=way,
            )
            found.append(_ask(target))
            if not found[-1].status:
                break  # what one cannot be asked for, or does not answer, the others need not be asked for
        return found

    return ask


def _ask(target: HealthTarget) -> ProbeResponse:
    try:
        answer = target.http()
    except PodRefused:
        return ProbeResponse(refused=True)
    except PodUnreachable:
        return ProbeResponse(tls=_speaks_tls(target))
    return ProbeResponse(answer.status, tls=answer.status == 400 and WANTS_TLS.search(answer.body) is not None)


def _speaks_tls(target: HealthTarget) -> bool:
    """Some servers close the connection without a word. False also when it cannot be found out."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with target.connect() as sock:
            sock.settimeout(max(0.1, target.remaining()))
            context.wrap_socket(sock, server_hostname=target.address).close()
            return True
    except (OSError, ValueError, PodUnreachable):
        target.scope.check()
        return False


def await_listening(work: Work, context: RouteContext) -> RouteContext:
    """The context with what the pods answer, once something listens on the route's port. Says where the host will go.

    Raises StepFailed (`RouteNotConfirmed`) when nothing listens there until the time is up.
    """
    route = context.route
    began, said = time.monotonic(), False
    try:
        while _refused(found := _responses(work, route)):
            if not said and time.monotonic() - began >= SAY_AFTER:
                work.log(f"not confirmed yet: nothing answers on port {route.backend.port} of the version's pods")
                said = True
            work.scope.pause(PAUSE)
    except DeadlineExceeded as over:
        require_answers(over)
        raise _nothing_listens(work, route) from None
    answers = _answers(work, route, found)
    statuses = " and ".join(f"HTTP {status}" for status in sorted(answers.statuses))
    port = named_port(work.plan.descriptor, route.backend.port)
    answer = f", whose pods answer {route.path} with {statuses}" if statuses else ""
    work.log(f"{route.host} will route to port {port} of version {route.version}{answer}")
    if answers.why:
        work.log(f"{answers.why}: clients get an error unless the ingress controller does so too; {context.tls_hint}")
    return dataclasses.replace(context, pods=answers)


def with_answers(work: Work, context: RouteContext) -> RouteContext:
    """The context with what the pods answer now."""
    return dataclasses.replace(context, pods=_answers(work, context.route, _responses(work, context.route)))


def _responses(work: Work, route: Route) -> Sequence[ProbeResponse]:
    if work.ask_pods is None:
        return ()
    pods = work.kube.items(POD, {"name": versioned_name(route.app, route.version)})
    ready = [pod for pod in pods if is_active(pod) and is_ready(pod)]
    return work.ask_pods(ready, route, work.scope)


def _refused(found: Sequence[ProbeResponse]) -> bool:
    return any(response.refused for response in found)


def _answers(work: Work, route: Route, found: Sequence[ProbeResponse]) -> PodAnswers:
    if work.ingress is None or work.ingress.backend_protocol(route) != "HTTP":
        return PodAnswers()
    tls = any(response.tls for response in found)
    return PodAnswers(
        frozenset(response.status for response in found if response.status),
        answered=bool(found) and not tls and all(response.status for response in found),
        why=f"port {route.backend.port} of the pods speaks TLS" if tls else "",
    )


def _nothing_listens(work: Work, route: Route) -> StepFailed:
    port, descriptor = route.backend.port, work.plan.descriptor
    others = [named_port(descriptor, number) for number in http_ports(descriptor) if number != port]
    choice = f"choose that with frontendPort ({', '.join(others)})" if others else "make that its containerPort"
    return StepFailed(
        f"nothing answers on port {named_port(descriptor, port)} of the version's pods, the port for {route.host}",
        reason="RouteNotConfirmed",
        hint=f"if the app listens on another port, {choice}; if on this one, let it listen on all addresses, not only "
        "on 127.0.0.1",
    )
