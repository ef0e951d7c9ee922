"""`auth = "kubernetes"` with real accounts, tokens and RBAC: `deployer serve`, and users who may do more or less."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as listen
from websockets.typing import Subprotocol

from cluster.conftest import IMAGE
from deployer.core.cancel_scope import CancelScope
from deployer.core.model.kind import SECRET, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings
from support.command import PATIENCE, Deployer, Process, Rest, of_a_new_user, running
from support.rights import BINDING, FILES, ROLE, SERVICE_ACCOUNT, Account
from support.world import describe

RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLE = Kind(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_BINDING = Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
CACHE = 1.0
FOLLOWS = 10.0
"""Seconds in which API servers follow Roles, at the very most."""

VERBS = {
    "read": ["get", "list"],
    "deploy": ["get", "list", "create", "update", "delete", "deletecollection"],
}


class Cluster:
    """An account for the Deployer, users, and what they are granted."""

    def __init__(self, directory: Path) -> None:
        self.admin: KubeClient = connect(Settings())
        self.account = Account(self.admin, directory)
        self.namespace = self.account.space(f"t-auth-{uuid.uuid4().hex[:8]}")
        self.account.grant(self.namespace, "app.yaml")
        self._reviews: list[tuple[Kind, str]] = []

    def allow_reviews(self, *resources: str) -> None:
        """Apply `reviews.yaml` under a name of the test's own: what it makes belongs to the whole cluster.

        With `resources` only the rules about these, and instead of what was granted before.
        """
        self.forbid_reviews()
        name = f"{self.account.namespace}-reviews"
        for document in yaml.safe_load_all((FILES / "reviews.yaml").read_text()):
            kind = CLUSTER_ROLE if document["kind"] == "ClusterRole" else CLUSTER_BINDING
            document["metadata"]["name"] = name
            if resources and kind is CLUSTER_ROLE:
                document["rules"] = [rule for rule in document["rules"] if set(rule["resources"]) <= set(resources)]
                assert document["rules"]
            if kind is CLUSTER_BINDING:
                document["roleRef"]["name"] = name
                (subject,) = document["subjects"]
                assert subject == {"kind": "ServiceAccount", "name": "deployer", "namespace": "deployer"}
                subject["namespace"] = self.account.namespace
            self.admin.create(kind, document)
            self._reviews.append((kind, name))

    def user(self, name: str, *verbs: str) -> None:
        """An account that may do that with descriptors and deployments in the namespace."""
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self.admin.create(SERVICE_ACCOUNT, body, self.namespace)
        if verbs:
            self.grant(name, *verbs)

    def grant(self, user: str, *verbs: str, **more: Any) -> None:
        """Give a user these rights, and no others."""
        rule = {
            "apiGroups": ["kube-deployer"],
            "resources": ["descriptors", "deployments"],
            "verbs": list(verbs),
            **more,
        }
        about = {"metadata": {"name": user, "namespace": self.namespace}}
        self.account.apply({"apiVersion": f"{RBAC}/v1", "kind": "Role", **about, "rules": [rule]})
        subject = {"kind": "ServiceAccount", "name": user, "namespace": self.namespace}
        ref = {"apiGroup": RBAC, "kind": "Role", "name": user}
        binding = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", **about, "roleRef": ref, "subjects": [subject]}
        self.account.apply(binding)

    def revoke(self, user: str) -> None:
        """Take them all."""
        for kind in (BINDING, ROLE):
            self.account.delete(kind, user, self.namespace)

    def token(self, user: str, audience: str | None = "kube-deployer", secret: Document | None = None) -> str:
        """A token by TokenRequest."""
        spec: Document = {"expirationSeconds": 600}
        if audience is not None:
            spec["audiences"] = [audience]
        if secret is not None:
            name, uid = secret["metadata"]["name"], secret["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
        asking = Kind("", "v1", f"serviceaccounts/{user}/token", "TokenRequest")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.admin.create(asking, body, self.namespace)["status"]["token"])

    def forbid_reviews(self) -> None:
        while self._reviews:
            self.account.delete(*self._reviews.pop())

    def close(self) -> None:
        self.forbid_reviews()
        self.account.close()
        self.admin.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """What all tests here share; each has users of its own."""
    made = Cluster(tmp_path_factory.mktemp("account"))
    made.allow_reviews()
    yield made
    made.close()


def flags(cluster: Cluster, directory: Path) -> list[str]:
    where = cluster.account.settings()
    return [
        "serve", "--auth=kubernetes", f"--auth-cache={CACHE}", "--ingress=none", "--proxysleep=0",
        "--kubernetes", where["kubernetes"], "--kubernetes-ca-file", where["kubernetes_ca_file"],
        "--kubernetes-token-file", where["kubernetes_token_file"], "--data-dir", str(directory / "data"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def service(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """The one service that most tests use, and where it answers."""
    home = tmp_path_factory.mktemp("serve")
    with running(of_a_new_user(home), home) as deployer:
        process, rest = deployer.serve(*flags(cluster, home), "--log-level=error")
        yield process, rest.url
        assert process.end() == 0
        said = process.rest("err")
        assert "Traceback" not in said
        # The audit log is there whatever the level is; tokens are not.
        lines = [json.loads(line) for line in said.splitlines()]
        assert {line["outcome"] for line in lines if line["status"] not in (404, 423)} == {"ok", "refused"}
        assert any(str(line["who"]).endswith(":pipeline") and line["app"] == "shop" for line in lines if "app" in line)
        assert "eyJ" not in said


@pytest.fixture
def as_user(cluster: Cluster, service: tuple[Process, str]) -> Callable[..., Rest]:
    """A client of the service with a token of a user."""

    def make(token: str | None) -> Rest:
        rest = Rest(service[1], cluster.namespace)
        rest.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return rest

    return make


def status(rest: Rest, method: str = "GET", path: str = "/deployments/") -> int:
    return rest.call(method, path)[0]


def await_status(rest: Rest, wanted: int, path: str = "/deployments/") -> float:
    """Ask until the answer is that; after how many seconds."""
    began = time.monotonic()
    scope = CancelScope(began + PATIENCE)
    while (found := status(rest, path=path)) != wanted:
        assert found in (200, 401, 403, 404, 503)
        scope.pause(0.1)
    return time.monotonic() - began


# --- whose token ------------------------------------------------------------------------------------------------------


def altered(token: str, **claims: Any) -> str:
    """The token with other claims, as somebody without the key can make it."""
    header, payload, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | claims
    changed = base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def test_only_tokens_for_the_service_get_in(cluster: Cluster, as_user: Any) -> None:
    cluster.user("tokens", *VERBS["read"])
    good = cluster.token("tokens")
    assert await_status(as_user(good), 200) < FOLLOWS
    for bad in (
        None,
        "x",
        good[:-4] + "AAAA",
        altered(good, exp=int(time.time()) + 10_000),
        cluster.token("tokens", audience=None),  # for the API server
        cluster.token("tokens", audience="another"),
        cluster.account.token(),  # the Deployer's own
    ):
        for method, path in (("GET", "/deployments/"), ("POST", "/descriptors/"), ("GET", "/plugins"), ("GET", "/x")):
            assert status(as_user(bad), method, path) == 401
    for path in ("/healthz", "/readyz", "/"):
        assert status(as_user(None), path=path) == 200
    assert status(as_user(good), path="/plugins") == 200
    assert status(as_user(good), path="/x") == 404


def test_a_token_that_is_revoked_is_refused_after_the_cache_time(cluster: Cluster, as_user: Any) -> None:
    """By deleting what it is bound to, as a pod's token ends with its pod."""
    cluster.user("bound", *VERBS["read"])
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bound"}}
    secret = cluster.admin.create(SECRET, body, cluster.namespace)
    rest = as_user(cluster.token("bound", secret=secret))
    await_status(rest, 200)
    cluster.account.delete(SECRET, "bound", cluster.namespace)
    await_status(rest, 401)  # API servers themselves know it for some seconds more


# --- what they may do -------------------------------------------------------------------------------------------------


def test_rights_are_plain_rbac_and_follow_it_within_the_cache_time(cluster: Cluster, as_user: Any) -> None:
    cluster.user("changing")
    rest = as_user(cluster.token("changing"))
    assert status(rest) == 403
    _, problem = rest.call("GET", "/deployments/")
    who = f"system:serviceaccount:{cluster.namespace}:changing"
    assert problem["detail"] == f"{who} may not list deployments.kube-deployer in this namespace"
    cluster.grant("changing", "get", "list")
    assert await_status(rest, 200) < CACHE + FOLLOWS
    assert status(rest, "POST", "/descriptors/") == 403
    assert status(rest, "DELETE", "/deployments/") == 403
    cluster.grant("changing", "get")
    assert await_status(rest, 403) < CACHE + FOLLOWS
    assert status(rest, path="/deployments/00000000-0000-4000-8000-000000000000/") == 404
    cluster.revoke("changing")
    assert await_status(rest, 403, "/deployments/00000000-0000-4000-8000-000000000000/") < CACHE + FOLLOWS


def test_rolling_back_is_a_right_of_its_own_that_deploying_includes(cluster: Cluster, as_user: Any) -> None:
    cluster.user("on-call", "get", "list")
    rest = as_user(cluster.token("on-call"))
    await_status(rest, 200)

    def asked() -> tuple[int, Any]:
        code, problem = rest.call("POST", "/rollbacks/", query="&appname=nothing")
        return code, problem["detail"]

    who = f"system:serviceaccount:{cluster.namespace}:on-call"
    assert asked() == (403, f"{who} may not rollback deployments.kube-deployer in this namespace")
    for verbs in (("rollback",), VERBS["deploy"]):
        cluster.revoke("on-call")
        scope = CancelScope(time.monotonic() + PATIENCE)
        while asked()[0] != 403:
            scope.pause(0.1)
        cluster.grant("on-call", "get", "list", *verbs)
        while (found := asked())[0] == 403:
            scope.pause(0.1)
        assert found == (404, f"there is no app nothing in namespace {cluster.namespace}")
        assert (status(rest, "POST", "/descriptors/validate") == 403) == (verbs == ("rollback",))


def test_whoami_says_what_rbac_allows(cluster: Cluster, as_user: Any) -> None:
    cluster.user("builder", *VERBS["deploy"])
    cluster.user("reader", *VERBS["read"])
    builder, reader = (as_user(cluster.token(name)) for name in ("builder", "reader"))
    await_status(builder, 200)
    await_status(reader, 200)
    assert builder.call("POST", "/descriptors/", describe(cluster.namespace, app="whoami", image=IMAGE))[0] == 201
    try:
        found = reader.call("GET", "/whoami")[1]
        assert found["name"] == f"system:serviceaccount:{cluster.namespace}:reader"
        assert found["namespaces"] == [cluster.namespace] and found["expires"]
        both = {"descriptors": {"get", "list"}, "deployments": {"get", "list"}, "freezes": set()}
        assert {resource: set(verbs) for resource, verbs in found["may"].items()} == both
        allowed = set(builder.call("GET", "/whoami")[1]["may"]["deployments"])
        assert {"create", "delete", "rollback"} <= allowed and "approve" not in allowed
        assert reader.call("POST", "/descriptors/validate", {})[0] == 403  # as it said
    finally:
        assert builder.call("DELETE", "/descriptors/", query="&appname=whoami&keepLatest=false")[0] == 200


def test_a_role_counts_in_its_namespace_only(cluster: Cluster, as_user: Any) -> None:
    cluster.user("here", *VERBS["deploy"])
    rest = as_user(cluster.token("here"))
    await_status(rest, 200)
    foreign = (cluster.account.namespace, "default", "no-such-namespace")
    impossible = ("*", "UPPER", f"{cluster.namespace}-")
    for expected, others in ((403, foreign), (400, impossible)):
        for other in others:
            rest.namespace = other
            assert status(rest) == expected, other


def test_a_role_freezes_its_namespace_and_only_a_cluster_role_all_of_them(cluster: Cluster, as_user: Any) -> None:
    cluster.user("freezer")
    cluster.grant("freezer", "get", "list", "update", "delete", resources=["freezes"])
    cluster.user("hurry", *VERBS["deploy"])
    freezer, hurry = as_user(cluster.token("freezer")), as_user(cluster.token("hurry"))
    freeze = {"reason": "an audit"}
    await_status(freezer, 200, "/freezes/")
    await_status(hurry, 200)
    assert freezer.call("PUT", f"/freezes/{cluster.namespace}/", freeze)[0] == 201
    said = freezer.call("GET", "/freezes/")[1]
    assert [found["by"] for found in said] == [f"system:serviceaccount:{cluster.namespace}:freezer"]
    stored = hurry.call("POST", "/descriptors/", describe(cluster.namespace, "frozen"))[1]["id"]
    assert hurry.call("POST", "/deployments/", query=f"&descriptorId={stored}")[0] == 423
    assert hurry.call("POST", "/deployments/", query=f"&descriptorId={stored}&override=now")[0] == 403
    for method, body in (("PUT", freeze), ("GET", None), ("DELETE", None)):
        assert hurry.call(method, f"/freezes/{cluster.namespace}/", body)[0] == 403
        assert freezer.request(method, "/freezes/*/", body)[0] == 403
    name = f"{cluster.namespace}-freezer"
    made = []
    try:
        for document in yaml.safe_load_all((FILES / "freezes-everywhere.yaml").read_text()):
            document["metadata"]["name"] = name
            kind = CLUSTER_ROLE
            if document["kind"] == "ClusterRoleBinding":
                kind = CLUSTER_BINDING
                document["roleRef"]["name"] = name
                document["subjects"] = [{"kind": "ServiceAccount", "name": "freezer", "namespace": cluster.namespace}]
            cluster.admin.create(kind, document)
            made.append(kind)
        scope = CancelScope(time.monotonic() + PATIENCE)
        # Each refusal is remembered by itself, for a second from when it was asked for.
        while freezer.request("DELETE", "/freezes/*/")[0] == 403:
            scope.pause(0.1)
        while freezer.request("PUT", "/freezes/*/", freeze)[0] == 403:
            scope.pause(0.1)
        everything = freezer.request("GET", "/freezes/?namespace=*")[2]
        assert {found["namespace"] for found in everything} == {cluster.namespace, "*"}
        for target in ("*", cluster.namespace):
            assert freezer.request("DELETE", f"/freezes/{target}/")[0] == 200
    finally:
        for kind in made:
            cluster.account.delete(kind, name)


def test_names_in_a_rule_are_ids(cluster: Cluster, as_user: Any) -> None:
    cluster.user("writer", *VERBS["deploy"])
    cluster.user("named")
    writer, named = as_user(cluster.token("writer")), as_user(cluster.token("named"))
    await_status(writer, 200)
    ids = [writer.call("POST", "/descriptors/", describe(cluster.namespace, f"a{n}"))[1]["id"] for n in range(2)]
    cluster.grant("named", "get", resourceNames=[ids[0]])
    await_status(named, 200, f"/descriptors/{ids[0]}/")
    assert status(named, path=f"/descriptors/{ids[1]}/") == 403
    assert status(named, path="/descriptors/") == 403
    assert status(named, "DELETE", f"/descriptors/{ids[0]}/") == 403


def test_whoever_may_not_read_gets_nothing_to_read(cluster: Cluster, as_user: Any) -> None:
    """By deploying somebody else's descriptor, whose environment has a secret."""
    cluster.user("author", *VERBS["deploy"])
    cluster.user("blind", "create", "delete")
    cluster.user("half")
    cluster.grant("half", "get", "create", "delete", resources=["deployments"])
    writer, blind, half = (as_user(cluster.token(name)) for name in ("author", "blind", "half"))
    await_status(writer, 200)
    document = describe(cluster.namespace, "secretive", image="lab/none:1", env={"PASSWORD": "hunter2-canary"})
    id = writer.call("POST", "/descriptors/", document)[1]["id"]
    for rest, shown in ((blind, {"id", "namespace", "appName", "status"}), (half, {"version", "created", "status"})):
        await_status(rest, 403, "/descriptors/")
        code, deployed = rest.call("POST", "/deployments/", query=f"&descriptorId={id}")
        assert code == 202 and shown <= set(deployed)
        for _, answer in ((code, deployed), rest.call("DELETE", f"/deployments/{deployed['id']}/")):
            assert "hunter2-canary" not in json.dumps(answer) and "descriptor" not in answer
    assert status(blind, path=f"/deployments/{deployed['id']}/") == 403
    assert "descriptor" not in half.call("GET", f"/deployments/{deployed['id']}/")[1]
    assert "hunter2-canary" in json.dumps(writer.call("GET", f"/deployments/{deployed['id']}/")[1])


# --- a whole deployment -----------------------------------------------------------------------------------------------


def stream(rest: Rest, id: str, token: str, how: str) -> tuple[list[str], int, str]:
    """The log until its end, with a token that comes in one of three ways."""
    url = f"ws{rest.url[4:]}stream/deployments/{id}/logs?namespace={rest.namespace}"
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    protocols = [f"base64url.bearer.authorization.kube-deployer.{encoded}", "logs.kube-deployer"]
    options: dict[str, Any] = {
        "header": {"additional_headers": {"Authorization": f"Bearer {token}"}},
        "subprotocol": {"subprotocols": [Subprotocol(p) for p in protocols]},
        "message": {},
    }[how]
    lines: list[str] = []
    with listen(url, proxy=None, **options) as viewer:
        if how == "message":
            viewer.send(f"Bearer {token}")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                lines.append(str(viewer.recv(timeout=PATIENCE)))
    assert closed.value.rcvd is not None
    return lines, closed.value.rcvd.code, closed.value.rcvd.reason


def test_a_pipeline_deploys_and_others_watch_or_not(cluster: Cluster, as_user: Any) -> None:
    cluster.user("pipeline", *VERBS["deploy"])
    cluster.user("viewer", *VERBS["read"])
    cluster.user("stranger")
    tokens = {name: cluster.token(name) for name in ("pipeline", "viewer", "stranger")}
    rest = as_user(tokens["pipeline"])
    await_status(rest, 200)
    await_status(as_user(tokens["viewer"]), 200)
    id = rest.deploy(describe(cluster.namespace, image=IMAGE, pull="IfNotPresent"))
    for how in ("header", "subprotocol", "message"):
        lines, code, reason = stream(rest, id, tokens["viewer"], how)
        assert lines and (code, reason) == (1000, "DEPLOYED")
        assert stream(rest, id, tokens["stranger"], how)[:2] == ([], 4403)
        assert stream(rest, id, cluster.token("viewer", audience=None), how)[:2] == ([], 4401)
    who = f"system:serviceaccount:{cluster.namespace}:pipeline"
    found = as_user(tokens["viewer"]).call("GET", f"/deployments/{id}/")[1]
    assert (found["createdBy"], found["status"]) == (who, "DEPLOYED")
    assert as_user(tokens["viewer"]).call("DELETE", f"/deployments/{id}/")[0] == 403
    assert rest.call("DELETE", f"/deployments/{id}/")[1]["undeployedBy"] == who
    assert stream(rest, id, tokens["viewer"], "header")[2] == "UNDEPLOYED"


# --- what the Deployer itself may do ----------------------------------------------------------------------------------


def test_without_the_right_to_ask_nobody_gets_in_until_it_is_granted(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("unable"))
    try:
        with running(of_a_new_user(tmp_path), tmp_path) as deployer:
            _unable(cluster, deployer, tmp_path)
    finally:
        cluster.close()


def _unable(cluster: Cluster, deployer: Deployer, directory: Path) -> None:
    process, rest = deployer.serve(*flags(cluster, directory))
    rest.namespace = cluster.namespace
    assert rest.call("GET", "/readyz")[0] == 503  # before anybody has asked
    assert "refused to create tokenreviews" in process.line("grant it by deploy/rbac/reviews.yaml", "err")
    cluster.user("ann", *VERBS["read"])
    rest.headers = {"Authorization": f"Bearer {cluster.token('ann')}"}
    code, problem = rest.call("GET", "/deployments/")
    assert code == 503
    assert "tokenreviews" not in problem["detail"]
    code, problem = rest.call("GET", "/readyz")
    assert code == 503 and "tokenreviews" not in str(problem)
    assert rest.call("GET", "/healthz")[0] == 200
    cluster.allow_reviews("tokenreviews")
    await_status(rest, 200, "/readyz")  # which asks by itself
    await_status(rest, 200, "/plugins")  # for which it is enough to be known
    assert status(rest) == 503
    assert "refused to create subjectaccessreviews" in process.line("grant it by deploy/rbac/reviews.yaml", "err")
    cluster.allow_reviews()
    assert await_status(rest, 200) < FOLLOWS + CACHE
    assert process.end() == 0
