"""The image of `make image`, installed by `deploy/kustomize` as docs/installation.md says, on a real cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.conftest import IMAGE
from deployer import __version__
from deployer.core.model.kind import CONTROLLER, POD, SERVICE
from deployer.core.model.records import Document
from deployer.kube.client import connect
from deployer.settings import Settings
from support.command import Rest, awaited
from support.installation import FILE, ROOT, bring_image, is_ready, kubectl, local_volume, pipeline, reachable
from support.rights import Account
from support.world import HEALTHY, describe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS = 'auth = "kubernetes"\ningress = "none"\nproxysleep = 0\n'
FACTS = """
import json, os
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
open("/data/probe", "w").close()
os.unlink("/data/probe")
programs = sorted(set(os.listdir("/usr/bin")) | set(os.listdir("/bin") if os.path.isdir("/bin") else ()))
print(json.dumps({"uid": os.getuid(), "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
                  "seccomp": status["Seccomp"], "no new privileges": status["NoNewPrivs"],
                  "root": refused("/probe"), "tmp": refused("/tmp/probe"), "programs": programs}))
"""
HEAD = "print(open('/data/backup.db', 'rb').read(15))"


@dataclass
class Installed:
    """The service in the cluster, and somebody who may deploy into one namespace."""

    account: Account
    namespace: str
    user: Rest

    def kubectl(self, *arguments: str) -> str:
        """What kubectl says, in the service's namespace."""
        return kubectl("--namespace", self.account.namespace, *arguments)

    def pod(self) -> Document | None:
        """The service's pod, once it is ready."""
        pods = [
            p
            for p in self.account.admin.list(POD, self.account.namespace)[0]
            if "deletionTimestamp" not in p["metadata"]
        ]
        return next((p for p in pods if is_ready(p)), None)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The base with the settings of a test, on a volume of this machine, which is the node."""
    bring_image()
    home = tmp_path_factory.mktemp("installation")
    account = Account(connect(Settings()), home)
    volume = f"{account.namespace}-data"
    try:
        objects = [
            *overlay("base", account.namespace, home / "overlay"),
            local_volume(volume, account.admin, (account.namespace, "data-deployer-0"), home / "data"),
        ]
        kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(objects))
        namespace = account.space(f"t-install-{uuid.uuid4().hex[:8]}")
        account.grant(namespace, "app.yaml")
        in_there = ("--namespace", account.namespace)
        try:
            kubectl(*in_there, "rollout", "status", "statefulset/deployer", "--timeout=100s")
        except AssertionError as error:
            raise AssertionError(kubectl(*in_there, "describe", "pod,pvc")) from error
        user = Rest(f"http://{reachable(account.admin, account.namespace)}/", namespace)
        user.headers["Authorization"] = f"Bearer {pipeline(namespace)}"
        yield Installed(account, namespace, user)
    finally:
        kubectl("delete", "--ignore-not-found", "--wait=false", "clusterrole,clusterrolebinding", account.namespace)
        admin = account.admin
        account.close()
        kubectl("delete", "--ignore-not-found", "--wait=false", "persistentvolume", volume)
        admin.close()


def test_it_runs_with_no_more_than_it_needs(installed: Installed) -> None:
    pod = installed.pod()
    assert pod
    assert is_ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == 0
    facts = yaml.safe_load(installed.kubectl("exec", "deployer-0", "--", "python3", "-c", FACTS))
    assert facts == {
        "uid": 65532,
        "capabilities": 0,
        "seccomp": "2",  # a filter
        "no new privileges": "1",
        "root": "Read-only file system",
        "tmp": "No such file or directory",
        "programs": ["deployer", "python3", "python3.11"],
    }
    with tarfile.open(FILE) as layout:
        index = yaml.safe_load(layout.extractfile("index.json").read())  # type: ignore[union-attr]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"].endswith(f":{__version__}")
    installed.kubectl("exec", "deployer-0", "--", "deployer", "backup", "/data/backup.db")
    assert "SQLite format 3" in installed.kubectl("exec", "deployer-0", "--", "python3", "-c", HEAD)
    assert installed.kubectl("exec", "deployer-0", "--", "deployer", "--version").split()[-1] == __version__


def test_a_deployment_goes_on_when_its_pod_is_deleted(installed: Installed) -> None:
    user, cluster = installed.user, installed.account.admin

    def versions() -> set[str]:
        return {o["metadata"]["name"] for o in cluster.list(CONTROLLER, installed.namespace)[0]}

    def answers() -> bool:
        try:
            return user.status(second) != ""
        except OSError:  # the node may still lead to the pod that is gone
            return False

    def app(**env: str) -> Document:
        return describe(installed.namespace, image=IMAGE, pull="IfNotPresent", env=env, **HEALTHY)

    first = user.deploy(app())
    awaited(lambda: user.status(first) == "DEPLOYED", "the first version")
    second = user.deploy(app(SLOW_START="8"))
    awaited(lambda: versions() == {"shop-1", "shop-2"}, "the second version to start")
    before = installed.pod()
    assert before
    installed.kubectl("delete", "pod", "deployer-0")
    after = awaited(installed.pod, "another pod of the service")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    awaited(answers, "the Service to lead to it")
    awaited(lambda: user.status(second) != "DEPLOYING", "the deployment to end")
    _, log = user.call("GET", f"/deployments/{second}/logs")
    assert user.status(second) == "DEPLOYED", log
    assert " resumed" in log
    awaited(lambda: versions() == {"shop-2"}, "the first version's pods to be gone")
    assert cluster.get(SERVICE, "shop", installed.namespace)["spec"]["selector"]["version"] == "2"
    awaited(lambda: user.status(first) == "UNDEPLOYED", "the first version to be gone")


@pytest.mark.parametrize("which", ["base", "etcd"])
def test_the_api_server_takes_what_kustomize_makes(which: str, tmp_path: Path, namespace: str) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    admin = connect(Settings())
    try:
        account = Account(admin, tmp_path)  # a dry run makes no namespace for what goes into it
        made = yaml.safe_dump_all(overlay(which, account.namespace, tmp_path / "overlay"))
        done = subprocess.run(
            ["kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-"],
            input=made, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        account.close()
    finally:
        admin.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == made.count("\nkind: ") + made.startswith("kind: ")


# --- what an administrator does ------------------------------------------------------------------------------------


def overlay(which: str, namespace: str, directory: Path) -> list[Document]:
    """What `kubectl kustomize` makes of one of ours with settings of its own, in another namespace.

    What belongs to the whole cluster gets that name too: tests run beside each other.
    """
    directory.mkdir()
    (directory / "settings.toml").write_text(SETTINGS)
    generator = {"name": "deployer-settings", "behavior": "merge", "files": ["settings.toml"]}
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(ROOT / "deploy" / "kustomize" / which, directory.resolve())],
        "configMapGenerator": [generator],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(made))
    objects = [o for o in yaml.safe_load_all(kubectl("kustomize", str(directory))) if o]
    for each in objects:
        if each["kind"].startswith("ClusterRole"):
            each["metadata"]["name"] = namespace
        if each["kind"] == "ClusterRoleBinding":
            each["roleRef"]["name"] = namespace
            assert [subject["namespace"] for subject in each["subjects"]] == [namespace]
    return objects
