"""Plans of older formats, brought to the present one: pure functions of documents.

A format is a number in the stored document; one without a number has format 1. It goes up when a release could not
read what an older one wrote, or would misread it; a new field with a default is not such a case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deployer.core.errors import UnknownFormat

Document = dict[str, Any]

PLAN_FORMAT = 2
"""The format in which plans are written."""

TRAFFIC_PHASES = ("EXPOSE", "CONFIRM")
QUIET_STEPS = ("await-endpoints", "prepare-route", "check-preview")
"""Steps of those phases, shipped with releases of format 1, that give the new version no public traffic."""


def plan_1_to_2(document: Mapping[str, Any]) -> Document:
    """Steps say what they do to traffic; a provider that is not there is null; what follows from the rest goes.

    Nobody asked the steps of format 1: those of the phases in which traffic moves may have moved it.
    """
    new = dict(document)
    phases = new.pop("phases", None) or {}
    new["steps"] = [
        {
            "id": id,
            "phase": phases[id],
            "exposes": phases[id] in TRAFFIC_PHASES and id not in QUIET_STEPS,
        }
        for id in new.get("steps") or ()
    ]
    for name in ("ingress", "health"):
        new[name] = new.get(name) or None
    new["strategy"] = new.get("strategy") or {}
    new["objects"] = new.get("objects") or {}
    new["settings"] = new.get("settings") or {}
    new["previous"] = previous_1_to_2(new["previous"]) if new.get("previous") else None
    return new


def previous_1_to_2(document: Mapping[str, Any]) -> Document:
    """Also for what retirements of older releases have in their `target`; one of format 2 stays as it is."""
    return {**document, "ingress": document.get("ingress") or None}


MIGRATIONS: Mapping[int, Callable[[Mapping[str, Any]], Document]] = {1: plan_1_to_2}
"""By the format that each one reads; it writes the next."""


def migrated(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan's document in the present format. Raises UnknownFormat when a newer release wrote it."""
    found = document.get("format", 1)
    if type(found) is not int or found not in (*MIGRATIONS, PLAN_FORMAT):
        raise UnknownFormat(
            f"the plan of deployment {document.get('deployment')} has format {found!r} and this release reads formats "
            f"up to {PLAN_FORMAT}, so its objects are kept as they are: install the release that wrote it, or a later "
            "one"
        )
    for step in range(found, PLAN_FORMAT):
        document = MIGRATIONS[step](document)
    return document
