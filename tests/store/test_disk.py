"""The SQLite store on a disk that is full, slow to come back or read by others, and what an orderly stop leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status, StoredDescriptor
from deployer.core.ports.store import Append, Create, Delete, Update
from deployer.store import reserve, writer
from deployer.store.sqlite import SqliteStore
from support.small_disk import SmallDisk, small_disk

NOON = "2026-01-01T12:00:00.000Z"


def a_descriptor(id: str, size: int = 1) -> StoredDescriptor:
    return StoredDescriptor(
        namespace="shop", app="cart", id=id, document={"text": "x" * size}, created="", last_modified=""
    )


def a_deployment(id: str, *, rollback_of: str = "") -> Deployment:
    return Deployment(
        namespace="shop", app="cart", id=id, descriptor={}, created="", last_modified="", rollback_of=rollback_of
    )


def an_operation(id: str, **more: object) -> Operation:
    return Operation(namespace="shop", app="cart", id=id, kind=OperationKind.UNDEPLOY, deployment="d1", **more)  # type: ignore[arg-type]


def stored(store: SqliteStore, id: str) -> Deployment:
    found = store.get(Deployment, id)
    assert found is not None
    return found


@pytest.fixture(params=[4])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """A disk of 4 MiB, if no parameter says otherwise."""
    with small_disk(tmp_path / "disk", request.param) as made:
        yield made


def becomes_well(store: SqliteStore) -> None:
    """Return when it says that all can be recorded; nobody writes meanwhile."""
    tick = threading.Event()
    for _ in range(400):
        if not store.problem():
            return
        tick.wait(0.05)
    pytest.fail(store.problem())


def integrity(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_on_a_full_disk_what_ends_or_deletes_something_is_recorded(disk: SmallDisk) -> None:
    store = SqliteStore(disk.path / "deployer.db", reserve=reserve.SIZE)
    try:
        store.commit(Create(a_descriptor("old", 200_000)), Create(a_deployment("d1")), Create(an_operation("o1")))
        assert store.problem() == ""
        disk.fill()

        with pytest.raises(StoreUnavailable, match=r"deployer\.db is full: free 1 MB there; until then only what ends"):
            for number in range(200):  # there is room in the files that are there
                store.commit(Create(a_descriptor(f"new-{number}", 20_000)))
        assert "is full: free" in store.problem()
        with pytest.raises(StoreUnavailable, match="is full"):
            store.commit(Create(a_deployment("d2")))
        found = store.get(StoredDescriptor, "old")
        assert found is not None
        with pytest.raises(StoreUnavailable, match="is full"):
            store.commit(Update(found))

        store.commit(Delete(found))
        operation = store.get(Operation, "o1")
        assert operation is not None
        store.commit(
            Update(stored(store, "d1").to(Status.UNDEPLOYING)),
            Update(dataclasses.replace(operation, state=OperationState.DONE)),
            Append("d1", NOON, "UNDEPLOYED"),
        )
        for number in range(50):
            store.commit(Create(an_operation(f"undeployment-{number}")))
        store.commit(Create(a_deployment("back", rollback_of="d1")))
        assert store.get(StoredDescriptor, "old") is None
        assert [line.text for line in store.read_log("d1")] == ["UNDEPLOYED"]
        assert store.acquire("shop", "cart", "me", 10) is not None
        assert os.statvfs(disk.path).f_bavail * 4096 < 1_000_000
        assert "is full" in store.problem()

        disk.empty()
        becomes_well(store)
        store.commit(Create(a_descriptor("new", 100_000)))
        assert (disk.path / "deployer.db.reserve").stat().st_blocks * 512 >= 500_000
    finally:
        store.close()
    assert integrity(disk.path / "deployer.db") == [("ok",)]


def test_lines_that_find_no_room_keep_back_no_deletion(disk: SmallDisk) -> None:
    store = SqliteStore(disk.path / "deployer.db", reserve=reserve.SIZE)
    try:
        store.commit(Create(a_descriptor("old")), Create(a_deployment("d1")))
        disk.fill()
        store.append_log("d1", [(NOON, "x" * 60_000)] * 50)
        found = store.get(StoredDescriptor, "old")
        assert found is not None
        store.commit(Delete(found))
        assert store.get(StoredDescriptor, "old") is None
        with pytest.raises(StoreUnavailable, match="free space on its disk"):
            store.read_log("d1")
        disk.empty()
        becomes_well(store)
        assert len(store.read_log("d1")) == 50
    finally:
        store.close()


@pytest.mark.parametrize("disk", [64], indirect=True)
def test_room_that_was_made_within_the_database_is_room(disk: SmallDisk) -> None:
    """The file itself has filled the disk: what is deleted leaves it as large as it was."""
    (disk.path / "others").write_bytes(bytes(40_000_000))
    store = SqliteStore(disk.path / "deployer.db", reserve=reserve.SIZE)
    kept: list[str] = []
    try:
        with pytest.raises(StoreUnavailable, match="is full"):
            for number in range(1000):
                store.commit(Create(a_descriptor(f"d{number}", 50_000)))
                kept.append(f"d{number}")
        disk.fill()
        for id in kept[:200]:
            found = store.get(StoredDescriptor, id)
            assert found is not None
            store.commit(Delete(found))
        becomes_well(store)
        store.commit(Create(a_descriptor("again", 50_000)))
        assert store.problem() == ""
    finally:
        store.close()
    assert integrity(disk.path / "deployer.db") == [("ok",)]


def test_a_start_on_a_full_disk_has_the_reserve(disk: SmallDisk) -> None:
    path = disk.path / "deployer.db"
    store = SqliteStore(path, reserve=reserve.SIZE)
    store.commit(Create(a_descriptor("old")))
    store.close()
    disk.fill()
    store = SqliteStore(path, reserve=reserve.SIZE)
    try:
        found = store.get(StoredDescriptor, "old")
        assert found is not None
        store.commit(Delete(found))
        becomes_not_well(store)
        disk.empty()
        becomes_well(store)
    finally:
        store.close()


def becomes_not_well(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable, match="is full"):
        for number in range(200):
            store.commit(Create(a_descriptor(f"{number}", 20_000)))
    assert "is full" in store.problem()


def test_a_start_on_a_full_disk_without_one_is_one_sentence(disk: SmallDisk) -> None:
    disk.fill()
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"deployer\.db cannot be opened: its disk is full") as refused:
            SqliteStore(disk.path / "deployer.db", reserve=reserve.SIZE)
        assert "\n" not in str(refused.value)
    disk.empty()
    store = SqliteStore(disk.path / "deployer.db", reserve=reserve.SIZE)
    store.commit(Create(a_descriptor("new")))
    store.close()


def test_a_quiet_store_finds_out_that_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes, so nobody meets it: whoever asks for its health has it tried."""
    monkeypatch.setattr(writer, "_QUIET", 0.05)
    store = SqliteStore(tmp_path / "deployer.db")
    try:
        connection = store._writer._connection
        assert connection is not None
        connection.execute("PRAGMA query_only = 1")  # a read-only remount is refused while the file is open
        tick = threading.Event()
        for _ in range(200):
            if store.problem():
                break
            tick.wait(0.05)
        assert "cannot record anything now (attempt to write a readonly database); make the file" in store.problem()
        connection.execute("PRAGMA query_only = 0")
        becomes_well(store)
    finally:
        store.close()


def test_a_disk_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SLOW", 0.05)
    store = SqliteStore(tmp_path / "deployer.db")
    hangs, go_on = threading.Event(), threading.Event()

    def fsync(_: str, __: str) -> None:  # in the writer's thread, as the real one
        hangs.set()
        assert go_on.wait(30)

    unsubscribe = store.subscribe(fsync)
    try:
        store.commit(Create(a_descriptor("d")))
        assert hangs.wait(10)
        tick = threading.Event()
        for _ in range(200):
            if store.problem():
                break
            tick.wait(0.02)
        assert "deployer.db has not answered for 0 s; check its disk" in store.problem()
        assert store.get(StoredDescriptor, "d") is not None
        unsubscribe()
        go_on.set()
        becomes_well(store)
    finally:
        go_on.set()
        store.close()


# --- an orderly stop --------------------------------------------------------------------------------------------------


def test_an_orderly_stop_leaves_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "data" / "deployer.db"
    store = SqliteStore(path)
    for number in range(20):
        store.commit(Create(a_descriptor(f"d{number}")))
    assert len(store.find(StoredDescriptor)) == 20  # leaves a connection that only reads
    store.append_log("d1", [(NOON, "the last line")])
    store.close()
    assert {file.name for file in path.parent.iterdir()} == {"deployer.db", "deployer.db.lock"}
    copy = tmp_path / "copy" / "deployer.db"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (20,)
        assert connection.execute("SELECT text FROM log").fetchall() == [("the last line",)]


def test_who_reads_while_it_stops_is_waited_for(tmp_path: Path) -> None:
    """The last connection to be closed brings the WAL into the database, which one that only reads cannot."""
    store = SqliteStore(tmp_path / "deployer.db")
    for number in range(20):
        store.commit(Create(a_descriptor(f"d{number}")))
    reading, go_on = threading.Event(), threading.Event()

    def slowly(rows: object) -> list[object]:
        reading.set()
        assert go_on.wait(30)
        return list(rows)  # type: ignore[call-overload, no-any-return]

    found: list[object] = []
    reader = threading.Thread(target=lambda: found.extend(store._readers.fetch("SELECT key FROM records", (), slowly)))
    reader.start()
    assert reading.wait(10)
    closing = threading.Thread(target=store.close)
    closing.start()
    with pytest.raises(StoreUnavailable, match="closed"):
        while True:  # until it has begun to close
            store.count(StoredDescriptor)
    go_on.set()
    reader.join(30)
    closing.join(30)
    assert len(found) == 20
    assert not (tmp_path / "deployer.db-wal").exists()


# --- the WAL ----------------------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM records").fetchone()


def test_the_wal_stays_small_although_somebody_always_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that overlap keep SQLite from beginning it anew; here one always begins before the other ends."""
    limit = 1024 * 1024
    monkeypatch.setattr(writer, "_WAL_SIZE", limit)
    path = tmp_path / "deployer.db"
    store = SqliteStore(path)
    ended = threading.Event()

    def read() -> None:
        with contextlib.ExitStack() as stack:
            either, other = (
                stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None))) for _ in "ab"
            )
            begin(either)
            while not ended.is_set():
                begin(other)
                either.execute("COMMIT")
                either, other = other, either

    reader = threading.Thread(target=read)
    reader.start()
    try:
        sizes = []
        for number in range(150):
            store.commit(Create(a_descriptor(f"d{number}", 50_000)))
            sizes.append((tmp_path / "deployer.db-wal").stat().st_size)
    finally:
        ended.set()
        reader.join(30)
        store.close()
    assert max(sizes) < 4.5 * limit, max(sizes)  # SQLite itself looks at it only every 1,000 pages


def test_one_that_reads_for_ever_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_WAL_SIZE", 1024 * 1024)
    monkeypatch.setattr(writer, "_PATIENCE", 0.05)
    path = tmp_path / "deployer.db"
    store = SqliteStore(path)
    store.commit(Create(a_descriptor("first")))
    wal = tmp_path / "deployer.db-wal"
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            begin(connection)
            for number in range(60):
                store.commit(Create(a_descriptor(f"d{number}", 50_000)))
            assert wal.stat().st_size > 2_000_000
            assert store.problem() == ""
        grown = wal.stat().st_size
        for number in range(60):
            store.commit(Create(a_descriptor(f"e{number}", 20_000)))
        assert wal.stat().st_size <= grown
    finally:
        store.close()


# --- beginnings -------------------------------------------------------------------------------------------------------


def test_the_lock_file_of_a_dead_process_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "deployer.db.lock").write_text("1\n")
    store = SqliteStore(tmp_path / "deployer.db")
    store.commit(Create(a_descriptor("d")))
    assert (tmp_path / "deployer.db.lock").read_text() == f"{os.getpid()}\n"
    store.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """NFS without a lock daemon says ENOLCK (flock(2))."""

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SettingsError, match=r"deployer\.db\.lock cannot be locked .*put the store on a local disk"):
        SqliteStore(tmp_path / "deployer.db")


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (lambda data: data[: len(data) // 2], "restore the newest backup"),
        (lambda data: b"SQLite format 4\0" + data[16:], "restore a backup"),
        (lambda data: data[:100] + bytes(4000) + data[4100:], "restore the newest backup"),
    ],
    ids=["cut in half", "another format", "first page lost"],
)
def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, damage: object, advice: str) -> None:
    path = tmp_path / "deployer.db"
    store = SqliteStore(path)
    for number in range(50):
        store.commit(Create(a_descriptor(f"d{number}", 5_000)))
    store.close()
    damaged = damage(path.read_bytes())  # type: ignore[operator]
    path.write_bytes(damaged)
    with pytest.raises(SettingsError, match=rf"deployer\.db cannot be opened .*{advice}") as refused:
        SqliteStore(path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == damaged


def test_damage_that_is_met_later_is_said_and_spares_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    store = SqliteStore(path)
    store.commit(Create(a_descriptor("good")), Create(a_deployment("d1")))
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET document = substr(document, 5) WHERE kind = 'deployment'")
    store = SqliteStore(path)
    try:
        with pytest.raises(
            StoreUnavailable, match=r"in the store, of a deployment, cannot be read .*restore the newest"
        ):
            store.get(Deployment, "d1")
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            store.find(Deployment)
        assert store.get(StoredDescriptor, "good") is not None
    finally:
        store.close()
