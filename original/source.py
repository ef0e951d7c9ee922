"""What the original recorded: the tree that etcd's v2 API gives, from a server or from a file that was saved."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.core.errors import DeployerError

PATH = "/v2/keys/deployer?recursive=true&quorum=true"
ROOT = "/deployer/"
TIMEOUT = 60.0
"""Seconds that the server may take between two pieces of its answer."""

_IGNORED = ("ingressMigrationDone2", "proxy", "deployment")
"""Marks of the original's own migrations, and of what it had before."""


class SourceProblem(DeployerError):
    """The records of the original cannot be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A descriptor or deployment as it is stored. `place` is its order of arrival, `value` JSON."""

    namespace: str
    app: str
    id: str
    value: str
    place: int


@dataclass(slots=True)
class Source:
    """Everything that was found.

    logs, health  by namespace and id of the deployment; `health` as name of the pod and its answer
    environment   by key, as it is stored
    left_out      keys that mean nothing here, each with the reason
    """

    descriptors: list[Entry] = field(default_factory=list)
    deployments: list[Entry] = field(default_factory=list)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    health: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read(where: str) -> Source:
    """Read it from the address of an etcd, or from a file with what etcd answered. Raises SourceProblem."""
    url = where.startswith(("http://", "https://"))
    text = _fetched(where) if url else _of_file(Path(where))
    try:
        root = json.loads(text)["node"]
        leaves = list(_leaves(root))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SourceProblem(
            f"{where} is no answer of etcd's v2 API: save that of {PATH}, or name the etcd of the original itself"
        ) from error
    found = Source()
    for key, node in leaves:
        _sort(found, key, node)
    found.descriptors.sort(key=lambda entry: entry.place)
    found.deployments.sort(key=lambda entry: entry.place)
    return found


def _fetched(url: str) -> bytes:
    # Never through a proxy of this process's environment, like everything else that talks to etcd.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url.rstrip("/") + PATH, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                raise SourceProblem(
                    f"{url} has no key {ROOT} in its v2 store, or no v2 store: check that it is the etcd of the "
                    "original and runs with --enable-v2"
                ) from error
            raise SourceProblem(
                f"{url} answered {error.code} to GET {PATH}: check that everybody may read it"
            ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SourceProblem(
            f"{url} cannot be read ({reason}): check the address, or save the answer and name it"
        ) from error


def _of_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceProblem(f"{path} cannot be read ({error.strerror or error})") from error


def _leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key that has a value; directories, also empty ones, are none."""
    for child in node.get("nodes") or ():
        yield from _leaves(child)
    if not node.get("dir") and "value" in node:
        yield str(node["key"]), node


def _sort(found: Source, key: str, node: Mapping[str, Any]) -> None:
    value, place = str(node["value"]), int(node.get("createdIndex") or 0)
    if not key.startswith(ROOT):
        found.left_out.append(f"{key}: is not the Deployer's")
        return
    match key.removeprefix(ROOT).split("/"):
        case ["descriptors", namespace, app, id]:
            found.descriptors.append(Entry(namespace, app, id, value, place))
        case ["deployments", namespace, app, id]:
            found.deployments.append(Entry(namespace, app, id, value, place))
        case ["logs", namespace, deployment]:
            found.logs[namespace, deployment] = value
        case ["healthcheckdata", namespace, deployment, pod]:
            found.health.setdefault((namespace, deployment), []).append((pod, value))
        case ["environment", name]:
            found.environment[name] = value
        case ["environment", *_]:
            found.left_out.append(f"{key}: is below the first level of the environment, which alone was injected")
        case [first, *_] if first not in _IGNORED:
            found.left_out.append(f"{key}: is no key that the original used")
        case _:
            pass
