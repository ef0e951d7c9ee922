"""What the API server says against an object, as problems of the podspec in it: pure functions on its words.

They are those of Kubernetes 1.34 (apimachinery's strict decoding, encoding/json and field.ErrorList); what is not
recognised is passed on as a problem of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.errors import KubeError, KubeForbidden, KubeNotFound, KubeRejected, Problem
from deployer.descriptor.podspec import types as podtypes

Path = tuple[str | int, ...]

_STRICT = re.compile(r'(unknown|duplicate) field "((?:[^"\\]|\\.)*)"')
_TYPE = re.compile(r"json: cannot unmarshal (\w+)(?: [^ ]+)? into Go struct field [^. ]+\.(\S+) of type (\S+)")
_QUANTITY = re.compile(r"quantities must match the regular expression '(.+?)'(?:$|,)")
_PREFACE = re.compile(r'^\w+ in version "[^"]*" cannot be handled as a \w+: |^[\w.]+ "[^"]*" is forbidden: ')
_STEP = re.compile(r"\[(\d+)\]|\[([^\]]*)\]|([^.\[\]]+)")
_NO_RIGHT = re.compile(r'^\S+ is forbidden: User "')
_NO_DRY_RUN = "does not support dry run"
_ECHO = re.compile(r'value: (?:"(?:[^"\\]|\\.)*"|\S+?)(?=: |$)')

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "bool": bool,
    "number": (int, float),
    "object": dict,
    "array": list,
}
_WANTED = {"string": "text", "bool": "true or false", "float64": "a number"}


@dataclass(slots=True)
class Refusal:
    """What an answer means.

    problems   of the descriptor: paths begin with `podspec`, or are those of other fields of a descriptor
    reason     why the API server did not look at the object, so that nothing is known of it; else empty
    hiding     places in the podspec that kept it from looking further
    strict     true when strictness did
    """

    problems: list[Problem] = field(default_factory=list)
    reason: str = ""
    hiding: list[Path] = field(default_factory=list)
    strict: bool = False


def read(error: KubeError, podspec: Any, at: str) -> Refusal:
    """What the API server refuses. `podspec` is what it was sent, at the field `at` of an object."""
    if isinstance(error, KubeForbidden) and error.status == 403:
        if not error.said or _NO_RIGHT.match(error.said):
            return Refusal(reason=str(error))
        ending = any(where == "metadata.namespace" for where, _ in error.causes)
        return Refusal([Problem("namespace" if ending else "podspec", _plain(error.said))])
    if isinstance(error, KubeNotFound) and error.said.startswith("namespaces "):
        return Refusal([Problem("namespace", "does not exist in the cluster; create it before deploying to it")])
    if not isinstance(error, KubeRejected) or not error.said or _NO_DRY_RUN in error.said:
        return Refusal(reason=str(error))
    if error.causes:
        return Refusal([Problem(_field(where, at), _without_echo(where, what)) for where, what in error.causes])
    return _undecodable(error.said, podspec, at)


def strict_problems(text: str, at: str) -> Iterator[Problem]:
    """The unknown and duplicate fields that a sentence, or a warning, names."""
    for kind, where in _STRICT.findall(text):
        field = _field(where, at)
        unknown = f"is not a field that Kubernetes knows here{podtypes.advice(field)}"
        yield Problem(field, unknown if kind == "unknown" else "is given twice")


def unknown_fields(error: KubeError, at: str) -> list[str]:
    """The paths of the fields below `at` that the API server does not know, when nothing else is wrong with an object.

    Its list may not be complete: with those gone it may name others.
    """
    found = _STRICT.findall(error.said) if "strict decoding error: " in error.said else []
    if any(kind != "unknown" or not where.startswith(f"{at}.") for kind, where in found):
        return []
    return [where.removeprefix(f"{at}.") for _, where in found]


def steps(path: str) -> Path:
    """`containers[0].name` as keys and indices."""
    return tuple(int(n) if n else key or name for n, key, name in _STEP.findall(path))


def remove(thing: Any, path: Path) -> None:
    """Take away what is at a path, if there is something."""
    for step in path[:-1]:
        try:
            thing = thing[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(thing, dict):
        thing.pop(path[-1], None)
    elif isinstance(thing, list) and isinstance(path[-1], int) and path[-1] < len(thing):
        thing[path[-1]] = None


def _plain(said: str) -> str:
    return _PREFACE.sub("", said)


_OTHERS = {
    "metadata.namespace": "namespace",
    "metadata.name": "newVersion",
    "metadata.labels": "newVersion",
    "spec.replicas": "replicas",
}


def _field(where: str, at: str) -> str:
    """The path in a descriptor of an object's field."""
    if where == at or where.startswith((f"{at}.", f"{at}[")):
        return "podspec" + where.removeprefix(at)
    return _OTHERS.get(where, where)


def _without_echo(where: str, what: str) -> str:
    """A value of the environment is not repeated, however short it is."""
    return _ECHO.sub("value", what, count=1) if re.search(r"\.env\[\d+\]\.value", where) else what


def _undecodable(said: str, podspec: Any, at: str) -> Refusal:
    """The object could not be read: fields that it does not have, or values of another type."""
    if "strict decoding error: " in said:
        return Refusal(list(strict_problems(said, at)) or [Problem("podspec", _plain(said))], strict=True)
    if found := _TYPE.search(said):
        got, where, wanted = found.groups()
        prefix = f"{at}."
        if where.startswith(prefix):
            message = f"must be {_wanted(wanted)}"
            paths = [
                path for path, value in _places(podspec, steps(where.removeprefix(prefix))) if _is(value, got, wanted)
            ]
            if paths:
                return Refusal([Problem(_spelled(path), message) for path in paths], hiding=paths)
            return Refusal([Problem("podspec." + where.removeprefix(prefix), message)])
    if found := _QUANTITY.search(said):
        good = re.compile(found.group(1))
        paths = [path for path, value in _quantities(podspec) if not good.match(str(value))]
        if paths:
            message = 'must be a quantity such as "500m" or "64Mi"'
            return Refusal([Problem(_spelled(path), message) for path in paths], hiding=paths)
    return Refusal([Problem("podspec", _plain(said))])


def _wanted(go: str) -> str:
    if go.startswith("[]"):
        return "a list"
    if re.fullmatch(r"u?int\d*", go):
        return "a whole number"
    return _WANTED.get(go, "an object")


def _is(value: Any, got: str, wanted: str) -> bool:
    if got == "number" and re.fullmatch(r"u?int\d*", wanted):
        return isinstance(value, float) or (
            isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 31
        )
    kind = _KINDS.get(got, object)
    return isinstance(value, kind) and (got == "bool") == isinstance(value, bool)


def _places(thing: Any, names: Sequence[str | int], here: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything that a path without indices may mean."""
    if isinstance(thing, list) and here:
        if not names:
            yield here, thing
        for index, item in enumerate(thing):
            yield from _places(item, names, (*here, index))
    elif not names:
        yield here, thing
    elif isinstance(thing, dict) and names[0] in thing:
        yield from _places(thing[names[0]], names[1:], (*here, names[0]))


_QUANTITIES = (
    ("containers", "resources", "limits"),
    ("containers", "resources", "requests"),
    ("initContainers", "resources", "limits"),
    ("initContainers", "resources", "requests"),
    ("resources", "limits"),
    ("resources", "requests"),
    ("overhead",),
)


def _quantities(podspec: Any) -> Iterator[tuple[Path, Any]]:
    for names in _QUANTITIES:
        for path, value in _places(podspec, names):
            for key, amount in value.items() if isinstance(value, dict) else ():
                yield (*path, key), amount
    yield from _places(podspec, ("volumes", "emptyDir", "sizeLimit"))


def _spelled(path: Path) -> str:
    out = "podspec"
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else f".{step}"
    return out
