"""Informers against a server whose watches end, fall silent, expire and send rubbish."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import CONTROLLED_BY, Changed, Gone, NotReady
from deployer.core.errors import Cancelled, DeadlineExceeded, KubeForbidden, KubeUnavailable, Revoked
from deployer.core.model.kind import POD
from deployer.kube import client as client_module
from deployer.kube import informer as mirror_module
from deployer.kube.client import KubeClient, connect
from deployer.kube.informer import Informers
from deployer.settings import Settings


def pod(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version), "labels": labels}}


def event(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": found}


def bookmark(version: int) -> dict[str, Any]:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def names(found: list[dict[str, Any]]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in found)


class Cluster:
    """Answers lists from `pods` and hands every watch to `watch`."""

    def __init__(self, server: Any) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.lists = 0
        self.watches: list[Any] = []
        self.watch: Callable[[Any], None] = lambda request: (request.stream(), request.hang())
        self._arrived = threading.Condition()
        server.answer = self.answer

    def answer(self, request: Any) -> None:
        if request.watches:
            with self._arrived:
                self.watches.append(request)
                self._arrived.notify_all()
            self.watch(request)
        else:
            self.lists += 1
            request.json({"items": list(self.pods.values()), "metadata": {"resourceVersion": str(self.version)}})

    def nth_watch(self, number: int) -> Any:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.watches) >= number, 10), len(self.watches)
            return self.watches[number - 1]


@pytest.fixture
def cluster(server: Any) -> Cluster:
    return Cluster(server)


@pytest.fixture
def informers(client: KubeClient) -> Iterator[Informers]:
    made = Informers(client)
    yield made
    made.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mirror-")]


def soon() -> CancelScope:
    return CancelScope(time.monotonic() + 10)


def until(informers: Informers, *expected: str, labels: dict[str, str] | None = None) -> None:
    informers.get(POD, "ns").wait(lambda found: names(found) == sorted(expected), soon(), labels=labels)


def test_list_then_watch(cluster: Cluster, informers: Informers) -> None:
    cluster.pods = {"a": pod("a", 1, app="x")}
    until(informers, "a")
    watch = cluster.nth_watch(1)
    assert watch.query["resourceVersion"] == "1" and watch.query["allowWatchBookmarks"] == "true"
    watch.send(event("ADDED", pod("b", 2, app="y")))
    until(informers, "a", "b")
    watch.send(event("MODIFIED", pod("b", 3, app="x")))
    until(informers, "a", "b", labels={"app": "x"})
    assert informers.get(POD, "ns").items({"app": "y"}) == []
    watch.send(event("DELETED", pod("a", 4, app="x")))
    until(informers, "b", labels={"app": "x"})
    assert cluster.lists == 1


def test_a_waiter_is_woken_only_by_what_it_waits_for(cluster: Cluster, informers: Informers) -> None:
    asked: list[list[str]] = []
    first = threading.Event()

    def condition(found: list[dict[str, Any]]) -> bool:
        asked.append(names(found))
        first.set()
        return len(found) == 2

    informer = informers.get(POD, "ns")
    waiting = threading.Thread(target=lambda: informer.wait(condition, soon(), labels={"app": "x", "tier": "web"}))
    waiting.start()
    assert first.wait(10)
    watch = cluster.nth_watch(1)
    for number in range(20):
        watch.send(event("ADDED", pod(f"other-{number}", number + 2, app="y")))
        watch.send(event("ADDED", pod(f"half-{number}", number + 100, app="x")))
    until(informers, *(f"other-{n}" for n in range(20)), labels={"app": "y"})
    watch.send(event("ADDED", pod("m", 200, app="x", tier="web")))
    until(informers, "m", labels={"tier": "web"})
    watch.send(event("MODIFIED", pod("half-3", 201, app="x", tier="web")))
    waiting.join(10)
    assert not waiting.is_alive()
    assert asked[0] == [] and asked[-1] == ["half-3", "m"] and len(asked) <= 4


def test_an_object_that_leaves_the_selector_wakes(cluster: Cluster, informers: Informers) -> None:
    cluster.pods = {"a": pod("a", 1, app="x")}
    until(informers, "a", labels={"app": "x"})
    threading.Timer(0.05, lambda: cluster.nth_watch(1).send(event("MODIFIED", pod("a", 2, app="y")))).start()
    until(informers, labels={"app": "x"})


def test_lists_are_enough_while_no_watch_is_new_enough(cluster: Cluster, informers: Informers) -> None:
    cluster.watch = lambda request: request.status(410, "Expired", "too old resource version")
    cluster.pods = {"a": pod("a", 1, app="x")}
    until(informers, "a")
    cluster.pods["b"] = pod("b", 2, app="x")
    until(informers, "a", "b")


def test_the_end_of_the_last_one_is_told(cluster: Cluster, informers: Informers) -> None:
    cluster.pods = {"a": pod("a", 1, app="x"), "b": pod("b", 1, app="x"), "c": pod("c", 1, app="y")}
    informer = informers.get(POD, "ns")
    gone, other, at_once = threading.Event(), threading.Event(), threading.Event()
    forget = informer.on_event(Gone(POD, "ns", {"app": "x"}), gone.set)
    informer.on_event(Gone(POD, "ns", {"app": "y"}), other.set)
    watch = cluster.nth_watch(1)
    watch.send(event("MODIFIED", pod("a", 2, app="x", phase="ending")))
    watch.send(event("DELETED", pod("a", 3, app="x")))
    until(informers, "b", "c")
    assert not gone.is_set()
    watch.send(event("DELETED", pod("b", 4, app="x")))
    assert gone.wait(10)
    assert not other.is_set()
    informer.on_event(Gone(POD, "ns", {"app": "x"}), at_once.set)
    assert at_once.is_set()
    forget()
    gone.clear()
    watch.send(event("ADDED", pod("d", 5, app="x")))
    watch.send(event("DELETED", pod("d", 6, app="x")))
    watch.send(event("ADDED", pod("e", 7, app="z")))
    until(informers, "c", "e")
    assert not gone.is_set()


def test_a_change_of_an_object_and_a_pod_that_is_not_ready_are_told(cluster: Cluster, informers: Informers) -> None:
    def one(name: str, version: int, status: str) -> Any:
        made = pod(name, version, app="x")
        made["metadata"]["uid"] = f"uid-{name}"
        made["metadata"]["namespace"] = "ns"
        return made | {"status": {"conditions": [{"type": "Ready", "status": status}]}}

    a, b = one("a", 1, "True"), one("b", 1, "True")
    cluster.pods = {"a": a, "b": b}
    informer = informers.get(POD, "ns")
    changed, unready = threading.Event(), threading.Event()
    informer.on_event(Changed.since(POD, a), changed.set)
    informer.on_event(NotReady.among([a, b], {"app": "x"}), unready.set)
    watch = cluster.nth_watch(1)
    watch.send(event("ADDED", one("c", 2, "False")))
    until(informers, "a", "b", "c")
    assert not changed.is_set() and not unready.is_set()
    watch.send(event("MODIFIED", one("b", 3, "False")))
    assert unready.wait(10)
    assert not changed.is_set()
    watch.send(event("MODIFIED", one("a", 4, "True")))
    assert changed.wait(10)
    at_once = threading.Event()
    informer.on_event(NotReady.among([a, b], {"app": "x"}), at_once.set)
    assert at_once.is_set()
    assert NotReady.among([a], {"app": "x"}).has_come([{**a, "metadata": a["metadata"] | {"deletionTimestamp": "now"}}])
    assert NotReady.among([a], {"app": "x"}).has_come([])
    assert Changed.since(POD, a).has_come([])


def test_what_went_while_the_watch_was_down_is_told(cluster: Cluster, informers: Informers) -> None:
    cluster.pods = {"a": pod("a", 1, app="x")}
    until(informers, "a")
    gone = threading.Event()
    informers.get(POD, "ns").on_event(Gone(POD, "ns", {"app": "x"}), gone.set)
    cluster.pods, cluster.version = {}, 9
    watch = cluster.nth_watch(1)
    watch.send(event("ERROR", {"kind": "Status", "code": 410}))
    assert gone.wait(10)


def test_a_clean_end_goes_on_from_where_it_was(cluster: Cluster, informers: Informers) -> None:
    def watch(request: Any) -> None:
        if len(cluster.watches) == 1:
            request.stream(event("ADDED", pod("a", 5)), bookmark(9))
            request.end()
        else:
            request.stream(event("ADDED", pod("b", 12)))
            request.hang()

    cluster.watch = watch
    until(informers, "a", "b")
    assert cluster.nth_watch(2).query["resourceVersion"] == "9"
    assert cluster.lists == 1


def test_a_silent_watch_is_dead_and_a_list_tells_what_it_kept_back(cluster: Cluster, client: KubeClient) -> None:
    def watch(request: Any) -> None:
        cluster.pods, cluster.version = {"a": pod("a", 7)}, 8
        request.stream(bookmark(6))
        request.hang()

    cluster.watch = watch
    informers = Informers(client, silence=0.2)
    until(informers, "a")
    assert cluster.nth_watch(2).query["resourceVersion"] == "8"
    informers.close()


def test_a_watch_that_does_not_begin_is_given_up_like_any_request(
    cluster: Cluster, client: KubeClient, informers: Informers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client._transport, "read_timeout", 0.2)

    def watch(request: Any) -> None:
        if len(cluster.watches) == 1:
            request.hang()
        request.stream()
        threading.Event().wait(0.5)  # longer than the time to begin: from here on it may be silent for a while
        request.send(event("ADDED", pod("a", 7)))
        request.hang()

    cluster.watch = watch
    until(informers, "a")
    assert len(cluster.watches) == 2


@pytest.mark.parametrize("form", ["status", "event"])
def test_410_again_and_again_lists_again_with_pauses(cluster: Cluster, informers: Informers, form: str) -> None:
    def watch(request: Any) -> None:
        if len(cluster.watches) > 3:
            request.stream(event("ADDED", pod("late", 90)))
            request.hang()
        elif form == "status":
            cluster.version += 10
            request.status(410, "Expired")
        else:
            cluster.version += 10
            request.stream(event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}))
            request.end()

    cluster.watch = watch
    cluster.pods = {"a": pod("a", 1)}
    began = time.monotonic()
    until(informers, "a", "late")
    assert [w.query["resourceVersion"] for w in cluster.watches] == ["1", "11", "21", "31"]
    assert cluster.lists == 4
    assert time.monotonic() - began > 0.3  # 0.1 + 0.2 + 0.4, less the jitter


def test_what_went_while_nobody_looked_is_gone(cluster: Cluster, informers: Informers) -> None:
    cluster.pods = {"a": pod("a", 1), "b": pod("b", 1)}
    until(informers, "a", "b")
    cluster.pods = {"b": pod("b", 1), "c": pod("c", 3)}
    cluster.nth_watch(1).send(event("ERROR", {"kind": "Status", "code": 410}))
    until(informers, "b", "c")


@pytest.mark.parametrize(
    "rubbish",
    [b"not json\n", b"[1]\n", b'{"type": "ADDED"}\n', {"type": "ADDED", "object": {"metadata": {}}}, {"type": "NEW"}],
)
def test_an_undecodable_event_is_skipped_and_made_up_for(
    cluster: Cluster, informers: Informers, rubbish: object
) -> None:
    until(informers)
    cluster.pods = {"a": pod("a", 2)}
    watch = cluster.nth_watch(1)
    watch.send(rubbish)
    until(informers, "a")
    assert informers.get(POD, "ns").skipped == 1
    cluster.nth_watch(2).send(event("ADDED", pod("b", 3)))
    until(informers, "a", "b")


def test_events_split_over_chunks(cluster: Cluster, informers: Informers) -> None:
    until(informers)
    watch = cluster.nth_watch(1)
    line = b'{"type": "ADDED", "object": {"metadata": {"name": "\xc3\xa4", "resourceVersion": "3"}}}\n'
    for cut in (line[:10], line[10:52], line[52:], b"\n\n"):
        watch.send(cut)
    until(informers, "ä")


@pytest.mark.slow
def test_refused_at_most_about_once_a_second_then_resumes(fault_server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    client = connect(Settings(kubernetes=f"http://127.0.0.1:{port}"))
    informers = Informers(client)
    with pytest.raises(DeadlineExceeded, match="cannot be reached"):
        informers.get(POD, "ns").items(scope=CancelScope(time.monotonic() + 3))
    assert 3 <= client.requests["list"] <= 9  # five quick ones, then one a second
    server = fault_server(port)
    Cluster(server).pods = {"a": pod("a", 1)}
    until(informers, "a")
    informers.close()
    server.close()
    client.close()


def test_a_missing_right_fails_the_wait_and_heals(cluster: Cluster, server: Any, informers: Informers) -> None:
    allowed = server.answer
    server.answer = lambda request: request.status(403, "Forbidden", "no right to list")
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(KubeForbidden, match="list pods in namespace ns: no right to list"):
            informers.get(POD, "ns").wait(lambda found: True, soon())
    assert time.monotonic() - began < 5
    server.answer = allowed
    cluster.pods = {"a": pod("a", 1)}
    # Who asks after the right was granted is not told of yesterday.
    assert names(informers.get(POD, "ns").items(scope=soon())) == ["a"]


def test_a_list_without_the_right_to_watch_is_not_enough(cluster: Cluster, informers: Informers) -> None:
    """It would be right by chance, or wait for a change of which nobody tells."""
    allowed, cluster.watch = cluster.watch, lambda request: request.status(403, "Forbidden", "no right to watch")
    cluster.pods = {"a": pod("a", 1)}
    for condition in (lambda found: True, lambda found: False):
        with pytest.raises(KubeForbidden, match="watch pods in namespace ns: no right to watch"):
            informers.get(POD, "ns").wait(condition, soon())
    asked = cluster.lists
    cluster.watch = allowed
    until(informers, "a")
    assert cluster.lists == asked + 1  # nobody asked while nobody waited


def test_a_right_that_is_taken_away_reaches_who_waits(cluster: Cluster, informers: Informers) -> None:
    over = threading.Event()
    cluster.watch = lambda request: (request.stream(), over.wait(10), request.end())
    until(informers)
    refused: list[str] = []

    def wait() -> None:
        with pytest.raises(KubeForbidden) as caught:
            informers.get(POD, "ns").wait(lambda found: False, soon())
        refused.append(str(caught.value))

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    cluster.watch = lambda request: request.status(403, "Forbidden", "no right any more")
    over.set()
    for thread in waiting:
        thread.join(10)
    assert len(refused) == 3 and all("no right any more" in text for text in refused)


def test_an_old_refusal_is_not_held_against_who_asks_anew(
    cluster: Cluster, server: Any, informers: Informers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "RELIST", Backoff(first=60.0, most=60.0))
    allowed, informer = server.answer, informers.get(POD, "ns")
    server.answer = lambda request: request.status(403, "Forbidden", "no right to list")
    for number in (1, 2, 3):
        with pytest.raises(KubeForbidden):
            informer.wait(lambda found: True, soon())
        assert len(server.requests) == number
        with pytest.raises(KubeForbidden):
            informer.known()
    server.answer = allowed
    cluster.pods = {"a": pod("a", 1)}
    until(informers, "a")


def test_what_is_known_is_told_at_once(cluster: Cluster, server: Any, informers: Informers) -> None:
    allowed, informer = server.answer, informers.get(POD, "ns")
    cluster.pods = {"a": pod("a", 1, app="x"), "b": pod("b", 1, app="y")}
    server.answer = lambda request: request.status(500, "InternalError")
    assert informer.known() == []
    server.answer = allowed
    until(informers, "a", "b")
    assert names(informer.known({"app": "x"})) == ["a"]


def test_credentials_that_were_good_before_are_borne_with_for_longer(
    cluster: Cluster, server: Any, informers: Informers, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(informers)
    allowed, watch = server.answer, cluster.nth_watch(1)
    server.answer = lambda request: request.status(401, "Unauthorized")
    watch.send(event("ERROR", {"kind": "Status", "code": 410}))
    server.wait_for(2 + client_module.REFUSALS_BORNE + 2)
    cluster.pods = {"a": pod("a", 5)}
    server.answer = allowed
    until(informers, "a")
    watch = cluster.nth_watch(2)
    monkeypatch.setattr(client_module, "REFUSED_BORNE", 0.0)
    server.answer = lambda request: request.status(401, "Unauthorized")
    watch.send(event("ERROR", {"kind": "Status", "code": 410}))
    with pytest.raises(KubeForbidden):
        informers.get(POD, "ns").wait(lambda found: False, soon())


def test_some_401s_are_a_token_changing_hands(cluster: Cluster, server: Any, informers: Informers) -> None:
    allowed, refused = server.answer, iter(range(2))

    def answer(request: Any) -> None:
        if next(refused, None) is None:
            allowed(request)
        else:
            request.status(401, "Unauthorized")

    server.answer = answer
    cluster.pods = {"a": pod("a", 1)}
    until(informers, "a")


def test_a_gate_ends_a_wait(cluster: Cluster, informers: Informers) -> None:
    scope = CancelScope()
    threading.Timer(0.1, lambda: scope.close(Cancelled("stop"))).start()
    with pytest.raises(Cancelled):
        informers.get(POD, "ns").wait(lambda found: False, scope)
    with pytest.raises(DeadlineExceeded):
        informers.get(POD, "ns").wait(lambda found: False, CancelScope(time.monotonic() + 0.1))


def test_recheck_is_for_time(cluster: Cluster, informers: Informers) -> None:
    end = time.monotonic() + 0.2
    assert informers.get(POD, "ns").wait(lambda found: time.monotonic() > end, soon(), recheck=0.05)


def test_time_proves_nothing_while_nothing_is_heard(fault_server: Any) -> None:
    """A pod of which nothing is heard because nobody is listened to is no pod that does not start."""
    server = fault_server(0)
    Cluster(server)
    client = connect(Settings(kubernetes=server.url))
    informers = Informers(client)
    reports: list[tuple[str, str]] = []
    scope = CancelScope(time.monotonic() + 3, lambda source, why, since, left: reports.append((source, why)))
    looks: list[bool] = []

    def condition(_: list[dict[str, Any]]) -> bool:
        if not looks:
            server.close()
        looks.append(bool(informers.get(POD, "ns").problem))
        return False

    with pytest.raises(DeadlineExceeded) as caught:
        informers.get(POD, "ns").wait(condition, scope, recheck=0.02)
    assert isinstance(caught.value.__cause__, KubeUnavailable)
    assert sum(looks) <= 2, "it was looked at again although nothing had come"
    assert reports[0] == ("pods in ns", "")
    assert any((source == "pods in ns" and "cannot be reached" in why) or "broke off" in why for source, why in reports)
    informers.close()
    client.close()


def test_another_mirror_may_wake_a_wait(cluster: Cluster, informers: Informers) -> None:
    informer, other = informers.get(POD, "ns"), informers.get(POD, "elsewhere")
    other.synced(soon())
    looked, changed = threading.Event(), threading.Event()

    def condition(_: list[dict[str, Any]]) -> bool:
        looked.set()
        return bool(other.items({"app": "x"}))

    def change() -> None:
        looked.wait(10)
        cluster.nth_watch(1).send(event("ADDED", pod("a", 2, app="x")))

    writer = threading.Thread(target=change)
    writer.start()
    with other.waking(changed, {"app": "x"}):
        assert informer.wait(condition, soon(), event=changed)
    writer.join()


def test_an_exception_of_the_condition_comes_out(cluster: Cluster, informers: Informers) -> None:
    def condition(found: list[dict[str, Any]]) -> bool:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        informers.get(POD, "ns").wait(condition, soon())


def test_close_is_prompt_and_wakes_everybody(cluster: Cluster, server: Any, client: KubeClient) -> None:
    informers = Informers(client)
    ended: list[BaseException] = []
    ready = threading.Barrier(4)

    def wait() -> None:
        met = False

        def condition(found: list[dict[str, Any]]) -> bool:
            nonlocal met
            if not met:
                met = True
                ready.wait(10)
            return False

        try:
            informers.get(POD, "ns").wait(condition, CancelScope())
        except (Revoked, KubeUnavailable) as error:
            ended.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    cluster.nth_watch(1)
    began = time.monotonic()
    informers.close()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3 and time.monotonic() - began < 2
    with pytest.raises(Revoked):
        informers.get(POD, "ns")


def test_close_while_the_server_says_nothing_at_all(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.hang()
    informers = Informers(client)
    with pytest.raises(DeadlineExceeded):
        informers.get(POD, "ns").items(scope=CancelScope(time.monotonic() + 0.1))
    began = time.monotonic()
    informers.close()
    assert time.monotonic() - began < 2


def test_an_idle_mirror_rests_and_comes_back(cluster: Cluster, client: KubeClient) -> None:
    cluster.pods = {"a": pod("a", 1)}
    informers = Informers(client, idle=0.1, silence=0.3)
    until(informers, "a")
    thread = next(t for t in threading.enumerate() if t.name == "mirror-pods-ns")
    thread.join(10)
    assert not thread.is_alive()
    cluster.pods = {"b": pod("b", 2)}
    until(informers, "b")
    assert cluster.lists == 2
    informers.close()


def test_one_watch_for_many(cluster: Cluster, informers: Informers, client: KubeClient) -> None:
    cluster.pods = {str(n): pod(str(n), 1, app=str(n % 10)) for n in range(100)}
    threads = [
        threading.Thread(
            target=lambda n=n: until(informers, *(str(x) for x in range(n, 100, 10)), labels={"app": str(n)})
        )
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cluster.nth_watch(1)
    assert client.requests == {"list": 1, "watch": 1}


def test_by_controller(cluster: Cluster, informers: Informers) -> None:
    owned, other = pod("a", 1), pod("b", 1)
    owned["metadata"]["ownerReferences"] = [{"uid": "u1", "controller": True}]
    other["metadata"]["ownerReferences"] = [{"uid": "u1"}]
    cluster.pods = {"a": owned, "b": other}
    until(informers, "a", labels={CONTROLLED_BY: "u1"})
    informers.get(POD, "ns").synced(soon())


def test_a_defect_is_told_to_the_waiters(
    cluster: Cluster, informers: Informers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(mirror_module.Informer, "_replace", broken)
    with pytest.raises(KubeUnavailable, match="broke: defect"):
        informers.get(POD, "ns").items(scope=soon())
    assert "the mirror of pods in ns broke" in caplog.text
