"""What the API server says about itself: version, health, groups and resources."""

from collections.abc import Set

from deployer.sandbox.kinds import GROUPS, KINDS, Kind, Object
from deployer.sandbox.status import no_such_path

SHORT = {"pods": "po", "services": "svc", "replicationcontrollers": "rc", "configmaps": "cm", "namespaces": "ns"}
SHORT |= {"events": "ev", "ingresses": "ing", "nodes": "no"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def about(parts: list[str], instance: str, absent: Set[Kind] = frozenset()) -> Object:
    """The answer for a path that names no resource; `absent` kinds are not told of. Raises a 404."""
    groups = [group for group in GROUPS if any(kind.group == group for kind in KINDS if kind not in absent)]
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}]
    found: dict[tuple[str, ...], Object] = {
        ("version",): _version(instance),
        ("api",): {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses},
        ("apis",): {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in groups]},
        ("api", "v1"): _resource_list(""),
    }
    for group in groups:
        found["apis", group] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        found["apis", group, "v1"] = _resource_list(group)
    if tuple(parts) not in found:
        raise no_such_path()
    return found[tuple(parts)]


def _version(instance: str) -> Object:
    """Of the API that is modelled; gitCommit tells one sandbox from another."""
    version = {"major": "1", "minor": "34", "gitVersion": "v1.34.0+sandbox", "gitCommit": instance}
    unknown = {"gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": ""}
    return version | unknown | {"platform": "linux/amd64"}


def _group(name: str) -> Object:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource_list(group: str) -> Object:
    resources = [
        {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "shortNames": [SHORT[kind.plural]] if kind.plural in SHORT else [],
            "verbs": ["get", "list", "watch"] if kind.read_only else VERBS,
        }
        for kind in KINDS
        if kind.group == group
    ]
    if not group:
        resources.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
