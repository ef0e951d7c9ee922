"""Pod Security admission: those checks of baseline and restricted that the sandbox knows, in the real words."""

from collections.abc import Iterator

from deployer.sandbox.kinds import Object

LABEL = "pod-security.kubernetes.io/enforce"


def violations(pod: Object, labels: dict[str, str]) -> str:
    """Why a namespace with these labels refuses the pod, or an empty string."""
    level = labels.get(LABEL, "privileged")
    if level not in ("baseline", "restricted"):
        return ""
    found = list(_baseline(pod["spec"]))
    if level == "restricted":
        found += _restricted(pod["spec"])
    if not found:
        return ""
    return f'violates PodSecurity "{level}:{labels.get(LABEL + "-version", "latest")}": {", ".join(found)}'


def _baseline(spec: Object) -> Iterator[str]:
    host = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if host:
        yield f"host namespaces ({', '.join(f'{name}=true' for name in host)})"
    volumes = [f'"{volume["name"]}"' for volume in spec.get("volumes") or () if "hostPath" in volume]
    if volumes:
        yield f"hostPath volumes ({'volume' if len(volumes) == 1 else 'volumes'} {', '.join(volumes)})"
    privileged = [f'"{c["name"]}"' for c in _containers(spec) if (c.get("securityContext") or {}).get("privileged")]
    if privileged:
        yield f"privileged ({_named(privileged)} must not set securityContext.privileged=true)"


def _restricted(spec: Object) -> Iterator[str]:
    def lacking(has: list[bool]) -> list[str]:
        return [f'"{c["name"]}"' for c, ok in zip(_containers(spec), has, strict=True) if not ok]

    contexts = [c.get("securityContext") or {} for c in _containers(spec)]
    pod = spec.get("securityContext") or {}
    if names := lacking([context.get("allowPrivilegeEscalation") is False for context in contexts]):
        what = "securityContext.allowPrivilegeEscalation=false"
        yield f"allowPrivilegeEscalation != false ({_named(names)} must set {what})"
    if names := lacking(["ALL" in ((context.get("capabilities") or {}).get("drop") or ()) for context in contexts]):
        yield f'unrestricted capabilities ({_named(names)} must set securityContext.capabilities.drop=["ALL"])'
    if names := lacking([context.get("runAsNonRoot", pod.get("runAsNonRoot")) is True for context in contexts]):
        yield f"runAsNonRoot != true (pod or {_named(names)} must set securityContext.runAsNonRoot=true)"
    good = ("RuntimeDefault", "Localhost")
    profiles = [
        (context.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") in good for context in contexts
    ]
    if names := lacking(profiles):
        what = 'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {_named(names)} must set {what})"


def _containers(spec: Object) -> list[Object]:
    return [*(spec.get("initContainers") or ()), *spec["containers"]]


def _named(names: list[str]) -> str:
    return f"{'container' if len(names) == 1 else 'containers'} {', '.join(names)}"
