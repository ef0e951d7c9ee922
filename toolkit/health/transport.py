"""Which way health checks go: to the pod's own address, or through the API server's pod proxy."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import re
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from deployer.core.contract.health import (
    BODY_LIMIT,
    Address,
    HealthTarget,
    HttpAnswer,
    HttpRequest,
    PodRefused,
    PodUnreachable,
    Way,
)
from deployer.core.errors import KubeError, KubeForbidden, KubeUnavailable
from deployer.kube import proxied
from deployer.kube.client import KubeClient
from deployer.settings import Settings
from deployer.toolkit import http_exchange
from deployer.toolkit.http_exchange import GuardedSocket

CONNECT_TIMEOUT = 3.0
"""Seconds. A SYN on a pod network is answered within milliseconds or, when it is dropped, not at all."""

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


class Direct(Way):
    """Dial the pod's own address."""

    def connect(self, target: HealthTarget, address: Address) -> GuardedSocket:
        """Raises PodUnreachable when nobody answers, and what the scope raises."""
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock = GuardedSocket(family, target.scope, time.monotonic() + target.remaining())
        try:
            sock.dial((str(address), target.port), CONNECT_TIMEOUT)
        except OSError as error:
            sock.close()
            raise self._not_connected(target, error) from None
        except BaseException:
            sock.close()
            raise
        return sock

    def exchange(self, target: HealthTarget, address: Address, request: HttpRequest) -> HttpAnswer:
        """HTTP/1.1 on a connection of its own."""
        sock = self.connect(target, address)
        headers = {"Host": target.host or target.authority} | dict(request.headers)
        try:
            sent = http_exchange.request(request.method, request.path, headers)
            found = http_exchange.exchange(sock, sent, limit=BODY_LIMIT, method=request.method)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise failure(target, error) from None
        answer = HttpAnswer(found.status, found.headers, found.body, found.truncated)
        if found.cut is not None:
            # Its head is complete, and tells more than that the rest did not come.
            target.answer = dataclasses.replace(answer, truncated=True)
            raise failure(target, found.cut)
        return answer

    @staticmethod
    def _not_connected(target: HealthTarget, error: OSError) -> PodUnreachable:
        reason = failure(target, error)
        if isinstance(error, TimeoutError) or error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return PodUnreachable(
                f'{reason}; if the Deployer runs where pods cannot be reached, set health_via to "apiserver"'
            )
        return reason


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


def failure(target: HealthTarget, error: Exception) -> PodUnreachable:
    """Why no answer came, as a sentence. Raises what the scope raises when that is the reason."""
    target.scope.check()
    if isinstance(error, TimeoutError):
        limit = target.timeout if target.remaining() <= 0 else CONNECT_TIMEOUT
        return PodUnreachable(f"{target.where} gave no complete answer within {limit:g} s")
    if isinstance(error, ConnectionRefusedError):
        return PodRefused(f"{target.where} refused the connection: does the app listen on that port?")
    if isinstance(error, http.client.IncompleteRead):
        return PodUnreachable(f"{target.where} closed the connection in the middle of its answer")
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return PodUnreachable(f"{target.where} closed the connection before its answer was complete")
    if isinstance(error, OSError):
        return PodUnreachable(f"{target.where} cannot be reached: {error.strerror or error}")
    return PodUnreachable(f"{target.where} did not answer in HTTP ({type(error).__name__})")


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
