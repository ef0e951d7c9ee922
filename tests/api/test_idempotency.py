"""`Idempotency-Key`: what is sent again is done once, for its own caller, for a time."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.idempotency import Idempotency, IdempotencyKey, RequestKey
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import App, Deployment, Operation, Status, StoredDescriptor
from deployer.core.ports.store import Create, Update
from deployer.core.registry import Registry
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Answer, Served, document

KEY = {"Idempotency-Key": "pipeline-7"}
RECORDS = (StoredDescriptor, Deployment, Operation, IdempotencyKey)


def state(served: Served) -> list[Any]:
    return [served.store.find(kind) for kind in RECORDS]


def stored(served: Served, app: str = "shop") -> str:
    answer = served.call("POST", f"/descriptors?namespace={NS}", document(app))
    assert answer.status == 201
    id: str = answer.json["id"]
    return id


def same(first: Answer, second: Answer) -> None:
    """The second answer is that of the first request."""
    assert (first.status, first.json["id"], first.headers["Location"]) == (
        second.status, second.json["id"], second.headers["Location"],
    )  # fmt: skip
    assert first.headers["Idempotent-Replayed"] is None
    assert second.headers["Idempotent-Replayed"] == "true"


# --- the four requests ------------------------------------------------------------------------------------------------


def test_a_descriptor_is_stored_once(served: Served) -> None:
    body = document()
    first = served.call("POST", f"/descriptors?namespace={NS}", body, KEY)
    before = state(served)
    second = served.call("POST", f"//descriptors/?namespace={NS}", body, KEY)
    same(first, second)
    assert first.body == second.body
    assert state(served) == before
    assert served.call("POST", f"/descriptors?namespace={NS}", {**body, "replicas": 2}, KEY).problem["status"] == 422
    assert state(served) == before


def test_a_deployment_is_queued_once_and_shown_as_it_is_now(served: Served) -> None:
    target = f"/deployments?namespace={NS}&descriptorId={stored(served)}"
    first = served.call("POST", target, headers=KEY)
    same(first, served.call("POST", target, headers=KEY))
    served.end(first.json["id"], Status.FAILURE)
    before = state(served)
    late = served.call("POST", target, headers=KEY)
    same(first, late)
    assert late.json["status"] == "FAILURE" and late.headers["ETag"] != first.headers["ETag"]
    assert state(served) == before
    assert served.call("POST", target).json["id"] != first.json["id"]


def test_a_redeployment_is_queued_once(served: Served) -> None:
    earlier = served.deployment()
    served.end(earlier.id)
    target, match = f"/deployments/{earlier.id}?namespace={NS}", {"If-Match": "*"}
    first = served.call("PUT", target, headers=KEY | match)
    before = state(served)
    same(first, served.call("PUT", target, headers=KEY | match))
    assert first.json["id"] != earlier.id
    assert state(served) == before


def test_a_rollback_is_queued_once_and_described_as_it_was(served: Served) -> None:
    live, earlier = served.deployment("shop", "2"), served.deployment("shop", "1")
    served.end(live.id)
    for status in (Status.DEPLOYED, Status.UNDEPLOYING, Status.UNDEPLOYED):
        gone = served.end(earlier.id, status)
    served.store.commit(Update(dataclasses.replace(gone, went_live=gone.created)))
    served.store.commit(Create(App(namespace=NS, app="shop", live=live.id, live_version="2")))
    target = f"/rollbacks?namespace={NS}&appname=shop"
    first = served.call("POST", target, headers=KEY)
    assert first.status == 202 and first.json["rollback"]["version"] == "1"
    before = state(served)
    second = served.call("POST", target, headers=KEY)
    same(first, second)
    assert second.json["rollback"] == first.json["rollback"]
    assert state(served) == before
    assert served.call("POST", target).problem["status"] == 409  # without the key: one is under way


def test_the_log_says_once_that_it_was_queued(served: Served) -> None:
    target = f"/deployments?namespace={NS}&descriptorId={stored(served)}"
    for _ in range(3):
        id = served.call("POST", target, headers=KEY).json["id"]
    assert served.call("GET", f"/deployments/{id}/logs?namespace={NS}").body.count(b"queued") == 1


# --- what is another request, and another key -------------------------------------------------------------------------


def test_the_same_key_with_another_request_is_refused(served: Served) -> None:
    one, two = stored(served), stored(served, "cart")
    first = served.call("POST", f"/deployments?namespace={NS}&descriptorId={one}", headers=KEY)
    before = state(served)
    for method, target, body in (
        ("POST", f"/deployments?namespace={NS}&descriptorId={two}", None),
        ("POST", f"/deployments?namespace={NS}&descriptorId={one}&override=now", None),
        ("PUT", f"/deployments/{first.json['id']}?namespace={NS}", None),
        ("POST", f"/rollbacks?namespace={NS}&appname=shop", None),
        ("POST", f"/descriptors?namespace={NS}", document()),
    ):
        answer = served.call(method, target, body, KEY)
        assert answer.problem["status"] == 422
        assert "sent before with another request" in answer.problem["detail"]
        assert first.json["id"] not in answer.body.decode()
    assert state(served) == before


def test_parameters_may_come_in_another_order(served: Served) -> None:
    id = stored(served)
    first = served.call("POST", f"/deployments?namespace={NS}&descriptorId={id}", headers=KEY)
    same(first, served.call("POST", f"/deployments/?descriptorId={id}&namespace={NS}", headers=KEY))


@pytest.mark.parametrize(
    ("sent", "again"),
    [
        ('"a key, with: everything"', '"a key, with: everything"'),
        ("bare", '"bare"'),
        (r'"quo\"te\\s"', r'"quo\"te\\s"'),
        ("x" * 255, f'"{"x" * 255}"'),
        ("  spaced ", "spaced"),
    ],
)
def test_keys_with_and_without_quotes(served: Served, sent: str, again: str) -> None:
    target = f"/deployments?namespace={NS}&descriptorId={stored(served)}"
    first = served.call("POST", target, headers={"Idempotency-Key": sent})
    same(first, served.call("POST", target, headers={"Idempotency-Key": again}))


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        '""',
        "x" * 256,
        f'"{"x" * 256}"',
        "two words",
        "a,b",
        '"a", "b"',
        '"a";p=1',
        "a\tb",
        "ü",
        r'"\x"',
        '"',
        'a"b',
    ],
)
def test_a_key_that_is_none_is_refused_before_anything_is_done(served: Served, key: str) -> None:
    id = stored(served)
    before = state(served)
    for target, body in (
        (f"/deployments?namespace={NS}&descriptorId={id}", None),
        (f"/descriptors?namespace={NS}", document()),
    ):
        answer = served.call("POST", target, body, {"Idempotency-Key": key.encode("utf-8")})  # type: ignore[dict-item]
        assert answer.problem["errors"] == [
            {
                "path": "Idempotency-Key",
                "message": "is not one key of 1 to 255 printable ASCII characters, in quotes or without",
            }
        ]
    assert state(served) == before


def test_what_was_refused_may_be_tried_again(served: Served) -> None:
    """Nothing was done: neither the mistake nor the freeze is remembered."""
    id = stored(served)
    target = f"/deployments?namespace={NS}&descriptorId={id}"
    served.service.freezes.put(NS, b'{"reason": "an audit"}')
    assert served.call("POST", target, headers=KEY).problem["status"] == 423
    assert served.store.find(IdempotencyKey) == []
    served.service.freezes.lift(NS)
    first = served.call("POST", target, headers=KEY)
    assert first.status == 202
    served.service.freezes.put(NS, b'{"reason": "another"}')
    same(first, served.call("POST", target, headers=KEY))


def test_what_is_answered_again_counts_against_no_limit(served: Served) -> None:
    """The queue of the fixture has ten places."""
    target = f"/deployments?namespace={NS}&descriptorId={stored(served)}"
    first = served.call("POST", target, headers=KEY)
    while served.call("POST", target).status == 202:
        pass
    assert served.call("POST", target, headers={"Idempotency-Key": "other"}).problem["status"] == 429
    same(first, served.call("POST", target, headers=KEY))


def test_what_was_deleted_is_not_made_anew(served: Served) -> None:
    id = stored(served)
    target = f"/deployments?namespace={NS}&descriptorId={id}"
    first = served.call("POST", target, headers=KEY).json["id"]
    served.end(first, Status.FAILURE)
    served.call("DELETE", f"/deployments?namespace={NS}&appname=shop")
    answer = served.call("POST", target, headers=KEY)
    assert answer.problem["status"] == 404
    assert first in answer.problem["detail"] and "has been deleted" in answer.problem["detail"]
    assert served.store.find(Deployment) == []
    made = served.call("POST", f"/descriptors?namespace={NS}", document("cart"), {"Idempotency-Key": "c"}).json["id"]
    served.call("DELETE", f"/descriptors/{made}?namespace={NS}")
    again = served.call("POST", f"/descriptors?namespace={NS}", document("cart"), {"Idempotency-Key": "c"})
    assert again.problem["status"] == 404


def test_the_descriptor_may_be_gone_by_then(served: Served) -> None:
    id = stored(served)
    target = f"/deployments?namespace={NS}&descriptorId={id}"
    first = served.call("POST", target, headers=KEY)
    served.call("DELETE", f"/descriptors/{id}?namespace={NS}")
    same(first, served.call("POST", target, headers=KEY))


# --- at once, and after a crash ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["deploy", "redeploy", "descriptor"])
def test_of_many_at_once_one_is_carried_out_and_all_get_its_answer(served: Served, run: Any, what: str) -> None:
    earlier = served.deployment()
    served.end(earlier.id)
    method, target, body = {
        "deploy": ("POST", f"/deployments?namespace={NS}&descriptorId={earlier.descriptor_id}", None),
        "redeploy": ("PUT", f"/deployments/{earlier.id}?namespace={NS}", None),
        "descriptor": ("POST", f"/descriptors?namespace={NS}", document("cart")),
    }[what]
    together = threading.Barrier(6)

    def send() -> Answer:
        together.wait(20)
        return served.call(method, target, body, KEY)

    answers = [result.get(timeout=60) for result in [run(send) for _ in range(6)]]
    assert {answer.status for answer in answers} == {201 if what == "descriptor" else 202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted(answer.headers["Idempotent-Replayed"] or "" for answer in answers) == ["", *["true"] * 5]
    assert len(served.store.find(Deployment)) == (1 if what == "descriptor" else 2)
    assert len(served.store.find(StoredDescriptor)) == (2 if what == "descriptor" else 1)


class Late(SqliteStore):
    """A store that has others' commits come in just before its own."""

    before: Callable[[], object] | None = None

    def commit(self, *changes: Any, **more: Any) -> int:
        before, self.before = self.before, None
        if before:
            before()
        return super().commit(*changes, **more)


def test_whoever_comes_second_between_reading_and_writing_gets_the_first_answer(
    tmp_path: Path, registry: Registry, settings: Settings
) -> None:
    """Two replicas on one store: both found no key."""
    store = Late(tmp_path / "late.db")
    log = DeploymentLog(store, Redactor())
    here, there = (DeploymentCommands(store, log, registry, settings) for _ in range(2))
    descriptor = here.descriptors.create(NS, json.dumps(document()).encode()).id
    made: list[Deployment] = []
    keys = [RequestKey.of("ann", NS, "k", ["deploy", descriptor]) for _ in range(2)]
    store.before = lambda: made.append(there.deploy(NS, descriptor, "ann", key=keys[0]))
    assert here.deploy(NS, descriptor, "ann", key=keys[1]).id == made[0].id
    assert [key.replayed for key in keys] == [False, True]
    assert len(store.find(Deployment)) == 1
    log.close()
    store.close()


def test_nothing_is_kept_of_what_could_not_be_written(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    id = stored(served)
    target = f"/deployments?namespace={NS}&descriptorId={id}"
    commit = served.store.commit

    def full(*changes: Any, **more: Any) -> int:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(served.store, "commit", full)
    assert served.call("POST", target, headers=KEY).problem["status"] == 503
    monkeypatch.setattr(served.store, "commit", commit)
    assert served.call("POST", target, headers=KEY).headers["Idempotent-Replayed"] is None
    assert len(served.store.find(Deployment)) == 1


# --- for how long -----------------------------------------------------------------------------------------------------


def test_a_key_is_as_good_as_new_after_its_time(served: Served) -> None:
    now = [1_000_000.0]
    keys = Idempotency(served.store, 60.0, lambda: now[0])
    served.service.idempotency = keys
    target = f"/deployments?namespace={NS}&descriptorId={stored(served)}"
    first = served.call("POST", target, headers=KEY)
    now[0] += 59.9
    same(first, served.call("POST", target, headers=KEY))
    now[0] += 0.1  # counted from the first one
    second = served.call("POST", target, headers=KEY)
    assert second.json["id"] != first.json["id"]
    same(second, served.call("POST", target, headers=KEY))
    assert len(served.store.find(IdempotencyKey)) == 1


# --- whose ------------------------------------------------------------------------------------------------------------


class TestCallers:
    """A key of somebody else says nothing and stands in nobody's way."""

    @pytest.fixture
    def issuer(self) -> Issuer:
        return Issuer()

    @pytest.fixture
    def access(self, issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
        with access_by(issuer, tmp_path) as made:
            yield made

    def test_another_caller_has_keys_of_their_own(self, served: Served, issuer: Issuer) -> None:
        ann, bob = (bearer(issuer.token(sub=name)) | KEY for name in ("ann", "bob"))
        body = document()
        first = served.call("POST", f"/descriptors?namespace={NS}", body, ann)
        again = served.call("POST", f"/descriptors?namespace={NS}", document("cart"), bob)
        assert again.status == 201 and again.headers["Idempotent-Replayed"] is None
        assert again.json["id"] != first.json["id"]
        same(
            first,
            served.call("POST", f"/descriptors?namespace={NS}", body, bearer(issuer.token(sub="ann", jti="2")) | KEY),
        )

    def test_another_namespace_has_keys_of_its_own(self, served: Served, issuer: Issuer) -> None:
        ann = bearer(issuer.token(namespaces=[NS, "other-ns"])) | KEY
        for namespace in (NS, "other-ns"):
            answer = served.call(
                "POST", f"/descriptors?namespace={namespace}", {**document(), "namespace": namespace}, ann
            )
            assert answer.status == 201 and answer.headers["Idempotent-Replayed"] is None

    def test_rights_that_were_taken_away_count(self, served: Served, issuer: Issuer) -> None:
        body = document()
        served.call("POST", f"/descriptors?namespace={NS}", body, bearer(issuer.token()) | KEY)
        for changes in ({"roles": ["read"]}, {"namespaces": ["other-ns"]}):
            answer = served.call("POST", f"/descriptors?namespace={NS}", body, bearer(issuer.token(**changes)) | KEY)
            assert answer.problem["status"] == 403
            assert answer.headers["Idempotent-Replayed"] is None

    def test_no_key_and_no_caller_is_stored_in_the_clear(self, served: Served, issuer: Issuer) -> None:
        served.call("POST", f"/descriptors?namespace={NS}", document(), bearer(issuer.token()) | KEY)
        (record,) = served.store.find(IdempotencyKey)
        assert KEY["Idempotency-Key"] not in str(record) and "ann" not in str(record)
