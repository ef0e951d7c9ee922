"""`auth = "kubernetes"` against API servers that answer late, wrongly or not at all: nothing is ever allowed by it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.api.auth import circuit_breaker, cluster
from deployer.api.auth.access import Access, open_access
from deployer.api.auth.principal import Forbidden, Unauthenticated, Unsure
from deployer.api.routes import ROLLBACK, Permission
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings
from support.issuer import Issuer, bearer

from .conftest import NS, Served

READ = Permission("deployments", "get")
TARGET = f"/deployments?namespace={NS}"
ANN: dict[str, Any] = {"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["a", "b"]}}


class Reviews:
    """An API server that answers reviews, and keeps the questions."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.user: Any = {"authenticated": True, "audiences": ["kube-deployer"], "user": ANN}
        self.allowed: Any = {"allowed": True}
        self.delay: Callable[[], object] = lambda: None
        self.status = 201
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(question)
                    outer.counts[question["kind"]] += 1
                outer.delay()
                said = outer.user if question["kind"] == "TokenReview" else outer.allowed
                said = said(question) if callable(said) else said
                refusal = {"kind": "Status", "message": f"cannot do {json.dumps(question)}"}
                body = json.dumps({**question, "status": said} if outer.status < 300 else refusal).encode()
                with contextlib.suppress(OSError):
                    self.send_response(outer.status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Reviews]:
    made = Reviews()
    yield made
    made.close()


@pytest.fixture
def client(server: Reviews) -> Iterator[KubeClient]:
    made = connect(Settings(kubernetes=server.url))
    yield made
    made.close()


@pytest.fixture
def auth() -> Settings:
    return Settings(auth="kubernetes", auth_cache=300.0)


@pytest.fixture
def access(client: KubeClient, auth: Settings, monkeypatch: pytest.MonkeyPatch) -> Access:
    monkeypatch.setattr(cluster, "ASK_FOR", 1.0)
    made = open_access(auth, client)
    assert made is not None
    return made


def test_the_questions_have_everything_that_is_known(access: Access, server: Reviews) -> None:
    caller = access.identify("some-token")
    assert caller.name == "ann"
    access.require(caller, READ, NS, "an-id")
    access.require(caller, Permission("descriptors", "create"), NS, "an-id")
    token, get, create = server.asked
    assert token["spec"] == {"token": "some-token", "audiences": ["kube-deployer"]}
    attributes = {"namespace": NS, "verb": "get", "group": "kube-deployer", "resource": "deployments", "name": "an-id"}
    who = {"user": "ann", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["a", "b"]}}
    assert get["spec"] == {**who, "resourceAttributes": attributes}
    assert create["spec"]["resourceAttributes"] == {
        "namespace": NS, "verb": "create", "group": "kube-deployer", "resource": "descriptors"
    }  # fmt: skip


def verbs(server: Reviews) -> list[str]:
    """What was asked about rights."""
    asked = [question["spec"] for question in server.asked if question["kind"] == "SubjectAccessReview"]
    return [spec["resourceAttributes"]["verb"] for spec in asked]


def only(*granted: str) -> Callable[[Any], dict[str, bool]]:
    return lambda question: {"allowed": question["spec"]["resourceAttributes"]["verb"] in granted}


@pytest.mark.parametrize(
    ("granted", "allowed", "asked"),
    [
        (["create"], True, ["create"]),
        (["rollback"], True, ["create", "rollback"]),
        (["get"], False, ["create", "rollback"]),
    ],
)
def test_whoever_may_deploy_may_roll_back_too(
    access: Access, server: Reviews, granted: list[str], allowed: bool, asked: list[str]
) -> None:
    server.allowed = only(*granted)
    assert access.allows(access.identify("t"), ROLLBACK, NS) == allowed
    assert verbs(server) == asked


@pytest.mark.parametrize("granted", ["create", "rollback"])
def test_unless_that_needs_a_right_of_its_own(client: KubeClient, server: Reviews, granted: str) -> None:
    access = open_access(Settings(auth="kubernetes", deploy_allows_rollback=False), client)
    assert access is not None
    server.allowed = only(granted)
    assert access.allows(access.identify("t"), ROLLBACK, NS) == (granted == "rollback")
    assert verbs(server) == ["rollback"]
    assert access.described == {"method": "kubernetes", "audiences": ["kube-deployer"]}


@pytest.mark.parametrize("name", ["x/y", "a" * 100, "é", "*", "\udc80", "a b"])
def test_what_can_be_no_id_is_asked_about_as_all_of_them(access: Access, server: Reviews, name: str) -> None:
    access.require(access.identify("t"), READ, NS, name)
    assert "name" not in server.asked[-1]["spec"]["resourceAttributes"]


def test_what_can_be_no_namespace_is_not_even_asked_about(access: Access, server: Reviews) -> None:
    caller = access.identify("t")
    for namespace in ("*", "A", "a/b", "", "a" * 64, "a\n"):
        with pytest.raises(Forbidden):
            access.require(caller, READ, namespace)
    assert server.counts == {"TokenReview": 1}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"authenticated": False},
        {"authenticated": False, "user": ANN, "audiences": ["kube-deployer"]},
        {"authenticated": "true", "user": ANN, "audiences": ["kube-deployer"]},
        {"authenticated": True, "user": ANN},  # it knows no audiences
        {"authenticated": True, "user": ANN, "audiences": []},
        {"authenticated": True, "user": ANN, "audiences": ["https://kubernetes.default.svc"]},
        {"authenticated": True, "user": ANN, "audiences": "kube-deployer"},
        {"authenticated": True, "audiences": ["kube-deployer"]},
        {"authenticated": True, "audiences": ["kube-deployer"], "user": {"username": ""}},
        {"authenticated": True, "audiences": ["kube-deployer"], "user": {"username": "a\nb"}},
        {"authenticated": True, "audiences": ["kube-deployer"], "user": "ann"},
    ],
)
def test_a_token_that_is_not_vouched_for_is_a_401(access: Access, server: Reviews, said: Any) -> None:
    server.user = said
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            access.identify("some-token")
    assert server.counts == {"TokenReview": 1}  # the answer is remembered


@pytest.mark.parametrize(
    "said", [{}, {"allowed": False}, {"allowed": "true"}, {"allowed": 1}, {"allowed": True, "denied": True}]
)
def test_what_is_not_allowed_in_so_many_words_is_a_403(access: Access, server: Reviews, said: Any) -> None:
    server.allowed = said
    caller = access.identify("some-token")
    for _ in range(3):
        with pytest.raises(Forbidden):
            access.require(caller, READ, NS)
    assert server.counts == {"TokenReview": 1, "SubjectAccessReview": 1}


@pytest.mark.parametrize("said", [None, [], "yes", True])
def test_an_answer_that_is_none_allows_nothing(access: Access, server: Reviews, said: Any) -> None:
    server.user = said
    with pytest.raises(Unsure):
        access.identify("some-token")


def test_answers_are_remembered_for_the_cache_time(client: KubeClient, server: Reviews) -> None:
    now = [1000.0]
    settings = Settings(auth="kubernetes", auth_cache=10.0)
    reviewer = cluster.Reviewer(client, circuit_breaker.CircuitBreaker())
    access = Access(
        cluster.ClusterAuthenticator(settings, reviewer, lambda: now[0]),
        cluster.ClusterAuthorizer(settings, reviewer, lambda: now[0]),
    )
    for _ in range(5):
        access.require(access.identify("t"), READ, NS, "a")
    assert server.counts == {"TokenReview": 1, "SubjectAccessReview": 1}
    access.require(access.identify("t"), READ, NS, "b")
    access.require(access.identify("t"), READ, "other", "a")
    access.require(access.identify("other-token"), READ, NS, "a")
    assert server.counts == {"TokenReview": 2, "SubjectAccessReview": 4}
    now[0] += 10.0
    server.allowed = {"allowed": False}
    with pytest.raises(Forbidden):
        access.require(access.identify("t"), READ, NS, "a")
    server.user = {"authenticated": False}
    access.identify("t")
    now[0] += 10.0
    with pytest.raises(Unauthenticated):
        access.identify("t")


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_system_clock_that_is_set_keeps_no_right_alive(client: KubeClient, server: Reviews, jump: float) -> None:
    now, wall = [1000.0], [1.8e9]
    settings = Settings(auth="kubernetes", auth_cache=10.0)
    reviewer = cluster.Reviewer(client, circuit_breaker.CircuitBreaker())
    access = Access(
        cluster.ClusterAuthenticator(settings, reviewer, lambda: now[0], lambda: wall[0]),
        cluster.ClusterAuthorizer(settings, reviewer, lambda: now[0]),
    )
    token = Issuer().token(exp=int(wall[0]) + 7200)
    access.require(access.identify(token), READ, NS)
    wall[0] += jump
    now[0] += 9.9
    access.require(access.identify(token), READ, NS)
    assert server.counts == {"TokenReview": 1, "SubjectAccessReview": 1}
    server.allowed = {"allowed": False}
    now[0] += 0.2
    with pytest.raises(Forbidden):
        access.require(access.identify(token), READ, NS)
    assert server.counts == {"TokenReview": 2, "SubjectAccessReview": 2}


def test_nothing_is_remembered_beyond_the_tokens_own_end(client: KubeClient, server: Reviews) -> None:
    now = [time.time()]
    settings = Settings(auth="kubernetes", auth_cache=300.0)
    check = cluster.ClusterAuthenticator(
        settings, cluster.Reviewer(client, circuit_breaker.CircuitBreaker()), lambda: now[0] - 500, lambda: now[0]
    )
    token = Issuer().token(exp=int(now[0]) + 5)
    assert check.authenticate(token).expires == int(now[0]) + 5
    now[0] += 5
    server.user = {"authenticated": False}
    with pytest.raises(Unauthenticated):
        check.authenticate(token)


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", "a.e30.c", "a.eyJleHAiOiAieCJ9.c", "a.W10.c", "a.eyJleHAiOiAxZTk5OX0.c"]
)
def test_tokens_that_do_not_say_when_they_end(token: str) -> None:
    assert cluster.expiry(token) == float("inf")


def test_strangers_drive_nobody_out_of_memory(
    client: KubeClient, server: Reviews, auth: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "REMEMBERED", 10)
    access = open_access(auth, client)
    assert access is not None
    access.identify("good")
    server.user = {"authenticated": False}
    for number in range(50):
        with pytest.raises(Unauthenticated):
            access.identify(f"bad-{number}")
    access.identify("good")
    assert server.counts["TokenReview"] == 51


# --- a server that is away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500, 503])
def test_an_api_server_that_refuses_is_a_503(served: Served, server: Reviews, status: int, caplog: Any) -> None:
    """And one that repeats the whole question in its answer does not get the token into a log."""
    caplog.set_level("DEBUG")
    server.status = status
    answer = served.call("GET", TARGET, headers=bearer("t0ken-canary"))
    logged = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]
    assert "credentials cannot be checked: " in "".join(logged)
    assert "t0ken" not in "".join(logged) + answer.body.decode()
    assert answer.problem["status"] == 503
    assert answer.headers["Retry-After"] == "1"
    assert server.url not in answer.body.decode()
    with served.watch("x", additional_headers=bearer("t")) as viewer, pytest.raises(Exception, match="1013"):
        viewer.recv(timeout=20)


def test_what_was_known_counts_while_it_is_good(served: Served, server: Reviews) -> None:
    assert served.call("GET", TARGET, headers=bearer("t")).status == 200
    server.status = 503
    assert served.call("GET", TARGET, headers=bearer("t")).status == 200
    assert served.call("GET", f"/deployments/x?namespace={NS}", headers=bearer("t")).status == 503
    assert served.call("GET", TARGET, headers=bearer("other")).status == 503


def test_while_answers_are_slow_nobody_else_waits(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """So that threads are there for everybody else, before it is known that no answer will come."""
    monkeypatch.setattr(circuit_breaker, "PATIENCE", 0.2)
    questions, release = circuit_breaker.CircuitBreaker(), threading.Event()
    started = threading.Barrier(circuit_breaker.SLOTS + 1)

    def slow() -> str:
        started.wait(20)
        release.wait(20)
        return "done"

    results = [run(questions.ask, slow) for _ in range(circuit_breaker.SLOTS)]
    started.wait(20)
    with pytest.raises(Unsure, match="too many"):
        questions.ask(lambda: "quick")
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(Unsure, match="too many"):
            questions.ask(lambda: "quick")
    assert time.monotonic() - began < 1.0  # it would be 4 s if each waited
    release.set()
    assert [result.get(timeout=20) for result in results] == ["done"] * circuit_breaker.SLOTS
    assert questions.ask(lambda: "quick") == "quick"


def test_a_server_that_hangs_takes_no_threads_away(served: Served, server: Reviews, run: Any) -> None:
    release, hanging = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        release.wait(30)

    server.delay = hang
    results = [run(served.call, "GET", TARGET, None, bearer(f"t{n}")) for n in range(40)]
    assert hanging.wait(20)
    began = time.monotonic()
    assert served.call("GET", "/healthz").status == 200
    assert {result.get(timeout=60).status for result in results} == {503}
    # Each would have waited a second for itself, eight at a time.
    assert time.monotonic() - began < 4.5
    # From then on one at a time tries, once a second.
    began = time.monotonic()
    asked = len(server.asked)
    while time.monotonic() - began < 1.5:
        assert served.call("GET", TARGET, headers=bearer("t")).status == 503
    assert len(server.asked) - asked <= 3
    server.delay = lambda: None
    release.set()
    deadline = time.monotonic() + 20
    while served.call("GET", TARGET, headers=bearer("t")).status != 200:
        assert time.monotonic() < deadline


def test_a_server_that_refuses_is_asked_once_a_second(served: Served, server: Reviews) -> None:
    server.status = 403
    began = time.monotonic()
    for number in range(50):
        assert served.call("GET", TARGET, headers=bearer(f"t{number}")).status == 503
    assert len(server.asked) <= 1 + (time.monotonic() - began) / circuit_breaker.PAUSE


def test_many_at_once_are_no_trouble_for_a_server_that_answers(served: Served, server: Reviews, run: Any) -> None:
    results = [run(served.call, "GET", TARGET, None, bearer(f"t{n}")) for n in range(40)]
    assert {result.get(timeout=60).status for result in results} == {200}
    same = [run(served.call, "GET", TARGET, None, bearer("same")) for _ in range(20)]
    assert {result.get(timeout=60).status for result in same} == {200}
    tokens = Counter(q["spec"]["token"] for q in server.asked if q["kind"] == "TokenReview")
    assert tokens["same"] <= circuit_breaker.SLOTS


def test_readiness_asks_by_itself(access: Access, server: Reviews, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a service that is not ready, and so gets no requests, would stay so."""
    monkeypatch.setattr(circuit_breaker, "PAUSE", 0.0)
    server.status = 403
    assert "deploy/rbac/reviews.yaml" in access.problem()
    assert "some" not in json.dumps(server.asked)
    server.status = 201
    server.user = {"authenticated": False}
    assert access.problem() == ""
    count = len(server.asked)
    assert access.problem() == ""
    assert len(server.asked) == count
