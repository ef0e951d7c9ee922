"""A strategy's own manifests, held against the usual ones: what the engine and the shared steps rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.core.contract.strategy import WorkloadContext
from deployer.core.model.plan import Workload
from deployer.core.model.records import Document
from deployer.toolkit import manifests

_OURS = "kube-deployer/"
"""What the annotations begin with that say whose an object is."""


def checked(given: object, context: WorkloadContext) -> Workload:
    """See `Versions.checked`."""
    if not isinstance(given, Workload):
        raise ValueError(f"a {type(given).__name__}, no Workload")
    usual = manifests.render(context)
    found: dict[str, Document | None] = {}
    for name in ("controller", "versioned_service", "service"):
        expected: Document | None = getattr(usual, name)
        body = _as_json(getattr(given, name), name)
        if (body is None) != (expected is None):
            what = f"a workload without {name}" if body is None else f"a {name} for an app without container ports"
            raise ValueError(what)
        if body is not None and expected is not None:
            for wrong in _wrong(body, expected):
                raise ValueError(f"a {name} {wrong}")
        found[name] = body
    assert found["controller"] is not None
    return Workload(
        controller=found["controller"], versioned_service=found["versioned_service"], service=found["service"]
    )


def _as_json(body: object, name: str) -> Document | None:
    """A copy, as the API server would get it."""
    try:
        found = json.loads(json.dumps(body, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"a {name} that is no JSON") from None
    if not isinstance(found, dict | None):
        raise ValueError(f"a {name} that is no JSON object")
    return found


def _wrong(body: Document, usual: Document) -> Iterator[str]:
    """What of the object is not as it must be, most important first."""
    for path in ("apiVersion", "kind", "metadata.name", "metadata.namespace", "spec.selector"):
        if _at(body, path) != _at(usual, path):
            yield f"whose {path} is not {json.dumps(_at(usual, path))}"
    if not _has(body, usual, "metadata.labels"):
        yield "without the labels by which it is found"
    marks = {key: value for key, value in usual["metadata"]["annotations"].items() if key.startswith(_OURS)}
    if not _mapping(body, "metadata.annotations").items() >= marks.items():
        yield f"without the annotations {_OURS}... that say whose it is"
    if not _has(body, usual, "spec.template.metadata.labels"):
        yield "whose pods do not have the labels by which they are found"
    containers = _at(body, "spec.template.spec.containers")
    if "template" in usual["spec"] and not (isinstance(containers, list) and containers):
        yield "whose pods have no containers"
    given = _ports(body)
    for number, protocol in sorted(_ports(usual) - given):
        yield f"without port {number}/{protocol}"


def _has(body: Document, usual: Document, path: str) -> bool:
    """All that the usual object has there; more is the strategy's business."""
    return _mapping(body, path).items() >= _mapping(usual, path).items()


def _mapping(body: Document, path: str) -> Mapping[str, Any]:
    found = _at(body, path)
    return found if isinstance(found, dict) else {}


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def _ports(body: Document) -> set[tuple[int, str]]:
    """Of a Service; a controller has none."""
    found = _at(body, "spec.ports")
    ports = [port for port in found if isinstance(port, dict)] if isinstance(found, list) else []
    return {(port["port"], port.get("protocol") or "TCP") for port in ports if type(port.get("port")) is int}
