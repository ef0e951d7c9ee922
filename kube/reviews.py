"""Questions to the API server about others: whose token is this (TokenReview), may they do that (SubjectAccessReview)?

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import KubeUnavailable
from deployer.core.model.kind import Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient

TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server knows, with everything that it needs in order to say what they may do."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody wants to do in a namespace, as a rule of a Role has it: to the object `name`, or to all of them."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


def whose_token(client: KubeClient, token: str, audiences: Collection[str], *, scope: CancelScope) -> User | None:
    """Whose token that is; None when it is nobody's, or for none of these audiences.

    Without `audiences` it must be for the API server itself. Raises KubeError, also for an answer that is none, and
    what the scope raises.
    """
    spec: Document = {"token": token}
    if audiences:
        spec["audiences"] = sorted(audiences)
    status = _ask(client, TOKEN_REVIEW, spec, scope)
    if status.get("authenticated") is not True:
        return None
    # A server that knows no audiences answers without any: then the token is for the API server, whatever was asked.
    if audiences and not set(audiences) & set(_texts(status.get("audiences"))):
        return None
    user = status.get("user")
    name = user.get("username") if isinstance(user, dict) else None
    if not isinstance(user, dict) or not isinstance(name, str) or not name:
        return None
    extra = user.get("extra")
    return User(
        name,
        str(user.get("uid") or ""),
        _texts(user.get("groups")),
        {key: _texts(values) for key, values in extra.items()} if isinstance(extra, dict) else {},
    )


def may(client: KubeClient, user: User, deed: Deed, *, scope: CancelScope) -> bool:
    """May the user do that? Raises as `whose_token` does."""
    attributes = {key: value for key, value in dataclasses.asdict(deed).items() if value}
    spec: Document = {"user": user.name, "groups": list(user.groups), "resourceAttributes": attributes}
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    status = _ask(client, ACCESS_REVIEW, spec, scope)
    return status.get("allowed") is True and status.get("denied") is not True


def _ask(client: KubeClient, kind: Kind, spec: Document, scope: CancelScope) -> Document:
    answer = client.review(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}, scope=scope)
    status = answer.get("status")
    if not isinstance(status, dict):
        raise KubeUnavailable(f"the API server at {client.address} did not answer to create {kind.plural}")
    return status


def _texts(values: object) -> tuple[str, ...]:
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list) else ()
