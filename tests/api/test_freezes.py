"""Freezes over HTTP: what is put, listed and lifted, who may, and what a frozen namespace refuses."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access, open_access
from deployer.commands.freezes import Freeze, Freezes
from deployer.core.model.records import Deployment
from deployer.kube.client import connect
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Served, document
from .test_auth_cluster import Reviews

Q = f"namespace={NS}"
LATER = "2999-01-01T00:00:00Z"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2026, 12, 1, 12, tzinfo=datetime.UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def stored(served: Served, namespace: str = NS) -> str:
    """The id of a descriptor that can be deployed."""
    body = {**document(), "namespace": namespace}
    return served.service.descriptors.create(namespace, json.dumps(body).encode()).id


def deploy(served: Served, more: str = "", headers: Any = None, namespace: str = NS) -> Any:
    target = f"/deployments/?namespace={namespace}&descriptorId={stored(served, namespace)}{more}"
    return served.call("POST", target, headers=headers)


def put(served: Served, namespace: str = NS, headers: Any = None, **body: Any) -> Any:
    return served.call("PUT", f"/freezes/{namespace}/", {"reason": "Black Friday", **body}, headers)


# --- without authentication -------------------------------------------------------------------------------------------


def test_a_freeze_is_put_shown_listed_replaced_and_lifted(served: Served) -> None:
    assert served.call("GET", f"/freezes/?{Q}").json == []
    assert served.call("GET", f"/freezes/{NS}/?{Q}").problem["status"] == 404
    made = served.call("PUT", f"/freezes/{NS}/?{Q}", {"reason": " Black Friday ", "until": "2998-12-31T19:00:00-05:00"})
    assert made.status == 201
    assert made.headers["Location"] == f"/freezes/{NS}/?{Q}"
    freeze = made.json
    assert freeze.pop("created")[:2] == "20"
    assert freeze == {"namespace": NS, "reason": "Black Friday", "source": "request", "until": LATER}
    shown = served.call("GET", made.headers["Location"])
    assert shown.json == made.json and shown.headers["ETag"] == made.headers["ETag"]
    assert served.call("GET", f"/freezes/?{Q}").json == [made.json]
    assert served.call("GET", "/freezes/?namespace=other-ns").json == []
    assert served.call("GET", "/freezes/?namespace=*").json == [made.json]
    unchanged = served.call("GET", f"/freezes/{NS}/", headers={"If-None-Match": made.headers["ETag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    old = {"If-Match": '"999999"'}
    assert put(served, headers=old).problem["status"] == 412
    replaced = put(served, reason="an audit", headers={"If-Match": made.headers["ETag"]})
    assert (replaced.status, replaced.json["reason"], "until" in replaced.json) == (200, "an audit", False)
    assert served.call("DELETE", f"/freezes/{NS}/", headers=old).problem["status"] == 412
    assert served.call("DELETE", f"/freezes/{NS}/?{Q}").status == 200
    assert served.call("DELETE", f"/freezes/{NS}/?{Q}").problem["status"] == 404
    for tag in ('"1"', '"0"', "*"):
        refused = put(served, headers={"If-Match": tag}).problem
        assert (refused["status"], "there is no freeze of" in refused["detail"]) == (412, True), tag
    assert served.store.find(Freeze) == []


def test_a_frozen_namespace_refuses_what_is_new_and_nothing_else(served: Served) -> None:
    earlier = served.deployment()
    served.end(earlier.id)
    count = served.store.count(Deployment)
    put(served, until=LATER)
    for answer in (deploy(served), served.call("PUT", f"/deployments/{earlier.id}/?{Q}")):
        problem = answer.problem
        assert (problem["status"], problem["title"]) == (423, "Locked")
        assert problem["detail"].startswith(f"namespace {NS} is frozen until {LATER}: Black Friday (")
        assert [(f["reason"], f["until"]) for f in problem["freezes"]] == [("Black Friday", LATER)]
    assert served.store.count(Deployment) == count
    assert deploy(served, namespace="other-ns").status == 202
    assert served.call("POST", f"/descriptors/?{Q}", document()).status == 201
    assert served.call("POST", f"/descriptors/validate?{Q}", document()).status == 200
    assert served.call("DELETE", f"/deployments/{earlier.id}/?{Q}").status == 202
    # What is wrong in itself is said first.
    assert served.call("POST", f"/deployments/?{Q}&descriptorId=nothing").status == 404
    served.call("DELETE", f"/freezes/{NS}/")
    assert deploy(served).status == 202


def test_all_namespaces_are_frozen_by_a_star(served: Served) -> None:
    put(served, "*", reason="maintenance")
    put(served)
    for namespace, reasons in ((NS, ["Black Friday", "maintenance"]), ("other-ns", ["maintenance"])):
        problem = deploy(served, namespace=namespace).problem
        assert [freeze["reason"] for freeze in problem["freezes"]] == reasons
        assert served.call("GET", f"/freezes/?namespace={namespace}").json == problem["freezes"]
    assert served.call("GET", "/freezes/%2A/?namespace=*").json["namespace"] == "*"
    assert served.call("DELETE", "/freezes/*/").status == 200
    assert deploy(served, namespace="other-ns").status == 202
    assert deploy(served).status == 423


def test_an_override_is_kept_in_the_record_and_in_the_log(served: Served, audited: list[Any]) -> None:
    put(served)
    made = deploy(served, "&override=CVE-2026-1%20must%20go")
    assert made.status == 202
    override = made.json["freezeOverride"]
    assert override["reason"] == "CVE-2026-1 must go"
    assert [freeze["reason"] for freeze in override["freezes"]] == ["Black Friday"]
    log = served.call("GET", f"/deployments/{made.json['id']}/logs?{Q}").body.decode()
    assert f"deploys in spite of a freeze of {NS} (Black Friday): CVE-2026-1 must go" in log
    assert [(line["path"], line["override"]) for line in audited if "override" in line] == [
        ("/deployments", "CVE-2026-1 must go")
    ]
    served.call("DELETE", f"/freezes/{NS}/")
    assert served.call("GET", f"/deployments/{made.json['id']}/?{Q}").json["freezeOverride"] == override
    # Nothing is overridden where nothing is frozen; an empty reason is none.
    assert "freezeOverride" not in deploy(served, "&override=just%20in%20case").json
    put(served)
    assert deploy(served, "&override=").status == 423
    for hostile in ("a%0Ab", "%E2%80%AEevil", "x" * 501, "%20"):
        refused = deploy(served, f"&override={hostile}").problem
        assert (refused["status"], refused["errors"][0]["path"]) == (400, "override")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", ""),
        (b"[]", ""),
        ({}, ""),
        ({"reason": ""}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": 7}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "a\r\nInjected: b"}, "reason"),
        ({"reason": "a\x1b[2J"}, "reason"),
        ({"reason": "\u202egnp.exe"}, "reason"),
        (b'{"reason": "\\ud800"}', None),
        ({"reason": "r", "until": "2999-01-01T00:00:00"}, "until"),
        ({"reason": "r", "until": "2999-01-01"}, "until"),
        ({"reason": "r", "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"reason": "r", "until": "2999-02-30T00:00:00Z"}, "until"),
        ({"reason": "r", "until": "9999-12-31T23:59:59-14:00"}, "until"),
        ({"reason": "r", "until": "0001-01-01T00:00:00+14:00"}, "until"),
        ({"reason": "r", "until": "tomorrow"}, "until"),
        ({"reason": "r", "until": 4102444800}, "until"),
        ({"reason": "r", "til": "2999-01-01T00:00:00Z"}, "til"),
        (b'{"reason": "r", "reason": "s"}', None),
    ],
)
def test_what_is_no_freeze_is_refused_with_the_field(served: Served, body: Any, path: str | None) -> None:
    answer = served.call("PUT", f"/freezes/{NS}/", body).problem
    assert answer["status"] == 400
    assert path is None or path in {error["path"] for error in answer["errors"]} | {""}
    assert not path or any(error["path"] == path for error in answer["errors"]), answer
    assert served.store.find(Freeze) == []


def test_null_and_an_empty_text_are_no_end(served: Served) -> None:
    for nothing in (None, ""):
        assert "until" not in put(served, until=nothing).json


@pytest.mark.parametrize("name", ["Shop", "a_b", "**", "a.b", "-", "a" * 64, "%0A", "shop*"])
def test_what_is_no_namespace_cannot_be_frozen(served: Served, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert served.call(method, f"/freezes/{name}/", {"reason": "r"}).problem["status"] == 400
    assert served.call("PUT", f"/freezes/{NS}/?namespace=other-ns", {"reason": "r"}).problem["status"] == 400
    assert served.call("GET", "/freezes/").problem["status"] == 400
    assert served.store.find(Freeze) == []


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_freeze_ends_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / "deployer.db")
    freezes = Freezes(store, clock=clock)
    for number in range(5):
        freezes.put(f"ns-{number}", b'{"reason": "r", "until": "2026-12-01T13:00:00Z"}', "ann")
    assert freezes.count() == {"namespace": 5, "service": 0, "window": 0}
    clock.now += 3599
    [frozen] = freezes.of("ns-1")
    assert str(frozen) == "namespace ns-1 is frozen until 2026-12-01T13:00:00Z by ann: r"
    clock.now += 1
    assert freezes.of("ns-1") == freezes.everywhere() == []
    freeze, created = freezes.put("ns-1", b'{"reason": "another"}', "bob")
    assert created and freeze.by == "bob"
    assert [f.namespace for f in store.find(Freeze)] == ["ns-1"]
    store.close()
    again = SqliteStore(tmp_path / "deployer.db")
    assert [f.reason for f in Freezes(again, clock=clock).of("ns-1")] == ["another"]
    again.close()


def test_nobody_ends_a_freeze_by_setting_the_clock(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    put(served, until=end.isoformat())
    monkeypatch.setattr("time.time", lambda: end.timestamp() + 7200)
    assert deploy(served).status == 423


def test_a_window_freezes_without_anybody_asking(tmp_path: Path) -> None:
    clock = Clock()  # a Tuesday, noon in UTC
    window = {
        "reason": "lunch",
        "from": "13:00",
        "to": "14:00",
        "time_zone": "Europe/Amsterdam",
        "namespaces": ["secret", "a-*"],
    }
    settings = Settings(freeze_windows=(window,))  # type: ignore[arg-type]
    store = SqliteStore(tmp_path / "deployer.db")
    freezes = Freezes(store, settings.freeze_windows, clock)
    assert freezes.of("b") == []
    [frozen] = freezes.of("a-1")
    assert frozen.document() == {
        "namespace": "a-1",  # and not those of others
        "reason": "lunch",
        "source": "window",
        "until": "2026-12-01T13:00:00Z",
    }
    assert str(frozen) == "namespace a-1 is frozen until 2026-12-01T13:00:00Z by the settings: lunch"
    assert [freeze.namespace for freeze in freezes.everywhere()] == ["secret, a-*"]
    assert freezes.count()["window"] == 1
    clock.now += 3600
    assert freezes.of("a-1") == []
    store.close()


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class TestTokens:
    """`auth = "jwt"`."""

    @pytest.fixture
    def access(self, issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
        with access_by(issuer, tmp_path) as made:
            yield made

    @pytest.mark.parametrize("everywhere", [False, True])
    @pytest.mark.parametrize(
        "roles", [(), ("read",), ("deploy",), ("freeze",), ("override-freeze",), ("deploy", "freeze")]
    )
    def test_putting_and_lifting(
        self, served: Served, issuer: Issuer, roles: tuple[str, ...], everywhere: bool
    ) -> None:
        for namespaces in ([NS], ["*"], ["other-ns"]):
            headers = bearer(issuer.token(namespaces=namespaces, roles=list(roles)))
            target = "*" if everywhere else NS
            there = "*" in namespaces or target in namespaces
            may = there and "freeze" in roles
            answer = put(served, target, headers)
            assert answer.status == (201 if may else 403), namespaces
            if not there:
                assert ("* among the namespaces" in answer.problem["detail"]) == everywhere
            assert bool(served.store.find(Freeze)) == may
            served.service.freezes.put(target, b'{"reason": "r"}')
            reads = there and bool({"read", "deploy", "freeze"} & set(roles))
            for path in (f"/freezes/{target}/", f"/freezes/?namespace={target}"):
                assert served.call("GET", path, headers=headers).status == (200 if reads else 403)
            assert served.call("DELETE", f"/freezes/{target}/", headers=headers).status == (200 if may else 403)
            if not may:
                served.service.freezes.lift(target)

    @pytest.mark.parametrize(
        "roles", [("deploy",), ("deploy", "freeze"), ("override-freeze",), ("deploy", "override-freeze")]
    )
    def test_overriding(self, served: Served, issuer: Issuer, audited: list[Any], roles: tuple[str, ...]) -> None:
        earlier = served.deployment()
        served.end(earlier.id)
        served.service.freezes.put(NS, b'{"reason": "r"}', "ann")
        headers = bearer(issuer.token(namespaces=[NS], roles=list(roles), sub="bob"))
        may = set(roles) == {"deploy", "override-freeze"}
        for frozen in (True, False):
            if not frozen:
                served.service.freezes.lift(NS)
            for answer in (
                deploy(served, "&override=why%20not", headers),
                served.call("PUT", f"/deployments/{earlier.id}/?{Q}&override=why%20not", headers=headers),
            ):
                assert answer.status == (202 if may else 403), answer.body
                if may and frozen:
                    assert answer.json["freezeOverride"]["reason"] == "why not"
                    assert answer.json["freezeOverride"]["freezes"][0]["by"] == "ann"
        assert {(line["who"], line["override"], line["outcome"]) for line in audited} == {
            ("bob", "why not", "ok" if may else "refused")
        }

    def test_who_put_it_and_why_is_in_the_audit_log(self, served: Served, issuer: Issuer, audited: list[Any]) -> None:
        headers = bearer(issuer.token(namespaces=[NS], roles=["freeze"], sub="ann"))
        assert put(served, headers=headers).json["by"] == "ann"
        served.call("DELETE", f"/freezes/{NS}/", headers=headers)
        put(served, "*", headers)
        first, second, third = audited
        assert (first["who"], first["verb"], first["resource"], first["namespace"]) == ("ann", "update", "freezes", NS)
        assert first["freeze"] == f"namespace {NS} is frozen by ann: Black Friday"
        assert (second["verb"], second["outcome"]) == ("delete", "ok")
        assert (third["namespace"], third["outcome"], "freeze" in third) == ("*", "refused", False)


class TestCluster:
    """`auth = "kubernetes"`."""

    @pytest.fixture
    def reviews(self) -> Iterator[Reviews]:
        made = Reviews()
        yield made
        made.close()

    @pytest.fixture
    def access(self, reviews: Reviews) -> Iterator[Access]:
        client = connect(Settings(kubernetes=reviews.url))
        made = open_access(Settings(auth="kubernetes", auth_cache=0.0), client)
        assert made is not None
        yield made
        client.close()

    def test_what_the_api_server_is_asked(self, served: Served, reviews: Reviews) -> None:
        headers = {"Authorization": "Bearer some-token"}
        served.service.freezes.put(NS, b'{"reason": "r"}')
        for ask, attributes in (
            (lambda: put(served, headers=headers), {"verb": "update", "namespace": NS}),
            (lambda: put(served, "*", headers), {"verb": "update"}),
            (lambda: served.call("DELETE", "/freezes/*/", headers=headers), {"verb": "delete"}),
            (lambda: served.call("GET", "/freezes/?namespace=*", headers=headers), {"verb": "list"}),
            (lambda: deploy(served, "&override=x", headers), {"verb": "override", "namespace": NS}),
        ):
            reviews.asked.clear()
            assert ask().status < 300
            asked = [q["spec"]["resourceAttributes"] for q in reviews.asked if q["kind"] == "SubjectAccessReview"]
            assert {"group": "kube-deployer", "resource": "freezes", **attributes} in asked

    def test_a_namespace_is_not_all_of_them(self, served: Served, reviews: Reviews) -> None:
        reviews.allowed = lambda question: {
            "allowed": question["spec"]["resourceAttributes"].get("namespace") == NS
            and question["spec"]["resourceAttributes"]["verb"] != "override"
        }
        headers = {"Authorization": "Bearer some-token"}
        assert put(served, headers=headers).status == 201
        refused = put(served, "*", headers)
        assert refused.status == 403 and "in all namespaces" in refused.problem["detail"]
        assert served.call("GET", "/freezes/?namespace=*", headers=headers).status == 403
        assert deploy(served, headers=headers).status == 423
        assert deploy(served, "&override=x", headers).status == 403
        assert [freeze.namespace for freeze in served.store.find(Freeze)] == [NS]
