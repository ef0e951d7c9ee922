"""The three patch formats, as pure functions on objects."""

from copy import deepcopy
from typing import Any

from deployer.sandbox.kinds import Object
from deployer.sandbox.status import ApiError, bad_request

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
FORMATS = (JSON_PATCH, MERGE, STRATEGIC)

# The key by which a strategic patch finds the item of a list; a list that is not here is replaced whole.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("containers", "initContainers", "env", "volumes", "imagePullSecrets"), ("name",)),
    "ports": ("containerPort", "port"),
    "ownerReferences": ("uid",),
    "volumeMounts": ("mountPath",),
}


def unsupported_format(content_type: str) -> ApiError:
    message = f"the body of the request was in an unknown format ({content_type})"
    accepted = f"accepted media types include: {', '.join(FORMATS)}"
    return ApiError(415, "UnsupportedMediaType", f"{message} - {accepted}")


def apply(content_type: str, obj: Object, patch: Any) -> Object:
    """The patched object; `obj` stays as it is. Raises 400, 415 and 422."""
    if content_type not in FORMATS:
        raise unsupported_format(content_type)
    wanted = list if content_type == JSON_PATCH else dict
    if not isinstance(patch, wanted):
        raise bad_request(f"a patch of type {content_type} is a JSON {'array' if wanted is list else 'object'}")
    if content_type == MERGE:
        merged = _merge(obj, patch)
    elif content_type == STRATEGIC:
        merged = _strategic(obj, patch)
    else:
        merged = _operations(obj, list(patch))
    if not isinstance(merged, dict):
        raise _rejected("the patch does not leave an object")
    return merged


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _strategic(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            raise ApiError(
                415, "UnsupportedMediaType", f"the sandbox does not support {key} in a strategic merge patch"
            )
        if value is None:
            merged.pop(key, None)
        elif key == "finalizers" and isinstance(value, list):
            merged[key] = list(dict.fromkeys([*(merged.get(key) or ()), *value]))
        elif key in MERGE_KEYS and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            merged[key] = _items(merged.get(key) or [], value, MERGE_KEYS[key])
        else:
            merged[key] = _strategic(merged.get(key), value)
    return merged


def _items(found: list[Object], patch: list[Object], keys: tuple[str, ...]) -> list[Object]:
    merged = list(found)
    for item in patch:
        key = next((key for key in keys if key in item), None)
        if key is None:
            raise bad_request(f"map: {item} does not contain declared merge key: {keys[0]}")
        at = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
        if at is None:
            merged.append(_strategic({}, item))
        else:
            merged[at] = _strategic(merged[at], item)
    return merged


def _operations(obj: Object, patch: list[Any]) -> Any:
    # One holder around the document lets an operation replace the document itself.
    holder: list[Any] = [deepcopy(obj)]
    for operation in patch:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request("every operation of a JSON patch has an op and a path")
        kind, path = operation.get("op"), operation["path"]
        if kind not in ("test", "add", "replace", "remove"):
            raise ApiError(
                415, "UnsupportedMediaType", f"the sandbox does not support the JSON patch operation {kind!r}"
            )
        if path and not path.startswith("/"):
            raise bad_request(f"{path!r} is not a JSON pointer")
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
        parent, last = _walk(holder, steps)
        _operate(kind, parent, last, operation)
    return holder[0]


def _walk(holder: list[Any], steps: list[str]) -> tuple[Any, Any]:
    parent: Any = holder
    place: Any = 0
    for step in steps:
        if not _has(parent, place):
            raise _rejected(f"the path before {step!r} does not exist")
        parent = parent[place]
        place = int(step) if isinstance(parent, list) and step.isdigit() else step
    return parent, place


def _has(parent: Any, place: Any) -> bool:
    if isinstance(parent, list):
        return isinstance(place, int) and place < len(parent)
    return isinstance(parent, dict) and place in parent


def _operate(kind: str, parent: Any, place: Any, operation: Object) -> None:
    if kind == "add" and isinstance(parent, list):
        at = len(parent) if place == "-" else place
        if not isinstance(at, int) or at > len(parent):
            raise _rejected(f"index {place!r} is out of range")
        parent.insert(at, deepcopy(operation.get("value")))
        return
    # The real server's library lets `replace` add a key that is not there.
    if kind in ("add", "replace") and isinstance(parent, dict):
        parent[place] = deepcopy(operation.get("value"))
        return
    if not _has(parent, place):
        raise _rejected(f"{kind} operation does not apply: doc is missing key: {operation['path']}")
    if kind == "test" and parent[place] != operation.get("value"):
        raise _rejected(f"testing value {operation['path']} failed")
    if kind == "remove":
        del parent[place]
    elif kind == "replace":
        parent[place] = deepcopy(operation.get("value"))


def _rejected(why: str) -> ApiError:
    about = {"causes": [{"reason": "UnexpectedServerResponse", "message": why}]}
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", about)
