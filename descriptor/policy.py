"""What descriptors of a namespace may ask for, as the service's settings say: hosts, and what is shared in a cluster.

Whoever may deploy chooses everything in a podspec, and the service creates the pods with rights of its own. Each rule
here takes something out of that choice. All are checked when a descriptor comes in, and again when it is deployed.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployer.core.errors import Problem
from deployer.core.model.hosts import www_twin
from deployer.settings import Settings

DEFAULT_ACCOUNT = "default"
"""The ServiceAccount of pods that name none (Kubernetes' admission plugin ServiceAccount)."""

_Path = tuple[str | int, ...]

_SHOWN = 253
"""Characters of a name that are repeated; no object of Kubernetes has a longer one."""


def problems(descriptor: Mapping[str, Any], settings: Settings) -> list[Problem]:
    """Everything that a descriptor asks for and may not have; for one that was checked before, when it is deployed."""
    return [*host_problems(descriptor, settings), *pod_problems(descriptor, settings)]


def host_problems(descriptor: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    """The frontend, and its www twin where that is redirected."""
    namespace, host = descriptor["namespace"], descriptor.get("frontend")
    if not host:
        return
    if why := _refused_host(namespace, host, settings):
        yield Problem("frontend", f"{host} {why}")
    twin = www_twin(host)
    if descriptor.get("redirectWww") is True and (why := _refused_host(namespace, twin, settings)):
        yield Problem("redirectWww", f"{twin} {why}")


def _refused_host(namespace: str, host: str, settings: Settings) -> str:
    """Why the namespace may not use the host; nothing about whose it is, which the caller need not know."""
    if settings.reserves_host(host):
        return f"is reserved for previews of apps ({settings.preview_host}); choose another host"
    if settings.allows_host(namespace, host):
        return ""
    listed = settings.namespace_hosts.get(namespace)
    if listed is None:
        return f"may not be used by namespace {namespace}: it belongs to another namespace; choose another host"
    own = " or ".join(listed) or "none"
    return f"is not among the hosts that namespace {namespace} may use; allowed: {own}"


# --- what a podspec refers to --------------------------------------------------------------------------------------


def pod_problems(descriptor: Mapping[str, Any], settings: Settings) -> Iterator[Problem]:
    """Whatever the podspec is: what has the wrong type is the business of others."""
    namespace, podspec = descriptor["namespace"], descriptor.get("podspec")
    if not isinstance(podspec, Mapping):
        return
    yield from _service_account(podspec, _Allowed(settings, "allowed_service_accounts", namespace))
    secrets = _Allowed(settings, "allowed_secrets", namespace)
    own = {field: descriptor.get(field) for field in ("tlsSecretName", "imagePullSecrets", "gates")}
    yield from secrets.check(_secret_names({**own, "podspec": podspec}))
    classes = _Allowed(settings, "allowed_priority_classes", namespace)
    yield from classes.check([(("podspec", "priorityClassName"), podspec.get("priorityClassName") or None)])
    yield from _tolerations(podspec, _Allowed(settings, "allowed_tolerations", namespace))
    if podspec.get("nodeName") and settings.forbid_node_name:
        why = "must be absent: the scheduler chooses the node here, with respect to taints and resources"
        yield Problem("podspec.nodeName", why)
    kinds = settings.allowed_volume_types
    for n, volume in enumerate(_items(podspec, "volumes") if kinds else ()):
        # A volume that names no type is an emptyDir (SetDefaults_Volume of core/v1).
        for kind in [k for k, v in volume.items() if k != "name" and v is not None] or ["emptyDir"]:
            if kind not in kinds:
                yield Problem(
                    f"podspec.volumes[{n}]", f"has a type that may not be used; allowed: {' or '.join(kinds)}"
                )


class _Allowed:
    """One setting that lists names by namespace. Nothing is refused where neither the namespace nor `*` is listed."""

    def __init__(self, settings: Settings, setting: str, namespace: str) -> None:
        table: Mapping[str, tuple[str, ...]] = getattr(settings, setting)
        self._patterns = table.get(namespace, table.get("*"))
        self._namespace = namespace

    def permits(self, name: str) -> bool:
        """True when apps of the namespace may use what has this name."""
        return self._patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    @property
    def ending(self) -> str:
        """The end of a refusal."""
        names = " or ".join(self._patterns or ()) or "none"
        return f"may not be used by apps of namespace {self._namespace}; allowed: {names}"

    def check(self, named: Iterable[tuple[_Path, Any]]) -> Iterator[Problem]:
        """What is wrong with pairs of path and name; no name is never wrong. Does not look where all may be used."""
        for path, name in named if self._patterns is not None else ():
            if isinstance(name, str) and not self.permits(name):
                yield Problem(_text(path), f"{json.dumps(name[:_SHOWN])} {self.ending}")


def _service_account(podspec: Mapping[str, Any], allowed: _Allowed) -> Iterator[Problem]:
    """The account that the pods will have. `serviceAccount`, the old name of the field, counts when the new is empty
    (Convert_v1_PodSpec_To_core_PodSpec)."""
    old = podspec.get("serviceAccount") and not podspec.get("serviceAccountName")
    field = "serviceAccount" if old else "serviceAccountName"
    if name := podspec.get(field):
        yield from allowed.check([(("podspec", field), name)])
    elif not allowed.permits(DEFAULT_ACCOUNT):
        message = f"is absent, so that the pods have the ServiceAccount {DEFAULT_ACCOUNT}, which {allowed.ending}"
        yield Problem("podspec.serviceAccountName", message)


def _tolerations(podspec: Mapping[str, Any], allowed: _Allowed) -> Iterator[Problem]:
    for n, toleration in enumerate(_items(podspec, "tolerations")):
        key = toleration.get("key") or ""
        # Without a key it tolerates every taint: only a pattern that permits every key permits that.
        if isinstance(key, str) and not allowed.permits(key):
            what = f"the taint {json.dumps(key[:_SHOWN])}" if key else "every taint, as there is no key,"
            yield Problem(f"podspec.tolerations[{n}].key", f"{what} {allowed.ending}")


_REFERENCES = re.compile(r"(secret|secretKey|nodePublishSecret|\w+Secret)Ref")
"""Fields with a reference to a Secret: envFrom.secretRef, env.valueFrom.secretKeyRef, and those of volumes' drivers."""


def _secret_names(thing: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """The paths and names of all Secrets that something refers to, wherever in it.

    By the names of the fields, which are the same in all of core/v1, so that what a later Kubernetes adds is found too.
    `secret` is a volume's source (`secretName`) or one of a projected volume (`name`).
    """
    if isinstance(thing, list):
        for n, item in enumerate(thing):
            yield from _secret_names(item, (*path, n))
        return
    for field, value in thing.items() if isinstance(thing, Mapping) else ():
        at = (*path, field)
        # CSI drivers read the names of their attributes in any case.
        if field.lower() in ("secretname", "tlssecretname"):
            yield at, value
        elif field == "imagePullSecrets":
            yield from (((*at, n, "name"), item.get("name")) for n, item in enumerate(_objects(value)))
        elif isinstance(value, Mapping | list):
            if isinstance(value, Mapping) and (field == "secret" or _REFERENCES.fullmatch(field)):
                yield (*at, "name"), value.get("name")
            yield from _secret_names(value, at)


def _text(path: _Path) -> str:
    """The path as problems have it; a field that core/v1 cannot have is not repeated."""
    shown = (f"[{p}]" if isinstance(p, int) else f".{p if re.fullmatch(r'[A-Za-z]{1,80}', p) else '?'}" for p in path)
    return "".join(shown).removeprefix(".")


def _items(thing: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return _objects(thing.get(name))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The items of a list, with something empty in the place of those that are no objects, so that numbers hold."""
    return [item if isinstance(item, Mapping) else {} for item in value] if isinstance(value, list) else []
