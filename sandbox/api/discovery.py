"""What the API server says about itself: version, health, groups and resources."""

from collections.abc import Sequence

from deployer.sandbox.kinds import Kind, Object
from deployer.sandbox.status import no_such_path

SHORT = {"pods": "po", "services": "svc", "replicationcontrollers": "rc", "configmaps": "cm", "namespaces": "ns"}
SHORT |= {"events": "ev", "ingresses": "ing", "nodes": "no"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def about(parts: list[str], instance: str, served: Sequence[Kind]) -> Object:
    """The answer for a path that names no resource, in a cluster that serves these kinds. Raises a 404."""
    groups: dict[str, list[str]] = {}
    for kind in served:
        versions = groups.setdefault(kind.group, []) if kind.group else []
        versions += [] if kind.version in versions else [kind.version]
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}]
    found: dict[tuple[str, ...], Object] = {
        ("version",): _version(instance),
        ("api",): {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses},
        ("apis",): {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*group) for group in groups.items()]},
        ("api", "v1"): _resource_list("v1", served),
    }
    for group, versions in groups.items():
        found["apis", group] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}
        for version in versions:
            found["apis", group, version] = _resource_list(f"{group}/{version}", served)
    if tuple(parts) not in found:
        raise no_such_path()
    return found[tuple(parts)]


def _version(instance: str) -> Object:
    """Of the API that is modelled; gitCommit tells one sandbox from another."""
    version = {"major": "1", "minor": "34", "gitVersion": "v1.34.0+sandbox", "gitCommit": instance}
    unknown = {"gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": ""}
    return version | unknown | {"platform": "linux/amd64"}


def _group(name: str, versions: list[str]) -> Object:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def _resource_list(api_version: str, served: Sequence[Kind]) -> Object:
    resources = [
        {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "shortNames": [SHORT[kind.plural]] if kind.plural in SHORT else [],
            "verbs": ["get", "list", "watch"] if kind.read_only else VERBS,
        }
        for kind in served
        if kind.api_version == api_version
    ]
    if api_version == "v1":
        resources.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}
