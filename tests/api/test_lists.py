"""Lists: newest first, in pages or whole, streamed when they are long, and never at the cost of everybody's memory."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import pytest

from deployer.api import http as wire
from deployer.api.lists import answers, continuation
from deployer.commands.limits import paging
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status, StoredDescriptor
from deployer.core.ports.store import Create

from .conftest import NS, Answer, Served, document

LISTS = ["/descriptors/", "/deployments/"]


def store(served: Served, number: int, *, namespace: str = NS, size: int = 0, apps: int = 3) -> list[str]:
    """As many descriptors, and deployments of them; their ids, newest first, are the same."""
    ids = []
    for n in range(number):
        app = f"app-{n % apps}"
        body = document(app, str(n)) | ({"webhooks": [{"key": "k", "description": "ä" * (size // 2)}]} if size else {})
        record: dict[str, Any] = {"namespace": namespace, "app": app, "id": f"{namespace}-{n:03}"}
        times = {"created": "2026-01-01T00:00:00Z", "last_modified": "2026-01-01T00:00:00Z"}
        served.store.commit(
            Create(StoredDescriptor(**record, document=body, **times)),
            Create(Deployment(**record, descriptor=body, status=Status.DEPLOYED, version=str(n), **times)),
        )
        ids.append(record["id"])
    return ids[::-1]


def get(served: Served, path: str, **query: object) -> Answer:
    return served.call("GET", f"{path}?{urllib.parse.urlencode({'namespace': NS, **query})}")


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [entry["id"] for entry in answer.json]


def next_of(answer: Answer) -> str | None:
    """Where its `Link` leads, as RFC 8288 has it."""
    link = answer.headers["Link"]
    if link is None:
        return None
    assert link.endswith('>; rel="next"')
    return str(link.partition("<")[2].partition(">")[0])


def pages(served: Served, first: Answer) -> Iterator[Answer]:
    yield (page := first)
    while (target := next_of(page)) is not None:
        yield (page := served.call("GET", target))


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
def test_pages_are_the_whole_list_newest_first(served: Served, path: str) -> None:
    stored = store(served, 7)
    store(served, 3, namespace="other")
    assert ids(get(served, path)) == stored
    for limit in (1, 3, 7, 100):
        found = list(pages(served, get(served, path, **{"continue": "", "limit": limit})))
        assert [id for page in found for id in ids(page)] == stored
        assert {len(page.json) for page in found[:-1]} <= {limit}
        assert len(found) == -(-7 // limit)
    assert ids(get(served, path, **{"continue": ""})) == stored


@pytest.mark.parametrize("path", LISTS)
def test_pages_of_one_app(served: Served, path: str) -> None:
    stored = [id for id in store(served, 9) if int(id[-3:]) % 3 == 1]
    first = get(served, path, appname="App.1", limit=2)
    assert [id for page in pages(served, first) for id in ids(page)] == stored


def test_pages_of_a_status(served: Served) -> None:
    stored = store(served, 6)
    served.end(stored[2], Status.UNDEPLOYING)
    first = get(served, "/deployments/", status="DEPLOYED", limit=2, **{"continue": ""})
    assert [id for page in pages(served, first) for id in ids(page)] == [*stored[:2], *stored[3:]]


@pytest.mark.parametrize("path", LISTS)
def test_what_comes_and_goes_meanwhile_makes_nothing_come_twice_or_go_missing(served: Served, path: str) -> None:
    stored = store(served, 4)
    first = get(served, path, limit=2, **{"continue": ""})
    served.call("DELETE", f"/descriptors/{stored[1]}?namespace={NS}")
    served.call("POST", f"/descriptors/?namespace={NS}", document("app-9"))
    served.deployment("app-8")
    assert [id for page in pages(served, first) for id in ids(page)] == stored


def test_large_entries_make_short_pages(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PIECE", 10_000)
    stored = store(served, 5, size=20_000)
    found = list(pages(served, get(served, "/descriptors/", limit=5)))
    assert [ids(page) for page in found] == [[id] for id in stored]


def test_without_continue_the_limit_of_deployments_counts_per_app_as_ever(served: Served) -> None:
    stored = store(served, 9)
    answer = get(served, "/deployments/", limit=1)
    assert ids(answer) == stored[:3]
    assert {d["descriptor"]["appName"] for d in answer.json} == {"app-0", "app-1", "app-2"}
    assert next_of(answer) is None


def test_apps_and_history_have_pages_of_the_same_kind(served: Served) -> None:
    store(served, 7, apps=7)
    first = get(served, "/apps/", limit=3, **{"continue": ""})
    assert [a["appName"] for p in pages(served, first) for a in p.json] == [f"app-{n}" for n in range(7)]
    for version in range(5):
        served.end(served.deployment("shop", str(version)).id)
    whole = get(served, "/apps/shop/history").json
    assert [entry["version"] for entry in whole] == ["4", "3", "2", "1", "0"]
    assert [e for p in pages(served, get(served, "/apps/shop/history", limit=2)) for e in p.json] == whole


def test_the_history_of_what_was_asked_for_at_once_has_pages_too(served: Served) -> None:
    """Of one moment, with and without an operation that tells of it: no entry comes twice or goes missing."""
    times = {"created": "2026-01-01T00:00:00Z", "last_modified": "2026-01-01T00:00:00Z"}
    for moment in range(3):
        changes: list[Create] = []
        for n in range(6):
            id = f"{moment}{n}-{(n * 7) % 5}"
            changes.append(Create(Deployment(namespace=NS, app="shop", id=id, descriptor={}, **times)))
            if n % 2:
                done = Operation(
                    namespace=NS, app="shop", id=f"{(n * 3) % 4}-{id}", kind=OperationKind.DEPLOY, deployment=id,
                    state=OperationState.DONE,
                )  # fmt: skip
                changes.append(Create(done))
        served.store.commit(*changes)
    whole = [entry["deployment"] for entry in get(served, "/apps/shop/history").json]
    assert sorted(whole) == sorted(d.id for d in served.store.find(Deployment))
    for limit in (1, 2, 3, 5, 17):
        found = pages(served, get(served, "/apps/shop/history", limit=limit))
        assert [entry["deployment"] for page in found for entry in page.json] == whole


# --- tokens ---------------------------------------------------------------------------------------------------------


def token_of(served: Served, path: str, **query: object) -> str:
    target = next_of(get(served, path, limit=1, **{"continue": "", **query}))
    assert target is not None
    return urllib.parse.parse_qs(target.partition("?")[2])["continue"][0]


def test_a_token_is_good_for_its_own_list_only(served: Served) -> None:
    store(served, 6)
    others = store(served, 6, namespace="other")
    token = token_of(served, "/descriptors/")
    for path, query in (
        ("/descriptors/", {"namespace": "other"}),
        ("/descriptors/", {"appname": "app-1"}),
        ("/deployments/", {}),
        ("/deployments/", {"status": "DEPLOYED"}),
        ("/apps/", {}),
        ("/apps/app-1/history", {}),
    ):
        answer = get(served, path, **{"continue": token, **query})
        assert (answer.status, answer.problem["errors"][0]["path"]) == (400, "continue")
        assert not any(id.encode() in answer.body for id in others)
    made_up = continuation._token((10**6, "zzz"), ("/descriptors/", NS, None, None))
    assert all(id.startswith(NS) for id in ids(get(served, "/descriptors/", **{"continue": made_up})))


@pytest.mark.parametrize(
    "token",
    ["x", "%%%", "W10", "bnVsbA", "ä", "x" * 5000]
    + [
        continuation._token(place, ("/descriptors/", NS, None, None))
        for place in ((-1, "a"), (2**62, "a"), (1.5, "a"), ("1", "a"), (1, 2), (1, None), (1, ["a"]), (1, "\ud800"))
    ]
    + [continuation._token((1, "a"), ()), continuation._token((1, "a"), ("[" * 1000,))],
)
def test_any_other_text_is_refused_in_a_sentence(served: Served, token: str) -> None:
    answer = get(served, "/descriptors/", **{"continue": token})
    assert answer.status == 400
    assert answer.problem["errors"] == [{"path": "continue", "message": continuation._FOREIGN}]


# --- whole lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
def test_a_long_answer_has_the_same_bytes_as_a_short_one(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get(served, path).body == wire.render([])
    store(served, 20, size=2000)
    short = get(served, path)
    assert short.headers["Content-Length"]
    monkeypatch.setattr(answers, "WHOLE", 10_000)
    monkeypatch.setattr(paging, "PIECE", 5_000)
    long = get(served, path)
    assert long.headers["Content-Length"] is None
    assert long.body == short.body == wire.render(short.json)
    head = served.call("HEAD", f"{path}?namespace={NS}")
    assert (head.status, head.body) == (200, b"")
    assert get(served, path).body == short.body


@pytest.mark.parametrize("path", LISTS)
def test_beyond_the_cap_a_link_leads_to_the_rest(served: Served, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "UNPAGED", 5)
    stored = store(served, 5)
    assert next_of(get(served, path)) is None
    stored = store(served, 12, namespace="big")
    first = get(served, path, namespace="big")
    assert ids(first) == stored[:5]
    assert [id for page in pages(served, first) for id in ids(page)] == stored


def test_a_store_that_fails_meanwhile_breaks_the_answer_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "WHOLE", 1)
    monkeypatch.setattr(paging, "PIECE", 1)
    store(served, 4)
    find, asked = served.store.find, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        if len(asked) == 3:
            raise StoreUnavailable("the disk is gone")
        return find(*args, **kwargs)

    monkeypatch.setattr(served.store, "find", failing)
    with pytest.raises(http.client.IncompleteRead):
        get(served, "/descriptors/")


@contextlib.contextmanager
def reading(served: Served, path: str) -> Iterator[socket.socket]:
    """A client that asks, sees that an answer begins, and takes no more of it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", served.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


def test_who_does_not_read_keeps_neither_the_service_nor_other_namespaces_waiting(served: Served) -> None:
    store(served, 10, size=1_000_000)
    store(served, 10, size=1_000_000, namespace="other")
    path = f"/descriptors/?namespace={NS}"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(reading(served, path)) for _ in range(answers.STREAMS_EACH)]
        refused = served.call("GET", path)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert "this namespace" in refused.problem["detail"]
        assert served.call("GET", "/healthz").status == 200
        assert len(get(served, "/descriptors/", limit=1).json) == 1
        assert len(get(served, "/descriptors/", namespace="other").json) == 10
        # One that is gone makes room.
        clients[0].close()
        while (again := served.call("GET", path)).status == 429:
            pass
        assert len(again.json) == 10


def test_whoever_has_two_namespaces_cannot_take_all_long_answers(served: Served) -> None:
    streams = answers.Streams()

    def begun(namespace: str) -> bool:
        response = falcon.Response()
        try:
            streams.send(
                falcon.Request(falcon.testing.create_environ()), response, namespace, iter([b"x" * answers.WHOLE] * 2)
            )
        except falcon.HTTPTooManyRequests:
            return False
        open_.append(response.stream)
        return True

    open_: list[Any] = []
    assert [sum(begun(mine) for _ in range(answers.STREAMS)) for mine in ("one", "two")] == [answers.STREAMS_EACH, 1]
    assert begun("other")
    for stream in open_:
        stream.close()
    assert begun("two") and begun("two")


def test_json_is_whole_in_spite_of_secrets_and_greppable_words(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rendered piece by piece keeps what `send_record` promises: `status` stands alone on its line."""
    monkeypatch.setattr(answers, "WHOLE", 1)
    monkeypatch.setattr(paging, "PIECE", 1)
    for n in range(3):
        body = document(f"app-{n}", webhooks=[{"key": "status", "description": "Location"}])
        made = served.call("POST", f"/descriptors/?namespace={NS}", body)
        served.call("POST", f"/deployments/?namespace={NS}&descriptorId={made.json['id']}")
    answer = get(served, "/deployments/")
    assert answer.body.count(b"status") == 3
    assert b"Location" not in answer.body
    assert [d["descriptor"]["webhooks"][0]["key"] for d in json.loads(answer.body)] == ["status"] * 3


@pytest.mark.slow
def test_long_lists_that_many_read_at_once_stay_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may have 300 MiB while eight clients list 100 descriptors of 1 MiB. How many there are makes no
    difference, and thirty are listed sooner: read as a whole they take 1.5 GiB."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    measured = importlib.import_module("lists").measure(30, 8)
    assert measured["bytes"] > 8 * 30 * 2**20
    assert measured["after"] < 300


# --- tags -----------------------------------------------------------------------------------------------------------


def tagged(served: Served, path: str, tag: str | None, **headers: str) -> Answer:
    given = headers | ({"If-None-Match": tag} if tag else {})
    return served.call("GET", f"{path}{'&' if '?' in path else '?'}namespace={NS}", headers=given)


@pytest.mark.parametrize("path", [*LISTS, "/deployments/?status=DEPLOYED", "/descriptors/?continue=&limit=2"])
def test_nothing_new_is_a_304_that_reads_nothing(served: Served, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store(served, 5)
    tag = tagged(served, path, None).headers["ETag"]
    with monkeypatch.context() as patched:
        patched.setattr(paging.RecordList, "read", lambda *_: pytest.fail("something was read"))
        for given in (tag, f"W/{tag}", f'"other", {tag}', tag.strip('"'), "*"):
            answer = tagged(served, path, given)
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert tagged(served, path, '"0"').status == 200
    for _ in range(answers.STREAMS + 1):  # none of them was counted as an answer under way
        assert tagged(served, path, "*").status == 304


def test_each_change_of_descriptors_is_a_200(served: Served) -> None:
    (kept,) = store(served, 1)
    tag = tagged(served, "/descriptors/", None).headers["ETag"]

    def changed() -> list[str]:
        nonlocal tag
        answer = tagged(served, "/descriptors/", tag)
        assert answer.status == 200 and answer.headers["ETag"] != tag
        tag = answer.headers["ETag"]
        assert tagged(served, "/descriptors/", tag).status == 304
        return ids(answer)

    made = served.call("POST", f"/descriptors/?namespace={NS}", document("other")).json["id"]
    assert changed() == [made, kept]
    served.call("PUT", f"/descriptors/{made}/?namespace={NS}", document("other", replicas=3))
    assert changed() == [made, kept]
    served.call("DELETE", f"/descriptors/{made}/?namespace={NS}")
    assert changed() == [kept]


def test_each_change_of_deployments_is_a_200(served: Served) -> None:
    tag = tagged(served, "/deployments/", None).headers["ETag"]

    def changed() -> list[dict[str, Any]]:
        nonlocal tag
        answer = tagged(served, "/deployments/", tag)
        assert answer.status == 200 and answer.headers["ETag"] != tag
        tag = answer.headers["ETag"]
        assert tagged(served, "/deployments/", tag).status == 304
        return list(answer.json)

    id = served.deployment("shop").id
    assert [d["id"] for d in changed()] == [id]
    served.end(id, Status.DEPLOYED)
    assert [d["status"] for d in changed()] == ["DEPLOYED"]
    served.call("DELETE", f"/deployments/{id}/?namespace={NS}")
    assert [d["status"] for d in changed()] == ["UNDEPLOYING"]


@pytest.mark.parametrize("path", LISTS)
def test_a_tag_is_of_one_list_and_one_namespace(served: Served, path: str) -> None:
    store(served, 3)
    tag = tagged(served, path, None).headers["ETag"]
    assert tagged(served, f"{path}?appname=app-1", tag).status == 200
    assert served.call("GET", f"{path}?namespace=other", headers={"If-None-Match": tag}).status == 200
    store(served, 1, namespace="other")
    assert tagged(served, path, tag).status == 304


def test_another_process_takes_no_tag_of_this_one(served: Served) -> None:
    """It counts changes for itself, and its number may be the same while something else is there."""
    store(served, 2)

    def asked(collection: answers.Collection[StoredDescriptor], tag: str = "") -> tuple[str, str | None]:
        headers = {"If-None-Match": tag}
        req = falcon.Request(falcon.testing.create_environ("/descriptors/", headers=headers))
        resp = falcon.Response()
        found = served.service.descriptors.listed(NS)
        collection.answer(req, resp, found, lambda some: wire.render([d.id for d in some]), moved=1, paged=True)
        return str(resp.status), resp.get_header("ETag")

    here, there = (answers.Collection[StoredDescriptor]("/descriptors/", answers.Streams()) for _ in range(2))
    tag = asked(here)[1]
    assert tag is not None
    assert asked(here, tag) == ("304", tag)
    assert asked(there, tag)[0] == "200 OK"
