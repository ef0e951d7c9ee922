"""What goes over the wire: JSON for people, query parameters, bodies, entity tags."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol, TypeVar

import falcon
import msgspec

from deployer.api.auth.principal import Principal
from deployer.api.routes import Permission
from deployer.commands.freezes import EVERYWHERE
from deployer.commands.idempotency import RequestKey
from deployer.core.errors import DeployerError, Invalid, Problem
from deployer.descriptor import MAX_BODY, SCHEMA, fold, parse

_TAG = re.compile(r'"?([0-9]{1,18})(?:\.[0-9a-f]{1,32})?"?')
_NUMBER = re.compile(r"[0-9]{1,18}")
_TRUE, _FALSE = frozenset({"true", "t", "1"}), frozenset({"false", "f", "0"})
_NAMESPACE = re.compile(SCHEMA["properties"]["namespace"]["pattern"].removesuffix("$") + r"\Z")

E = TypeVar("E", bound=Enum)


IDEMPOTENCY_KEY_PATTERN = r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-+\--\[\]-~]{1,255})'
"""A string of RFC 8941; or the same without quotes, as most clients send it, and then without commas, by which headers
that come twice are joined."""


class Query(Protocol):
    """A request, of REST or of the log stream: names and values of its query; a list for a name that comes twice."""

    @property
    def params(self) -> Mapping[str, str | list[str]]: ...


class TooLarge(DeployerError):
    """The body of a request exceeds the limit."""


class Resource:
    """Base of all resources: HEAD is GET without its body, which the framework leaves out."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]


def render(document: Any) -> bytes:
    """JSON indented by two spaces and ended by a newline.

    Text stays readable instead of being escaped to ASCII. A lone surrogate, which UTF-8 cannot express and which a
    message may echo, becomes `\\udc80`, its spelling in JSON. Raises ValueError for NaN and infinities.
    """
    try:
        data = msgspec.json.encode(document)
    except (UnicodeError, RecursionError):
        return _render_slowly(document)
    # The fast encoder writes NaN, too, as null: what may have been one is left to the other.
    if b"null" in data:
        return _render_slowly(document)
    return msgspec.json.format(data, indent=2) + b"\n"


def _render_slowly(document: Any) -> bytes:
    """The same bytes, but for the exponents of numbers (`1e+16`, there `1e16`), from the standard library."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def send(resp: falcon.Response, document: Any, status: int = 200) -> None:
    """Answer with JSON."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = render(document)


def send_record(resp: falcon.Response, document: Any, status: int = 200) -> None:
    """Answer with a deployment or a list of them, for scripts that grep `status` or `Location` in what curl prints.

    Scripts made for the original take the line with `status` for the deployment's. So no other line has that word, be
    it in a message, a path or a variable's name: its first letter is written as JSON also has it, `\\u0073tatus`. Who
    reads JSON finds the same text.
    """
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = render_record(document)


def render_record(document: Any) -> bytes:
    """What `send_record` sends."""
    pieces = render(document).replace(b"Location", b"\\u004cocation").split(b"status")
    out = [pieces[0]]
    for before, after in itertools.pairwise(pieces):
        own = after.startswith(b'": ') and before.endswith((b'\n  "', b'\n    "'))  # of a record, or of one in a list
        out += (b"status" if own else b"\\u0073tatus", after)
    return b"".join(out)


def location(kind: str, id: str, namespace: str) -> str:
    """The relative address of a descriptor or deployment, as the original gave it."""
    return f"/{kind}/{id}/?namespace={urllib.parse.quote(namespace, safe='')}"


def body(req: falcon.Request) -> bytes:
    """The request's body, whatever its Content-Type says. Raises TooLarge."""
    if not hasattr(req.context, "body"):
        req.context.body = req.stream.read(MAX_BODY + 1)
    data: bytes = req.context.body
    if len(data) > MAX_BODY:
        raise TooLarge(f"the body is larger than {MAX_BODY} bytes")
    return data


# --- who did what ---------------------------------------------------------------------------------------------------


def caller(req: falcon.Request) -> Principal | None:
    """Who sent the request; None where nobody had to say."""
    return getattr(req.context, "caller", None)


def by(req: falcon.Request) -> str:
    """Their name, for records; empty for nobody in particular."""
    found = caller(req)
    return found.name if found else ""


def may(req: falcon.Request, permission: Permission, name: str = "", *, where: str = "") -> bool:
    """True when the caller may do that too, in the namespace of the request (`where`: in that one). Raises Unsure, and
    Invalid without one."""
    allows: Callable[[Permission, str, str], bool] | None = getattr(req.context, "allows", None)
    return allows is None or allows(permission, where or namespace(req), name)


def about(resp: falcon.Response, app: str, id: str) -> None:
    """Tell the audit log which app and which record it was about."""
    resp.context.app, resp.context.id = app, id


# --- what is sent again ---------------------------------------------------------------------------------------------

REPLAYED = "Idempotent-Replayed"
"""The header of an answer to a request that had been carried out before."""


def request_key(req: falcon.Request, namespace: str, *, with_body: bool = False) -> RequestKey | None:
    """The header `Idempotency-Key` and what it goes with; None without one. Raises Invalid.

    `with_body`: the body belongs to the request; elsewhere it is not read.
    """
    header = req.get_header("Idempotency-Key")
    if header is None:
        return None
    match = re.fullmatch(IDEMPOTENCY_KEY_PATTERN, header.strip(" \t"))
    if match is None:
        raise Invalid(
            [Problem("Idempotency-Key", "is not one key of 1 to 255 printable ASCII characters, in quotes or without")]
        )
    text = re.sub(r"\\(.)", r"\1", match.group(1)) if match.group(1) else match.group(2)
    asked = [
        req.method,
        req.path,
        sorted(req.params.items()),
        hashlib.sha256(body(req) if with_body else b"").hexdigest(),
    ]
    return RequestKey.of(by(req), namespace, text, asked)


def tell_replayed(resp: falcon.Response, key: RequestKey | None) -> None:
    """Say so when the answer is that of an earlier request."""
    if key is not None and key.replayed:
        resp.set_header(REPLAYED, "true")


# --- query parameters: each raises Invalid, so that the answer names the parameter ------------------------------------


def namespace(req: Query) -> str:
    """The parameter that every descriptor and deployment needs."""
    value = required(req, "namespace")
    if not _NAMESPACE.match(value):
        raise _wrong("namespace", "cannot be a namespace: at most 63 lower-case letters, digits and '-'")
    return value


def stated_namespace(req: falcon.Request) -> str:
    """The parameter, else the descriptor's own namespace: the original took no parameter when it validated."""
    if text(req, "namespace") is not None:
        return namespace(req)
    value = parse(body(req)).get("namespace")
    if not isinstance(value, str) or not _NAMESPACE.match(value):
        raise _wrong(
            "namespace", "is missing or is no namespace's name; give it in the descriptor or as ?namespace=..."
        )
    return value


def frozen_namespace(req: falcon.Request, path: str | None = None) -> str:
    """A namespace, or `*` for all: that of the path, which the parameter may repeat; else that of the parameter."""
    given = text(req, "namespace")
    if path is not None and given not in (None, path):
        raise _wrong("namespace", "is another one than the path's; leave it out, or repeat that")
    if EVERYWHERE in (path, given):
        return EVERYWHERE
    if path is None:
        return namespace(req)
    if not _NAMESPACE.match(path):
        raise _wrong("namespace", "cannot be a namespace: at most 63 lower-case letters, digits and '-', or * for all")
    return path


def app(req: falcon.Request) -> str | None:
    """`appname` as descriptors have it once they are stored; None when it is absent or empty."""
    value = text(req, "appname")
    return value and fold(value)


def required(req: Query, name: str) -> str:
    """The parameter's text."""
    value = text(req, name)
    if value is None:
        raise _wrong(name, f"is missing; add {name}=... to the query, after ? or &")
    return value


def required_app(req: falcon.Request) -> str:
    """`appname`, where it must be given."""
    return fold(required(req, "appname"))


def text(req: Query, name: str) -> str | None:
    """The parameter's text; None when it is absent or empty."""
    value = req.params.get(name)
    if isinstance(value, list):
        raise _wrong(name, "is given more than once; give it once")
    return value or None


def flag(req: falcon.Request, name: str, default: bool) -> bool:
    """A boolean as Go's `strconv.ParseBool` takes it, in any case: `1`, `t`, `true`, `0`, `f`, `false`."""
    value = text(req, name)
    if value is None:
        return default
    if value.lower() not in _TRUE | _FALSE:
        raise _wrong(name, "is neither true nor false")
    return value.lower() in _TRUE


def number(req: Query, name: str, least: int) -> int | None:
    """A whole number from `least` on; None when it is absent or empty."""
    value = text(req, name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value) or int(value) < least:
        raise _wrong(name, f"is not a whole number from {least} on")
    return int(value)


def choice(req: falcon.Request, name: str, choices: type[E]) -> E | None:
    """One of the values of an enumeration; None when it is absent or empty."""
    value = text(req, name)
    if value is None:
        return None
    try:
        return choices(value)
    except ValueError:
        raise _wrong(name, f"is not one of {', '.join(choice.value for choice in choices)}") from None


def _wrong(name: str, message: str) -> Invalid:
    return Invalid([Problem(name, message)])


# --- entity tags: a revision in quotes, perhaps with a digest of what is shown besides -------------------------------


def tag_of(document: Any, revision: int | None = None) -> str:
    """The entity tag of an answer: the record's revision, if it shows one, and a digest of `document`."""
    try:
        data = msgspec.json.encode(document)
    except (UnicodeError, RecursionError):
        data = _render_slowly(document)
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return digest if revision is None else f"{revision}.{digest}"


def set_tag(resp: falcon.Response, tag: int | str) -> None:
    """Name what the answer shows: a revision, or what `tag_of` gives."""
    resp.set_header("ETag", f'"{tag}"')


def known(req: falcon.Request, resp: falcon.Response) -> bool:
    """True when the client has what the answer would show (`If-None-Match`, RFC 9110, 13.1.2)."""
    tag = resp.get_header("ETag")
    return tag is not None and resp.status_code == 200 and has(req, tag.strip('"'))


def has(req: falcon.Request, tag: str) -> bool:
    """True when the client has what goes by this tag already. Quotes may be left out, since shells eat them."""
    header = req.get_header("If-None-Match")
    if header is None or req.method not in ("GET", "HEAD"):
        return False
    return header.strip() == "*" or tag in (one.strip().removeprefix("W/").strip('"') for one in header.split(","))


def if_match(req: falcon.Request) -> frozenset[int] | None:
    """The revisions that `If-Match` names; None for `*` or no such header. How far an operation is does not count.

    What cannot be a tag of ours matches nothing (RFC 9110, 13.1.1). Quotes may be left out, since shells eat them.
    """
    header = req.get_header("If-Match")
    if header is None or header.strip() == "*":
        return None
    return _revisions(header)


def _revisions(header: str) -> frozenset[int]:
    """Those in a list of entity tags; others' tags match nothing."""
    matches = (_TAG.fullmatch(tag.strip()) for tag in header.split(","))
    return frozenset(int(match.group(1)) for match in matches if match)
