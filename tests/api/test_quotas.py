"""Quotas of namespaces: what is refused, in which words, and what never is."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from deployer.commands.limits.quotas import QuotaExceeded
from deployer.core.model.records import Deployment, Status, StoredDescriptor
from deployer.settings import Settings

from .conftest import NS, Answer, Served, document

Q = f"?namespace={NS}"
OTHER = "other"


@pytest.fixture
def quotas() -> dict[str, Any]:
    """Overridden by parameters: the limits of `NS`."""
    return {}


@pytest.fixture
def settings(quotas: dict[str, Any]) -> Settings:
    tables = [{"namespaces": [f"{NS[:4]}*"], **quotas}] if quotas else []
    return Settings(own_namespace="deployer", ingress="none", quotas=tuple(tables))  # type: ignore[arg-type]


def limits(**limits: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("quotas", [limits], ids=["-".join(limits)])


def store(served: Served, namespace: str = NS, size: int = 0, app: str = "shop") -> Answer:
    body = document(app) | {"namespace": namespace}
    if size:
        body["webhooks"] = [{"key": "k", "description": "x" * size}]
    return served.call("POST", f"/descriptors/?namespace={namespace}", body)


def deploy(served: Served, id: str, namespace: str = NS) -> Answer:
    return served.call("POST", f"/deployments/?namespace={namespace}&descriptorId={id}")


def refused(answer: Answer, quota: str) -> str:
    """Why, in a sentence."""
    assert (answer.status, answer.problem["quota"]["name"]) == (403, quota)
    assert answer.problem["quota"]["used"] <= answer.problem["quota"]["limit"]
    return str(answer.problem["detail"])


@limits(descriptors=3)
def test_descriptors_are_counted(served: Served) -> None:
    made = [store(served) for _ in range(3)]
    assert refused(store(served), "descriptors") == (
        f"namespace {NS} has 3 descriptors already, of 3 that it may have; delete some"
    )
    assert len(served.store.find(StoredDescriptor)) == 3
    assert store(served, OTHER).status == 201
    # One that is there may be replaced, and one that goes makes room.
    id = made[0].json["id"]
    assert served.call("PUT", f"/descriptors/{id}{Q}", document("shop", "2")).status == 204
    assert served.call("DELETE", f"/descriptors/{id}{Q}").status == 200
    assert store(served).status == 201


@limits(stored_bytes="100Ki")
def test_bytes_are_counted_whatever_takes_them(served: Served) -> None:
    first = store(served, size=30_000).json["id"]
    large = store(served, size=30_000).json["id"]
    # A deployment has a copy of its descriptor.
    assert deploy(served, large).status == 202
    assert "delete descriptors, or deployments that have ended" in refused(deploy(served, first), "stored_bytes")
    assert f"namespace {NS} stores" in refused(store(served, size=30_000), "stored_bytes")
    assert served.store.usage(NS)[0] <= 100 * 1024
    grown = document() | {"webhooks": [{"key": "k", "description": "x" * 60_000}]}
    refused(served.call("PUT", f"/descriptors/{first}{Q}", grown), "stored_bytes")
    assert store(served, OTHER, size=60_000).status == 201
    # What does not grow, and what deletes, goes through.
    assert served.call("PUT", f"/descriptors/{first}{Q}", document()).status == 204
    assert served.call("DELETE", f"/descriptors/{large}{Q}").status == 200
    assert store(served, size=30_000).status == 201


@limits(deployments=2)
def test_deployments_that_wait_or_run_are_counted(served: Served) -> None:
    id = store(served).json["id"]
    queued = [deploy(served, id).json["id"] for _ in range(2)]
    full = deploy(served, id)
    assert (full.status, full.headers["Retry-After"]) == (429, "5")
    assert full.problem["detail"] == (
        f"2 deployments wait or run in namespace {NS} already, of 2 that may; try again in a while"
    )
    assert deploy(served, store(served, OTHER).json["id"], OTHER).status == 202
    served.end(queued[0], Status.FAILURE)
    assert deploy(served, id).status == 202


@limits(log_bytes=100)
def test_a_namespace_whose_logs_are_full_gets_no_more_deployments(served: Served) -> None:
    id = store(served).json["id"]
    first = deploy(served, id).json["id"]
    served.deployment_log.append(first, "x" * 200)
    said = refused_later(served, id)
    assert said.startswith(f"the logs of namespace {NS} have ")
    assert said.endswith("of 100 bytes that they may; delete deployments that have ended")
    # What runs goes on and says so, and deleting makes room.
    served.deployment_log.append(first, "goes on")
    served.end(first, Status.FAILURE)
    assert served.call("DELETE", f"/deployments/{Q}&appname=shop").status == 202
    assert deploy(served, id).status == 202


def refused_later(served: Served, id: str) -> str:
    """Why, once the lines are durable; `last` waits for that."""
    (deployment,) = served.store.find(Deployment)
    assert served.store.last_line(deployment.id) >= 2
    answer = deploy(served, id)
    assert answer.problem["quota"] == {"name": "log_bytes", "used": served.store.usage(NS)[1], "limit": 100}
    assert answer.status == 403
    return str(answer.problem["detail"])


@limits(stored_bytes=3000)
def test_a_rollback_is_not_refused_for_want_of_bytes(served: Served) -> None:
    first = served.deployment()
    served.end(first.id)
    while (answer := store(served)).status == 201:
        pass
    refused(answer, "stored_bytes")
    ended = served.store.get(Deployment, first.id)
    assert ended is not None
    with pytest.raises(QuotaExceeded):
        served.service.redeploy(NS, first.id)
    assert served.service.again(ended, claim=lambda *_, **__: [], details={}).rollback_of == first.id


@limits(descriptors=20)
def test_a_flood_passes_a_limit_by_no_more_than_there_are_threads(served: Served) -> None:
    """Counted before the transaction, which is cheap; the answers say how many got through."""
    statuses: list[int] = []

    def flood() -> None:
        for _ in range(4):
            statuses.append(store(served).status)

    threads = [threading.Thread(target=flood) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {201, 403}
    assert 20 <= statuses.count(201) == len(served.store.find(StoredDescriptor)) <= 20 + 16


@limits(viewers=2)
def test_viewers_of_a_namespace_are_counted(served: Served) -> None:
    deployment = served.deployment()
    other = served.service.deploy(OTHER, store(served, OTHER).json["id"])
    with served.watch(deployment.id) as one, served.watch(deployment.id) as two:
        assert all("queued" in str(viewer.recv(timeout=20)) for viewer in (one, two))
        with served.watch(deployment.id) as third, pytest.raises(ConnectionClosed) as closed:
            third.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            1013, "2 are watching logs of this namespace, all that may; try again in a while",
        )  # fmt: skip
        with served.watch(other.id, OTHER) as theirs:
            assert "queued" in str(theirs.recv(timeout=20))
    # Those who leave make room.
    while True:
        with served.watch(deployment.id) as again:
            try:
                assert "queued" in str(again.recv(timeout=20))
                break
            except ConnectionClosed:
                continue


def test_one_namespace_leaves_room_for_viewers_of_others(served: Served) -> None:
    limit = served.logs._limit
    served.logs._viewers_of[NS] = limit - limit // 4
    deployment = served.deployment()
    with served.watch(deployment.id) as viewer, pytest.raises(ConnectionClosed, match="1013"):
        viewer.recv(timeout=20)
