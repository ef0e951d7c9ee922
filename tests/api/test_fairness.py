"""Threads of REST are shared: no namespace takes all of them, and callers who are not known have their own budget."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from deployer.api.auth.audit import WRITTEN
from deployer.api.auth.jwt.issuers import GrantAuthorizer, open_issuers
from deployer.api.auth.principal import Principal
from deployer.api.fairness import callers as callers_module
from deployer.api.fairness import workers as workers_module
from deployer.api.fairness.callers import BACKLOG, KNOWN, PROBES, REFUSED, UNKNOWN, Callers, network, shares
from deployer.api.fairness.queue import FairQueue, Share
from deployer.settings import Settings
from support.issuer import AUDIENCE, ISSUER, Issuer, bearer

from .conftest import NS, Served

# --- the queue ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Task:
    """A request of some kind and tenant."""

    name: str
    done: Callable[[], None] = lambda: None

    def service(self) -> None:
        self.done()

    def cancel(self) -> None:
        self.done()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def queue(clock: Clock, **shares: Share) -> FairQueue:
    """One whose tasks are called kind-tenant-number."""

    def sort(task: Any) -> tuple[str, str]:
        kind, tenant, _ = task.name.split("-")
        return kind, tenant

    return FairQueue(shares, sort, lambda *_: None, clock)


def taken(made: FairQueue) -> list[str]:
    """All that may be begun now."""
    names = []
    while made:
        names.append(made.popleft()._task.name)  # type: ignore[attr-defined]
    return names


def test_tenants_take_turns_and_none_gets_all(clock: Clock) -> None:
    made = queue(clock, known=Share(most=8, each=3))
    for n in range(10):
        made.append(Task(f"known-a-{n}"))
    assert taken(made) == ["known-a-0", "known-a-1", "known-a-2"]
    made.append(Task("known-b-0"))
    made.append(Task("known-c-0"))
    assert taken(made) == ["known-b-0", "known-c-0"]
    made.leave("known", "a")
    made.append(Task("known-d-0"))
    assert taken(made) == ["known-d-0", "known-a-3"]


def test_one_kind_leaves_threads_to_the_others(clock: Clock) -> None:
    made = queue(clock, probes=Share(16, 4), known=Share(14, 12), unknown=Share(4, 4))
    for tenant in range(20):
        made.append(Task(f"known-{tenant}-0"))
        made.append(Task(f"unknown-{tenant}-0"))
    begun = Counter(name.partition("-")[0] for name in taken(made))
    assert begun == {"known": 14, "unknown": 4}
    made.append(Task("probes-k-0"))
    assert taken(made) == ["probes-k-0"]


def test_a_rate_lets_so_many_through_and_no_more(clock: Clock) -> None:
    made = queue(clock, unknown=Share(100, 100, rate=10.0, burst=5))
    for n in range(40):
        made.append(Task(f"unknown-a-{n}"))
    assert len(taken(made)) == 5
    assert not made
    assert made.pause() == pytest.approx(0.1)
    clock.now += 0.55
    assert len(taken(made)) == 5
    clock.now += 1000.0
    assert len(taken(made)) == 5  # a long wait earns no more than the burst
    clock.now += 0.05
    assert made.pause() == pytest.approx(0.05)
    made = queue(clock, unknown=Share(1, 1, rate=10.0, burst=5), known=Share(1, 1))
    made.append(Task("unknown-a-0"))
    made.append(Task("unknown-a-1"))
    taken(made)
    assert made.pause() is None  # it waits for a thread, not for time


@pytest.mark.parametrize(
    ("address", "of"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network(address: str, of: str) -> None:
    assert network(address) == of


@pytest.mark.parametrize("threads", [1, 2, 4, 16, 64])
def test_however_few_threads_there_are_everybody_gets_one(threads: int) -> None:
    for share in shares(threads).values():
        assert 1 <= share.each <= max(share.most, share.each) and share.most >= 1
    if threads >= 4:
        assert shares(threads)[KNOWN].most < threads
        assert shares(threads)[KNOWN].each <= threads - threads // 4


def test_what_kind_a_request_is(clock: Clock) -> None:
    @dataclasses.dataclass
    class Request:
        path: str = "/deployments/"
        query: str = "namespace=a"
        headers: dict[str, str] = dataclasses.field(default_factory=dict)

    good = {"AUTHORIZATION": "Bearer x"}
    made = Callers(secured=True, clock=clock)
    assert made.sort(Request("/healthz"), "192.0.2.1") == (PROBES, "192.0.2.1")
    assert made.sort(Request(headers=good), "192.0.2.1") == (UNKNOWN, "192.0.2.1")
    made.were_good("Bearer x")
    assert made.sort(Request(headers=good), "192.0.2.1") == (KNOWN, "a")
    assert made.sort(Request(headers=good, query="namespace=a&namespace=b"), "192.0.2.1") == (KNOWN, "")
    assert made.sort(Request(), "192.0.2.1")[0] == UNKNOWN
    clock.now += 601
    assert made.sort(Request(headers=good), "192.0.2.1")[0] == UNKNOWN
    assert Callers(clock=clock).sort(Request(), "192.0.2.1") == (KNOWN, "a")


# --- the service ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def asking(served: Served, count: int, path: str, headers: str = "") -> Iterator[list[socket.socket]]:
    """So many clients that have each sent a request."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=30))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            clients.append(client)
        yield clients


def test_one_namespace_cannot_take_all_threads(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty requests of one namespace hang; others, and the kubelet's, are answered meanwhile."""
    go_on, begun, get = threading.Event(), threading.Semaphore(0), served.service.descriptors.get

    def slow(namespace: str, id: str) -> Any:
        if namespace == NS:
            begun.release()
            assert go_on.wait(60)
        return get(namespace, id)

    monkeypatch.setattr(served.service.descriptors, "get", slow)
    with asking(served, 20, f"/descriptors/x?namespace={NS}") as clients:
        for _ in range(12):
            assert begun.acquire(timeout=30)
        for _ in range(3):
            assert served.call("GET", "/descriptors/x?namespace=other").status == 404
            assert served.call("GET", "/healthz").status == 200
        assert not begun.acquire(blocking=False)
        go_on.set()
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 404"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class CountedAccess(Access):
    """Counts the credentials that it was asked about."""

    asked = 0

    def identify(self, token: str) -> Principal:
        self.asked += 1
        return super().identify(token)


@pytest.fixture
def secured(issuer: Issuer, tmp_path: Path) -> CountedAccess:
    file = tmp_path / "key.pem"
    file.write_bytes(issuer.pem)
    settings = Settings(
        auth="jwt", jwt_algorithm="ES256", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_key_file=str(file)
    )
    return CountedAccess(open_issuers(settings), GrantAuthorizer(settings))


@pytest.fixture
def access(request: pytest.FixtureRequest) -> Access | None:
    return request.getfixturevalue("secured") if "flood" in request.node.name else None


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Ten requests of callers who are not known, and then one in a quarter of an hour."""
    few = shares(16) | {UNKNOWN: Share(4, 4, 0.001, 10)}
    monkeypatch.setattr(workers_module, "shares", lambda threads: few)
    assert few[REFUSED].most == 1 and callers_module.BACKLOG == BACKLOG


@pytest.mark.usefixtures("slowly")
def test_a_flood_of_bad_tokens_has_a_budget_of_its_own(
    secured: CountedAccess, served: Served, issuer: Issuer, audited: list[Any]
) -> None:
    """What is spent on it is counted: ten tokens are checked, a hundred requests wait, the others are refused unread.
    Whoever is known is answered as ever, and the audit log has a few lines."""
    token = bearer(issuer.token())
    path = f"/deployments/?namespace={NS}"
    assert served.call("GET", path, headers=token).status == 200
    assert secured.asked == 1
    bad = f"Authorization: {bearer(issuer.token() + 'x')['Authorization']}\r\n"
    with asking(served, BACKLOG + 40, path, bad) as clients:
        answers = [client.recv(12) for client in clients[:9]] + [client.recv(12) for client in clients[-10:]]
        assert answers == [b"HTTP/1.1 401"] * 9 + [b"HTTP/1.1 429"] * 10
        for _ in range(20):
            assert served.call("GET", path, headers=token).status == 200
            assert served.call("GET", "/healthz").status == 200
        assert secured.asked == 1 + 9 + 20
        refused = clients[-1]
        head = b""
        while b"\r\n\r\n" not in head:
            head += refused.recv(4096)
        assert b"Retry-After: 1\r\n" in head
    assert len(audited) == WRITTEN
    assert {line["status"] for line in audited} <= {401, 429}
