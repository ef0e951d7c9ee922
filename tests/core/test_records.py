"""Records: legal transitions, and every type through JSON and back."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
import typing
from collections import deque
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar

import pytest

from deployer.commands.freezes import Freeze
from deployer.commands.idempotency import IdempotencyKey
from deployer.core.errors import Conflict
from deployer.core.model.gates import GateDecision, GateResults
from deployer.core.model.json_codec import dumps
from deployer.core.model.operation.timeline import StepState
from deployer.core.model.records import (
    RECORDS,
    TRANSITIONS,
    Deployment,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Record,
    Status,
    StoredDescriptor,
    timestamp,
)

T = TypeVar("T")

KINDS = (*RECORDS, Freeze, GateResults, GateDecision, IdempotencyKey)

ENDS = {Status.FAILURE, Status.UNDEPLOYED}


def a_deployment(status: Status = Status.DEPLOYING) -> Deployment:
    return Deployment(
        namespace="shop",
        app="cart",
        id="d1",
        descriptor={"appName": "cart"},
        created="2026-01-01T00:00:00Z",
        last_modified="2026-01-01T00:00:00Z",
        version="7",
        status=status,
        descriptor_id="s1",
        revision=4,
        sequence=2,
    )


def an_operation(state: OperationState) -> Operation:
    return Operation(namespace="shop", app="cart", id="o1", kind=OperationKind.DEPLOY, deployment="d1", state=state)


def filled(kind: type[T]) -> T:
    """A record, or a part of one, of that type in which no field has its default."""
    names = {field.name for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind).items()
    return kind(**{name: sample(annotation, name) for name, annotation in hints if name in names})


def sample(annotation: object, name: str) -> Any:
    by_type: dict[object, object] = {
        str: f"some {name} ä\u2028",
        int: 3,
        float: 2.5,
        bool: True,
        dict: {"a": [1, None, {"b": "c"}]},
        Mapping: {"a": [1, None, {"b": "c"}]},
        list: ["x", "y"],
        Status: Status.UNDEPLOYING,
        OperationKind: OperationKind.RETIRE,
        OperationState: OperationState.UNDOING,
        StepState: StepState.UNDONE,
    }
    if isinstance(annotation, UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return filled(annotation)
    if typing.get_origin(annotation) is tuple:
        parts = typing.get_args(annotation)
        return tuple(sample(part, name) for part in (parts[:1] if parts[-1] is Ellipsis else parts))
    if typing.get_origin(annotation) is dict and typing.get_args(annotation)[1] in (str, float):
        return {"a": by_type[typing.get_args(annotation)[1]]}
    if typing.get_origin(annotation) is list and typing.get_origin(typing.get_args(annotation)[0]) is dict:
        return [{"a": [1, None, {"b": "c"}]}]
    return by_type[typing.get_origin(annotation) or annotation]


# --- transitions ----------------------------------------------------------------------------------------------------


def test_transitions_are_exactly_those_of_the_contract() -> None:
    assert {(a.value, b.value) for a, after in TRANSITIONS.items() for b in after} == {
        ("DEPLOYING", "DEPLOYED"),
        ("DEPLOYING", "FAILURE"),
        ("DEPLOYING", "UNDEPLOYING"),
        ("DEPLOYED", "UNDEPLOYING"),
        ("UNDEPLOYING", "UNDEPLOYED"),
    }


def test_every_status_leads_to_an_end() -> None:
    for begin in Status:
        reached, todo = {begin}, deque([begin])
        while todo:
            new = TRANSITIONS[todo.popleft()] - reached
            reached |= new
            todo.extend(new)
        assert reached & ENDS
        assert begin not in ENDS or reached == {begin}


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("after", Status)
def test_a_deployment_changes_status_only_legally(before: Status, after: Status) -> None:
    deployment = a_deployment(before)
    if after is before or after in TRANSITIONS[before]:
        changed = deployment.to(after, failure={"reason": "x"})
        assert (changed.status, changed.failure, changed.revision, changed.sequence) == (after, {"reason": "x"}, 4, 2)
        assert changed.last_modified > deployment.last_modified
        assert deployment.status is before
    else:
        with pytest.raises(Conflict, match=f"is {before} and cannot become {after}"):
            deployment.to(after)


def test_moving_means_that_something_is_to_be_done() -> None:
    assert {status for status in Status if status.moving} == {Status.DEPLOYING, Status.UNDEPLOYING}


# --- documents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_survives_json(kind: type[Record]) -> None:
    record = filled(kind)
    document = json.loads(json.dumps(record.to_document()))
    assert "revision" not in document
    assert "sequence" not in document
    again = kind.from_document(document, revision=record.revision, sequence=record.sequence)
    assert again == record
    for field in dataclasses.fields(record):
        assert type(getattr(again, field.name)) is type(getattr(record, field.name))


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_a_newer_release_are_ignored(kind: type[Record]) -> None:
    record = filled(kind)
    document = {**record.to_document(), "field_of_the_future": {"x": 1}}
    assert kind.from_document(document, revision=record.revision, sequence=record.sequence) == record


@pytest.mark.parametrize("kind", KINDS)
def test_documents_of_an_older_release_get_defaults(kind: type[Record]) -> None:
    record = filled(kind)
    optional = {
        field.name
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    }
    # A deployment's status and an operation's state were there from the first release on.
    document = {k: v for k, v in record.to_document().items() if k not in optional - {"status", "state"}}
    old = kind.from_document(document, revision=1, sequence=1)
    assert (old.key, old.namespace) == (record.key, record.namespace)


def test_kinds_are_unique() -> None:
    assert len({kind.KIND for kind in KINDS}) == len(KINDS)


def test_tags_narrow_lists_to_what_is_still_to_do() -> None:
    assert a_deployment(Status.DEPLOYED).tag == "DEPLOYED"
    assert {state: an_operation(state).tag for state in OperationState} == {
        OperationState.QUEUED: "open",
        OperationState.RUNNING: "open",
        OperationState.UNDOING: "open",
        OperationState.DONE: "ended",
    }
    done = an_operation(OperationState.DONE)
    assert {kind: dataclasses.replace(done, kind=kind).tag for kind in OperationKind} == {
        OperationKind.DEPLOY: "ended",
        OperationKind.UNDEPLOY: "ended",
        OperationKind.ROLLBACK: "ended",
        OperationKind.RETIRE: "closed",
        OperationKind.WATCH: "closed",
    }
    assert {s for s in OperationState if an_operation(s).begun} == {OperationState.RUNNING, OperationState.UNDOING}


# --- what REST shows ------------------------------------------------------------------------------------------------


def test_a_deployment_shows_the_fields_of_the_original() -> None:
    assert a_deployment().public() == {
        "id": "d1",
        "created": "2026-01-01T00:00:00Z",
        "lastModified": "2026-01-01T00:00:00Z",
        "version": "7",
        "status": "DEPLOYING",
        "descriptor": {"appName": "cart"},
    }


def test_a_failed_deployment_shows_why_and_who_asked() -> None:
    failure = Failure(reason="ImagePull", message="the image does not exist", pod="cart-7-x").to_document()
    shown = dataclasses.replace(a_deployment(Status.FAILURE), failure=failure, created_by="ann").public()
    assert shown["failure"] == {"reason": "ImagePull", "message": "the image does not exist", "pod": "cart-7-x"}
    assert shown["createdBy"] == "ann"


def test_a_descriptor_shows_its_identity_beside_its_document() -> None:
    stored = StoredDescriptor(
        namespace="shop", app="cart", id="s1", document={"appName": "cart"}, created="c", last_modified="m"
    )
    assert stored.public() == {"id": "s1", "created": "c", "lastModified": "m", "appName": "cart"}


def test_timestamps_are_utc_with_z() -> None:
    eastern = datetime.timezone(datetime.timedelta(hours=-5))
    assert timestamp(datetime.datetime(2026, 1, 1, 20, 30, 1, 999_999, tzinfo=eastern)) == "2026-01-02T01:30:01Z"
    assert datetime.datetime.fromisoformat(timestamp()).tzinfo == datetime.UTC


AT_ONCE = """
import sys, threading
from deployer.core.model.records import Plan
sys.setswitchinterval(1e-6)
backend = {"service": "s", "port": 1}
route = {"namespace": "n", "app": "a", "host": "h", "version": "1", "deployment": "x", "backend": backend}
previous = {"deployment": "x", "version": "1", "route": route}
document = {"namespace": "n", "app": "a", "deployment": "d", "version": "2", "format": 2, "previous": previous}
together = threading.Barrier(16)

def read():
    together.wait()
    assert Plan.from_document(document, revision=1, sequence=1).previous.route.host == "h"

threads = [threading.Thread(target=read) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_plans_that_are_first_read_by_many_threads_at_once_do_not_end_the_process() -> None:
    """What the codec learns of a class at its first use must not be learnt by two threads: every second run died."""
    ended = [subprocess.run([sys.executable, "-c", AT_ONCE], check=False).returncode for _ in range(6)]
    assert ended == [0] * 6


class Text(str):
    """As a YAML reader has them."""


class Number(float):
    """As a library for arithmetic has them."""


def test_texts_and_numbers_of_a_librarys_own_are_recorded_as_what_they_are() -> None:
    environment = [{"name": Text("A"), "value": Text("b")}]
    plan = Plan(
        namespace="team",
        app="shop",
        deployment="id",
        version=Text("1"),
        descriptor={"a": Number(1.5)},
        environment=environment,
    )
    document = json.loads(dumps(plan.to_document()))
    assert (document["version"], document["descriptor"]) == ("1", {"a": 1.5})
    assert document["environment"] == [{"name": "A", "value": "b"}]
    with pytest.raises(TypeError, match="a object cannot be recorded"):
        dataclasses.replace(plan, descriptor={"a": object()}).to_document()
