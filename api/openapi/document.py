"""The OpenAPI 3.1 document, made of `routes.py`, `operations.py` and `schemas.py`."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

import deployer
from deployer.api.openapi.operations import OPERATIONS
from deployer.api.openapi.parts import PROBLEM, Operation, Parameter, Reply
from deployer.api.openapi.schemas import components
from deployer.api.openapi.shapes import REF
from deployer.api.routes import ROUTES, Access, Anybody, Permission, Route
from deployer.core.model.records import Document
from deployer.descriptor import MAX_BODY, MAX_NESTING, Rules

_DESCRIPTION = f"""\
Blue-green deployments for Kubernetes: store a descriptor of an app, deploy it, follow its log.

- A slash at the end of a path is optional. `HEAD` is `GET` without its body, `OPTIONS` names the methods of a path, \
and any other method is a 405 with `Allow`.
- Bodies are JSON in UTF-8, whatever `Content-Type` says, as `curl --data` sends them: at most {MAX_BODY >> 20} MiB \
and {MAX_NESTING} levels.
- Answers are JSON with one field a line, errors `application/problem+json`. JSON is sent whatever `Accept` \
says, and text where there is only text; a 406 only when it refuses everything that it names (`q=0`).
- Unknown parameters are ignored, but for one that is only spelled differently (`appName` for `appname`); an empty one \
is the same as none; one that is given twice is a 400.
- `Location` is relative to the service and has the query that the resource needs."""

_STATUS_SAYS: Mapping[int, str] = {
    400: "A parameter or the descriptor is wrong; `errors` names everything that is.",
    401: "No valid credentials.",
    403: "Not allowed: this namespace is not the caller's, or a web page of another origin sent the request. "
    "Also when a quota of the namespace is used up: `quota` says which.",
    404: "There is no such thing in this namespace.",
    406: "`Accept` refuses everything that it names (`q=0`).",
    409: "It contradicts what is there, such as a host that belongs to another app.",
    412: "`If-Match` names a revision that is no longer current.",
    413: f"The body is larger than {MAX_BODY >> 20} MiB.",
    421: "`Host` names something that this service does not answer to; the setting `allowed_hosts` has more names.",
    422: "The `Idempotency-Key` was sent before with another request.",
    423: "The namespace is frozen; `freezes` says why, until when, and by whom.",
    426: "This is a WebSocket: no `Upgrade` was asked for.",
    429: "Too much at once: `detail` says of what. Try again after `Retry-After`.",
    500: "An error of the service's own; its log says more.",
    503: "Not now: nothing can be recorded or read, or the service is not ready.",
}
_EVERYWHERE = (403, 406, 421, 500)

HEADERS: Mapping[str, Document] = {
    "ETag": {
        "description": "Of a record its revision, while it is under way with a digest of how far it is; of other "
        "answers a digest.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]+([.][0-9a-f]+)?"$'},
        "example": '"42"',
    },
    "Location": {
        "description": "Where it is: a path with its query, relative to the service.",
        "required": True,
        "schema": {"type": "string"},
        "example": "/deployments/3f2b8c1e-6d0a-4c57-9b43-5f1f0c9a7e21/?namespace=default",
    },
    "Link": {
        "description": 'Where the next ones are (RFC 8288, `rel="next"`), relative; missing with the last.',
        "schema": {"type": "string"},
        "example": '</descriptors/?namespace=default&limit=20&continue=WzE0LCI0MiJd>; rel="next"',
    },
    "WWW-Authenticate": {
        "description": "How to authenticate (RFC 6750).",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    },
    "Idempotent-Replayed": {
        "description": "`true` when the request had been carried out before, under the same `Idempotency-Key`; missing "
        "otherwise.",
        "schema": {"enum": ["true"]},
        "example": "true",
    },
    "X-Next-After": {
        "description": "The number of the last line: `after` for whoever wants only what comes next.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
        "example": 42,
    },
}

_TAGS = (
    ("Descriptors", "What teams want to have deployed."),
    ("Deployments", "Past, current and queued deployments, with their logs and health data."),
    ("Apps", "What is live, warm and to come, and what was done."),
    ("Freezes", "What keeps namespaces from new deployments."),
    ("Service", "The service itself."),
)


def build(rules: Rules, *, secured: bool) -> Document:
    """The whole document.

    rules    what is installed, as descriptors are checked against it
    secured  true when callers need a bearer token
    """
    check()
    document: Document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Deployer",
            "version": deployer.__version__,
            "summary": "Blue-green deployments for Kubernetes",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": description} for name, description in _TAGS],
        "paths": {route.path: _path(route, secured) for route in ROUTES},
        "components": {
            "schemas": components(rules),
            "headers": dict(HEADERS),
            "responses": {_name(status): _problem(status, says) for status, says in _STATUS_SAYS.items()},
        },
    }
    if secured:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return document


def check() -> None:
    """Raise LookupError when routes and operations do not belong together."""
    routes = {(route.path, method) for route in ROUTES for method in route.methods}
    if difference := routes ^ set(OPERATIONS):
        raise LookupError(f"only in one of routes.py and operations.py: {sorted(difference)}")


def _path(route: Route, secured: bool) -> Document:
    return {
        method.lower(): _operation(OPERATIONS[route.path, method], access, route.stream, secured)
        for method, access in route.methods.items()
    }


def _operation(operation: Operation, access: Access, stream: bool, secured: bool) -> Document:
    guarded = secured and access is not Anybody.EVERYBODY
    problems = {*operation.problems, *_EVERYWHERE, *((401, 503) if guarded else ())}
    out: Document = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        out["description"] = operation.description
    if secured:
        out["security"] = [{"bearer": []}] if guarded else []
    if isinstance(access, Permission):
        out["x-permission"] = {"resource": access.resource, "verb": access.verb}
    if stream:
        out["x-websocket"] = True
    if operation.parameters:
        out["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        schema = {"$ref": REF + operation.body}
        out["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    out["responses"] = {
        str(status): _reply(status, reply, operation, guarded) for status, reply in operation.replies.items()
    }
    for status in sorted(problems):
        out["responses"][str(status)] = {"$ref": f"#/components/responses/{_name(status)}"}
    return out


def _parameter(parameter: Parameter) -> Document:
    out: Document = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": _or_empty(parameter),
    }
    if parameter.required:
        out["required"] = True
    return out if parameter.example is None else out | {"example": parameter.example}


def _or_empty(parameter: Parameter) -> Document:
    """The schema; an empty text is the same as no parameter, where there need be none."""
    schema = dict(parameter.schema)
    if parameter.required or parameter.where != "query" or schema == {"type": "string"}:
        return schema
    default = {"default": schema.pop("default")} if "default" in schema else {}
    return {"anyOf": [schema, {"enum": [""]}], **default}


def _reply(status: int, reply: Reply, operation: Operation, guarded: bool) -> Document:
    out: Document = {"description": reply.description}
    if reply.headers:
        out["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in reply.headers}
    if reply.content:
        reduced = reply.reduced if guarded else ""
        out["content"] = {
            media: {"schema": _readable({"$ref": REF + schema} if isinstance(schema, str) else schema, reduced)}
            for media, schema in reply.content.items()
        }
    if operation.links and status in operation.links:
        out["links"] = {
            name: {"operationId": target, "parameters": parameters}
            for name, (target, parameters) in operation.links[status].items()
        }
    return out


def _readable(schema: Mapping[str, Any], reduced: str) -> Document:
    """The schema of an answer whose records may be `reduced` to what the caller may read."""
    if not reduced:
        return dict(schema)
    if schema.get("type") == "array":
        return {**schema, "items": _readable(schema["items"], reduced)}
    return {"anyOf": [dict(schema), {"$ref": REF + reduced}]}


def _problem(status: int, says: str) -> Document:
    example: dict[str, Any] = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status}
    out: Document = {
        "description": says,
        "content": {PROBLEM: {"schema": {"$ref": f"{REF}Problem"}, "example": example | {"detail": "..."}}},
    }
    header = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
    if header:
        out["headers"] = {header: {"$ref": f"#/components/headers/{header}"}}
    return out


def _name(status: int) -> str:
    """`NotFound` for 404."""
    return http.HTTPStatus(status).phrase.title().replace(" ", "")
