"""What a descriptor may ask of ingress-nginx in `ingressOptions`: a fixed list of annotations, each with its type.

Nothing in the list can name files, variables or other hosts, or holds configuration; everything else is refused. The
bounds are those of nginx and of the controller, as one value that `nginx -t` refuses keeps the controller from applying
anything, for every tenant. Sources: the controller's parsers (internal/ingress/annotations of kubernetes/ingress-nginx
1.15.1) and its nginx.tmpl; `ngx_http_proxy_merge_loc_conf` for buffers, `ngx_parse_size` for sizes (no `g`, where
`ngx_parse_offset` has it), `ngx_http_limit_conn` for connections, of nginx 1.27.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from deployer.sdk.ingress import PREVIEW_OPTIONS
from deployer.sdk.plugin import Problem, Schema


def _number(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _text(pattern: str, rule: str) -> dict[str, Any]:
    return {"type": "string", "maxLength": 1024, "pattern": f"^{pattern}$", "x-rule": rule}


_SIZE_RANGES = {"client-body-buffer-size": ("1k", "64m"), "proxy-buffer-size": ("1k", "1m")}
"""Smallest and largest. nginx takes larger ones, but every connection of every tenant is in the controller's memory."""

_DEFAULT_BUFFER_SIZE, _DEFAULT_BUFFERS_NUMBER, _MOST_BUFFERED = "4k", 4, "16m"
"""The controller's defaults, and what all `proxy_buffers` of one connection may have together."""

_SWITCH = {"type": "boolean"}
_ORIGIN = r"https?://(\*\.)?[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?"


def _size_within(name: str) -> dict[str, Any]:
    low, high = _SIZE_RANGES[name]
    return _text("[0-9]{1,9}[kKmM]?", f"must be a size from {low} to {high}, like 16k")


ANNOTATIONS: Mapping[str, Schema] = {
    "backend-protocol": {"enum": ["HTTP", "HTTPS", "GRPC", "GRPCS"]},
    "client-body-buffer-size": _size_within("client-body-buffer-size"),
    "cors-allow-credentials": _SWITCH,
    "cors-allow-origin": _text(rf"(\*|{_ORIGIN}(, ?{_ORIGIN})*)", "must be origins like https://a.example"),
    "cors-max-age": _number(0, 31_536_000),
    "enable-cors": _SWITCH,
    "force-ssl-redirect": _SWITCH,
    "limit-connections": _number(1, 65_535),
    "limit-rpm": _number(1, 1_000_000),
    "limit-rps": _number(1, 1_000_000),
    "load-balance": {"enum": ["round_robin", "ewma"]},
    "proxy-body-size": _text("[0-9]{1,9}[kKmMgG]?", "must be a size like 8m, or 0 for any"),
    "proxy-buffer-size": _size_within("proxy-buffer-size"),
    "proxy-buffering": _SWITCH,
    # Two of them may be busy by default, and one more is needed.
    "proxy-buffers-number": _number(3, 256),
    "proxy-connect-timeout": _number(1, 75),
    "proxy-next-upstream-timeout": _number(0, 3600),
    "proxy-next-upstream-tries": _number(0, 10),
    "proxy-read-timeout": _number(1, 86_400),
    "proxy-request-buffering": _SWITCH,
    "proxy-send-timeout": _number(1, 86_400),
    "ssl-redirect": _SWITCH,
    "whitelist-source-range": _text("[0-9a-fA-F.:/, ]+", "must be addresses or networks like 10.0.0.0/8"),
}
"""Names without the prefix: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/"""

_ON_OFF = frozenset({"proxy-buffering", "proxy-request-buffering"})

VERSION_HEADER = "versionHeader"
"""No annotation: the response header in which this app says its version; empty when it does not."""

_OTHERS: Mapping[str, Schema] = {
    **PREVIEW_OPTIONS,
    VERSION_HEADER: _text("[A-Za-z0-9_-]{0,128}", "must be the name of a header, or nothing"),
}

SCHEMA: Schema = {"type": "object", "additionalProperties": False, "properties": {**_OTHERS, **ANNOTATIONS}}


def problems(options: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with options that are of their types: ranges of sizes, addresses, what does not go together."""
    found = [*(_sizes(options) or _buffers(options)), *_addresses(options)]
    return [Problem(f"ingressOptions.{name}", rule) for name, rule in found]


def remarks(options: Mapping[str, Any], *, stable: bool) -> list[Problem]:
    """What has no effect beside the other options, or in this mode."""
    found = []
    if not options.get("enable-cors"):
        found += [(name, "enable-cors: true") for name in sorted(options) if name.startswith("cors-")]
    if VERSION_HEADER in options and not stable:
        found.append((VERSION_HEADER, 'mode = "stable-service" in [plugins.ingress_nginx]'))
    return [Problem(f"ingressOptions.{name}", f"has no effect without {what}") for name, what in found]


def _sizes(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    wrong = []
    for name in options.keys() & _SIZE_RANGES.keys():
        low, high = _SIZE_RANGES[name]
        if not _bytes(low) <= _bytes(options[name]) <= _bytes(high):
            wrong.append((name, f"must be a size from {low} to {high}"))
    return sorted(wrong)


def _buffers(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    number = options.get("proxy-buffers-number", _DEFAULT_BUFFERS_NUMBER)
    size = options.get("proxy-buffer-size", _DEFAULT_BUFFER_SIZE)
    if number * _bytes(size) <= _bytes(_MOST_BUFFERED):
        return []
    most = _bytes(_MOST_BUFFERED) // _bytes(size)
    rule = f"{number} buffers of {size} are more than {_MOST_BUFFERED} for one connection: at most {most} of that size"
    return [("proxy-buffers-number", rule)]


def _addresses(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """As Go's `net.ParseCIDR` and `net.ParseIP` see them, after the controller trimmed each: bits of hosts may be set,
    masks are numbers."""
    name = "whitelist-source-range"
    listed = [one.strip() for one in options[name].split(",")] if name in options else []
    wrong = [number for number, one in enumerate(listed, 1) if not _is_network(one)]
    return [(name, f"entry {wrong[0]} is not an address or a network like 10.0.0.0/8")] if wrong else []


def _is_network(text: str) -> bool:
    _, slash, mask = text.partition("/")
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return not slash or (mask.isascii() and mask.isdigit())


def _bytes(size: str) -> int:
    unit = {"k": 1024, "m": 1024**2}.get(size[-1].lower(), 1)
    return int(re.sub("[kKmM]$", "", size)) * unit


def as_annotations(options: Mapping[str, Any]) -> dict[str, str]:
    """The options that are annotations, as text, in order."""
    return {name: _text_of(name, options[name]) for name in sorted(options.keys() & ANNOTATIONS.keys())}


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return ("off", "on")[value] if name in _ON_OFF else ("false", "true")[value]
    return str(value)
