"""The fields of a PodSpec and their types, for what can be known of one without asking a cluster.

The source is `types.json`, made from the OpenAPI document of an API server (its version stands in the file). A
cluster may be newer or older: it alone decides which fields it knows, while the type of a field never changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from deployer.core.errors import Problem
from deployer.settings.spelling import similar

_FILE: Mapping[str, Any] = json.loads(resources.files(__package__).joinpath("types.json").read_text("utf-8"))
VERSION: str = _FILE["version"]
"""The version of Kubernetes whose fields are known here."""
_TYPES: Mapping[str, Mapping[str, str]] = _FILE["types"]
_ROOT = "PodSpec"

_BOUNDS = {"int32": 1 << 31, "int64": 1 << 63}
_WANTED = {
    "string": "text",
    "bool": "true or false",
    "int32": "a whole number",
    "int64": "a whole number",
    "number": "a number",
    "quantity": 'a quantity such as "500m" or "64Mi"',
    "intstr": "a whole number or a name",
}


def with_whole_numbers(podspec: Any) -> Any:
    """The podspec with 8080 in the place of 8080.0 wherever a whole number belongs; shares what it does not change."""
    return _whole(podspec, _ROOT)


def _whole(value: Any, kind: str) -> Any:
    if isinstance(value, float):
        return int(value) if kind in ("int32", "int64", "intstr") and value.is_integer() else value
    if isinstance(value, list) and kind.startswith("["):
        return [_whole(item, kind[1:-1]) for item in value]
    if isinstance(value, dict):
        fields = _TYPES.get(kind)
        if fields is not None:
            return {name: _whole(item, fields.get(name, "any")) for name, item in value.items()}
    return value


def without_unknown(podspec: Any) -> tuple[Any, list[str]]:
    """The podspec without the fields that are not in the version of Kubernetes whose fields are known here, and their
    paths."""
    dropped: list[str] = []
    return _known(podspec, _ROOT, "podspec", dropped), dropped


def _known(value: Any, kind: str, path: str, dropped: list[str]) -> Any:
    if isinstance(value, list) and kind.startswith("["):
        return [_known(item, kind[1:-1], f"{path}[{index}]", dropped) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if kind.startswith("{"):
        return {name: _known(item, kind[1:-1], f"{path}.{_step(name)}", dropped) for name, item in value.items()}
    if (fields := _TYPES.get(kind)) is None:
        return value
    dropped += [f"{path}.{_step(name)}" for name in value if name not in fields]
    return {
        name: _known(item, fields[name], f"{path}.{name}", dropped) for name, item in value.items() if name in fields
    }


def type_problems(podspec: Any) -> Iterator[Problem]:
    """Values of another type than their field has; every cluster refuses them. No value is repeated."""
    for where, kind, value in _walk(podspec, _ROOT, "podspec"):
        if kind and not _fits(value, kind):
            yield Problem(where, f"must be {_wanted(kind)}, not {kind_of(value)}{_advice(value, kind)}")


def unknown_fields(podspec: Any) -> Iterator[str]:
    """Paths of fields that are not in the version of Kubernetes whose fields are known here."""
    return (where for where, kind, _ in _walk(podspec, _ROOT, "podspec") if not kind)


def advice(path: str) -> str:
    """What an unknown field may have been meant for, or where it belongs: `; did you mean livenessProbe?`. Empty when
    there is nothing to say. `path` is that of a whole descriptor, such as `podspec.containers[0].livenesProbe`."""
    steps = [name if name is not None else "" for name in _steps(path)]
    kind = _ROOT
    for step in steps[1:-1]:
        kind = kind[1:-1] if step == "" or kind.startswith("{") else _TYPES.get(kind, {}).get(step, "")
    name, fields = steps[-1], _TYPES.get(kind, {})
    if len(steps) < 2 or not fields:
        return place(name) if len(steps) == 1 else ""
    if near := similar(name, fields):
        return f"; did you mean {near[0]}?"
    return place(name)


def place(name: str) -> str:
    """Where a field belongs that stands at the wrong place; empty when it is in neither a podspec nor a container."""
    if name in _TYPES["Container"] and name != "name":
        return f"; it belongs to a container: podspec.containers[0].{name}"
    return f"; it belongs to the podspec: podspec.{name}" if name in _TYPES[_ROOT] else ""


def _steps(path: str) -> Iterator[str | None]:
    """Names of a path as `_walk` writes it; None for an index."""
    for index, quoted, plain in re.findall(r'\[(\d+)\]|("(?:[^"\\]|\\.)*")|([^.\[\]"]+)', path):
        yield None if index else json.loads(quoted) if quoted else plain


def _walk(value: Any, kind: str, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every value that is there, with its path and type; empty type: the field is not known."""
    yield path, kind, value
    if kind.startswith("[") and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, kind[1:-1], f"{path}[{index}]")
    elif kind.startswith("{") and isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, kind[1:-1], f"{path}.{_step(name)}")
    elif kind in _TYPES and isinstance(value, dict):
        fields = _TYPES[kind]
        for name, item in value.items():
            if name in fields:
                yield from _walk(item, fields[name], f"{path}.{name}")
            else:
                yield f"{path}.{_step(name)}", "", item


def _step(name: str) -> str:
    """A key as a part of a path; in quotes unless it is short and plain."""
    return name if re.fullmatch(r"[\w$./-]{1,80}", name) else json.dumps(name[:60])


def _fits(value: Any, kind: str) -> bool:
    if value is None or kind == "any":
        return True  # null is the same as absent
    if kind in _BOUNDS:
        return _is_integer(value) and -_BOUNDS[kind] <= value < _BOUNDS[kind]
    if kind == "intstr":
        return isinstance(value, str) or (_is_integer(value) and abs(value) < _BOUNDS["int32"])
    if kind in ("quantity", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number or (kind == "quantity" and isinstance(value, str))
    if kind.startswith("["):
        return isinstance(value, list)
    return isinstance(value, {"string": str, "bool": bool}.get(kind, dict))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wanted(kind: str) -> str:
    return _WANTED.get(kind, "a list" if kind.startswith("[") else "an object")


def kind_of(value: Any) -> str:
    """What sort of JSON value it is, in words; true, false and null are themselves."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and not value.is_integer():
        return "a number with a fraction"
    names = {int: "a number", float: "a number", str: "text", list: "a list"}
    return next((words for kind, words in names.items() if isinstance(value, kind)), "an object")


def _advice(value: Any, kind: str) -> str:
    if kind == "string" and isinstance(value, bool | int | float):
        return ": put it in quotes"
    if kind in _BOUNDS and _is_integer(value):
        return f" of more than {32 if kind == 'int32' else 64} bits"
    if kind in (*_BOUNDS, "bool") and isinstance(value, str):
        return ": leave the quotes out"
    return ""
