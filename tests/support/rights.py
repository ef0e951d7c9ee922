"""Accounts of a real cluster that may do what the files in `deploy/rbac/` say, and what a client made use of."""

from __future__ import annotations

import contextlib
import copy
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import KubeNotFound
from deployer.core.model.kind import CONFIG_MAP, NAMESPACE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings

FILES = Path(__file__).resolve().parents[2] / "deploy" / "rbac"

ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False)
KINDS = {kind.kind: kind for kind in (ROLE, BINDING, SERVICE_ACCOUNT, NAMESPACE)}

PATIENCE = 60.0


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, as a Role has it: `pods/log`, with the group in front unless it is core."""

    resource: str
    verb: str

    @property
    def plural(self) -> str:
        return self.resource.rpartition(":")[2]

    def __str__(self) -> str:
        return f"{self.verb} {self.plural}"


def documents(file: str, namespace: str, account: str) -> list[Document]:
    """The objects of a file, as `kubectl --namespace` would apply them, for the account `deployer` of a namespace."""
    found = [document for document in yaml.safe_load_all((FILES / file).read_text()) if document]
    for document in found:
        document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", ()):
            assert subject == {"kind": "ServiceAccount", "name": "deployer", "namespace": "deployer"}
            subject["namespace"] = account
    return found


def rights(*files: str) -> set[Right]:
    """All rights that the Roles in these files give."""
    roles = [d for file in files for d in documents(file, "x", "x") if d["kind"] == "Role"]
    return {right for role in roles for rule in role["rules"] for right in _of_rule(rule)}


def _of_rule(rule: Document) -> Iterator[Right]:
    assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield Right(f"{group}:{resource}" if group else resource, verb)


def without(role: Document, right: Right | None) -> Document:
    """A copy of the Role that does not give one right."""
    role = copy.deepcopy(role)
    for rule in role["rules"]:
        if right in set(_of_rule(rule)):
            rule["verbs"].remove(right.verb)
    role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
    return role


class Account:
    """A fresh account `deployer` in a namespace of its own, for which an administrator does what is asked for."""

    def __init__(self, admin: KubeClient, directory: Path) -> None:
        self.admin = admin
        self.namespace = f"t-account-{uuid.uuid4().hex[:8]}"
        self.spaces: list[str] = []
        self.space(self.namespace)
        self.admin.create(SERVICE_ACCOUNT, self._account(), self.namespace)
        self.token_file = directory / "token"
        self.token_file.write_text(self.token())
        self.ca_file = directory / "ca.crt"
        self.ca_file.write_text(self.ca())
        self.client = connect(Settings(**self.settings()))

    def _account(self) -> Document:
        (found,) = [d for d in documents("account.yaml", self.namespace, "") if d["kind"] == "ServiceAccount"]
        return found

    def settings(self) -> dict[str, Any]:
        """Where the cluster is and who asks: an address, a token file and a CA file."""
        files = {"kubernetes_token_file": str(self.token_file), "kubernetes_ca_file": str(self.ca_file)}
        return {"kubernetes": self.admin.address, **files}

    def token(self, secret: Document | None = None) -> str:
        """A token by TokenRequest; one that is bound to a Secret ends with it."""
        spec: Document = {"expirationSeconds": 3600}
        if secret is not None:
            name, uid = secret["metadata"]["name"], secret["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
        asking = Kind("", "v1", "serviceaccounts/deployer/token", "TokenRequest")
        answer = self.admin.create(
            asking, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}, self.namespace
        )
        return str(answer["status"]["token"])

    def ca(self) -> str:
        """The certificates that every pod of the cluster gets to check the API server's with."""
        return str(self.admin.get(CONFIG_MAP, "kube-root-ca.crt", "kube-system")["data"]["ca.crt"])

    def space(self, name: str) -> str:
        """A new namespace."""
        self.admin.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.spaces.append(name)
        return name

    def grant(self, namespace: str, *files: str, missing: Right | None = None) -> None:
        """Apply these files in a namespace, and wait until they are followed; `missing`: without that right."""
        for file in files:
            for document in documents(file, namespace, self.namespace):
                less = missing is not None and document["kind"] == "Role"
                self.apply(without(document, missing) if less else document)
        for file in files:
            given = sorted(rights(file) - {missing})
            for right in given[:1] if missing is None else [missing, *given[:1]]:
                await_allowed(self.client, namespace, right, wanted=right != missing)

    def apply(self, document: Document) -> None:
        """Create an object or replace what is there."""
        kind, name, namespace = KINDS[document["kind"]], document["metadata"]["name"], document["metadata"]["namespace"]
        there = [o for o in self.admin.list(kind, namespace)[0] if o["metadata"]["name"] == name]
        if there:
            self.admin.replace(kind, name, document, namespace)
        else:
            self.admin.create(kind, document, namespace)

    def delete(self, kind: Kind, name: str, namespace: str | None = None) -> None:
        """Delete an object by its name."""
        self.admin.delete(kind, name, namespace, uid=self.admin.get(kind, name, namespace)["metadata"]["uid"])

    def close(self) -> None:
        """Let all namespaces go."""
        self.client.close()
        for name in self.spaces:
            with contextlib.suppress(KubeNotFound):  # the test may have deleted it
                self.delete(NAMESPACE, name)


def allowed(client: KubeClient, namespace: str, right: Right, name: str = "") -> bool:
    """May the client's account do that? The API server says."""
    group, _, resource = right.resource.rpartition(":")
    resource, _, subresource = resource.partition("/")
    asked = {"namespace": namespace, "verb": right.verb, "group": group, "resource": resource}
    asked |= {"subresource": subresource, "name": name}
    body = {"apiVersion": REVIEW.api_version, "kind": REVIEW.kind, "spec": {"resourceAttributes": asked}}
    return bool(client.create(REVIEW, body)["status"]["allowed"])


def await_allowed(client: KubeClient, namespace: str, right: Right, name: str = "", *, wanted: bool = True) -> None:
    """Authorizers follow Roles with a delay of some milliseconds, and there is nothing to watch for it."""
    scope = CancelScope(time.monotonic() + PATIENCE)
    while allowed(client, namespace, right, name) is not wanted:
        scope.pause(0.05)


class Recorder:
    """Stands between a client and its transport, and notes which rights the requests need, by namespace."""

    def __init__(self, client: KubeClient) -> None:
        self._transport: Any = client._transport
        self._used: dict[str, set[Right]] = {}
        self._noted = threading.Condition()
        client._transport = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, method: str, target: str, *args: Any, **more: Any) -> Any:
        self._note(method, target)
        return self._transport.send(method, target, *args, **more)

    def stream(self, target: str, *args: Any, **more: Any) -> Any:
        self._note("GET", target)
        return self._transport.stream(target, *args, **more)

    def used(self, namespace: str) -> set[Right]:
        """What was needed in a namespace so far."""
        with self._noted:
            return set(self._used.get(namespace, ()))

    def spaces(self) -> set[str]:
        """The namespaces that were looked at; empty for what is in none."""
        with self._noted:
            return set(self._used)

    def await_use(self, namespace: str, right: Right) -> None:
        """Until it was needed."""
        with self._noted:
            assert self._noted.wait_for(lambda: right in self._used.get(namespace, ()), PATIENCE), (right, self._used)

    def _note(self, method: str, target: str) -> None:
        parts = urlsplit(target)
        found = re.fullmatch(
            r"/(api/v1|apis/(?P<group>[^/]+)/[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[^/]+)"
            r"(/(?P<name>[^/]+)(/(?P<sub>.+))?)?",
            parts.path,
        )
        if found is None:
            self._add("", Right(parts.path, method))
            return
        one = bool(found["name"])
        verb = {"GET": "get" if one else "list", "POST": "create", "PUT": "update", "PATCH": "patch"}.get(method)
        verb = verb or ("delete" if one else "deletecollection")
        if "watch" in parse_qs(parts.query):
            verb = "watch"
        resource = found["resource"] + (f"/{found['sub']}" if found["sub"] else "")
        resource = f"{found['group']}:{resource}" if found["group"] else resource
        self._add(found["namespace"], Right(resource, verb))

    def _add(self, namespace: str, right: Right) -> None:
        with self._noted:
            self._used.setdefault(namespace, set()).add(right)
            self._noted.notify_all()
