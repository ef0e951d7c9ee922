"""What flags put into a descriptor: `--set path=value`, `--set image=...`, and variables with `--env-subst`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.client.descriptors.source import Source, steps
from deployer.client.errors import InvalidInput, Misused

_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


def substitute(source: Source, environ: Mapping[str, str]) -> None:
    """Replace `${NAME}` and `${NAME:-default}` in the texts of a descriptor; `$$` is a `$`. Keys stay as they are.

    Values are put into texts after reading, so that nothing in one can change the shape of the descriptor. Raises
    InvalidInput with every variable that is not set.
    """
    missing: dict[str, None] = {}

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(one, value)
        if isinstance(value, list):
            return [replaced(item) for item in value]
        return {key: replaced(item) for key, item in value.items()} if isinstance(value, dict) else value

    def one(match: re.Match[str]) -> str:
        whole, name, default = match.groups()
        if whole == "$":
            return "$"
        found = environ.get(name, default)
        if found is None:
            missing[name] = None
        return found or ""

    source.document = replaced(source.document)
    if missing:
        names = ", ".join(missing)
        raise InvalidInput(
            f"{source.name}: not set, and asked for with --env-subst: {names}; ${{NAME:-x}} has a default"
        )


def apply(source: Source, settings: Sequence[str]) -> None:
    """Set each `path=value`: `image=...` of the only container, `image.<container>=...` of one of several, and any path
    of the descriptor such as `newVersion=1.4` or `podspec.containers[0].env[0].value=x`. Raises Misused.

    A value is text where the descriptor has text or nothing yet; in the place of anything else it is read as JSON.
    """
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise Misused(f"--set {setting}: must be PATH=VALUE, such as image=registry.example.com/shop:2")
        if path == "image" or path.startswith("image."):
            where = _image(source.document, path.removeprefix("image").removeprefix("."), value)
        else:
            where = _put(source.document, path, value)
        source.flags[where] = f"--set {setting}"


def _image(document: dict[str, Any], container: str, image: str) -> tuple[str | int, ...]:
    """Returns where it is."""
    podspec = document.get("podspec")
    listed = podspec.get("containers") if isinstance(podspec, dict) else None
    known = [c for c in listed or () if isinstance(c, dict)]
    if not known:
        raise Misused("--set image: the descriptor has no containers")
    names = ", ".join(str(c.get("name")) for c in known)
    if not container and len(known) > 1:
        raise Misused(f"--set image: there are several containers; say which: --set image.NAME=... with one of {names}")
    found = [c for c in known if not container or c.get("name") == container]
    if not found:
        raise Misused(f"--set image.{container}: there is no such container; available: {names}")
    found[0]["image"] = image
    return "podspec", "containers", [c is found[0] for c in listed or ()].index(True), "image"


def _put(document: dict[str, Any], path: str, value: str) -> tuple[str | int, ...]:
    """Returns where it is."""
    parts = tuple(steps(path))
    if not parts:
        raise Misused(f"--set {path}: names no field")
    here: Any = document
    for n, part in enumerate(parts):
        last = n == len(parts) - 1
        if isinstance(part, int):
            if not isinstance(here, list) or part > len(here):
                raise Misused(f"--set {path}: there is no item {part}")
            if part == len(here):
                here.append(_empty(parts, n))
        elif not isinstance(here, dict):
            raise Misused(f"--set {path}: {part} has no place there, as what is above it is no object")
        elif part not in here and not last:
            here[part] = _empty(parts, n)
        if last:
            before = here[part] if isinstance(part, int) or part in here else None
            here[part] = _value(path, before, value)
        else:
            here = here[part]
    return parts


def _empty(parts: Sequence[str | int], n: int) -> Any:
    following = parts[n + 1] if n + 1 < len(parts) else ""
    return [] if isinstance(following, int) else {}


def _value(path: str, before: Any, value: str) -> Any:
    plain = path in ("namespace", "appName", "newVersion", "deploymentType", "frontend")
    if plain or isinstance(before, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if before is None or before in ({}, []):
            return value
        raise Misused(f"--set {path}: {value!r} must be JSON, as what is there is no text") from None
