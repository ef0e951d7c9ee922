"""`/docs`: the OpenAPI document as one page for people. Everything that it needs is in it, so it works anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib import resources
from typing import Any

import falcon

from deployer.api import http
from deployer.core.model.records import Document

_ORDER = ("Descriptor", "Validation", "Deployment", "Failure", "HealthCheckData", "Problem")
_CODE = re.compile(r"`([^`]+)`")
_LOGS = "/stream/deployments/{id}/logs"


class Docs(http.Resource):
    """The page."""

    def __init__(self, document: Callable[[], Document]) -> None:
        self._document = document
        self._page: tuple[bytes, str] | None = None

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Made when it is asked for the first time. Only what is in it may run there, and nothing is fetched."""
        if self._page is None:
            self._page = page(self._document())
        send(resp, self._page)


def page(document: Document) -> tuple[bytes, str]:
    """The page of an OpenAPI document, and the Content-Security-Policy that it needs."""
    return _Page(document).html()


def whole(title: str, main: str, nav: str = "") -> tuple[bytes, str]:
    """A page around its main part, and perhaps its navigation, and the Content-Security-Policy that it needs."""
    style, script = assets()
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>"
        f"{nav}\n<main>{main}</main><script>{script}</script></body></html>\n"
    )
    return html.encode(), policy


def send(resp: falcon.Response, made: tuple[bytes, str]) -> None:
    """Answer with a page of `whole`."""
    resp.content_type = "text/html; charset=utf-8"
    resp.data, policy = made
    resp.set_header("Content-Security-Policy", policy)
    resp.set_header("Referrer-Policy", "no-referrer")


def assets() -> tuple[str, str]:
    """The style and the script, from the package."""
    here = resources.files(__package__)
    return here.joinpath("page.css").read_text("utf-8"), here.joinpath("page.js").read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


class _Page:
    """Writes the page of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]
        self._secured = "securitySchemes" in document["components"]
        answers = [set(o["responses"]) for methods in document["paths"].values() for o in methods.values()]
        common = sorted(set.intersection(*answers))
        one = next(iter(document["paths"]["/"].values()))
        self._everywhere = {status: one["responses"][status] for status in common}

    def html(self) -> tuple[bytes, str]:
        info = self._document["info"]
        groups = {tag["name"]: tag["description"] for tag in self._document["tags"]}
        operations = [
            (path, method, operation)
            for path, methods in self._document["paths"].items()
            for method, operation in methods.items()
        ]
        body = [
            f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
            f"{_prose(info['description'])}{self._before()}</header>",
            f'<h3 id="everywhere">Errors of every route</h3>{self._answers(self._everywhere)}',
        ]
        for group, description in groups.items():
            body.append(f'<h2 id="{_anchor(group)}">{escape(group)}</h2>{_prose(description)}')
            body += [self._operation(p, m, o) for p, m, o in operations if group in o["tags"]]
        body.append('<h2 id="schemas">Schemas</h2>')
        body += [self._schema(name) for name in _ORDER]
        nav = f"<nav><details open>{self._contents(groups, operations)}</details></nav>"
        return whole(f"{info['title']}: REST API", "".join(body), nav)

    def _contents(self, groups: Iterable[str], operations: list[tuple[str, str, Document]]) -> str:
        out = [f"<summary>{escape(self._document['info']['title'])}</summary>"]
        for group in groups:
            links = [_link(o["operationId"], o["summary"], m) for _, m, o in operations if group in o["tags"]]
            out.append(f'<a class="group" href="#{_anchor(group)}">{escape(group)}</a><ul>{"".join(links)}</ul>')
        links = [f'<li><a href="#schema-{name}">{name}</a></li>' for name in _ORDER]
        return f'{"".join(out)}<a class="group" href="#schemas">Schemas</a><ul>{"".join(links)}</ul>'

    def _before(self) -> str:
        text = "The examples need the address of the service"
        lines = ['API=<span class="origin">http://127.0.0.1:8000</span>']
        if self._secured:
            text += " and your token"
            lines.append("TOKEN=...")
        return f'<p>{text}; <a href="/openapi.json">openapi.json</a> has all this for programs.</p>{pre(lines)}'

    # --- operations ---------------------------------------------------------------------------------------------------

    def _operation(self, path: str, method: str, operation: Document) -> str:
        parameters = operation.get("parameters", ())
        special = {s: answer for s, answer in operation["responses"].items() if s not in self._everywhere}
        out = [
            f'<section id="{operation["operationId"]}"><h3>{escape(operation["summary"])}</h3>',
            f'<p class="route">{_method(method)} <code>{_breakable(path)}</code></p>',
            _prose(operation.get("description", "")),
        ]
        if parameters:
            rows = [self._parameter(parameter) for parameter in parameters]
            out.append(_table("Parameters", rows))
        if body := operation.get("requestBody"):
            schema = body["content"]["application/json"]["schema"]
            out.append(f"<p>Body: {self._type(schema)}</p>")
        out.append(pre(self._example(path, method, operation)))
        out.append(f"<h4>Answers</h4>{self._answers(special)}</section>")
        return "".join(out)

    def _parameter(self, parameter: Document) -> tuple[str, str, str]:
        where = {"path": "in the path", "header": "a header"}.get(parameter["in"], "")
        notes = [where, "required" if parameter.get("required") else ""]
        kind = ", ".join(filter(None, [self._type(parameter["schema"]), *notes]))
        return f"<code>{escape(parameter['name'])}</code>", kind, _prose(parameter["description"])

    def _answers(self, responses: Mapping[str, Document]) -> str:
        rows = []
        for status, given in responses.items():
            response = self._resolve(given["$ref"]) if "$ref" in given else given
            content = [
                f"{self._type(media['schema'])} <small>{escape(name)}</small>"
                for name, media in response.get("content", {}).items()
            ]
            headers = [f"<code>{escape(name)}</code>" for name in response.get("headers", ())]
            text = _prose(response["description"])
            rows.append((f"<b>{status}</b>", " ".join([*content, *headers]), text))
        return _table("Answers", rows)

    def _example(self, path: str, method: str, operation: Document) -> list[str]:
        query = "&".join(
            f"{p['name']}={'$DESCRIPTOR' if p['name'] == 'descriptorId' else p.get('example')}"
            for p in operation.get("parameters", ())
            if p["in"] == "query" and p.get("required")
        )
        address = path.replace("{id}", "$ID") + (f"?{query}" if query else "")
        token = '-H "Authorization: Bearer $TOKEN" ' if operation.get("security") else ""
        if path == _LOGS:
            return [
                escape(f'wscat {token}-c "${{API/http/ws}}{address}"'),
                escape(f'curl -N {token}"${{API/http/ws}}{address}"') + "   # curl 8.11 or newer",
            ]
        data = "-d @descriptor.json " if "requestBody" in operation else ""
        verb = "" if method == "get" or (method == "post" and data) else f"-X {method.upper()} "
        return [escape(f'curl {verb}{token}{data}"$API{address}"')]

    # --- schemas ------------------------------------------------------------------------------------------------------

    def _schema(self, name: str) -> str:
        schema = self._schemas[name]
        required = schema.get("required", ())
        rows = [
            self._field(field, definition, field in required)
            for field, definition in schema["properties"].items()
            if not definition.get("deprecated")
        ]
        old = [field for field, definition in schema["properties"].items() if definition.get("deprecated")]
        out = [
            f'<section id="schema-{name}"><h3>{name}</h3>{_prose(schema.get("description", ""))}',
            _table("Fields", rows),
        ]
        if old:
            names = ", ".join(f"<code>{field}</code>" for field in old)
            out.append(f"<p>Taken from clients of the original, without effect: {names}.</p>")
        for example in schema.get("examples", ()):
            out.append("<h4>Example</h4>" + pre([escape(json.dumps(example, indent=2, ensure_ascii=False))]))
        return "".join([*out, "</section>"])

    def _field(self, name: str, definition: Document, required: bool) -> tuple[str, str, str]:
        notes = [self._type(definition)]
        if required:
            notes.append("required")
        if "default" in definition or "default" in self._followed(definition):
            default = definition.get("default", self._followed(definition).get("default"))
            notes.append(f"default <code>{escape(json.dumps(default))}</code>")
        if definition.get("readOnly"):
            notes = ["set by the service"]
        text = definition.get("description") or self._followed(definition).get("description", "")
        if self._followed(definition).get("type") == "string" and (rule := self._followed(definition).get("x-rule")):
            text += f"\n\nIt {rule}."
        return f"<code>{escape(name)}</code>", ", ".join(notes), _prose(text) + self._inner(definition)

    def _inner(self, definition: Document) -> str:
        """The fields of a list's items, where they are written down on the spot."""
        items = self._followed(definition).get("items", {})
        names = [f"<code>{escape(name)}</code>" for name in items.get("properties", ())]
        return f"<p>Each has {' and '.join(names)}.</p>" if names else ""

    def _type(self, schema: Mapping[str, Any]) -> str:
        """A schema in a few words, with a link when it is on this page."""
        reference = schema.get("$ref", "")
        name = reference.rpartition("/")[2]
        shown = "Descriptor" if name.endswith("Descriptor") else name
        if shown in _ORDER:
            return f'<a href="#schema-{shown}">{shown}</a>'
        found = self._followed(schema)
        if "enum" in found:
            values = [value for value in found["enum"] if isinstance(value, str | bool)]
            if True in values:
                return "boolean"
            return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
        kind = found.get("type", "any JSON")
        if isinstance(kind, list):
            kind = next(each for each in kind if each != "null")
        if kind == "array":
            return f"list of {self._type(found.get('items', {}))}"
        least, most = found.get("minimum"), found.get("maximum")
        if least is not None and most is not None and most < 10**9:
            return f"{kind} {least}–{most}"
        return escape(found.get("format") or kind) if kind == "string" else escape(kind)

    def _followed(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema itself, without its `null` and behind references."""
        for _ in range(8):
            if "anyOf" in schema and len(schema["anyOf"]) == 2:
                schema = schema["anyOf"][0]
            elif "$ref" in schema and "type" not in schema:
                schema = self._resolve(schema["$ref"])
        return schema

    def _resolve(self, reference: str) -> Document:
        found: Any = self._document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        resolved: Document = found
        return resolved


# --- HTML -------------------------------------------------------------------------------------------------------------


def _prose(text: str) -> str:
    """Paragraphs and lists with `code` in them."""
    out = []
    for block in filter(None, text.split("\n\n")):
        if block.startswith("- "):
            items = "".join(f"<li>{_inline(item)}</li>" for item in block.removeprefix("- ").split("\n- "))
            out.append(f"<ul>{items}</ul>")
        else:
            out.append(f"<p>{_inline(block)}</p>")
    return "".join(out)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def pre(lines: Iterable[str]) -> str:
    """Lines to copy; what is in them is HTML."""
    return f"<pre><code>{chr(10).join(lines)}</code></pre>"


def _table(name: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{name.lower()}" aria-label="{name}">{lines}</table>'


def _method(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _link(anchor: str, text: str, method: str) -> str:
    return f'<li><a href="#{anchor}">{_method(method)} {escape(text)}</a></li>'


def _breakable(path: str) -> str:
    """A path that may be broken at its slashes."""
    return escape(path).replace("/", "<wbr>/")


def _anchor(group: str) -> str:
    return f"group-{group.lower()}"
