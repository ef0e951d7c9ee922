"""The store in etcd when members die, hang or lose their majority, tokens expire, and certificates are replaced."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Deployment
from deployer.core.ports.store import Append, Create, Replica
from deployer.store.etcd import watch
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Access
from deployer.store.etcd.client.messages import Nothing, Range
from deployer.store.etcd.notices import ANYTHING
from deployer.store.etcd.store import EtcdStore
from support.etcd import Etcd, Member
from support.etcd_link import Link

from .test_etcd import hear
from .test_store import NOON, a_deployment, ids

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path_factory.mktemp("etcds"), members=3)
    yield etcd
    etcd.close()


@pytest.fixture
def members(cluster_of_three: Etcd) -> Iterator[list[Member]]:
    """Those of a cluster that tests may hurt; whole again afterwards."""
    yield cluster_of_three.members
    for member in cluster_of_three.members:
        member.resume()
        if not member.runs:
            cluster_of_three.restart(member)
    for member in cluster_of_three.members:
        member.await_health()


@pytest.fixture
def store(cluster_of_three: Etcd, members: list[Member]) -> Iterator[EtcdStore]:
    opened = cluster_of_three.store(f"/test/{uuid.uuid4().hex}", timeout=4.5)
    yield opened
    opened.close()


def used_by(store: EtcdStore, members: list[Member]) -> Member:
    """The member that the next request goes to."""
    url = store._gateway._order()[0]
    return next(member for member in members if member.url == url)


def until(condition: Callable[[], object], seconds: float = 20.0) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        threading.Event().wait(0.05)
    return time.monotonic() - began


# --- members --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["kill", "stop"])
def test_one_member_less_is_not_noticed(store: EtcdStore, members: list[Member], harm: str) -> None:
    heard = hear(store)
    lease = store.acquire("shop", "cart", "one", 15)
    assert lease is not None
    store.commit(Create(a_deployment("d0")), fence=lease)
    getattr(used_by(store, members), harm)()
    began = time.monotonic()
    store.commit(Create(a_deployment("d1")), Append("d1", NOON, "said"), fence=lease)
    assert time.monotonic() - began < 5
    began = time.monotonic()
    for number in range(2, 12):
        store.append_log("d1", [(NOON, str(number))])
        store.commit(Create(a_deployment(f"d{number}")), fence=lease)
    store.renew(lease, 15)
    assert time.monotonic() - began < 5  # the silent one is not asked again
    assert ids(store.find(Deployment)) == [f"d{number}" for number in range(12)]
    assert [line.number for line in store.read_log("d1")] == list(range(1, 12))
    told = set()
    until(lambda: told.add(heard.get(timeout=20)) or ("deployment", "d11") in told)


def test_without_a_majority_nothing_is_written_and_it_heals(store: EtcdStore, members: list[Member]) -> None:
    store.commit(Create(a_deployment("d0")))
    members[0].stop()
    members[1].stop()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="has a quorum") as said:
        store.commit(Create(a_deployment("lost")))
    with pytest.raises(StoreUnavailable):
        store.get(Deployment, "d0")
    assert time.monotonic() - began < 15
    assert "\n" not in str(said.value)
    store.append_log("d0", [(NOON, "meanwhile")])
    members[0].resume()
    members[1].resume()
    until(lambda: works(store))
    assert [line.text for line in store.read_log("d0")] == ["meanwhile"]
    assert set(ids(store.find(Deployment))) >= {"d0"}


def works(store: EtcdStore) -> bool:
    try:
        store.commit(Create(a_deployment(uuid.uuid4().hex)))
    except StoreUnavailable:
        return False
    return True


def test_a_single_etcd_that_comes_back_is_used_again(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, heartbeat_interval=50, election_timeout=250)
    store = etcd.store("/test", timeout=1.0)
    try:
        heard = hear(store)
        store.commit(Create(a_deployment("d0")))
        etcd.members[0].kill()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"cannot be reached.*nothing was written"):
            store.commit(Create(a_deployment("d1")))
        assert time.monotonic() - began < 3
        store.append_log("d0", [(NOON, "meanwhile")])
        etcd.restart(etcd.members[0])
        until(lambda: works(store))
        assert store.problem() == ""
        assert [line.text for line in store.read_log("d0")] == ["meanwhile"]
        until(lambda: heard.get(timeout=10) == ("log", "d0"))
        again = etcd.store("/test")
        until(lambda: hear_after(again, store, heard))
        again.close()
    finally:
        store.close()
        etcd.close()


def test_a_full_etcd_is_said_until_it_has_space_again(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, quota_backend_bytes=2 * 1024 * 1024, heartbeat_interval=10, election_timeout=100)
    store, other = etcd.store("/test"), etcd.store("/test")
    try:
        store.join(Replica("one", {"running": 0}), 2)
        store.commit(Create(a_deployment("d0")))
        ask = other._gateway.call
        with pytest.raises(StoreUnavailable, match="no space left"):
            for number in range(100):
                ask("kv/put", {"key": f"/filled/{number}".encode(), "value": os.urandom(100_000)}, Nothing)
        with pytest.raises(StoreUnavailable, match=r"no space left: .* \(etcdctl alarm disarm\)"):
            store.commit(Create(a_deployment("d1")))
        assert "no space left" in store.problem()
        assert store.get(Deployment, "d0") is not None
        # Whoever says something new cannot, and is there all the same.
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            with pytest.raises(StoreUnavailable):
                store.join(Replica("one", {"running": 1}), 2)
            assert [replica.holder for replica in store.replicas()] == ["one"]
            threading.Event().wait(0.2)
        revision = ask("kv/range", operations.get(b"/filled/0")["request_range"], Range).header.revision
        ask("kv/deleterange", operations.delete_all(b"/filled/")["request_delete_range"], Nothing)
        ask("kv/compaction", {"revision": revision + 1, "physical": True}, Nothing)
        ask("maintenance/defragment", {}, Nothing)
        assert "no space left" in store.problem()
        for alarm in ask("maintenance/alarm", {"action": "GET"}, dict)["alarms"]:
            ask("maintenance/alarm", {"action": "DEACTIVATE", **alarm}, Nothing)
        store.join(Replica("one", {"running": 1}), 2)  # as replicas do all the time
        assert store.problem() == ""
        assert [replica.says for replica in store.replicas()] == [{"running": 1}]
        store.commit(Create(a_deployment("d1")))
    finally:
        store.close()
        other.close()
        etcd.close()


@pytest.mark.parametrize("more", [0, 40])
def test_an_etcd_that_was_brought_back_from_a_copy_is_noticed(tmp_path: Path, more: int) -> None:
    """`more`: what was written in the new history before this process looks again. Ten were lost of the old one."""
    etcd = Etcd(tmp_path, heartbeat_interval=50, election_timeout=250)
    (member,) = etcd.members
    link = Link(member.url)
    store = etcd.store("/test", timeout=1.0, endpoints=(link.url,))
    try:
        store.commit(Create(a_deployment("kept")), Append("kept", NOON, "kept"))
        member.kill()
        copy = member.keep()
        etcd.restart(member)
        until(lambda: works(store))
        heard = hear(store)
        for number in range(10):
            store.commit(Create(a_deployment(f"d{number}")), Append("kept", NOON, "lost"))
        until(lambda: heard.get(timeout=10) == ("deployment", "d9"))
        before = store.changed("shop"), store.changed("other")
        link.refuse = True
        link.cut()
        member.kill()
        member.bring_back(copy)
        etcd.restart(member)
        other = etcd.store("/test")
        for number in range(more):
            other.commit(Create(a_deployment(f"n{number}")))
        link.refuse = False
        until(lambda: heard.get(timeout=20) == ANYTHING)
        assert store.changed("shop") > before[0] and store.changed("other") > before[1]
        until(lambda: hear_after(other, store, heard))
        store.commit(Create(a_deployment("d9")), Append("kept", NOON, "anew"))
        assert [line.text for line in store.read_log("kept")] == ["kept", "anew"]
        found = ids(store.find(Deployment, namespace="shop"))
        assert {"kept", "d9"} <= set(found) and "d8" not in found
        other.close()
    finally:
        store.close()
        link.close()
        etcd.close()


def test_an_etcd_that_lost_everything_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE", 0.3)
    etcd = Etcd(tmp_path / "etcd", heartbeat_interval=50, election_timeout=250)
    (member,) = etcd.members
    store = etcd.store("/test", timeout=1.0)
    try:
        store.commit(Create(a_deployment("d0")))
        (tmp_path / "nothing").mkdir()
        heard, streams = hear(store), queue.SimpleQueue[str]()
        member.kill()
        member.bring_back(tmp_path / "nothing")
        etcd.restart(member, "new")
        until(lambda: heard.get(timeout=20) == ANYTHING)
        stream = store._gateway.stream
        monkeypatch.setattr(store._gateway, "stream", lambda *a, **more: (streams.put("one"), stream(*a, **more))[1])
        for _ in range(3):
            streams.get(timeout=20)
        assert sum("was brought back" in record.getMessage() for record in caplog.records) == 1
        assert heard.empty()
    finally:
        store.close()
        etcd.close()


def hear_after(other: EtcdStore, store: EtcdStore, heard: Any) -> bool:
    """A commit of one is heard of by the other."""
    key = uuid.uuid4().hex
    other.commit(Create(a_deployment(key)))
    return any(heard.get(timeout=10) == ("deployment", key) for _ in range(50))


# --- users ----------------------------------------------------------------------------------------------------------

ROOT = {"username": "root", "password": "canary-root"}
USER = {"username": "deployer", "password": "canary-pw"}


@pytest.fixture(params=["simple", "jwt"])
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Etcd]:
    """An etcd whose tokens last for two seconds, with a user who may only use the prefix."""
    flags: dict[str, object] = {"auth_token_ttl": 2}
    if request.param == "jwt":
        if not shutil.which("openssl"):
            pytest.skip("the program openssl is missing")
        key, public = tmp_path / "jwt.pem", tmp_path / "jwt.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=60)
        subprocess.run(
            ["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True, timeout=60
        )
        flags = {"auth_token": f"jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=2s"}
    etcd = Etcd(tmp_path / "etcd", **flags)
    first = etcd.store("/admin")
    begin, end = b"/deployer/store/", b"/deployer/store0"
    permission = {"permType": "READWRITE", "key": begin, "range_end": end}
    for path, body in (
        ("auth/user/add", {"name": "root", "password": "canary-root"}),
        ("auth/role/add", {"name": "root"}),
        ("auth/user/grant", {"user": "root", "role": "root"}),
        ("auth/user/add", {"name": "deployer", "password": "canary-pw"}),
        ("auth/role/add", {"name": "records"}),
        ("auth/role/grant", {"name": "records", "perm": permission}),
        ("auth/user/grant", {"user": "deployer", "role": "records"}),
        ("auth/enable", {}),
    ):
        first._gateway.call(path, body, Nothing)
    first.close()
    yield etcd
    etcd.close()


def test_tokens_that_expire_are_renewed(locked: Etcd) -> None:
    store = locked.store("/deployer/store/", **USER)
    other = locked.store("/deployer/store/", **USER)
    try:
        heard = hear(store)
        for number in range(2):
            other.commit(Create(a_deployment(f"d{number}")))
            assert heard.get(timeout=15) == ("deployment", f"d{number}")
            assert store.get(Deployment, f"d{number}") is not None
            threading.Event().wait(2.6)  # the tokens' time passes; nothing else tells when
        lease = store.acquire("shop", "cart", "one", 5)
        assert lease is not None
        store.renew(lease, 5)
        store.release(lease)
    finally:
        store.close()
        other.close()


def test_refusals_are_one_sentence_without_the_password(locked: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    refusals: dict[str, tuple[str, dict[str, str]]] = {
        "invalid user ID or password": ("/deployer/store/", {**USER, "password": "canary-wrong"}),
        "permission denied": ("/elsewhere/", USER),
        "user name is empty": ("/deployer/store/", {}),
    }
    for said, (prefix, login) in refusals.items():
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=f"{locked.endpoints[0]} refuses.*{said}.*--etcd-username") as caught:
            locked.store(prefix, **login)
        assert "\n" not in str(caught.value)
        assert "canary" not in str(caught.value) + repr(caught.value) + caplog.text
        assert time.monotonic() - began < 4
    assert "canary" not in repr(locked.access(**USER))


# --- TLS ------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> dict[str, Path]:
    """A self-signed certificate for 127.0.0.1, for both sides, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("the program openssl is missing")
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return {"key": key, "cert": cert}


def test_client_certificates_that_are_replaced(tmp_path: Path) -> None:
    server, old, new = (certificate(tmp_path, name) for name in ("server", "old", "new"))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(b"".join(pair["cert"].read_bytes() for pair in (server, old, new)))
    etcd = Etcd(
        tmp_path / "etcd",
        scheme="https",
        cert_file=server["cert"],
        key_file=server["key"],
        trusted_ca_file=trusted,
        client_cert_auth="true",
    )
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"

    def use(pair: dict[str, Path]) -> None:
        for source, target in ((pair["key"], key), (pair["cert"], cert)):
            draft = target.with_suffix(".draft")
            draft.write_bytes(source.read_bytes())
            draft.replace(target)

    use(old)
    files = {"ca_file": str(server["cert"]), "cert_file": str(cert), "key_file": str(key)}
    store = etcd.store("/test", **files)
    try:
        heard = hear(store)
        store.commit(Create(a_deployment("d0")))
        use(new)
        store.commit(Create(a_deployment("d1")))
        assert [heard.get(timeout=10) for _ in range(2)] == [("deployment", "d0"), ("deployment", "d1")]
        assert ids(store.find(Deployment)) == ["d0", "d1"]
        (tmp_path / "client.pem").write_text("half")  # half-way through being replaced
        store.commit(Create(a_deployment("d2")))
        use(new)
        with pytest.raises(StoreUnavailable, match=f"{etcd.endpoints[0]} .*TLS"):
            etcd.store("/test", timeout=1.0)
        with pytest.raises(StoreUnavailable, match=f"{etcd.endpoints[0]} "):
            etcd.store("/test", ca_file=files["ca_file"], timeout=1.0)
        with pytest.raises(SettingsError, match=r"nowhere\.pem"):
            etcd.store("/test", ca_file=str(tmp_path / "nowhere.pem"))
    finally:
        store.close()
        etcd.close()


def test_plain_http_to_tls_and_something_else_are_said(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1", "http://localhost:1"):
        with pytest.raises(StoreUnavailable, match=f"{url} cannot be reached"):
            EtcdStore(Access(endpoints=(url,), timeout=0.5))
