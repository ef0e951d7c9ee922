"""What every Kubernetes refuses in a podspec, as far as it can be known without asking one.

A podspec is passed through. But with what is checked here (the source is `pkg/apis/core/validation` of Kubernetes 1.34,
where these rules have not changed for years) a deployment could only fail, later. Everything else in a podspec is the
business of the API server, which `validate` asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.core.errors import Problem

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[ -<>-~]+")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def problems(podspec: Any) -> Iterator[Problem]:
    """What is wrong, whatever the podspec is; what has the wrong type is not spoken of here."""
    if not isinstance(podspec, Mapping):
        return
    policy = podspec.get("restartPolicy")
    if isinstance(policy, str) and policy not in ("", "Always"):
        yield Problem("podspec.restartPolicy", "must be Always: a ReplicationController takes nothing else")
    if podspec.get("activeDeadlineSeconds") is not None:
        yield Problem("podspec.activeDeadlineSeconds", "must be left out: it is for jobs, and this runs until replaced")
    volumes: set[str] = set()
    for n, volume in enumerate(_objects(podspec, "volumes")):
        yield from _name(volume, f"podspec.volumes[{n}].name", "volume", volumes, required=True)
    names: set[str] = set()
    for kind in ("containers", "initContainers"):
        for n, container in enumerate(_objects(podspec, kind)):
            at = f"podspec.{kind}[{n}]"
            yield from _name(container, f"{at}.name", "container", names)
            yield from _container(container, at, volumes)


def _container(container: Mapping[str, Any], at: str, volumes: set[str]) -> Iterator[Problem]:
    image, policy = container.get("image"), container.get("imagePullPolicy")
    if isinstance(image, str) and image != image.strip():
        yield Problem(f"{at}.image", "must not begin or end with white space")
    if isinstance(policy, str) and policy and policy not in _PULL_POLICIES:
        yield Problem(f"{at}.imagePullPolicy", f"must be {' or '.join(_PULL_POLICIES)}")
    ports: set[str] = set()
    for n, port in enumerate(_objects(container, "ports")):
        name = port.get("name")
        if isinstance(name, str) and name and not re.search("[a-z]", name):
            yield Problem(f"{at}.ports[{n}].name", "must contain a letter")
        yield from _once(name, f"{at}.ports[{n}].name", "port of the container", ports)
    for n, variable in enumerate(_objects(container, "env")):
        yield from _variable(variable, f"{at}.env[{n}]")
    paths: set[str] = set()
    for n, mount in enumerate(_objects(container, "volumeMounts")):
        name = mount.get("name")
        if isinstance(name, str) and name not in volumes:
            yield Problem(f"{at}.volumeMounts[{n}].name", "is not the name of a volume in podspec.volumes")
        yield from _once(mount.get("mountPath"), f"{at}.volumeMounts[{n}].mountPath", "mount of the container", paths)


def _variable(variable: Mapping[str, Any], at: str) -> Iterator[Problem]:
    name = variable.get("name")
    if isinstance(name, str) and name and not _VARIABLE.fullmatch(name):
        yield Problem(f"{at}.name", "must be printable ASCII without '='")
    if variable.get("valueFrom") is not None and variable.get("value"):
        yield Problem(f"{at}.valueFrom", "must not be given together with value")


def _name(
    thing: Mapping[str, Any], path: str, what: str, seen: set[str], *, required: bool = False
) -> Iterator[Problem]:
    name = thing.get("name")
    if required and (name is None or name == ""):
        yield Problem(path, "is required")
    elif isinstance(name, str) and required and not _LABEL.fullmatch(name):
        yield Problem(path, f"must be at most 63 of a-z, 0-9 and '-', as the name of a {what}")
    yield from _once(name, path, what, seen)


def _once(name: Any, path: str, what: str, seen: set[str]) -> Iterator[Problem]:
    if isinstance(name, str) and name:
        if name in seen:
            yield Problem(path, f"is the same as that of another {what}")
        seen.add(name)


def _objects(thing: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The items of a list, with something empty in the place of those that are no objects, so that numbers hold."""
    found = thing.get(name)
    return [item if isinstance(item, Mapping) else {} for item in found] if isinstance(found, list) else []
