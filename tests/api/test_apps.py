"""`/apps/`: what is shown of apps, to whom, and how cheap it is to ask again."""

from __future__ import annotations

import dataclasses
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from deployer.commands.apps import AppViews, Shown
from deployer.commands.progress import Progress
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation.target import Target
from deployer.core.model.operation.timeline import Timeline
from deployer.core.model.plan import Previous
from deployer.core.model.records import (
    App,
    Deployment,
    HostClaim,
    Operation,
    OperationKind,
    OperationState,
    Status,
    new_id,
    timestamp,
)
from deployer.core.ports.store import Create, Update
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Answer, Served, document

OTHER = "other-ns"


def get(served: Served, path: str, namespace: str = NS, **headers: str) -> Answer:
    separator = "&" if "?" in path else "?"
    return served.call("GET", f"{path}{separator}namespace={namespace}", headers=headers)


def apps(served: Served, query: str = "") -> list[Any]:
    found: list[Any] = get(served, f"/apps/{query}").json
    return found


def live(served: Served, app: str = "shop", version: str = "1", **fields: Any) -> Deployment:
    """A deployment that is live, as the engine leaves it."""
    made = served.deployment(app, version)
    done = dataclasses.replace(served.end(made.id), **{"went_live": "2026-01-01T00:00:00Z", **fields})
    (operation,) = [o for o in served.store.find(Operation, tag="open") if o.deployment == made.id]
    over = dataclasses.replace(operation.timeline, outcome=Occurrence.DEPLOYED.value, ended=2000.0)
    closed = dataclasses.replace(operation, state=OperationState.DONE, timeline=over)
    served.store.commit(Update(done), Update(closed))
    known = served.store.get(App, f"{NS}/{app}")
    app_record = App(namespace=NS, app=app, live=made.id, live_version=version)
    served.store.commit(Create(app_record) if known is None else Update(dataclasses.replace(known, live=made.id)))
    return done


def operation(served: Served, deployment: Deployment, kind: OperationKind, n: int, **fields: Any) -> Operation:
    """One that has ended, `n` seconds after another."""
    over = Timeline(asked=1000.0 + n, ended=1002.0 + n, outcome=fields.pop("outcome", Occurrence.REMOVED.value))
    made = Operation(
        namespace=deployment.namespace,
        app=deployment.app,
        id=new_id(),
        kind=kind,
        deployment=deployment.id,
        state=OperationState.DONE,
        timeline=over,
        **fields,
    )
    served.store.commit(Create(made))
    return made


def waiting(deployment: Deployment, kind: OperationKind, **fields: Any) -> Operation:
    """One that has not begun."""
    named = {"namespace": deployment.namespace, "app": deployment.app, "deployment": deployment.id}
    return Operation(id=new_id(), kind=kind, **named, **fields)


def claim_hosts(served: Served) -> None:
    """Two of the shop's and its preview host; and one of an app that has the same name elsewhere."""
    for host, namespace in (("b", NS), ("a", NS), ("preview", NS), ("c", OTHER)):
        preview = host == "preview"
        served.store.commit(
            Create(HostClaim(namespace=namespace, app="shop", host=f"{host}.example.com", preview=preview))
        )


# --- what is there --------------------------------------------------------------------------------------------------


def test_an_app_is_there_once_it_has_a_descriptor_or_a_deployment(served: Served) -> None:
    assert apps(served) == []
    assert get(served, "/apps/shop/").status == get(served, "/apps/shop/history").status == 404
    created = served.call("POST", f"/descriptors/?namespace={NS}", document("shop"))
    assert apps(served) == [{"namespace": NS, "appName": "shop", "hosts": []}]
    shown = get(served, "/apps/shop/").json
    assert shown["descriptors"] == [{"id": created.json["id"], "lastModified": created.json["lastModified"]}]
    assert shown["queue"] == get(served, "/apps/shop/history").json == []
    served.call("DELETE", f"/descriptors/{created.json['id']}/?namespace={NS}")
    assert apps(served) == []
    assert get(served, "/apps/shop/").status == 404


def test_names_are_those_of_descriptors(served: Served) -> None:
    served.deployment("my-app")
    for name in ("my-app", "My.App", "MY_APP"):
        assert get(served, f"/apps/{name}/").json["appName"] == "my-app"
        assert len(get(served, f"/apps/{name}/history").json) == 1


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "%2F",
        "a%2Fb",
        "%00",
        "%0d%0aX:y",
        "%ED%A0%80",
        "%FF",
        "x" * 5000,
        "%C3%A4",
        "%27%20OR%201=1--",
        "{}",
    ],
)
@pytest.mark.parametrize("rest", ["", "/history", "/dataplane"])
def test_hostile_names_are_nobodys(served: Served, name: str, rest: str) -> None:
    served.deployment("shop")
    assert get(served, f"/apps/{name}{rest}").status in (400, 404, 414, 431)
    assert get(served, f"/apps/?after={name.replace('{', '%7B').replace('}', '%7D')}").status in (200, 400)


def test_what_is_live_upcoming_and_failed(served: Served) -> None:
    first = live(served)
    failed = served.deployment("shop", "2")
    record = served.store.get(Deployment, failed.id)
    assert record
    why = {"reason": "CrashLoop", "message": "it ended"}
    at = "2026-01-01T00:00:00Z"
    served.store.commit(Update(dataclasses.replace(record.to(Status.FAILURE), failure=why, last_modified=at)))
    for waiting in served.store.find(Operation, tag="open"):
        served.store.commit(Update(dataclasses.replace(waiting, state=OperationState.DONE)))
    queued = [served.deployment("shop", version) for version in ("3", "4")]
    (shown,) = apps(served)
    assert shown["live"] == {"deployment": first.id, "version": "1", "since": "2026-01-01T00:00:00Z"}
    assert shown["replicas"] == {"unknown": "nobody counts them here"}
    assert (shown["upcoming"]["deployment"], shown["upcoming"]["version"]) == (queued[0].id, "3")
    assert (shown["upcoming"]["phase"], shown["upcoming"]["waitingFor"]) == ("QUEUED", "its turn")
    assert shown["lastFailure"]["deployment"] == failed.id
    served.call("DELETE", f"/deployments/{failed.id}?namespace={NS}")  # which clears away what it left behind
    assert apps(served)[0]["lastFailure"]["at"] == shown["lastFailure"]["at"] == "2026-01-01T00:00:00Z"
    assert {name: shown["lastFailure"][name] for name in why} == why
    assert "warm" not in shown and "freezes" not in shown
    queue = get(served, "/apps/shop/").json["queue"]
    assert [entry["deployment"] for entry in queue] == [one.id for one in queued]
    assert queue[1]["waitingFor"] == f"the deployment {queued[0].id} of this app"


def test_since_is_the_moment_of_the_switch_or_of_the_request(served: Served) -> None:
    """Whatever was asked for, or written, since."""
    replaced = "2026-01-02T00:00:00Z"
    ids = [live(served).id, live(served, version="2", went_live=replaced).id]
    first, second = (found for id in ids if (found := served.store.get(Deployment, id)))
    going = dataclasses.replace(second.to(Status.UNDEPLOYING), last_modified="2026-01-03T00:00:00Z")
    app = served.store.get(App, f"{NS}/shop")
    assert app
    held = dataclasses.replace(app, held=first.id, held_version="1")
    served.store.commit(Update(first.to(Status.UNDEPLOYING)), Update(going), Update(held))
    removal = Target(by=second.id, previous=Previous(deployment=first.id, version="1"))
    served.store.commit(Create(waiting(first, OperationKind.RETIRE, target=removal, due=9e9)))
    # The watch over it ends a moment later than it is replaced.
    served.store.commit(Create(waiting(first, OperationKind.WATCH, state=OperationState.RUNNING)))
    (shown,) = apps(served)
    assert shown["live"]["since"] == shown["warm"]["since"] == replaced
    drained = get(served, f"/deployments/{first.id}").json
    assert (drained["phase"], drained["since"]) == ("DRAIN", replaced)
    served.store.commit(Create(waiting(first, OperationKind.ROLLBACK, timeline=Timeline(asked=1000.0))))
    shown = get(served, "/apps/shop/").json
    assert shown["upcoming"]["since"] == shown["queue"][0]["since"] == "1970-01-01T00:16:40Z"


def test_hosts_are_those_that_belong_to_the_app(served: Served) -> None:
    served.deployment("shop")
    claim_hosts(served)
    assert [shown["hosts"] for shown in apps(served)] == [["a.example.com", "b.example.com"]]
    assert get(served, "/apps/shop/").json["previewHosts"] == ["preview.example.com"]


def test_a_freeze_is_shown_as_long_as_there_is_one(served: Served) -> None:
    served.deployment("shop")
    tag = get(served, "/apps/").headers["ETag"]
    for namespace in (NS, OTHER):
        target = f"/freezes/{namespace}?namespace={namespace}"
        assert served.call("PUT", target, {"reason": f"the end of {namespace}"}).status == 201
    frozen = get(served, "/apps/", **{"If-None-Match": tag})
    assert frozen.status == 200
    assert [freeze["reason"] for freeze in frozen.json[0]["freezes"]] == [f"the end of {NS}"]
    assert get(served, "/apps/shop/").json["freezes"] == frozen.json[0]["freezes"]
    served.call("DELETE", f"/freezes/{NS}?namespace={NS}")
    assert get(served, "/apps/").headers["ETag"] == tag


# --- pages ----------------------------------------------------------------------------------------------------------


def test_pages_lead_from_one_to_the_next(served: Served) -> None:
    names = [f"app-{n:02}" for n in range(7)]
    for name in names:
        served.call("POST", f"/descriptors/?namespace={NS}", document(name))
    seen: list[str] = []
    path = "/apps/?limit=3"
    for _ in range(3):
        page = get(served, path)
        seen += [app["appName"] for app in page.json]
        again = get(served, path, **{"If-None-Match": page.headers["ETag"]})
        assert (again.status, again.body, again.headers["Link"]) == (304, b"", page.headers["Link"])
        if page.headers["Link"] is None:
            break
        target = page.headers["Link"].partition("<")[2].partition(">")[0]
        query = urllib.parse.parse_qs(target.partition("?")[2])
        assert query["namespace"] == [NS]
        path = f"/apps/?limit={query['limit'][0]}&after={query['after'][0]}"
    assert seen == names
    assert [app["appName"] for app in apps(served)] == names
    assert get(served, "/apps/?limit=0").status == get(served, "/apps/?limit=x").status == 400
    assert len(get(served, "/apps/?limit=999999999999999999").json) == 7


# --- history --------------------------------------------------------------------------------------------------------


def test_the_history_is_newest_first_and_says_who_what_and_how(served: Served) -> None:
    first = live(served, created_by="ann", undeployed_by="bob")
    operation(served, first, OperationKind.ROLLBACK, 10, outcome="rolledback", target=Target(by="cid"))
    operation(served, first, OperationKind.ROLLBACK, 20, outcome="rolledback", target=Target(cause="2 crashed"))
    why = {"reason": "NotWarm", "message": "it is gone"}
    operation(served, first, OperationKind.ROLLBACK, 30, outcome="failed", failure=why, target=Target(by="cid"))
    for kind in (OperationKind.RETIRE, OperationKind.WATCH):
        operation(served, first, kind, 40)
    operation(served, first, OperationKind.UNDEPLOY, 50)
    queued = served.deployment("shop", "2")
    history = get(served, "/apps/shop/history").json
    assert [(e["what"], e.get("outcome")) for e in history] == [
        ("deployment", None),
        ("undeployment", "removed"),
        ("rollback", "failed"),
        ("rollback", "rolledback"),
        ("rollback", "rolledback"),
        ("deployment", "deployed"),
    ]
    assert [e.get("by") for e in history] == [None, "bob", "cid", None, "cid", "ann"]
    assert (history[0]["deployment"], history[0]["version"]) == (queued.id, "2")
    assert history[2]["failure"] == why and history[3]["cause"] == "2 crashed"
    assert (history[1]["asked"], history[1]["ended"]) == ("1970-01-01T00:17:30.000Z", "1970-01-01T00:17:32.000Z")
    assert get(served, "/apps/shop/history?limit=2").json == history[:2]
    assert get(served, "/apps/shop/history?limit=0").status == 400


def test_what_is_deleted_leaves_the_history_and_the_rest_stays(served: Served) -> None:
    kept = live(served)
    for n in range(30):
        gone = served.deployment("shop", f"{n + 2}")
        record = served.store.get(Deployment, gone.id)
        assert record
        served.store.commit(Update(record.to(Status.FAILURE)))
        (waiting,) = served.store.find(Operation, tag="open")
        served.store.commit(Update(dataclasses.replace(waiting, state=OperationState.DONE)))
        assert served.service.delete_deployments(NS, "shop") == (1, None)
    assert [e["deployment"] for e in get(served, "/apps/shop/history?limit=5").json] == [kept.id]


def test_what_earlier_releases_deployed_is_in_the_history(served: Served) -> None:
    now = timestamp()
    old = Deployment(
        namespace=NS, app="shop", id=new_id(), descriptor=document(), created=now, last_modified=now, version="1",
        status=Status.FAILURE, failure={"reason": "x", "message": "y"}, created_by="ann",
    )  # fmt: skip
    served.store.commit(Create(old))
    (entry,) = get(served, "/apps/shop/history").json
    assert entry == {
        "what": "deployment", "deployment": old.id, "version": "1", "asked": now, "by": "ann", "outcome": "failed",
        "failure": {"reason": "x", "message": "y"},
    }  # fmt: skip


def test_thousands_of_deployments_are_no_burden(served: Served) -> None:
    """What is read does not grow with what there is: the answers say so, and the number of rows that are read."""
    last = live(served, version="9999")
    for start in range(0, 3000, 500):
        changes: list[Any] = []
        for n in range(start, start + 500):
            made = dataclasses.replace(last, id=new_id(), version=str(n), status=Status.UNDEPLOYED, revision=0)
            done = Operation(
                namespace=NS, app="shop", id=new_id(), kind=OperationKind.DEPLOY, deployment=made.id,
                state=OperationState.DONE,
                timeline=Timeline(asked=n, ended=n + 1, outcome=Occurrence.UPGRADED.value),
            )  # fmt: skip
            changes += [Create(made), Create(done)]
        served.store.commit(*changes)
    history = get(served, "/apps/shop/history").json
    assert len(history) == 20 and len({e["deployment"] for e in history}) == 20
    assert len(get(served, "/apps/shop/history?limit=100000").json) == 1000
    (shown,) = apps(served)
    assert shown["live"]["version"] == "9999"
    plans = "\n".join(explained(served, sql) for sql in FOUND)
    assert "SCAN records" not in plans and "records_state" in plans, plans


FOUND = (
    "SELECT document FROM records WHERE kind = 'operation' AND namespace = 'a' AND app = 'b' AND tag = 'open'",
    "SELECT document FROM records WHERE kind = 'deployment' AND namespace = 'a' AND tag = 'DEPLOYING'",
)


def explained(served: Served, sql: str) -> str:
    return str(served.store._readers.fetch(f"EXPLAIN QUERY PLAN {sql}", ()))


# --- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/apps/", "/apps/shop/", "/apps/shop/history"])
def test_nothing_new_is_a_304_until_something_is(served: Served, path: str) -> None:
    live(served)
    tag = get(served, path).headers["ETag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', tag.strip('"'), "*"):
        answer = get(served, path, **{"If-None-Match": given})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    head = served.call("HEAD", f"{path}?namespace={NS}", headers={"If-None-Match": tag})
    assert head.status == 304
    assert get(served, path, **{"If-None-Match": '"0"'}).status == 200
    served.deployment("shop", "2")
    changed = get(served, path, **{"If-None-Match": tag})
    assert changed.status == 200 and changed.headers["ETag"] != tag


def test_what_happens_in_another_namespace_changes_no_tag(served: Served) -> None:
    live(served)
    before = {path: get(served, path).headers["ETag"] for path in ("/apps/", "/apps/shop/", "/apps/shop/history")}
    moved = served.store.changed(NS)
    foreign = {**document("shop"), "namespace": OTHER}
    created = served.call("POST", f"/descriptors/?namespace={OTHER}", foreign)
    served.call("POST", f"/deployments/?namespace={OTHER}&descriptorId={created.json['id']}")
    assert served.store.changed(NS) == moved
    assert {path: get(served, path).headers["ETag"] for path in before} == before
    assert get(served, "/apps/", OTHER).json[0]["namespace"] == OTHER


def test_whoever_polls_while_it_changes_ends_with_what_is_there(served: Served) -> None:
    live(served)
    done = threading.Event()
    last: dict[int, bytes] = {}

    def poll(number: int) -> None:
        tag = ""
        with served.connection() as connection:
            while True:
                over = done.is_set()
                headers = {"If-None-Match": tag} if tag else {}
                answer = served.call("GET", f"/apps/?namespace={NS}", headers=headers, on=connection)
                if answer.status == 200:
                    tag, last[number] = answer.headers["ETag"], answer.body
                else:
                    assert answer.status == 304
                if over:
                    return

    pollers = [threading.Thread(target=poll, args=(n,)) for n in range(4)]
    for poller in pollers:
        poller.start()
    for n in range(60):
        served.call("POST", f"/descriptors/?namespace={NS}", document(f"app-{n}"))
    done.set()
    for poller in pollers:
        poller.join(30)
    fresh = get(served, "/apps/").body
    assert {number: body == fresh for number, body in last.items()} == dict.fromkeys(range(4), True)


# --- who may see what -----------------------------------------------------------------------------------------------


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


class TestRights:
    """With authentication."""

    @pytest.fixture
    def access(self, issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
        with access_by(issuer, tmp_path) as made:
            yield made

    def test_a_foreign_namespace_says_the_same_about_what_is_there_and_what_is_not(
        self, served: Served, issuer: Issuer
    ) -> None:
        live(served)
        foreign = bearer(issuer.token(namespaces=[OTHER], roles=["deploy", "read"]))
        for rest in ("", "history", "dataplane"):
            there, not_there = (get(served, f"/apps/{name}/{rest}", **foreign) for name in ("shop", "shup"))
            assert there.status == not_there.status == 403
            assert there.body.replace(b"shop", b"shup") == not_there.body.replace(b"shop", b"shup")
            here = [get(served, f"/apps/{name}/{rest}", OTHER, **foreign) for name in ("shop", "shup")]
            assert {answer.status for answer in here} == {404}
            assert here[0].body.replace(b"shop", b"shup") == here[1].body
        assert get(served, "/apps/", OTHER, **foreign).json == []

    def test_one_callers_tag_tells_another_nothing(self, served: Served, issuer: Issuer) -> None:
        live(served)
        reader = bearer(issuer.token(namespaces=[NS], roles=["read"]))
        tag = get(served, "/apps/", **reader).headers["ETag"]
        foreign = bearer(issuer.token(namespaces=[OTHER], roles=["read"]))
        assert get(served, "/apps/", **foreign, **{"If-None-Match": tag}).status == 403
        assert get(served, "/apps/", **{"If-None-Match": tag}).status == 401


def test_what_comes_from_descriptors_can_be_left_out(served: Served) -> None:
    served.deployment("shop")
    claim_hosts(served)
    views = AppViews(served.store, Progress(served.store))
    less = Shown(descriptors=False, freezes=False)
    for shown in (views.apps(NS, shown=less)[0][0], views.app(NS, "shop", shown=less)):
        assert not {"hosts", "previewHosts", "descriptors"} & shown.keys()
        assert "example.com" not in str(shown)
