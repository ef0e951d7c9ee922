"""The API server's HTTP side: paths, query parameters, bodies, discovery; every error is a Status."""

import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from deployer.sandbox import status
from deployer.sandbox.api.discovery import about
from deployer.sandbox.api.podproxy import PodProxy
from deployer.sandbox.api.selectors import Test, field_test, label_test
from deployer.sandbox.api.watch import Watches, WatchRequest
from deployer.sandbox.kinds import KINDS, POD, Key, Kind, Object, key_of
from deployer.sandbox.nodes.kubelet import Kubelet
from deployer.sandbox.objects import custom, fields
from deployer.sandbox.objects.patches import STRATEGIC, unsupported_format
from deployer.sandbox.objects.resources import DeleteOptions, Resources

log = logging.getLogger("sandbox")

LONGEST_BODY = 3 * 1024 * 1024
"""Bytes; the real server's limit."""
LOG_OPTIONS = {"container", "previous", "tailLines", "limitBytes", "pretty", "timestamps", "sinceTime"}
TRUE = ("true", "1", "True")
_HERE = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_TO_POD = re.compile(r"/api/v1/namespaces/[^/]+/pods/[^/]+/proxy/")


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.name


class Api:
    """Answers one request after the other from the store and its resources."""

    absent: frozenset[Kind] = frozenset()
    """Kinds that this cluster does not know, like those whose CRDs are not installed."""

    def __init__(self, resources: Resources, watches: Watches, kubelet: Kubelet, pods: PodProxy, instance: str) -> None:
        self._resources, self._store, self._pods = resources, resources.store, pods
        self._watches, self._kubelet, self._instance = watches, kubelet, instance

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except status.ApiError as error:
            failure = error
        except web.HTTPRequestEntityTooLarge:
            message = f"Request entity too large: limit is {LONGEST_BODY}"
            failure = status.ApiError(413, "RequestEntityTooLarge", message)
        except Exception:
            log.exception("%s %s", request.method, request.path)
            message = f"Internal error occurred in the sandbox: {request.method} {request.path}"
            failure = status.ApiError(500, "InternalError", message)
        headers = {"Retry-After": "1"} if failure.code in (429, 503, 504) else {}
        return _answer(failure.status(), failure.code, headers | failure.headers)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        # What goes on to a pod has the name under which the pod is asked.
        here = _HERE.fullmatch(request.headers.get("Host", "localhost")) or _TO_POD.match(request.path)
        if "Origin" in request.headers or not here:
            # Nobody has to authenticate, so neither a page may ask, nor one whose name resolves to this machine.
            raise status.ApiError(403, "Forbidden", "the sandbox answers programs on this machine, and no web pages")
        parts = [part for part in request.path.split("/") if part]
        if parts == ["sandbox", "compact"] and request.method == "POST":
            return self._compact(request)
        if target := self._target(parts):
            if target.kind in self.absent:
                raise status.no_such_path()
            return await self._resource(request, target)
        if request.method != "GET":
            raise status.method_not_allowed()
        return self._about(parts)

    def _target(self, parts: list[str]) -> Target | None:
        """The resource that a path names; None for other paths. Raises a 404 for resources that the sandbox lacks."""
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif len(parts) > 3 and parts[0] == "apis":
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and custom.find(self._store, group, version, rest[2]):
            namespace, rest = rest[1], rest[2:]
        kind = custom.find(self._store, group, version, rest[0]) if rest else None
        if not rest:
            return None
        if kind is POD and rest[2:3] == ["proxy"]:
            rest = rest[:3]  # what follows is the pod's
        if (
            kind is None
            or len(rest) > 3
            or (kind.namespaced and len(rest) > 1 and not namespace)
            or (namespace and not kind.namespaced)
        ):
            if kind is not None and len(rest) > 3:
                raise status.not_supported(f"the subresource {rest[2]} of {kind.plural}")
            raise status.no_such_path()
        return Target(kind, namespace, *rest[1:])

    def _compact(self, request: web.BaseRequest) -> web.Response:
        """The tests' hook: forgets the history. With `?as=status` old watches get an HTTP 410, no ERROR event."""
        self._watches.expire_as_status = request.query.get("as") == "status"
        self._store.compact()
        return _answer({"compacted": str(self._store.compacted)})

    def _about(self, parts: list[str]) -> web.Response:
        if parts in (["healthz"], ["readyz"], ["livez"]):
            return web.Response(text="ok")
        served = [kind for kind in (*KINDS, *custom.kinds(self._store)) if kind not in self.absent]
        return _answer(about(parts, self._instance, served))

    async def _resource(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        if target.kind is POD and target.subresource == "proxy":
            return await self._pods.handle(request, target.key)
        accept = request.headers.get("Accept", "")
        if accept and not any(kind in accept for kind in ("json", "*/*", "application/*", "text/plain")):
            raise status.ApiError(406, "NotAcceptable", "only the following media types are accepted: application/json")
        if target.subresource:
            return self._subresource(request, target)
        method = request.method
        if method in ("GET", "HEAD"):
            if target.name:
                return _answer(target.kind.as_asked(self._store.get(target.kind, *target.key)))
            return await self._collection(request, target)
        on_collection = not target.name
        handlers: dict[tuple[str, bool], Callable[[web.BaseRequest, Target], Awaitable[web.Response]]] = {
            ("POST", True): self._create,
            ("PUT", False): self._update,
            ("PATCH", False): self._patch,
            ("DELETE", False): self._delete,
        }
        handler = handlers.get((method, on_collection))
        if (
            handler is None
            or target.kind.read_only
            or (method == "POST" and target.kind.namespaced and not target.namespace)
        ):
            raise status.method_not_allowed()
        return await handler(request, target)

    def _subresource(self, request: web.BaseRequest, target: Target) -> web.Response:
        if target.kind is not POD or target.subresource != "log":
            raise status.not_supported(f"the subresource {target.subresource} of {target.kind.plural}")
        if request.method != "GET":
            raise status.method_not_allowed()
        query = request.query
        unsupported = [name for name in query if name not in LOG_OPTIONS and query[name] not in ("false", "")]
        if unsupported:
            raise status.not_supported(f"the log option {unsupported[0]}")
        lines = self._kubelet.log_lines(target.key, query.get("container", ""), query.get("previous") in TRUE)
        if "sinceTime" in query:  # on its way to the kubelet it loses its fraction
            since = _time(query["sinceTime"], "sinceTime").replace(microsecond=0)
            lines = [line for line in lines if _time(line[0], "time") >= since]
        if "tailLines" in query:
            lines = lines[max(0, len(lines) - _number(query["tailLines"], "tailLines")) :]
        stamped = query.get("timestamps") in TRUE
        text = b"".join(f"{time} ".encode() + line if stamped else line for time, line in lines)
        if "limitBytes" in query:
            text = text[: _number(query["limitBytes"], "limitBytes")]
        return web.Response(body=text, content_type="text/plain")

    async def _collection(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        query, kind = request.query, target.kind
        by_label, by_field = (
            label_test(query.get("labelSelector", "")),
            field_test(kind, query.get("fieldSelector", "")),
        )
        if query.get("sendInitialEvents"):
            raise status.ApiError(
                422, "Invalid", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            )

        def test(obj: Object) -> bool:
            return by_label(obj) and by_field(obj)

        if query.get("watch") in TRUE:
            timeout, bookmarks = (
                _number(query.get("timeoutSeconds", "0"), "timeoutSeconds"),
                query.get("allowWatchBookmarks") in TRUE,
            )
            revision = query.get("resourceVersion", "")
            return await self._watches.serve(
                request, WatchRequest(kind, target.namespace, test, revision, bookmarks, timeout)
            )
        return _answer(self._list(target, test, query.get("resourceVersion", ""), query.get("continue", "")))

    def _list(self, target: Target, test: Test, revision: str, token: str) -> Object:
        """Everything at once: `limit` is a hint that a server may ignore."""
        kind, current = target.kind, self._store.revision
        if token:
            raise status.bad_request("continue key is not valid: the sandbox never gives one out")
        if revision and not revision.isdigit():
            raise status.bad_request(f'invalid resource version "{revision}"')
        if int(revision or 0) > current:
            message = f"Timeout: Too large resource version: {revision}, current: {current}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise status.ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
        items = sorted((obj for obj in self._store.list(kind, target.namespace) if test(obj)), key=key_of)
        return {
            "kind": f"{kind.name}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": str(current)},
            # As in the real server, items of a list do not repeat what the list says, but for custom resources.
            "items": [
                kind.as_asked(obj)
                if kind.custom
                else {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
                for obj in items
            ],
        }

    async def _create(self, request: web.BaseRequest, target: Target) -> web.Response:
        _check_content_type(request)
        obj, headers = _decode(target.kind, fields.parse(await request.read()), request)
        try:
            return self._created(request, target, obj, headers)
        except status.ApiError as error:
            error.headers |= headers  # what was dropped is also said when something else is wrong
            raise

    def _created(self, request: web.BaseRequest, target: Target, obj: Object, headers: dict[str, str]) -> web.Response:
        if target.kind.namespaced:
            given = obj["metadata"].get("namespace") or target.namespace
            if given != target.namespace:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        else:
            obj["metadata"].pop("namespace", None)
        made = self._resources.create(target.kind, target.namespace, obj, dry_run=_dry_run(request))
        return _answer(target.kind.as_asked(made), 201, headers)

    async def _update(self, request: web.BaseRequest, target: Target) -> web.Response:
        _check_content_type(request)
        obj, headers = _decode(target.kind, fields.parse(await request.read()), request)
        return _answer(self._resources.update(target.kind, target.key, obj, dry_run=_dry_run(request)), 200, headers)

    async def _patch(self, request: web.BaseRequest, target: Target) -> web.Response:
        content_type = request.content_type
        if content_type == "application/apply-patch+yaml" or (target.kind.custom and content_type == STRATEGIC):
            raise unsupported_format(content_type)
        patch = fields.parse(await request.read())
        headers: dict[str, str] = {}

        def decode(raw: Any) -> Object:
            try:
                obj, found = _decode(target.kind, raw, request)
            except status.ApiError as error:
                # The real server answers the same mistake with another code when it comes in a patch.
                strict = error.message.partition("strict decoding error: ")
                if not strict[1]:
                    raise
                raise status.ApiError(422, "Invalid", f"patch: {strict[1]}{strict[2]}") from None
            headers.update(found)
            return obj

        dry_run = _dry_run(request)
        patched = self._resources.patch(target.kind, target.key, content_type, patch, decode, dry_run=dry_run)
        return _answer(target.kind.as_asked(patched), 200, headers)

    async def _delete(self, request: web.BaseRequest, target: Target) -> web.Response:
        raw = await request.read()
        body = fields.Decoder("DeleteOptions").decode(fields.parse(raw)) if raw else {}
        for name in ("gracePeriodSeconds", "propagationPolicy", "dryRun", "orphanDependents"):
            if name in request.query:
                given: Any = request.query[name]
                if name == "gracePeriodSeconds":
                    given = _number(given.removeprefix("-"), name) * (-1 if given.startswith("-") else 1)
                elif name == "orphanDependents":
                    given = given in TRUE
                body.setdefault(name, [given] if name == "dryRun" else given)
        options = DeleteOptions.of(body)
        obj, gone = self._resources.delete(target.kind, target.key, options)
        if target.kind.plural in ("pods", "services") or not gone:
            return _answer(obj)
        gone_object = status.details(target.kind, target.name, uid=obj["metadata"]["uid"])
        return _answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": gone_object}
        )


def _check_content_type(request: web.BaseRequest) -> None:
    given = request.headers.get("Content-Type")
    if given and request.content_type != "application/json":
        message = f"the body of the request was in an unknown format ({given})"
        accepted = "accepted media types include: application/json"
        raise status.ApiError(415, "UnsupportedMediaType", f"{message} - {accepted}")


def _decode(kind: Kind, raw: Any, request: web.BaseRequest) -> tuple[Object, dict[str, str]]:
    """The object, and the warnings for fields that were dropped."""
    mode = request.query.get("fieldValidation") or "Warn"
    if mode not in ("Strict", "Warn", "Ignore"):
        raise status.ApiError(
            422,
            "Invalid",
            f'fieldValidation: Unsupported value: "{mode}": supported values: "", "Ignore", "Strict", "Warn"',
        )
    obj, decoder = fields.decode(kind, raw)
    if mode == "Strict":
        decoder.check_strict()
    warnings = ", ".join('299 - "' + text.replace('"', '\\"') + '"' for text in decoder.complaints)
    return obj, {"Warning": warnings} if warnings and mode == "Warn" else {}


def _dry_run(request: web.BaseRequest) -> bool:
    given = request.query.getall("dryRun", [])
    if any(value != "All" for value in given):
        raise status.ApiError(422, "Invalid", f'dryRun: Unsupported value: "{given[0]}": supported values: "All"')
    return bool(given)


def _number(text: str, name: str) -> int:
    if not text.isdigit():
        raise status.bad_request(f"{name}: invalid value {text!r}: must be a number and not negative")
    return int(text)


def _time(text: str, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise status.bad_request(f"{name}: invalid value {text!r}: must be a time as in RFC 3339") from None


def _answer(body: Object, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    text = json.dumps(body, separators=(",", ":")).encode() + b"\n"
    return web.Response(body=text, status=code, content_type="application/json", headers=headers)
