"""Verbs on plain dicts, with time-outs, a retry budget that honours Retry-After, and our own errors."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NoReturn

from deployer.core import failpoints
from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import KubeError, KubeForbidden, KubeRejected, KubeUnavailable
from deployer.core.model.kind import EVENT, POD, Kind
from deployer.core.model.records import Document
from deployer.kube import proxied
from deployer.kube.http import connection
from deployer.kube.http.answers import events, refuse, warnings
from deployer.kube.http.requests import Labels, Request, make_request, selector
from deployer.kube.http.retries import Retry, pause, report
from deployer.kube.http.transport import Answer, Call, Lost, NotSent, Silent, Transport
from deployer.settings import Settings

RETRY_BUDGET = 30.0
"""Seconds for which a call without a deadline of its own goes on retrying."""

BACKOFF = Backoff(first=0.4, most=4.0, spread=(0.0, 1.0))
"""Pauses between two attempts at one request."""

REFUSALS_BORNE = 3
"""How often a call that got a 401 is repeated with credentials that were never good."""

REFUSED_BORNE = 30.0
"""Seconds for which 401s in a row count as credentials that are changing hands, when they were good before."""

WATCH_SILENCE = 75.0
"""Seconds of silence that end a watch. The API server sends a bookmark about once a minute."""

LOG_BYTES = 64 * 1024
FOLLOWED_BYTES = 256 * 1024
"""Of a log that is read piece by piece."""

SILENT = "Silent"
"""Reason of the error that `watch` raises for a stream that says nothing."""

_ANONYMOUS = 'User "system:anonymous"'

_NOT_TLS = b"HTTP request to an HTTPS server"
"""Of Go's net/http to who speaks plain HTTP on a port for TLS."""

Documents = list[Document]
Lines = list[str]


class KubeClient:
    """The verbs. Thread-safe.

    Every verb takes a `scope`: reads end with it, writes do not begin once it is closed, waits between attempts go
    through it. All raise KubeError subclasses, and what the scope raises. Without a scope, or when it has no deadline,
    a call retries for `RETRY_BUDGET` seconds.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._good = False
        self._refused: float | None = None

    @property
    def address(self) -> str:
        """URL of the API server."""
        return self._transport.address

    @property
    def requests(self) -> Counter[str]:
        """HTTP requests sent so far, by verb; a copy."""
        with self._counting:
            return self._counts.copy()

    @property
    def changing_hands(self) -> bool:
        """True while 401s are likely to pass: the credentials were good before, and are refused for a short time."""
        with self._counting:
            refused = 0.0 if self._refused is None else time.monotonic() - self._refused
            return self._good and refused < REFUSED_BORNE

    def conceal_with(self, conceal: Callable[[str], None]) -> None:
        """Have `conceal` told the credentials, now and then when they change, before they are sent."""
        self._transport.conceal = conceal

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, name: str, namespace: str | None = None, *, scope: CancelScope | None = None) -> Document:
        """The object. Raises KubeNotFound."""
        return self._json(make_request("get", "GET", kind, namespace, name), scope)

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Labels = None,
        field_selector: str | None = None,
        *,
        scope: CancelScope | None = None,
        retry: bool = True,
    ) -> tuple[Documents, str]:
        """The objects (with `apiVersion` and `kind`, which the server leaves out) and the list's resourceVersion.

        `namespace` None means all of them; `retry` False makes it a single attempt.
        """
        query = {"labelSelector": selector(labels), "fieldSelector": field_selector}
        document = self._json(make_request("list", "GET", kind, namespace, query=query), scope, retry=retry)
        items = document.get("items") or []
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        return items, document.get("metadata", {}).get("resourceVersion", "")

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        resource_version: str,
        *,
        scope: CancelScope | None = None,
        silence: float = WATCH_SILENCE,
        opened: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[str, Document], None, None]:
        """Changes after `resource_version` as (type, object), until the server ends the stream; bookmarks included.

        `opened` is called when the server has granted it. Closing the scope breaks it off at once. A line that cannot
        be decoded comes as `(UNDECODABLE, {})`. One attempt. Raises KubeExpired on 410 in either form,
        KubeUnavailable with reason `SILENT` when nothing came for `silence` seconds, or no answer at all.
        """
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": resource_version}
        query["timeoutSeconds"] = str(random.randint(300, 600))
        request = make_request("watch", "GET", kind, namespace, query=query)
        self._count("watch")
        with self._abortable(scope) as call:
            try:
                answer = self._transport.stream(request.target, call, silence)
                if isinstance(answer, Answer):
                    self._note(answer.status)
                    self._refuse(request, answer)
                with answer:
                    opened()
                    yield from events(request, answer)
            except (NotSent, Lost) as error:
                if scope is not None:
                    scope.check()
                reason = SILENT if isinstance(error, Silent) else ""
                raise KubeUnavailable(f"the watch of {request.where} broke off: {error}", reason=reason) from error

    def pod_log(
        self,
        namespace: str,
        pod: str,
        container: str,
        tail_lines: int = 20,
        previous: bool = False,
        *,
        scope: CancelScope | None = None,
    ) -> str:
        """The last lines of a container's log, at most 64 KiB; `previous`: of the run before the last restart.

        One attempt: a log explains a failure, which is not to be held up by it.
        """
        query = {
            "container": container,
            "tailLines": str(tail_lines),
            "limitBytes": str(LOG_BYTES),
            "previous": "true" if previous else None,
        }
        request = make_request("log", "GET", POD, namespace, pod, query=query, subresource="log")
        return self._send(request, scope, retry=False).body[-LOG_BYTES:].decode("utf-8", "replace")

    def pod_lines(
        self, namespace: str, pod: str, container: str, since: str = "", *, scope: CancelScope | None = None
    ) -> Lines:
        """What a container wrote since then, a line each, as `KubeAccess.pod_lines` has it. One attempt."""
        query = {
            "container": container,
            "timestamps": "true",
            "sinceTime": since or None,
            "limitBytes": str(FOLLOWED_BYTES),
        }
        request = make_request("log", "GET", POD, namespace, pod, query=query, subresource="log")
        body = self._send(request, scope, retry=False).body[:FOLLOWED_BYTES]
        whole, _, begun = body.rpartition(b"\n")
        # The last one may be cut, or not be written to its end yet, unless nothing fits beside it.
        text = whole or (begun if len(body) >= FOLLOWED_BYTES else b"")
        return text.decode("utf-8", "replace").split("\n") if text else []

    def pod_proxy(
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str],
        host: str = "",
        seconds: float,
        limit: int,
        scope: CancelScope | None = None,
    ) -> Answer:
        """What a pod answers on a port, asked through the API server: one attempt, `seconds` for everything.

        `host` is the `Host` header, which the API server passes on as it is: see `proxied.check_host`.

        At most `limit` bytes of the body, as they come. Redirects are answers like any other. Raises KubeRejected for
        a path or a header that would not reach the pod as it is, and KubeError subclasses when the answer is the API
        server's own, or looks as if it were: a pod can imitate an error, but never get an error of the API server
        passed off as its answer.
        """
        proxied.check(path, method, headers)
        if host:
            proxied.check_host(self.address)
            headers = {**headers, "Host": host}
        request = make_request(
            proxied.RIGHTS[method], method, POD, namespace, f"{pod}:{port}", subresource=f"proxy{path}"
        )
        request = dataclasses.replace(request, where=f"pods/proxy {pod}:{port} in namespace {namespace}")
        with self._abortable(scope, last=True) as call:
            self._count("proxy")
            try:
                answer = self._transport.pass_on(
                    method, request.target, headers, call=call, seconds=seconds, limit=limit
                )
            except (NotSent, Lost) as error:
                if scope is not None:
                    scope.check()
                unreachable = isinstance(error, NotSent)
                text = f"the API server at {self.address} cannot be reached" if unreachable else "no complete answer"
                raise KubeUnavailable(f"{text}: {error}") from error
        if proxied.is_own(method, answer):
            self._note(answer.status)
            self._refuse(request, answer)
        return answer

    def version(self, *, scope: CancelScope | None = None) -> Document:
        """The API server's answer to `/version`."""
        return self._json(Request("version", "GET", "/version", "/version"), scope)

    def review(self, kind: Kind, body: Document, *, scope: CancelScope | None = None) -> Document:
        """POST of a question (`reviews.py`): it changes nothing, so it may be repeated and ends with its gate."""
        return self._json(make_request("create", "POST", kind, None, body=body, repeatable=True), scope)

    # --- writing --------------------------------------------------------------------------------------------------

    def create(
        self,
        kind: Kind,
        body: Document,
        namespace: str | None = None,
        dry_run: bool = False,
        *,
        scope: CancelScope | None = None,
    ) -> Document:
        """POST with strict field validation. Raises KubeAlreadyExists, KubeRejected.

        Not repeated when the answer was lost (KubeUnavailable): repeat it and decide what an AlreadyExists means.
        """
        query = {"fieldValidation": "Strict", "dryRun": "All" if dry_run else None}
        request = make_request("create", "POST", kind, namespace, query=query, body=body, writes=not dry_run)
        return self._json(request, scope)

    def try_create(
        self,
        kind: Kind,
        body: Document,
        namespace: str,
        *,
        warned: Callable[[str], None],
        strict: bool = True,
        scope: CancelScope | None = None,
    ) -> None:
        """Return when the API server would create the object, raise as `create` does when not; it writes nothing.

        One attempt. `warned` is told the API server's warnings in either case; without `strict`, unknown and duplicate
        fields are among them.
        """
        query = {"fieldValidation": "Strict" if strict else "Warn", "dryRun": "All"}
        request = make_request("create", "POST", kind, namespace, query=query, body=body)
        self._json(dataclasses.replace(request, warned=warned), scope, retry=False)

    def record(self, event: Document, namespace: str, *, scope: CancelScope | None = None) -> None:
        """POST of an Event, which nothing depends on: one attempt, and it counts as no write."""
        self._json(make_request("record", "POST", EVENT, namespace, body=event), scope, retry=False)

    def replace(
        self, kind: Kind, name: str, body: Document, namespace: str | None = None, *, scope: CancelScope | None = None
    ) -> Document:
        """PUT with strict field validation. Raises KubeConflict when `body` has an old resourceVersion."""
        repeatable = bool(body.get("metadata", {}).get("resourceVersion"))
        query = {"fieldValidation": "Strict"}
        return self._json(
            make_request(
                "replace", "PUT", kind, namespace, name, query=query, body=body, writes=True, repeatable=repeatable
            ),
            scope,
        )

    def patch(
        self, kind: Kind, name: str, patch: Document, namespace: str | None = None, *, scope: CancelScope | None = None
    ) -> Document:
        """JSON merge patch (RFC 7396). With a resourceVersion in it, KubeConflict when the object has changed."""
        repeatable = bool((patch.get("metadata") or {}).get("resourceVersion"))
        query = {"fieldValidation": "Strict"}
        return self._json(
            make_request(
                "patch", "PATCH", kind, namespace, name, query=query, body=patch, writes=True, repeatable=repeatable
            ),
            scope,
        )

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: str = "Background",
        grace_seconds: int | None = None,
        scope: CancelScope | None = None,
    ) -> bool:
        """Delete exactly that object. True when it is gone already; False when something holds it for a while yet, as
        its grace time or a finalizer does. Raises KubeNotFound, and KubeConflict when the name is somebody else's now.
        """
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        body: Document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation,
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        answer = self._json(make_request("delete", "DELETE", kind, namespace, name, body=body, writes=True), scope)
        # A Status, or (kinds like Service) the object as it was; one that stays for a while is marked.
        return not (answer.get("metadata") or {}).get("deletionTimestamp")

    # --- one request ----------------------------------------------------------------------------------------------

    def _json(self, request: Request, scope: CancelScope | None, *, retry: bool = True) -> Document:
        answer = self._send(request, scope, retry=retry)
        try:
            document = json.loads(answer.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise KubeUnavailable(
                f"{self.address} answered {answer.status} to {request}, but not as an API server "
                "does: is the address right?",
                status=answer.status,
            )
        return document

    def _send(self, request: Request, scope: CancelScope | None, *, retry: bool = True) -> Answer:
        """The answer, a 2xx. Retries what may be retried within the time that there is."""
        began = time.monotonic()
        end = began + RETRY_BUDGET
        attempt = 0
        while True:
            try:
                answer = self._attempt(request, scope)
                report(scope, None, began)
                return answer
            except Retry as again:
                attempt += 1
                report(scope, again.error, began)
                wait = max(again.after, BACKOFF.after(attempt))
                # A scope's deadline is the caller's word on how long to go on; only without one there is ours.
                own_limit = scope is None or scope.deadline is None
                refused = again.refused and attempt > REFUSALS_BORNE and not self.changing_hands
                if not retry or refused or (own_limit and time.monotonic() + wait > end):
                    raise again.error from again.error.__cause__
                pause(scope, wait, again.error)
            except KubeError as error:
                report(scope, error, began)
                raise

    def _attempt(self, request: Request, scope: CancelScope | None) -> Answer:
        """One exchange. Raises Retry when the same request may be sent again, else KubeError."""
        try:
            answer = self._exchange(request, scope)
        except NotSent as error:
            text = f"the API server at {self.address} cannot be reached: {error}"
            raise Retry(KubeUnavailable(text)) from error
        except Lost as error:
            text = f"the API server did not answer to {request}: {error}"
            if self.address.startswith("http://") and os.strerror(errno.ECONNRESET) in text:
                # So does a server for TLS with who speaks plain HTTP to it, often before its answer can be read.
                text += "; is it https:// instead of http://?"
            lost = KubeUnavailable(text)
            if not request.writes:
                pause(scope, 0.0, lost)  # it may have been the scope that broke it off
            if request.repeatable:
                raise Retry(lost) from error
            raise lost from error
        self._note(answer.status)
        if request.warned is not None:
            for warning in warnings(answer):
                request.warned(warning)
        if 200 <= answer.status < 300:
            return answer
        try:
            self._refuse(request, answer)
        except KubeUnavailable as error:
            # 429 and 503 are given before anything is done; after another 5xx that is unknown.
            if request.repeatable or answer.status in (429, 503):
                raise Retry(error, after=error.retry_after or 0.0) from None
            raise
        except KubeForbidden as error:
            if answer.status != 401:
                raise
            # Nothing was done. The credentials may just be changing hands.
            raise Retry(error, refused=True) from None

    def _refuse(self, request: Request, answer: Answer) -> NoReturn:
        """Raise what an answer other than 2xx means, and what is to be done when it is about the connection itself."""
        if answer.status == 400 and _NOT_TLS in answer.body:
            raise KubeRejected(f"{self.address} speaks TLS: write https:// instead of http://", status=400)
        try:
            refuse(request, answer)
        except KubeForbidden as error:
            if answer.status != 401 and _ANONYMOUS not in str(error):
                raise
            text = f"{error}; {self._transport.unknown}"
            raise KubeForbidden(text, status=answer.status, reason=error.reason) from None

    def _exchange(self, request: Request, scope: CancelScope | None) -> Answer:
        args = (request.method, request.target, request.body, request.content_type)
        if request.writes:
            # Sent to its end even when the scope closes meanwhile: `scope.settle` waits for it.
            with scope.writing() if scope is not None else contextlib.nullcontext():
                failpoints.hit("kube.before")
                self._count(request.verb)
                answer = self._transport.send(*args, call=Call(), timeout=self._transport.read_timeout)
                failpoints.hit("kube.after")
                return answer
        with self._abortable(scope) as call:
            self._count(request.verb)
            timeout = self._transport.read_timeout
            if scope is not None:
                timeout = max(0.05, scope.remaining(timeout))
            return self._transport.send(*args, call=call, timeout=timeout)

    @contextlib.contextmanager
    def _abortable(self, scope: CancelScope | None, *, last: bool = False) -> Iterator[Call]:
        """A call that is broken off when the scope closes."""
        call = Call(last=last)
        if scope is None:
            yield call
            return
        scope.check()
        forget = scope.on_close(call.abort)
        try:
            yield call
        finally:
            forget()

    def _note(self, status: int) -> None:
        """Keep account of whether the credentials are good, and read them again when they are not."""
        with self._counting:
            if status == 401:
                self._refused = self._refused or time.monotonic()
            elif status < 300:
                self._good, self._refused = True, None
        if status == 401:
            self._transport.renew()

    def _count(self, verb: str) -> None:
        with self._counting:
            self._counts[verb] += 1


def connect(settings: Settings) -> KubeClient:
    """A client for the cluster that the settings name: an address, else the pod's own account, else the kubeconfig.

    Sends nothing yet. Raises SettingsError.
    """
    return KubeClient(connection.open_transport(settings))
