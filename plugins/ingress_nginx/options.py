"""What a descriptor may ask of ingress-nginx in `ingressOptions`: a fixed list of annotations, each with its type.

Nothing in the list can name files, variables or other hosts, or holds configuration; everything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.core import PREVIEW_OPTIONS, Schema


def _number(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _text(pattern: str, rule: str) -> dict[str, Any]:
    return {"type": "string", "maxLength": 1024, "pattern": f"^{pattern}$", "x-rule": rule}


_SWITCH = {"type": "boolean"}
_SIZE = _text("[0-9]{1,6}[kKmMgG]?", "must be a size like 8m")
_ADDRESS = r"[0-9a-fA-F.:]{2,39}(/[0-9]{1,3})?"
_ORIGIN = r"https?://(\*\.)?[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?"

ANNOTATIONS: Mapping[str, Schema] = {
    "backend-protocol": {"enum": ["HTTP", "HTTPS", "GRPC", "GRPCS"]},
    "client-body-buffer-size": _SIZE,
    "cors-allow-credentials": _SWITCH,
    "cors-allow-origin": _text(rf"(\*|{_ORIGIN}(, ?{_ORIGIN})*)", "must be origins like https://a.example"),
    "cors-max-age": _number(0, 31_536_000),
    "enable-cors": _SWITCH,
    "force-ssl-redirect": _SWITCH,
    "limit-connections": _number(1, 1_000_000),
    "limit-rpm": _number(1, 1_000_000),
    "limit-rps": _number(1, 1_000_000),
    "load-balance": {"enum": ["round_robin", "ewma"]},
    "proxy-body-size": _SIZE,
    "proxy-buffer-size": _SIZE,
    "proxy-buffering": _SWITCH,
    "proxy-buffers-number": _number(1, 256),
    "proxy-connect-timeout": _number(1, 75),
    "proxy-next-upstream-timeout": _number(0, 3600),
    "proxy-next-upstream-tries": _number(0, 10),
    "proxy-read-timeout": _number(1, 86_400),
    "proxy-request-buffering": _SWITCH,
    "proxy-send-timeout": _number(1, 86_400),
    "ssl-redirect": _SWITCH,
    "whitelist-source-range": _text(f"{_ADDRESS}(, ?{_ADDRESS})*", "must be addresses or networks like 10.0.0.0/8"),
}
"""Names without the prefix: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/"""

_ON_OFF = frozenset({"proxy-buffering", "proxy-request-buffering"})

SCHEMA: Schema = {"type": "object", "additionalProperties": False, "properties": {**PREVIEW_OPTIONS, **ANNOTATIONS}}


def as_annotations(options: Mapping[str, Any]) -> dict[str, str]:
    """The options that are annotations, as text, in order."""
    return {name: _text_of(name, options[name]) for name in sorted(options.keys() & ANNOTATIONS.keys())}


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return ("off", "on")[value] if name in _ON_OFF else ("false", "true")[value]
    return str(value)
