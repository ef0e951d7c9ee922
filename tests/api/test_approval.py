"""`POST /deployments/{id}/approval` and `gates` of a deployment, over HTTP."""

from __future__ import annotations

import dataclasses
import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from deployer.core.model.gates import GateDecision
from deployer.core.model.plan import PlannedGate
from deployer.core.model.records import Deployment, Plan
from deployer.core.ports.store import Create, Update
from support.gates import waiting_gate
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Answer, Served


def waiting(served: Served, **fields: Any) -> Deployment:
    """A deployment whose gate waits for a person."""
    deployment = served.deployment()
    served.store.commit(Create(waiting_gate(NS, "shop", deployment.id, **fields)))
    return deployment


def approve(served: Served, id: str, body: Any = None, namespace: str = NS, **headers: str) -> Answer:
    """What the service answers to a decision."""
    said = {"approve": True} if body is None else body
    return served.call("POST", f"/deployments/{id}/approval/?namespace={namespace}", said, headers)


def test_a_decision_is_recorded_and_answered(served: Served) -> None:
    deployment = waiting(served)
    answer = approve(served, deployment.id, {"approve": False, "comment": "Ünfit", "gate": "ask"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {**answer.json, "gate": "ask", "approve": False, "by": "", "comment": "Ünfit"}
    (found,) = served.store.find(GateDecision)
    assert (found.deployment, found.approve, found.comment) == (deployment.id, False, "Ünfit")
    again = approve(served, deployment.id, {"approve": False, "comment": "once more"})
    assert (again.status, again.json) == (200, answer.json)
    assert approve(served, deployment.id).status == 409


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "approve"),
        ({"approve": "yes"}, "approve"),
        ({"approve": 1}, "approve"),
        ({"approve": None}, "approve"),
        ({"approve": True, "comment": "two\nlines"}, "comment"),
        ({"approve": True, "comment": "\x1b[31m"}, "comment"),
        ({"approve": True, "comment": "x" * 1001}, "comment"),
        ({"approve": True, "comment": 3}, "comment"),
        ({"approve": True, "gate": ["ask"]}, "gate"),
        ({"approve": True, "by": "root"}, "by"),
    ],
)
def test_what_is_no_decision_is_refused(served: Served, body: Any, path: str) -> None:
    deployment = waiting(served)
    problem = approve(served, deployment.id, body).problem
    assert (problem["status"], [error["path"] for error in problem["errors"]]) == (400, [path])
    assert served.store.find(GateDecision) == []


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"approve": tru', b'{"approve": true, "approve": false}', b"\xff"]
)
def test_what_is_no_json_object_is_refused(served: Served, body: bytes) -> None:
    assert approve(served, waiting(served).id, body).problem["status"] == 400
    assert served.store.find(GateDecision) == []


def test_who_is_not_asked(served: Served) -> None:
    deployment = waiting(served)
    assert approve(served, str(uuid.uuid4())).status == 404
    assert approve(served, deployment.id, namespace="other-ns").status == 404
    assert approve(served, deployment.id, {"approve": True, "gate": "other"}).problem["detail"] == (
        "gate other does not wait for a decision; ask at beforeStart does"
    )
    ended = waiting(served, ended=1.0, asks=False)
    assert approve(served, ended.id).problem["detail"] == "no gate of this deployment waits for a decision"
    late = waiting(served, began=1.0, deadline=2.0)
    assert approve(served, late.id).status == 409
    none = served.deployment()
    assert approve(served, none.id).status == 409
    gone = waiting(served)
    served.service.undeploy(NS, gone.id)
    assert approve(served, gone.id).status == 409


def test_a_gate_that_was_decided_about_asks_nobody_any_more(served: Served) -> None:
    deployment = waiting(served)
    assert approve(served, deployment.id).status == 200
    (gate,) = served.call("GET", f"/deployments/{deployment.id}/?namespace={NS}").json["gates"]
    assert not gate["waitsForApproval"]


def test_gates_are_shown_with_one_deployment_and_not_in_lists(served: Served) -> None:
    measured = {"time": 1.0, "name": "status", "value": "status: 3", "threshold": "x", "verdict": "failed"}
    deployment = waiting(served, measurements=(measured,), measured=1, reason='"status":')
    answer = served.call("GET", f"/deployments/{deployment.id}/?namespace={NS}")
    (gate,) = answer.json["gates"]
    assert (gate["name"], gate["waitsForApproval"], gate["verdict"]) == ("ask", True, None)
    assert gate["measurements"] == [{**measured, "time": "1970-01-01T00:00:01Z"}]
    assert answer.body.count(b'"status"') == 1  # scripts of the original grep it
    assert not [line for line in answer.body.splitlines() if b"status" in line and not line.startswith(b'  "status": ')]
    (listed,) = served.call("GET", f"/deployments/?namespace={NS}").json
    assert "gates" not in listed
    plain = served.deployment()
    assert "gates" not in served.call("GET", f"/deployments/{plain.id}/?namespace={NS}").json


# --- with authentication ----------------------------------------------------------------------------------------------


class TestWithTokens:
    """The role for deploying approves nothing, and who asked for a deployment may be kept from approving it."""

    @pytest.fixture
    def issuer(self) -> Issuer:
        return Issuer()

    @pytest.fixture
    def access(self, issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
        with access_by(issuer, tmp_path) as made:
            yield made

    def test_another_person(self, served: Served, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
        deployment = waiting(served)
        gate = PlannedGate(
            step="gate:beforeStart:ask", point="beforeStart", type="approval", name="ask", another_person=True
        )
        asked = {"namespace": NS, "app": "shop", "deployment": deployment.id, "version": "1"}
        served.store.commit(Create(Plan(**asked, gates=(gate,))))
        by = {
            who: bearer(issuer.token(sub=who, namespaces=[NS], roles=roles))
            for who, roles in {"ann": ["deploy", "approve"], "otto": ["approve"], "eve": ["deploy", "read"]}.items()
        }
        assert approve(served, deployment.id, **by["eve"]).status == 403
        assert approve(served, deployment.id).status == 401
        served.store.commit(Update(dataclasses.replace(deployment, created_by="ann")))
        refused = approve(served, deployment.id, **by["ann"]).problem
        assert (refused["status"], "another person than ann" in refused["detail"]) == (403, True)
        with caplog.at_level(logging.INFO, "deployer.audit"):
            answer = approve(served, deployment.id, {"approve": True, "comment": "go"}, **by["otto"])
        assert (answer.status, answer.json["by"]) == (200, "otto")
        told = [json.loads(r.message) for r in caplog.records if r.name == "deployer.audit"]
        (line,) = [one for one in told if one.get("outcome") == "ok" and one["method"] == "POST"]
        assert (line["who"], line["verb"], line["id"], line["app"]) == ("otto", "approve", deployment.id, "shop")
        assert line["decision"].startswith("approved ") and line["decision"].endswith(": go")
        seen = served.call("GET", f"/deployments/{deployment.id}/?namespace={NS}", headers=by["otto"])
        assert seen.status == 403  # who may approve may not therefore read
