"""Which way health checks go: to the pod's own address, or through the API server's pod proxy."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from deployer.core.contract.health import (
    BODY_LIMIT,
    Address,
    Direct,
    HealthTarget,
    HttpAnswer,
    HttpRequest,
    PodUnreachable,
    Way,
    failure,
)
from deployer.core.errors import KubeError, KubeForbidden, KubeUnavailable
from deployer.core.settings import Settings
from deployer.kube import proxied
from deployer.kube.client import KubeClient

_SERVICE_NAME = re.compile(r"kubernetes(\.default(\.svc(\.[a-z0-9.-]+)?)?)?")
_NO_ANSWER = "error trying to reach service: "


def way(settings: Settings, client: KubeClient, environ: Mapping[str, str]) -> Way:
    """The way that the setting `health_via` names.

    `auto` is direct inside the cluster that is deployed to, and on the sandbox, and the API server everywhere else. It
    does not try out what can be reached: outside of the cluster the same address may belong to another machine (many
    clusters use the same pod networks), whose answer would be taken for the pod's; a firewall that answers for
    pods looks like a pod that refuses; and every process would have to find out again, at the cost of its time-outs.
    """
    direct = settings.loopback_pods or in_cluster(client.address, environ)
    if settings.health_via == "direct" or (settings.health_via == "auto" and direct):
        return Direct()
    return ThroughApiServer(client)


def in_cluster(address: str, environ: Mapping[str, str]) -> bool:
    """True when this process is a pod of the cluster whose API server has that address.

    Kubernetes tells every pod where its API server is; a pod of one cluster that deploys to another has that one's
    address in its settings.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host:
        return False
    url = urlsplit(address)
    if _SERVICE_NAME.fullmatch(url.hostname or ""):
        return True
    found = url.port or {"https": 443, "http": 80}.get(url.scheme)
    return (url.hostname or "", str(found)) == (host.strip("[]").lower(), port)


class ThroughApiServer(Way):
    """Ask with the API server's `pods/proxy`: only HTTP, with the limits of a direct check."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    def connect(self, target: HealthTarget, address: Address) -> socket.socket:
        """Raises PodUnreachable."""
        raise PodUnreachable(
            f"{target.where} cannot be dialled: health checks go through the API server here, and only HTTP goes "
            'that way; where pods can be reached, set health_via to "direct"'
        )

    def exchange(self, target: HealthTarget, address: Address, request: HttpRequest) -> HttpAnswer:
        """One attempt; the rounds repeat."""
        seconds = target.remaining()
        if seconds <= 0:
            raise failure(target, TimeoutError())
        try:
            answer = self._client.pod_proxy(
                target.namespace,
                target.name,
                target.port,
                request.path,
                method=request.method,
                headers=request.headers,
                host=target.host,
                seconds=seconds,
                limit=BODY_LIMIT + 1,
                scope=target.scope,
            )
        except KubeError as error:
            raise _unreachable(target, request, error) from None
        headers = {name.lower(): ", ".join(answer.headers.getlist(name)) for name in answer.headers}
        # The API server puts its own way to the pod before a path of the pod's.
        before, found, path = headers.get("location", "").partition(f"/pods/{target.name}:{target.port}/proxy")
        headers |= {"location": path or "/"} if found and before.startswith(("/", "http")) else {}
        return HttpAnswer(answer.status, headers, answer.body[:BODY_LIMIT], len(answer.body) > BODY_LIMIT)


def _unreachable(target: HealthTarget, request: HttpRequest, error: KubeError) -> PodUnreachable:
    """The API server's own error as a sentence. What it quotes may come from the pod."""
    target.scope.check()
    if isinstance(error, KubeUnavailable) and error.status == 0 and target.remaining() <= 0:
        return failure(target, TimeoutError())
    text = " ".join(str(error).split())
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    if isinstance(error, KubeForbidden) and error.status == 403:
        right = f"{proxied.RIGHTS[request.method]} pods/proxy in namespace {target.namespace}"
        return PodUnreachable(f"{target.where} is not asked, as the Deployer lacks the right to {right}: {text}")
    if error.status == 503 and _NO_ANSWER in text:
        return _no_answer(target, text.partition(_NO_ANSWER)[2])
    if error.status == 0 or error.status >= 500:
        return PodUnreachable(f"{target.where} gave no answer through the API server: {text}")
    return PodUnreachable(f"{target.where} is not asked: {text}")


def _no_answer(target: HealthTarget, reason: str) -> PodUnreachable:
    """The API server found nobody at the pod's address, or nobody who speaks HTTP; `reason` is Go's."""
    if reason.endswith("connection refused"):
        return failure(target, ConnectionRefusedError())
    if reason == "EOF" or reason.endswith("connection reset by peer"):
        return failure(target, ConnectionResetError())
    return PodUnreachable(f"{target.where} gave the API server no answer: {reason}")
