"""What an administrator does to install the service: brings the image to the node, makes a volume, grants rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.core.model.kind import SERVICE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from support.command import awaited

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "build" / "image" / "kube-deployer.tar"
RUNTIMES = ("/run/kube-lab/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/containerd/containerd.sock")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)


def bring_image() -> None:
    """Import it into the containerd of this machine, which is the node: nothing can be pulled where tests run.

    Skips the test where that cannot be done.
    """
    sockets = [os.environ.get("CONTAINERD_ADDRESS", ""), *RUNTIMES]
    found = next((path for path in sockets if path and Path(path).is_socket()), None)
    if not found:
        pytest.skip("needs the socket of the node's containerd: set CONTAINERD_ADDRESS")
    for program in ("ctr", "kubectl"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    if not FILE.exists():
        pytest.skip("needs the image: run `make image`")
    run("ctr", "--address", found, "--namespace", "k8s.io", "image", "import", str(FILE))


def node_of(admin: KubeClient) -> Document:
    """The node that this machine is."""
    return admin.list(NODE)[0][0]


def local_volume(name: str, admin: KubeClient, claim: tuple[str, str], path: Path) -> Document:
    """A directory of this machine as the volume for a claim, which is given as its namespace and name."""
    path.mkdir()
    host = {
        "key": "kubernetes.io/hostname",
        "operator": "In",
        "values": [node_of(admin)["metadata"]["labels"]["kubernetes.io/hostname"]],
    }
    spec: dict[str, Any] = {
        "capacity": {"storage": "10Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": claim[0], "name": claim[1]},
        "local": {"path": str(path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def pipeline(namespace: str) -> str:
    """A token of the account `pipeline`, which may deploy there by the Role of `users.yaml`."""
    kubectl("--namespace", namespace, "create", "serviceaccount", "pipeline")
    objects = [o for o in yaml.safe_load_all((ROOT / "deploy/rbac/users.yaml").read_text()) if o]
    for each in objects:
        for subject in each.get("subjects", ()):
            if subject["kind"] == "ServiceAccount":
                subject["namespace"] = namespace
    kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=yaml.safe_dump_all(objects))
    return kubectl("--namespace", namespace, "create", "token", "pipeline", "--audience", "kube-deployer").strip()


def is_ready(pod: Document) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    return run("kubectl", *arguments, stdin=stdin)


def run(*command: str, stdin: str | None = None) -> str:
    """A program's output; it must end well."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def reachable(admin: KubeClient, namespace: str) -> str:
    """The address of the service's Service, as soon as it leads to a pod.

    Nodes learn a moment after everybody else that a pod is ready; until then they refuse connections.
    """
    address = str(admin.get(SERVICE, "deployer", namespace)["spec"]["clusterIP"])

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((address, 80), timeout=1):
            return True
        return False

    awaited(answers, "the Service to lead to a pod")
    return address
