"""Kinds that a CustomResourceDefinition adds: served while it is there, their objects stored as they are.

As the real server does it, but for schemas, conversion webhooks and subresources, which are not looked at.
"""

from collections.abc import Iterator

from deployer.sandbox.kinds import BY_PATH, CRD, Kind, Object, is_deleting, timestamp
from deployer.sandbox.store import Store


def find(store: Store, group: str, version: str, plural: str) -> Kind | None:
    """The kind at that path, also one that is always there; None when there is none."""
    if built_in := BY_PATH.get((group, plural)):
        return built_in if version == built_in.version else None
    definition = store.find(CRD, "", f"{plural}.{group}")
    return next((kind for kind in _kinds(definition) if kind.version == version), None) if definition else None


def kinds(store: Store) -> list[Kind]:
    """Every kind that is defined, once for each version of it that is served."""
    found = [kind for definition in store.list(CRD) for kind in _kinds(definition)]
    return [kind for kind in found if (kind.group, kind.plural) not in BY_PATH]


def _kinds(definition: Object) -> Iterator[Kind]:
    spec = definition["spec"]
    for version in spec["versions"] if not is_deleting(definition) else ():
        if version["served"]:
            yield Kind(
                spec["group"],
                spec["names"]["plural"],
                spec["names"]["kind"],
                namespaced=spec["scope"] == "Namespaced",
                generations=True,
                version=version["name"],
                custom=True,
            )


def fill(definition: Object) -> None:
    """What is filled in where it is left open; what is wrong, `validation` finds."""
    spec = definition.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    if isinstance(spec, dict) and isinstance(names, dict):
        spec.setdefault("conversion", {"strategy": "None"})
        names.setdefault("singular", str(names.get("kind") or "").lower())
        names.setdefault("listKind", f"{names.get('kind') or ''}List")


def accepted(definition: Object) -> Object:
    """The status of a definition that is served."""
    now, spec = timestamp(), definition["spec"]
    conditions = [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    return {
        "acceptedNames": spec["names"],
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
            for kind, reason, message in conditions
        ],
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }
