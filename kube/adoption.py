"""What the original deployer left of a route: its Ingresses, which have no labels, known by their exact shape.

Pure functions; `OwnedKube.is_original` asks the cluster for what else must be true. The shapes are those that
proxies/ingress_config.go of amdatu-kubernetes-deployer wrote as extensions/v1beta1, read as networking.k8s.io/v1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASS = "kubernetes.io/ingress.class"
AFFINITY = "ingress.kubernetes.io/affinity"
SNIPPET = "ingress.kubernetes.io/configuration-snippet"
ANNOTATIONS = frozenset({CLASS, AFFINITY, SNIPPET})
"""Every annotation that the original wrote; what takes an Ingress over removes them."""

# What people add to make such an Ingress work with a controller of today stays, and makes it nobody else's.
_TUNING = "nginx.ingress.kubernetes.io/"

_OF_APP = re.compile(r"(gzip[a-z_]* [^;\n]+;\n)*(more_set_headers ('[^\n]*' )+;)?")


@dataclass(frozen=True, slots=True)
class OriginalIngress:
    """`frontend` is that of the descriptor; `service` is the backend, versioned unless this is the `redirect`."""

    frontend: str
    service: str
    redirect: bool


def redirect_name(app: str) -> str:
    """Of the Ingress that redirected `www.`."""
    return f"{app}-www-redirect"


def original_ingress(found: Mapping[str, Any], app: str) -> OriginalIngress | None:
    """What an Ingress of the original's shape says; None for any other."""
    metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
    redirect = metadata.get("name") == redirect_name(app)
    if metadata.get("name") not in (app, redirect_name(app)) or metadata.get("labels"):
        return None
    rule = _only(spec.get("rules"))
    path = _only((rule.get("http") or {}).get("paths"))
    backend = (path.get("backend") or {}).get("service") or {}
    host, service, port = str(rule.get("host") or ""), str(backend.get("name") or ""), backend.get("port") or {}
    frontend = host.removeprefix("www.") if redirect else host
    as_it_was = (
        spec.keys() == {"rules", "tls"}
        and rule.keys() == {"host", "http"}
        and path.keys() <= {"path", "pathType", "backend"}
        and not path.get("path")
        and path.get("pathType") == "ImplementationSpecific"
        and backend.keys() == {"name", "port"}
        and (port.keys() == {"number"} or (redirect and port.keys() == {"name"}))
        and (service == app if redirect else service.startswith(f"{app}-"))
        and host == (f"www.{frontend}" if redirect else frontend) != ""
        and _is_tls(_only(spec.get("tls")), host)
        and _are_annotations(
            metadata.get("annotations") or {}, f"rewrite ^/(.*)$ https://{frontend}/$1 permanent;", redirect
        )
    )
    return OriginalIngress(frontend, service, redirect) if as_it_was else None


def _only(items: Any) -> Mapping[str, Any]:
    """The only item of a list; empty when there is none, or more."""
    return items[0] if isinstance(items, list) and len(items) == 1 and isinstance(items[0], Mapping) else {}


def _is_tls(tls: Mapping[str, Any], host: str) -> bool:
    return tls.keys() == {"hosts", "secretName"} and tls["hosts"] == [host] and bool(tls["secretName"])


def _are_annotations(found: Mapping[str, str], rewrite: str, redirect: bool) -> bool:
    notes = {key: value for key, value in found.items() if not key.startswith(_TUNING)}
    if notes.pop(CLASS, "") != "nginx":
        return False
    if redirect:
        return notes == {SNIPPET: rewrite}
    snippet = notes.pop(SNIPPET, None)
    return (snippet is None or bool(_OF_APP.fullmatch(snippet))) and notes in ({}, {AFFINITY: "cookie"})
