"""Descriptors of the original, brought into our normal form without what it added to them. Pure functions."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any

from deployer.core.model.records import Document
from deployer.core.ports.store import LogLine
from deployer.descriptor.podspec import types as podtypes
from deployer.toolkit.manifests import IDENTITY_VARIABLES

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)) ?")
_UNUSED = {
    "password": "a secret that is used for nothing",
    "healthCheckPort": "which the original never used",
}


def utc(text: Any) -> str:
    """A time of the original as RFC 3339 in UTC with `Z`; empty for what is none."""
    try:
        moment = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    if moment.tzinfo is None:
        return ""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def injected(document: Document) -> dict[str, str]:
    """The variables of the environment that the original stored with a deployment."""
    found = document.get("environment")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def cleaned(document: Document) -> tuple[Document, list[str]]:
    """The descriptor as users wrote it, with fields that mean the same here, and a sentence on everything dropped.

    Raises nothing, whatever the document is: what is wrong with it is for others to say.
    """
    out = copy.deepcopy(document)
    dropped: list[str] = []
    environment = injected(out)
    removed = sorted(set(_without_variables(out, {*IDENTITY_VARIABLES, *environment})))
    if removed:
        dropped.append(f"variables that the original adds: {', '.join(removed)}")
    if out.pop("environment", None):
        dropped.append("environment: what was injected then")
    for name, why in _UNUSED.items():
        if out.pop(name, None):
            dropped.append(f"{name}: {why}")
    for header in _objects(out.get("additionHttpHeaders")):
        if isinstance(header.get("Value"), str):
            # An earlier version of the original escaped them for HAProxy, and stored that.
            header["Value"] = header["Value"].replace("\\ ", " ")
    _check(out)
    if "podspec" in out:
        out["podspec"], unknown = podtypes.without_unknown(out["podspec"])
        dropped += [f"{path}: Kubernetes {podtypes.VERSION} does not know it" for path in unknown]
    return out, dropped


def _check(out: Document) -> None:
    """The health check as the original took it: `simple` in any case, and everything else for a probe."""
    given = out.get("healthCheckType")
    if given or out.get("useHealthCheck") is True:
        out["healthCheckType"] = "simple" if str(given).lower() == "simple" else "probe"
    if out.get("useHealthCheck") is True and not out.get("healthCheckPath"):
        out["healthCheckPath"] = "health"


def _without_variables(document: Document, names: set[str]) -> Iterator[str]:
    podspec = document.get("podspec")
    for container in _objects(podspec.get("containers") if isinstance(podspec, dict) else None):
        variables = container.get("env")
        if not isinstance(variables, list):
            continue
        yield from (v["name"] for v in _objects(variables) if v.get("name") in names)
        kept = [v for v in variables if not (isinstance(v, dict) and v.get("name") in names)]
        container["env"] = kept
        if not kept:
            del container["env"]


def _objects(found: Any) -> Sequence[Document]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else ()


def log_lines(text: str) -> list[LogLine]:
    """The log of a deployment: a message begins with its time, and what does not goes on with the one before."""
    found: list[tuple[str, list[str]]] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        stamp = _STAMP.match(line)
        if stamp and (moment := utc(stamp.group(1))):
            found.append((moment.replace("Z", ".000Z"), [line[stamp.end() :]]))
        elif found:
            found[-1][1].append(line)
        else:
            found.append(("1970-01-01T00:00:00.000Z", [line]))
    return [LogLine(number, moment, "\n".join(lines)) for number, (moment, lines) in enumerate(found, 1)]
