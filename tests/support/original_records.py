"""What the original records of descriptors and deployments, as etcd v2 gives it (types.go, etcdregistry.go)."""

from __future__ import annotations

import json
from typing import Any

Document = dict[str, Any]

SECRET = "canary-5f2c"
"""The value of the variable that the original injected."""
AT = "2017-10-12T14:30:32+02:00"
"""A time as Go writes it where the clock is not UTC's; `AT_UTC` is the same moment."""
AT_UTC = "2017-10-12T12:30:32Z"


def descriptor(namespace: str, app: str = "shop", *, image: str = "web", **fields: Any) -> Document:
    """One as it is stored: with the defaults that the original fills in, and what Go's client library adds."""
    container = {
        "name": "web",
        "image": image,
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": "OWN", "value": "kept-value"}],
        "resources": {},
        "imagePullPolicy": "Always",
    }
    podspec = {"containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    identity = {"id": f"descriptor-of-{app}", "created": AT, "lastModified": AT}
    made = {"deploymentType": "blue-green", "newVersion": "#", "appName": app, "replicas": 1, "podspec": podspec}
    return {**identity, **made, "namespace": namespace, **fields}


def deployment(id: str, version: str, status: str, of: Document, created: str = AT, **fields: Any) -> Document:
    """One as it is stored after it was begun: with what was injected, in both places."""
    environment = {"TOKEN": SECRET}
    injected = [
        {"name": "APP_NAME", "value": of["appName"]},
        {"name": "POD_NAMESPACE", "value": of["namespace"]},
        {"name": "APP_VERSION", "value": version},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "TOKEN", "value": SECRET},
    ]
    used = json.loads(json.dumps(of))
    for container in used["podspec"]["containers"]:
        container["env"] = [*container.get("env", ()), *injected]
    times = {"created": created, "lastModified": created}
    return {
        "id": id,
        **times,
        "version": version,
        "status": status,
        "descriptor": {**used, "environment": environment},
        "OldVersion": "",
        **fields,
    }


class Records:
    """A tree of keys, in the order in which they were written."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def put(self, key: str, value: str | Document) -> Records:
        """Below `/deployer/`; an object as Go's MarshalIndent has it."""
        self.keys[key] = value if isinstance(value, str) else json.dumps(value, indent=2)
        return self

    def descriptor(self, made: Document) -> Records:
        return self.put(f"descriptors/{made['namespace']}/{made['appName']}/{made['id']}", made)

    def deployment(self, made: Document, log: str = "", health: str = "") -> Records:
        of = made["descriptor"]
        self.put(f"deployments/{of['namespace']}/{of['appName']}/{made['id']}", made)
        if log:
            self.put(f"logs/{of['namespace']}/{made['id']}", log)
        if health:
            self.put(f"healthcheckdata/{of['namespace']}/{made['id']}/shop-41-x7k2p", health)
        return self

    def answer(self) -> Document:
        """Of `GET /v2/keys/deployer?recursive=true`."""
        root: Document = {"key": "/deployer", "dir": True, "nodes": [], "modifiedIndex": 1, "createdIndex": 1}
        for index, (key, value) in enumerate(self.keys.items(), 2):
            node, path = root, "/deployer"
            *folders, _ = key.split("/")
            for part in folders:
                path += f"/{part}"
                found = next((child for child in node["nodes"] if child["key"] == path), None)
                if found is None:
                    found = {"key": path, "dir": True, "nodes": [], "modifiedIndex": index, "createdIndex": index}
                    node["nodes"].append(found)
                node = found
            leaf = {"key": f"/deployer/{key}", "value": value, "modifiedIndex": index, "createdIndex": index}
            node["nodes"].append(leaf)
        # Directories have no order of their own.
        root["nodes"].reverse()
        return {"action": "get", "node": root}
