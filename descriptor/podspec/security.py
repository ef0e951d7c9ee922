"""The Pod Security Standards (baseline, restricted) for a podspec, as of Kubernetes 1.34.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ is the source of every rule and value here. The
API server enforces them only where a namespace has the label, and only when the pod is made; asking first means that
nothing has been written by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.core.errors import Problem

_BASELINE_CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
_RESTRICTED_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
_PROFILES = ("RuntimeDefault", "Localhost")
_HANDLERS = (
    ("livenessProbe",),
    ("readinessProbe",),
    ("startupProbe",),
    ("lifecycle", "postStart"),
    ("lifecycle", "preStop"),
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """`path` below a pod or container may only have a value that `allows` accepts; absent and null always may."""

    path: str
    allows: Callable[[Any], bool]
    message: str

    def problems(self, thing: Any, where: str) -> Iterator[Problem]:
        value = _get(thing, *self.path.split("."))
        if value is not None and not self.allows(value):
            yield Problem(f"{where}.{self.path}", self.message)


def _no(path: str) -> _Rule:
    return _Rule(path, lambda value: value is False, "must not be true")


def _in(path: str, values: tuple[str, ...]) -> _Rule:
    allowed = " or ".join(v for v in values if v)
    return _Rule(
        path, lambda v: isinstance(v, str) and v in values, f"must be {allowed}" if allowed else "must be absent"
    )


# The same fields in the pod's security context and in a container's.
_EITHER = (
    _no("securityContext.windowsOptions.hostProcess"),
    _in("securityContext.seccompProfile.type", _PROFILES),
    _in("securityContext.appArmorProfile.type", _PROFILES),
    _in("securityContext.seLinuxOptions.type", _SELINUX_TYPES),
    _in("securityContext.seLinuxOptions.user", ("",)),
    _in("securityContext.seLinuxOptions.role", ("",)),
)
_POD = (_no("hostNetwork"), _no("hostPID"), _no("hostIPC"), *_EITHER)
_CONTAINER = (
    _no("securityContext.privileged"),
    _in("securityContext.procMount", ("Default",)),
    *_EITHER,
    *(_in(".".join((*handler, action, "host")), ("",)) for handler in _HANDLERS for action in ("httpGet", "tcpSocket")),
)
_NOT_ROOT = _Rule("securityContext.runAsUser", lambda value: value != 0, "must not be 0 (root)")


def violations(podspec: Mapping[str, Any], level: str) -> list[Problem]:
    """Everything in `podspec` that breaks `level` ("privileged", "baseline", "restricted"); paths begin at podspec."""
    if level == "privileged":
        return []
    rules = [_baseline, _restricted] if level == "restricted" else [_baseline]
    ending = f"; the Pod Security level of this Deployer is {level}"
    return [Problem(p.path, p.message + ending) for rule in rules for p in rule(podspec)]


def _baseline(podspec: Mapping[str, Any]) -> Iterator[Problem]:
    for rule in _POD:
        yield from rule.problems(podspec, "podspec")
    for n, sysctl in enumerate(_list(podspec, "securityContext", "sysctls")):
        if _get(sysctl, "name") not in _SAFE_SYSCTLS:
            yield Problem(f"podspec.securityContext.sysctls[{n}].name", "must be one of the safe sysctls")
    for n, volume in enumerate(_list(podspec, "volumes")):
        if _get(volume, "hostPath") is not None:
            yield Problem(f"podspec.volumes[{n}].hostPath", "must be absent: the node's files are off limits")
    for where, container in _containers(podspec):
        for rule in _CONTAINER:
            yield from rule.problems(container, where)
        for n, port in enumerate(_list(container, "ports")):
            if _get(port, "hostPort") not in (None, 0):
                yield Problem(f"{where}.ports[{n}].hostPort", "must be absent: the node's ports are off limits")
        for n, capability in enumerate(_list(container, "securityContext", "capabilities", "add")):
            if capability not in _BASELINE_CAPABILITIES:
                yield Problem(f"{where}.securityContext.capabilities.add[{n}]", "is a capability that may not be added")


def _restricted(podspec: Mapping[str, Any]) -> Iterator[Problem]:
    windows = _get(podspec, "os", "name") == "windows"
    for n, volume in enumerate(_list(podspec, "volumes")):
        if all(_get(volume, kind) is None for kind in _RESTRICTED_VOLUMES):
            yield Problem(f"podspec.volumes[{n}]", f"must be one of {', '.join(_RESTRICTED_VOLUMES)}")
    yield from _NOT_ROOT.problems(podspec, "podspec")
    for where, container in _containers(podspec):
        yield from _NOT_ROOT.problems(container, where)
        if _effective(podspec, container, "runAsNonRoot") is not True:
            yield Problem(f"{where}.securityContext.runAsNonRoot", "must be true, here or for the pod")
        if not windows:
            yield from _restricted_linux(podspec, container, where)


def _restricted_linux(podspec: Mapping[str, Any], container: Any, where: str) -> Iterator[Problem]:
    """The rules that Windows pods are exempt from."""
    if _get(container, "securityContext", "allowPrivilegeEscalation") is not False:
        yield Problem(f"{where}.securityContext.allowPrivilegeEscalation", "must be false")
    if _get(_effective(podspec, container, "seccompProfile"), "type") is None:
        message = f"must be {' or '.join(_PROFILES)}, here or for the pod"
        yield Problem(f"{where}.securityContext.seccompProfile.type", message)
    if "ALL" not in _list(container, "securityContext", "capabilities", "drop"):
        yield Problem(f"{where}.securityContext.capabilities.drop", "must contain ALL")
    for n, capability in enumerate(_list(container, "securityContext", "capabilities", "add")):
        if capability in _BASELINE_CAPABILITIES and capability != "NET_BIND_SERVICE":
            yield Problem(f"{where}.securityContext.capabilities.add[{n}]", "must be NET_BIND_SERVICE")


def _effective(podspec: Mapping[str, Any], container: Any, name: str) -> Any:
    """A field of the security context: the container's, else the pod's."""
    own = _get(container, "securityContext", name)
    return own if own is not None else _get(podspec, "securityContext", name)


def _containers(podspec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for n, container in enumerate(_list(podspec, kind)):
            yield f"podspec.{kind}[{n}]", container


def _get(thing: Any, *path: str) -> Any:
    """What lies at `path`; None when something on the way is not an object (the API server refuses that)."""
    for key in path:
        if not isinstance(thing, Mapping):
            return None
        thing = thing.get(key)
    return thing


def _list(thing: Any, *path: str) -> list[Any]:
    value = _get(thing, *path)
    return value if isinstance(value, list) else []
