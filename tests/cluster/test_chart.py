"""The chart on a real cluster: installed by its notes, rolled back, moved to etcd, upgraded under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.conftest import IMAGE
from deployer.core.model.kind import CONTROLLER, NAMESPACE, POD, SERVICE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings
from support.command import Rest, awaited
from support.etcd import Etcd, free_ports
from support.helm import CHART, PATH, ROOT, RefusedError, helm, needs_helm, template, values_flags
from support.installation import bring_image, is_ready, kubectl, local_volume, node_of, reachable
from support.switching import ADDRESS, TABLES, missing
from support.traffic import CALM, Traffic
from support.world import HEALTHY, describe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), needs_helm]

CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
FRESH = tuple(kind for kind in CALM if kind.name in ("fresh GET", "fresh POST", "keep-alive GET", "keep-alive POST"))


class Release:
    """The release `deployer` in a namespace of its own, and one namespace with apps."""

    def __init__(self, admin: KubeClient, home: Path) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.admin, self.home = admin, home
        self.namespace, self.apps = f"t-chart-{suffix}", f"t-chart-apps-{suffix}"
        self.host = f"{suffix}.example.com"
        self.unserved = missing("nginx versioned")
        table = TABLES["nginx versioned"][1]
        provider = {"ingress": "none"} if self.unserved else {"ingress": "nginx", "plugins": {"ingress_nginx": table}}
        pipeline = {"kind": "ServiceAccount", "name": "pipeline", "namespace": self.apps}
        self.values: dict[str, Any] = {
            "config": {"auth": "kubernetes", "image_pull_policy": "IfNotPresent", "proxysleep": 0, **provider},
            "namespaces": [self.apps],
            "users": {"deploy": [pipeline]},
            "ingress": {"enabled": not self.unserved, "className": "nginx", "host": f"deployer.{self.host}"},
        }

    def helm(self, verb: str, *flags: str, wait: bool = True, **changes: Any) -> str:
        """Install or upgrade; `changes` stay."""
        self.values |= changes
        flags += ("--wait", "--timeout", "150s") if wait else ()
        flags += values_flags(self.home, self.values)
        return helm(verb, "deployer", str(CHART), "--namespace", self.namespace, *flags)

    def kubectl(self, *arguments: str) -> str:
        """What kubectl says, in the service's namespace."""
        return kubectl("--namespace", self.namespace, *arguments)

    def user(self) -> Rest:
        """A pipeline, with a token of its own, at the Service."""
        made = Rest(f"http://{reachable(self.admin, self.namespace)}/", self.apps)
        token = kubectl("--namespace", self.apps, "create", "token", "pipeline", "--audience", "kube-deployer")
        made.headers["Authorization"] = f"Bearer {token.strip()}"
        return made

    def app(self, name: str = "shop", **env: str) -> Document:
        """A descriptor."""
        host = {} if self.unserved else {"frontend": f"{name}.{self.host}"}
        return describe(self.apps, name, image=IMAGE, pull="IfNotPresent", env=env, **host, **HEALTHY)

    def pods(self) -> dict[str, Document]:
        """Those of the service that are ready and stay, by name."""
        pods = [p for p in self.admin.list(POD, self.namespace)[0] if "deletionTimestamp" not in p["metadata"]]
        return {p["metadata"]["name"]: p for p in pods if is_ready(p)}

    def versions(self, app: str) -> set[str]:
        """Names of an app's controllers."""
        found = self.admin.list(CONTROLLER, self.apps)[0]
        return {o["metadata"]["name"] for o in found if o["metadata"]["labels"]["app"] == app}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Not installed yet; afterwards everything is gone, whatever happened."""
    bring_image()
    admin = connect(Settings())
    made = Release(admin, tmp_path_factory.mktemp("chart"))
    volume = f"{made.namespace}-data"
    claim = (made.namespace, "deployer-data")
    kubectl("apply", "--filename", "-", stdin=yaml.safe_dump(local_volume(volume, admin, claim, made.home / "data")))
    try:
        yield made
    finally:
        with contextlib.suppress(RefusedError):
            helm("uninstall", "deployer", "--namespace", made.namespace)
        for kind, name in (("namespace", made.apps), ("namespace", made.namespace), ("persistentvolume", volume)):
            kubectl("delete", "--ignore-not-found", "--wait=false", kind, name)
        admin.close()


def test_a_namespace_that_does_not_exist_is_said_before_anything_is_made(release: Release) -> None:
    with pytest.raises(RefusedError, match=f"namespace {release.apps} of namespaces does not exist: create it with"):
        release.helm("install", "--create-namespace")
    assert release.namespace not in {o["metadata"]["name"] for o in release.admin.list(NAMESPACE)[0]}


def test_the_readme_installs_it_and_deploys_the_first_app(release: Release) -> None:
    kubectl("create", "namespace", release.apps)
    kubectl("--namespace", release.apps, "create", "serviceaccount", "pipeline")
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(
        r"```sh\n(.*?)```", text.partition("<!-- cluster -->")[2].partition("<!-- /cluster -->")[0], re.S
    )
    build, script = "".join(blocks).split("\n", 1)
    assert build.startswith("docker build --push --file deploy/Dockerfile --tag registry.example.com/kube-deployer:")
    ours = {
        "--namespace deployer": f"--namespace {release.namespace}",
        "--namespace default": f"--namespace {release.apps}",
        "{default}": f"{{{release.apps}}}",
        "registry.example.com/": "docker.io/library/",
        "gcr.io/google-samples/hello-app:1.0": IMAGE,
        "--wait": " ".join(("--wait", *values_flags(release.home, release.values))),
    }
    assert [word for word in ours if word not in script] == []
    assert "hello version 1 is live" in shell(script, ours, ROOT)
    assert release.admin.get(SERVICE, "hello", release.apps)["spec"]["selector"] == {"app": "hello", "version": "1"}


def test_its_notes_say_how_to_deploy_an_app(release: Release) -> None:
    notes = helm("get", "notes", "deployer", "--namespace", release.namespace)
    commands = [line.strip() for line in notes.splitlines() if line.startswith("  kubectl")]
    said = shell("\n".join(commands), {"registry.example.com/my-app:1": IMAGE}, release.home)
    assert "my-app version 1 is live" in said


def shell(script: str, ours: Mapping[str, str], directory: Path) -> str:
    """What a script of the documentation prints when it is run with names of ours in the place of those in there."""
    for theirs, name in ours.items():
        script = script.replace(theirs, name)
    environment = {**os.environ, "PATH": PATH}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_deployment_survives_an_upgrade_that_fails_and_is_rolled_back(release: Release) -> None:
    user = release.user()
    slow = user.deploy(release.app("slow", SLOW_START="12"))
    awaited(lambda: release.versions("slow"), "it to start")
    before = release.pods()["deployer-0"]["metadata"]["uid"]
    release.helm("upgrade", "--set", "image.tag=absent", wait=False)
    awaited(lambda: waits_for_image(release.admin.list(POD, release.namespace)[0]), "an image that is not there")
    helm("rollback", "deployer", "--namespace", release.namespace, "--wait", "--timeout", "150s")
    assert release.pods()["deployer-0"]["metadata"]["uid"] != before
    awaited(lambda: tried(lambda: user.status(slow) == "DEPLOYED"), "the deployment to go on to its end")
    assert " resumed" in user.call("GET", f"/deployments/{slow}/logs")[1]


def test_its_records_stay_when_it_is_uninstalled_and_so_do_apps(release: Release) -> None:
    deployed = release.user().call("GET", "/deployments/")[1]
    helm("uninstall", "deployer", "--namespace", release.namespace, "--wait")
    awaited(lambda: not release.admin.list(POD, release.namespace)[0], "the process to be gone")
    assert [o["metadata"]["name"] for o in release.admin.list(CLAIM, release.namespace)[0]] == ["deployer-data"]
    assert release.versions("slow") == {"slow-1"}
    release.helm("install")
    assert release.user().call("GET", "/deployments/")[1] == deployed


@pytest.fixture(scope="module")
def etcd(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that pods reach."""
    (port,) = free_ports(1)
    made = Etcd(tmp_path_factory.mktemp("etcd"), listen_client_urls=f"http://0.0.0.0:{port}")
    addresses = node_of(release.admin)["status"]["addresses"]
    yield f"http://{next(a['address'] for a in addresses if a['type'] == 'InternalIP')}:{port}"
    made.close()


def test_it_moves_from_a_volume_to_etcd_and_several_replicas(release: Release, etcd: str) -> None:
    deployed = release.user().call("GET", "/deployments/")[1]
    with pytest.raises(RefusedError, match="records are in sqlite now and would be in etcd, while a process"):
        helm("upgrade", "deployer", str(CHART), "--namespace", release.namespace, "--reuse-values",
             "--set", f"etcd.endpoints={{{etcd}}}", "--set", "replicas=2")  # fmt: skip
    release.helm("upgrade", etcd={"endpoints": [etcd]}, store="sqlite")
    inside = ("exec", "deployer-0", "--", "deployer")
    release.kubectl(*inside, "export", "/data/export.gz")
    release.kubectl(*inside, "import", "/data/export.gz", "--store", "etcd")
    release.helm("upgrade", replicas=0)
    awaited(lambda: not release.admin.list(POD, release.namespace)[0], "the one process to be gone")
    release.helm("upgrade", replicas=2, store="etcd")
    assert set(release.pods()) == {"deployer-0", "deployer-1"}
    assert release.user().call("GET", "/deployments/")[1] == deployed


def test_an_upgrade_under_load_loses_no_request_and_no_operation(release: Release, etcd: str) -> None:
    user, old = release.user(), {p["metadata"]["uid"] for p in release.pods().values()}
    live = [user.deploy(release.app())]
    awaited(lambda: user.status(live[0]) == "DEPLOYED", "the first version")
    address = release.admin.get(SERVICE, "deployer", release.namespace)["spec"]["clusterIP"]
    doors = {"Service": (address, address)}
    with contextlib.ExitStack() as load:
        if not release.unserved:
            doors["Ingress"] = (ADDRESS, f"deployer.{release.host}")
            host = f"shop.{release.host}"
            awaited(lambda: answers(ADDRESS, host) and answers(ADDRESS, f"deployer.{release.host}"), "the routes")
            traffic = Traffic((ADDRESS, 80), host, FRESH)
            load.callback(traffic.stop)
        callers = load.enter_context(Callers(doors, release.apps, user.headers))
        with ThreadPoolExecutor() as aside:
            upgrade = aside.submit(release.helm, "upgrade", podAnnotations={"example.com/upgrade": "1"})
            while not upgrade.done():
                live.append(user.deploy(release.app(SLOW_START="2")))
                awaited(lambda: user.status(live[-1]) != "DEPLOYING", "the next version")
            upgrade.result()
        if not release.unserved:
            report = traffic.report()
            assert report.failed == 0, report.explain()
            assert report.answered > 200
    assert not old & {p["metadata"]["uid"] for p in release.pods().values()} and len(release.pods()) == 2
    assert callers.lost == []
    assert all(count > 20 for count in callers.answered.values()), callers.answered
    assert len(live) > 3
    ended = {d["id"]: d["status"] for d in user.call("GET", "/deployments/", query="&appname=shop")[1]}
    assert {ended[id] for id in live[:-1]} <= {"UNDEPLOYED", "UNDEPLOYING"} and ended[live[-1]] == "DEPLOYED"
    stored = {d["appName"] for d in user.call("GET", "/descriptors/")[1]}
    assert callers.stored <= stored


class Callers:
    """Requests to REST from several sides at once, each on a connection of its own; what was lost, in words.

    `doors` are addresses and the name that is asked for, by how that is called in the account.
    """

    def __init__(self, doors: Mapping[str, tuple[str, str]], namespace: str, headers: Mapping[str, str]) -> None:
        self.lost: list[str] = []
        self.answered = {f"{method} {door}": 0 for door in doors for method in ("GET", "POST")}
        self.stored: set[str] = set()
        self._namespace, self._headers = namespace, headers
        self._over = threading.Event()
        lanes = [(door, *where, method) for door, where in doors.items() for method in ("GET", "POST")]
        self._lanes = [threading.Thread(target=self._lane, args=lane) for lane in lanes]

    def __enter__(self) -> Callers:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for lane in self._lanes:
            lane.join()

    def _lane(self, door: str, address: str, host: str, method: str) -> None:
        number = 0
        while not self._over.wait(0.1):
            number += 1
            app = f"call-{door.lower()}-{number}"
            path, body = f"/deployments/?namespace={self._namespace}&limit=1", None
            if method == "POST":
                path = f"/descriptors/?namespace={self._namespace}"
                body = json.dumps(describe(self._namespace, app, image=IMAGE))
            began = time.strftime("%H:%M:%S")
            connection = http.client.HTTPConnection(address, 80, timeout=20)
            try:
                connection.request(method, path, body, {"Host": host, **self._headers})
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{began} {method} {door}: {error!r}")
                continue
            finally:
                connection.close()
            if answer.status not in (200, 201):
                self.lost.append(f"{began} {method} {door}: {answer.status} {said[:200]!r}")
                continue
            self.answered[f"{method} {door}"] += 1
            if method == "POST":
                self.stored.add(app)


@pytest.mark.parametrize("which", ["volume", "etcd", "everything"])
def test_the_api_server_takes_what_it_makes(which: str, tmp_path: Path, namespace: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "volume": {},
        "etcd": {
            "replicas": 3,
            "etcd": {"endpoints": ["https://etcd:2379"], "tlsSecret": "etcd-tls", "authSecret": "etcd-user"},
        },
        "everything": {
            "replicas": 2,
            "etcd": {"bundled": {"enabled": True}},
            "filesSecret": "files",
            "metrics": {"enabled": True},
            "dashboard": {"enabled": True},
            "ingress": {"enabled": True, "host": "deployer.example.com", "tlsSecret": "tls"},
            "networkPolicy": {"from": [{"namespaceSelector": {}}], "egress": [{}]},
            "rbac": {"clusterHosts": True, "features": ["canary", "recreate", "jobs", "validate", "health-proxy"]},
        },
    }
    release = "1.release-with-a-name-as-long-as-helm-lets-it-be-long" if which == "everything" else "deployer"
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")  # on standard error
    try:
        made = template(tmp_path, {**more[which], "namespaces": [namespace]}, release=release, namespace=namespace)
        command = ["kubectl", "apply", "--server-side", "--dry-run=server", "--namespace", namespace, "--filename", "-"]
        text = yaml.safe_dump_all(made)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == len(made)
    finally:
        kubectl("delete", "--wait=false", "namespace", namespace)


def waits_for_image(pods: list[Document]) -> bool:
    """Is there a pod whose image cannot be pulled?"""
    states = [s["state"] for p in pods for s in p.get("status", {}).get("containerStatuses", ())]
    return any(re.search("ErrImagePull|ImagePullBackOff", json.dumps(state)) for state in states)


def answers(address: str, host: str) -> bool:
    """Does the ingress controller know the host?"""
    connection = http.client.HTTPConnection(address, 80, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz", headers={"Host": host})
        return connection.getresponse().status not in (404, 502, 503)


def tried(ask: Any) -> bool:
    """False as long as nobody answers: the node may still lead to the pod that is gone."""
    try:
        return bool(ask())
    except OSError:
        return False
