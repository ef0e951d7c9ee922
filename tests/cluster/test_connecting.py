"""Every way to a real API server: address and files, kubeconfig, the pod's own account with rotation, the old flags."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as listen

from cluster.conftest import IMAGE
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeadlineExceeded, KubeForbidden, KubeRejected
from deployer.core.model.kind import POD, SECRET, Kind
from deployer.core.model.records import Document
from deployer.kube.client import connect
from deployer.settings import Settings
from support.command import PATIENCE, Deployer, Rest, of_a_new_user, running
from support.rights import Account
from support.world import HEALTHY, describe

WHO = Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account with the rights of the files in a namespace, `spaces[1]`."""
    admin = connect(Settings())
    made = Account(admin, tmp_path_factory.mktemp("account"))
    made.grant(made.space(f"t-connecting-{uuid.uuid4().hex[:8]}"), "app.yaml")
    yield made
    made.close()
    admin.close()


def who(settings: Settings) -> str:
    """Who the API server takes us for."""
    client = connect(settings)
    try:
        answer = client.create(WHO, {"apiVersion": WHO.api_version, "kind": WHO.kind})
    finally:
        client.close()
    return str(answer["status"]["userInfo"]["username"])


def trouble(settings: Settings) -> str:
    """Why a request does not succeed, in one sentence."""
    client = connect(settings)
    with pytest.raises((DeadlineExceeded, KubeForbidden, KubeRejected)) as caught:
        client.get(POD, "a", "default", scope=CancelScope(time.monotonic() + 1))
    client.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- address and files --------------------------------------------------------------------------------------------


def test_an_address_with_token_and_ca_files(account: Account, tmp_path: Path) -> None:
    settings = Settings(**account.settings())
    assert who(settings) == f"system:serviceaccount:{account.namespace}:deployer"
    bare = account.admin.address.removeprefix("https://")
    assert who(dataclasses.replace(settings, kubernetes=bare)).endswith(":deployer")
    unchecked = dataclasses.replace(settings, kubernetes_ca_file="", skip_server_cert_validation=True)
    assert who(unchecked).endswith(":deployer")


def test_what_is_wrong_is_said(account: Account, tmp_path: Path) -> None:
    settings = Settings(**account.settings())
    text = trouble(dataclasses.replace(settings, kubernetes_ca_file=""))
    assert "its certificate cannot be verified" in text and "--kubernetes-ca-file" in text
    plain = account.admin.address.replace("https://", "http://")
    assert "https:// instead of http://" in trouble(dataclasses.replace(settings, kubernetes=plain))
    wrong = tmp_path / "token"
    wrong.write_text("e30.e30.e30")
    assert f"does not know the token in {wrong}" in trouble(
        dataclasses.replace(settings, kubernetes_token_file=str(wrong))
    )
    password = dataclasses.replace(
        settings, kubernetes_token_file="", kubernetes_username="ann", kubernetes_password="hunter2"
    )
    text = trouble(password)
    assert "knows no user names and passwords" in text and "--kubernetes-token-file" in text


# --- kubeconfig ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_users(account: Account, tmp_path: Path) -> str:
    """The tests' own kubeconfig, with a context `account` beside the current one."""
    given = Path(os.environ["KUBECONFIG"].split(os.pathsep)[0])
    document = yaml.safe_load(given.read_text())
    for part in [c["cluster"] for c in document["clusters"]] + [u["user"] for u in document["users"]]:
        for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
            if key in part:
                part[key] = str(given.parent / part[key])
    context = next(c["context"] for c in document["contexts"] if c["name"] == document["current-context"])
    document["users"].append({"name": "account", "user": {"token": account.token()}})
    document["contexts"].append({"name": "account", "context": {**context, "user": "account"}})
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    return str(tmp_path / "kubeconfig")


def test_a_kubeconfig_by_flag_by_variable_and_by_context(
    account: Account, two_users: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, file = who(Settings()), two_users
    assert mine and not mine.startswith("system:serviceaccount:")  # in most clusters by a client certificate
    assert who(Settings(kubeconfig=file)) == mine
    assert who(Settings(kubeconfig=file, kube_context="account")).endswith(":deployer")
    monkeypatch.setenv("KUBECONFIG", file)
    assert who(Settings()) == mine
    assert who(Settings(kube_context="account")).endswith(":deployer")
    # What is given beside a kubeconfig is meant, whatever credentials that has.
    assert who(Settings(kubernetes_token_file=str(account.token_file))).endswith(":deployer")


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def deployer(tmp_path: Path) -> Iterator[Deployer]:
    """The command, in an environment that knows of no cluster."""
    with running(of_a_new_user(tmp_path), tmp_path) as made:
        yield made


def ended(rest: Rest, id: str) -> str:
    """Follow a deployment's log to its end; the status."""
    url = f"ws{rest.url[4:]}stream/deployments/{id}/logs?namespace={rest.namespace}"
    with listen(url, proxy=None) as viewer, pytest.raises(ConnectionClosed) as closed:
        while True:
            viewer.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.reason


def failure(rest: Rest, id: str) -> str:
    return str(rest.call("GET", f"/deployments/{id}/")[1]["failure"]["message"])


def shop(namespace: str) -> Document:
    return describe(namespace, image=IMAGE, pull="IfNotPresent", **HEALTHY)


def test_the_originals_flags(deployer: Deployer, account: Account, tmp_path: Path) -> None:
    """A real API server has known no passwords for years: it takes such a request for nobody's, or for nothing."""
    where = f"-kubernetes {account.admin.address} -kubernetesusername ann -kubernetespassword hunter2".split()
    more = ["-skipServerCertValidation", "-proxysleep=0", "--ingress=none", "--data-dir", str(tmp_path / "data")]
    process, rest = deployer.serve(*where, *more)
    assert f"{account.admin.address} is NOT CHECKED" in process.line("WARNING", "err")
    rest.namespace = account.spaces[1]
    id = rest.deploy(shop(rest.namespace))
    assert ended(rest, id) == "FAILURE"
    said = failure(rest, id)
    assert "knows no user names and passwords" in said and "give --kubernetes-token-file" in said
    assert process.end() == 0
    assert "hunter2" not in said + process.rest("err")


# --- the pod's own account ----------------------------------------------------------------------------------------


class Projected:
    """A directory like the one that the kubelet projects into a pod: all files change in one rename of a link."""

    def __init__(self, path: Path, **files: str) -> None:
        self.path = path
        self.path.mkdir()
        self._number = 0
        self.write(**files)
        for name in files:
            (self.path / name).symlink_to(f"..data/{name}")

    def write(self, **files: str) -> None:
        """As https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter does."""
        data, old = self.path / "..data", (self.path / "..data").resolve()
        self._number += 1
        new = self.path / f"..version_{self._number}"
        if self._number > 1:
            shutil.copytree(old, new)
        else:
            new.mkdir()
        for name, content in files.items():
            (new / name).write_text(content)
        (self.path / "..data_tmp").symlink_to(new.name)
        (self.path / "..data_tmp").replace(data)
        if self._number > 1:
            shutil.rmtree(old)


MOUNTING = """
set -e
run=$(readlink -f /var/run)
mount -t tmpfs none "$run"
mkdir -p "$run/secrets/kubernetes.io/serviceaccount"
mount --bind "$0" "$run/secrets/kubernetes.io/serviceaccount"
exec "$@"
"""


@pytest.fixture
def in_a_pod(deployer: Deployer, account: Account, tmp_path: Path) -> Iterator[tuple[Deployer, Projected]]:
    """The command where it finds what a pod has: the mount of its account, and the variables of the API server."""
    wrapper = ["unshare", "--mount", "sh", "-c", MOUNTING]
    if not shutil.which("unshare"):
        pytest.skip("the program unshare is missing")
    projected = Projected(
        tmp_path / "projected", **{"ca.crt": account.ca(), "namespace": account.namespace, "token": "x"}
    )
    tried = subprocess.run([*wrapper, str(projected.path), "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"mounting is not allowed here: {tried.stderr.strip()}")
    deployer.wrapper = [*wrapper, str(projected.path)]
    server = urlsplit(account.admin.address)
    deployer.environment["KUBERNETES_SERVICE_HOST"] = str(server.hostname)
    deployer.environment["KUBERNETES_SERVICE_PORT"] = str(server.port or 443)
    yield deployer, projected


def bound_token(account: Account) -> tuple[str, Callable[[], None]]:
    """A token, and what revokes it: it is bound to a Secret that is deleted then."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    secret = account.admin.create(SECRET, body, account.namespace)
    return account.token(secret), lambda: account.delete(SECRET, name, account.namespace)


def await_ready(rest: Rest, expected: int) -> str:
    """Wait until `/readyz` answers so; what it says. (API servers know a token for some seconds after its end.)"""
    scope = CancelScope(time.monotonic() + PATIENCE)
    while (answer := rest.call("GET", "/readyz"))[0] != expected:
        scope.pause(0.2)
    return str(answer[1].get("detail", ""))


def test_the_pods_own_account_whose_token_is_rotated_and_revoked(
    in_a_pod: tuple[Deployer, Projected], account: Account, tmp_path: Path
) -> None:
    deployer, projected = in_a_pod
    first, revoke = bound_token(account)
    projected.write(token=first)
    process, rest = deployer.serve("serve", "--ingress=none", "--proxysleep=0", "--data-dir", str(tmp_path / "data"))
    rest.namespace = account.spaces[1]
    assert rest.call("GET", "/readyz")[0] == 200
    assert ended(rest, rest.deploy(shop(rest.namespace))) == "DEPLOYED"
    # Its own namespace is known from the account as well, and nobody deploys there.
    own = Rest(rest.url, account.namespace)
    assert own.call("POST", "/descriptors/", shop(account.namespace))[0] == 400

    projected.write(token="")
    assert ended(rest, rest.deploy(shop(rest.namespace))) == "DEPLOYED"

    revoke()
    said = await_ready(rest, 503)
    assert f"does not know the token in {ACCOUNT}/token" in said
    second, _ = bound_token(account)
    projected.write(token=second)
    await_ready(rest, 200)
    assert ended(rest, rest.deploy(shop(rest.namespace))) == "DEPLOYED"
    assert process.end() == 0
    log = process.rest("err")
    assert "Traceback" not in log and first not in log + said and second not in log
