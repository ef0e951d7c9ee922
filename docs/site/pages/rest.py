"""docs/rest.md: every route, from the same OpenAPI document that a running service gives out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.api.openapi import document as openapi
from pages.installed import NOTE, shipped

_HEAD = f"""\
# Routes

{NOTE}
Every route of the service, its parameters and its answers. [REST API](api.md) has what goes for all of them: how
errors, lists, revisions and repeated requests work. A running service shows the same at `/docs`, with the fields of
every answer, and as OpenAPI 3.1 at `/openapi.json`.

Where authentication is on, a caller needs the permission that is named, in the namespace of the request:
[Authentication](authentication.md) says how it is given. These statuses are possible everywhere and are not repeated
below: 401 without a good token, 403 without the permission, 406, 421, 500, and 503.
"""

_EVERYWHERE = {"401", "403", "406", "421", "500", "503"}


def rest_page() -> str:
    """The whole page."""
    document = json.loads(json.dumps(openapi.build(shipped(), secured=True)))
    sections = ("".join(_section(document, tag)) for tag in document["tags"])
    return _HEAD + "".join(sections)


def _section(document: Mapping[str, Any], tag: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {tag['name']}\n\n{tag['description']}\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag["name"] in operation["tags"]:
                yield from _operation(document, path, method, operation)


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    title = "WebSocket" if operation.get("x-websocket") else method.upper()
    yield f"\n### {title} `{path}`\n\n{operation['summary']}.\n"
    if description := operation.get("description"):
        yield f"\n{description}\n"
    if permission := operation.get("x-permission"):
        yield f"\nPermission: `{permission['verb']}` on `{permission['resource']}`.\n"
    elif not operation["security"]:
        yield "\nNeeds no credentials.\n"
    if parameters := operation.get("parameters"):
        yield "\n| parameter | in | |\n|---|---|---|\n"
        yield from map(_parameter, parameters)
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        yield f"\nBody: {_shape(schema)}.\n"
    yield "\n| status | answer |\n|---|---|\n"
    for status, reply in operation["responses"].items():
        if status not in _EVERYWHERE or "$ref" not in reply:
            yield _reply(document, status, reply)


def _parameter(parameter: Mapping[str, Any]) -> str:
    required = "Required. " if parameter.get("required") else ""
    default = parameter["schema"].get("default")
    says = f" Default: `{json.dumps(default)}`." if default is not None else ""
    return f"| `{parameter['name']}` | {parameter['in']} | {required}{_cell(parameter['description'])}{says} |\n"


def _reply(document: Mapping[str, Any], status: str, reply: Mapping[str, Any]) -> str:
    if reference := reply.get("$ref"):
        reply = document["components"]["responses"][reference.rpartition("/")[2]]
        return f"| {status} | {_cell(reply['description'])} |\n"
    shapes = [_shape(content["schema"]) for content in reply.get("content", {}).values()]
    body = f" Body: {' or '.join(shapes)}." if shapes else ""
    headers = f" Headers: {', '.join(f'`{name}`' for name in reply['headers'])}." if "headers" in reply else ""
    return f"| {status} | {_cell(reply['description'])}{body}{headers} |\n"


def _shape(schema: Mapping[str, Any]) -> str:
    """What JSON it is, by the names of the OpenAPI document."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return "a [descriptor](descriptor.md)" if name == "Descriptor" else f"`{name}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_shape(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"a list of {_shape(schema['items'])}"
    return {"string": "text", "object": "an object"}.get(schema.get("type", ""), "JSON")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
