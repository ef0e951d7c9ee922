"""Errors as `application/problem+json` (RFC 9457), and the one table from domain errors to HTTP statuses."""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import falcon

from deployer.api import negotiation
from deployer.api.auth.principal import Forbidden, Unauthenticated, Unsure
from deployer.api.http import TooLarge, may, render
from deployer.api.openapi import page
from deployer.api.resources import start
from deployer.api.routes import Permission
from deployer.commands.idempotency import KeyReused
from deployer.commands.limits.quotas import QuotaExceeded
from deployer.core.errors import (
    Conflict,
    DeployerError,
    Fenced,
    Frozen,
    HostProblem,
    HostTaken,
    Invalid,
    KubeError,
    KubeUnavailable,
    NotFound,
    NotPermitted,
    PluginBusy,
    PreconditionFailed,
    Problem,
    QueueFull,
    StaleRevision,
    StoreUnavailable,
    UnknownFormat,
)
from deployer.redaction.redactor import clean_credentials

MEDIA_TYPE = "application/problem+json"

# The most specific class wins; what is not here is a 500.
_STATUS: dict[type[DeployerError], int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotPermitted: 403,
    QuotaExceeded: 403,
    NotFound: 404,
    Conflict: 409,
    StaleRevision: 409,
    UnknownFormat: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    KeyReused: 422,
    Frozen: 423,
    QueueFull: 429,
    KubeError: 502,
    KubeUnavailable: 503,
    PluginBusy: 503,
    Unsure: 503,
    StoreUnavailable: 503,
    Fenced: 503,
}

_LATER = 5.0  # seconds, when the error itself does not say after how many to come back

_log = logging.getLogger(__name__)


def problem(status: int, detail: str, errors: Iterable[Problem] = (), **more: Any) -> bytes:
    """The body of an error. `about:blank` means that the status says what kind of problem it is (RFC 9457, 4.2.1).

    `more` are extension members (3.2), but for those that are None: `validation`, what was checked and what was not,
    `freezes`, what keeps a namespace from deployments, and `quota`, which is used up.
    """
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if listed := [{"path": p.path, "message": p.message} for p in errors]:
        document["errors"] = listed
    return render(document | {name: value for name, value in more.items() if value is not None})


def install(app: falcon.App[falcon.Request, falcon.Response], clean: Callable[[str], str]) -> None:
    """Make the app answer every error as a problem, whoever raised it.

    clean   takes the service's credentials out of what it says of itself (5xx). What it says of a request (4xx) may
            repeat something of it, and must not tell what else the service knows.
    """

    def add(kind: type[Exception], handler: Callable[..., None]) -> None:
        def handle(req: Any, resp: falcon.Response, error: Any, params: dict[str, Any]) -> None:
            resp.context.clean = clean
            handler(req, resp, error, params)

        app.add_error_handler(kind, handle)

    add(Exception, _unexpected)
    add(DeployerError, _domain)
    add(falcon.HTTPError, _http)


def _answer(
    resp: falcon.Response,
    status: int,
    detail: str,
    errors: Iterable[Problem] = (),
    **more: Any,
) -> None:
    resp.status = status
    resp.content_type = MEDIA_TYPE
    clean: Callable[[str], str] = resp.context.clean if status >= 500 else clean_credentials
    cleaned = [Problem(clean(p.path), clean(p.message)) for p in errors]
    resp.data = problem(status, clean(detail), cleaned, **more)


def _domain(req: falcon.Request, resp: falcon.Response, error: DeployerError, _params: dict[str, Any]) -> None:
    status = status_of(error)
    retry_after = getattr(error, "retry_after", None) or (_LATER if status == 503 else None)
    if retry_after is not None:
        resp.set_header("Retry-After", str(max(1, math.ceil(retry_after))))
    if isinstance(error, Unauthenticated | Forbidden):
        resp.set_header("WWW-Authenticate", error.challenge)
    if status >= 500 and not isinstance(error, Unsure):  # said once, by who could not find out
        _log.error("%s %s: %s", req.method, req.path, error, exc_info=error if status == 500 else None)
    if isinstance(error, Invalid):
        error = Invalid([_told(req, problem) for problem in error.problems], error.validation)
        _answer(resp, status, str(error), error.problems, validation=error.validation)
    elif isinstance(error, Frozen):
        freezes = [{name: clean_credentials(value) for name, value in freeze.items()} for freeze in error.freezes]
        _answer(resp, status, str(error), freezes=freezes)
    elif isinstance(error, QuotaExceeded):
        _answer(resp, status, str(error), quota={"name": error.quota, "used": error.used, "limit": error.limit})
    elif isinstance(error, HostTaken):
        _answer(resp, status, _whose(req, error))
    else:
        _answer(resp, status, str(error))


def _told(req: falcon.Request, problem: Problem) -> Problem:
    return Problem(problem.path, _whose(req, problem.taken)) if isinstance(problem, HostProblem) else problem


def _whose(req: falcon.Request, taken: HostTaken) -> str:
    """Whose the host is, for a caller who may list the descriptors there, and would find it among them."""
    try:
        return taken.told if may(req, Permission("descriptors", "list"), where=taken.namespace) else str(taken)
    except Unsure:
        return str(taken)


def status_of(error: DeployerError) -> int:
    """The HTTP status of a domain error."""
    return next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 500)


def _http(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """What the framework itself refuses: unknown routes, methods, unreadable headers."""
    status = error.status_code
    resp.set_headers(error.headers or {})
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = resp.get_header("Allow") or "nothing"
        detail = f"this path does not allow {req.method}; allowed: {allowed}"  # one of those that there are
    elif isinstance(error, falcon.HTTPNotFound):
        resp.set_header("Vary", "Accept")
        if negotiation.prefers_html(req.get_header("Accept")):
            resp.status = status
            page.send(resp, start.missing())
            return
        detail = "this path does not exist; GET / lists those that do"
    else:
        detail = error.description or error.title or "the request cannot be understood"
    _answer(resp, status, detail)


def _unexpected(req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    _answer(resp, 500, "internal error; the Deployer's log has the details")
