"""Exports, imports and backups: nothing is lost on the way, and nothing is half there."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import sqlite3
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from deployer.commands.freezes import Freeze
from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model import migrations
from deployer.core.model.records import App, Deployment, Event, HostClaim, Operation, Plan, StoredDescriptor
from deployer.core.ports.store import Create, Update
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer import export_file, importing
from deployer.store.transfer.export_file import ExportFile
from deployer.store.transfer.files import FileProblem
from deployer.store.transfer.port import Item, Row, Token, Transferable
from deployer.store.transfer.sqlite import SqliteFile
from deployer.store.transfer.state import ImportState, require_whole
from support import snapshots
from support.memory_store import MemoryStore

NOON = "2026-01-01T12:00:00.000Z"
ODD = "ä\x00\u2028\U0001f600 \ud800 'quote' \"double\" \\ \n next"
NOISE = random.Random(7).randbytes(700_000).hex()
"""More than etcd takes in one request, however it is compressed."""
DEPLOYMENTS = 30
LINES = 700


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store in use, with some of everything."""
    with closing(SqliteStore(tmp_path / "source" / "deployer.db")) as store:
        common = {"namespace": "shop", "app": "cart"}
        times = {"created": NOON, "last_modified": NOON}
        for number in range(DEPLOYMENTS):
            # Keys in another order than that of arrival, and two records in each transaction.
            id = f"{(number * 7) % DEPLOYMENTS:02d}"
            document = {"text": ODD, "size": "x" * 200}
            store.commit(
                Create(Deployment(**common, **times, id=id, descriptor=document, version=str(number))),
                Create(Event(**common, id=f"e{id}", name="deployed", deployment={"id": id})),
            )
        store.commit(
            Create(StoredDescriptor(**common, **times, id="d", document={"password": "canary", "noise": NOISE})),
            Create(App(**common, live="03", highest=30)),
            Create(HostClaim(**common, host="shop.example")),
            Create(Freeze(namespace="shop", app="", reason="because", by="me", created=NOON, until=1.5)),
            Create(Plan(**common, deployment="03", version="3")),
        )
        store.append_log("03", [(NOON, f"line {number} {ODD}") for number in range(LINES)])
        store.append_log("07", [(NOON, "only one")])
        for holder in "abc":
            lease = store.acquire("shop", "cart", holder, 10)
            assert lease is not None
            store.release(lease)
        yield store


@pytest.fixture
def exported(source: SqliteStore, tmp_path: Path) -> Path:
    file = tmp_path / "export.gz"
    with source.dump() as items:
        export_file.write(file, items)
    return file


@pytest.fixture(params=["sqlite", "memory", pytest.param("etcd", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transferable]:
    opened: Transferable
    if request.param == "sqlite":
        opened = SqliteStore(tmp_path / "target" / "deployer.db")
    elif request.param == "memory":
        opened = MemoryStore(clock=lambda: 0.0)
    else:
        opened = request.getfixturevalue("one_etcd").store(f"/test/{uuid.uuid4().hex}")
    with closing(opened):
        yield opened


def content(store: Transferable) -> list[Item]:
    """All but the numbers that a store gives."""
    with store.dump() as items:
        return [dataclasses.replace(item, sequence=0) if isinstance(item, Row) else item for item in items]


def test_everything_arrives_as_it_was(source: SqliteStore, exported: Path, target: Transferable) -> None:
    outcome = importing.run(target, "t", ExportFile(exported))
    assert outcome.did == "imported"
    assert content(target) == content(source)
    counts = {kind: found["count"] for kind, found in outcome.sums.items()}
    assert counts == {
        **dict.fromkeys(("app", "descriptor", "freeze", "host", "plan", "token"), 1),
        **dict.fromkeys(("deployment", "event"), DEPLOYMENTS),
        "log": LINES + 1,
    }
    lease = target.acquire("shop", "cart", "d", 10)
    assert lease is not None and lease.token == 4
    for deployment in (source, target):
        assert deployment.read_log("03", after=LINES - 1)[0].number == LINES


def test_a_second_import_of_the_same_export_changes_nothing(exported: Path, target: Transferable) -> None:
    importing.run(target, "t", ExportFile(exported))
    target.commit(Create(App(namespace="shop", app="new")))
    before = content(target)
    assert importing.run(target, "t", ExportFile(exported)).did == "nothing"
    assert content(target) == before


def test_what_goes_there_and_back_is_the_same_export(
    source: SqliteStore, exported: Path, target: Transferable, tmp_path: Path
) -> None:
    importing.run(target, "t", ExportFile(exported))
    with target.dump() as items:
        export_file.write(tmp_path / "there.gz", items)
    with closing(SqliteStore(tmp_path / "back" / "deployer.db")) as back:
        importing.run(back, "t", ExportFile(tmp_path / "there.gz"))
        with back.dump() as items:
            export_file.write(tmp_path / "back.gz", items)
        assert content(back) == content(source)
    files = [exported, tmp_path / "there.gz", tmp_path / "back.gz"]
    sums = [ExportFile(file).check()[1].document() for file in files]
    assert sums[0] == sums[1] == sums[2]


class _Dies(Exception):
    """In the place of a SIGKILL."""


class _Mortal(SqliteStore):
    """Dies before or after one of its writes."""

    at = 0

    def _count(self) -> None:
        self.at -= 1
        if self.at == 0:
            raise _Dies

    def load(self, items: Sequence[Item]) -> None:
        self._count()
        super().load(items)
        self._count()

    def commit(self, *changes: object, fence: object = None) -> int:
        self._count()
        revision = super().commit(*changes, fence=fence)  # type: ignore[arg-type]
        self._count()
        return revision


def test_an_import_goes_on_wherever_it_was_interrupted(source: SqliteStore, exported: Path, tmp_path: Path) -> None:
    at, did = 1, ""
    while did != "imported":
        path = tmp_path / f"died-{at}" / "deployer.db"
        with closing(_Mortal(path)) as store:
            store.at = at
            try:
                did = importing.run(store, "t", ExportFile(exported)).did
            except _Dies:
                did = "died"
        with closing(SqliteStore(path)) as store:
            if did == "died" and store.count(ImportState, tag="unfinished"):
                with pytest.raises(SettingsError, match="run `deployer import` with the same file again"):
                    require_whole(store, "t")
            assert importing.run(store, "t", ExportFile(exported)).did in ("imported", "resumed", "nothing")
            require_whole(store, "t")
            assert content(store) == content(source)
        at += 1
    assert at > 8


def test_a_store_that_holds_something_is_refused_and_left_alone(exported: Path, target: Transferable) -> None:
    target.commit(Create(App(namespace="shop", app="cart")))
    before = content(target)
    with pytest.raises(SettingsError, match="the store t is not empty"):
        importing.run(target, "t", ExportFile(exported))
    assert content(target) == before and target.count(ImportState) == 0


def test_another_export_is_refused_where_one_is_under_way(
    source: SqliteStore, exported: Path, target: Transferable, tmp_path: Path
) -> None:
    with source.dump() as items:
        export_file.write(tmp_path / "other.gz", items)
    target.commit(Create(ImportState(export=ExportFile(exported).check()[0].id)))
    with pytest.raises(SettingsError, match="the store t is not empty"):
        importing.run(target, "t", ExportFile(tmp_path / "other.gz"))
    assert importing.run(target, "t", ExportFile(exported)).did == "resumed"


class _Forgetful(MemoryStore):
    """Loses what a test says."""

    def __init__(self, lost: Callable[[Item], bool]) -> None:
        super().__init__(clock=lambda: 0.0)
        self._lost = lost

    def load(self, items: Sequence[Item]) -> None:
        super().load([item for item in items if not self._lost(item)])


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda item: isinstance(item, Row) and item.key == "05", "29 with checksum .* instead of 30 .* deployment"),
        (lambda item: isinstance(item, Row) and item.kind == "host", "0 with checksum none instead of 1 .* host"),
        (lambda item: isinstance(item, Token), "lost the fencing token of shop/cart"),
        (lambda item: not isinstance(item, Row | Token), "0 with checksum none instead of 701 .* log"),
    ],
)
def test_a_store_that_loses_something_is_found_out(exported: Path, lost: Callable[[Item], bool], said: str) -> None:
    store = _Forgetful(lost)
    with pytest.raises(StoreUnavailable, match=said):
        importing.run(store, "t", ExportFile(exported))
    assert store.count(ImportState, tag="unfinished") == 1


# --- the file -------------------------------------------------------------------------------------------------------


def test_an_export_is_for_its_owner_only(exported: Path) -> None:
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    assert b"canary" in gzip.decompress(exported.read_bytes())


@pytest.mark.parametrize("end", [StoreUnavailable("no more"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_what_was_there(exported: Path, end: BaseException) -> None:
    def broken() -> Iterator[Item]:
        yield Token("shop", "cart", 1)
        raise end

    before = exported.read_bytes()
    with pytest.raises(type(end)):
        export_file.write(exported, broken())
    assert exported.read_bytes() == before
    assert [path.name for path in exported.parent.iterdir() if path.is_file()] == [exported.name]


def test_an_export_into_a_place_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"nowhere/x\.gz cannot be written \(No such file or directory\)"):
        export_file.write(tmp_path / "nowhere" / "x.gz", iter(()))


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.97])
def test_a_part_of_an_export_is_found_out_before_anything_is_loaded(
    exported: Path, target: Transferable, part: float
) -> None:
    whole = exported.read_bytes()
    exported.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(FileProblem, match=r"is damaged|is no export"):
        importing.run(target, "t", ExportFile(exported))
    assert content(target) == [] and target.count(ImportState) == 0


def rewritten(path: Path, change: Callable[[list[str]], list[str]]) -> ExportFile:
    """The export with other lines."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(change(lines)).encode()))
    return ExportFile(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "its end is missing"),
        (lambda lines: [*lines[:5], *lines[6:]], "its counts and checksums are others"),
        (lambda lines: [*lines[:5], lines[5].replace("cart", "card"), *lines[6:]], "its counts and checksums"),
        (lambda lines: [*lines[:2], lines[4], lines[3], lines[2], *lines[5:]], "its counts and checksums"),
        (lambda lines: [*lines, lines[5]], "something follows its last line"),
        (lambda lines: [*lines[:5], "[]\n", *lines[5:]], "line 6 is no object"),
        (lambda lines: [*lines[:5], "{\n", *lines[5:]], "after line 6"),
        (lambda lines: [*lines[:5], '{"what": 1}\n', *lines[5:]], "a line is none that this release knows"),
    ],
)
def test_a_changed_export_is_refused(exported: Path, change: Callable[[list[str]], list[str]], said: str) -> None:
    with pytest.raises(FileProblem, match=said):
        rewritten(exported, change).check()


def test_an_export_of_a_newer_release_is_refused_with_its_name(exported: Path) -> None:
    def newer(lines: list[str]) -> list[str]:
        header = json.loads(lines[0])
        return [json.dumps(header | {"version": 2, "release": "9.9"}) + "\n", *lines[1:]]

    with pytest.raises(FileProblem, match=r"newer release \(format 2, this one reads 1\): import it with release 9\.9"):
        rewritten(exported, newer).check()


@pytest.mark.parametrize(
    "wrong",
    [b"", b"no gzip at all", gzip.compress(b"{}\n", mtime=0), gzip.compress(b'{"format": "x"}\n', mtime=0)],
    ids=["empty", "text", "no header", "another format"],
)
def test_what_is_no_export_is_refused(tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "x").write_bytes(wrong)
    with pytest.raises(FileProblem, match=r"is no export of the Deployer|is damaged"):
        ExportFile(tmp_path / "x").check()


# --- backups --------------------------------------------------------------------------------------------------------


def test_a_backup_is_one_file_for_its_owner_only(source: SqliteStore, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    SqliteFile(tmp_path / "source" / "deployer.db").backup(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy.db"]
    restored = tmp_path / "restored" / "deployer.db"
    restored.parent.mkdir()
    file.rename(restored)
    with closing(SqliteStore(restored)) as store:
        assert content(store) == content(source)


def test_a_backup_of_a_damaged_store_is_refused_and_the_last_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    with closing(SqliteStore(path)) as store:
        for number in range(300):
            store.commit(Create(App(namespace="shop", app=f"app{number}", live="x" * 200)))
    file = tmp_path / "copy.db"
    SqliteFile(path).backup(file)
    before = file.read_bytes()
    with path.open("r+b") as damaged:
        damaged.seek(4096 * 4)
        damaged.write(b"\xff" * 4096 * 6)
    with pytest.raises(StoreUnavailable, match=r"is damaged|failed|cannot be read"):
        SqliteFile(path).backup(file)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".copy.db.*"))


@pytest.mark.parametrize("method", ["dump", "backup"])
def test_what_is_no_store_is_neither_exported_nor_copied(tmp_path: Path, method: str) -> None:
    def tried(path: Path) -> None:
        if method == "backup":
            SqliteFile(path).backup(tmp_path / "copy.db")
        else:
            with SqliteFile(path).dump() as items:
                list(items)

    with pytest.raises(SettingsError, match=r"there is no store .*none\.db"):
        tried(tmp_path / "none.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE other (x)")
    with pytest.raises(SettingsError, match="is a database of another program"):
        tried(tmp_path / "other.db")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsError, match=r"newer release \(schema 99"):
        tried(tmp_path / "newer.db")


def test_neither_takes_the_lock_nor_waits_for_the_service(source: SqliteStore, tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "source" / "deployer.db")
    with file.dump() as items:
        first = next(items)
        stored = source.get(Deployment, "00")
        assert stored is not None
        source.commit(Update(stored))
        file.backup(tmp_path / "copy.db")
        assert len([first, *items]) > DEPLOYMENTS


# --- what older releases wrote --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["sqlite", pytest.param("etcd", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("flow", ["redeploy", "adopt", "gateway", "swap"])
def test_the_store_of_an_older_release_is_moved_and_its_plans_are_read(
    flow: str, tmp_path: Path, target: Transferable
) -> None:
    moment = snapshots.load(flow)[-1]
    path = tmp_path / "older" / "deployer.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as older:
        older.executescript("\n".join(moment.database["statements"]))
        older.execute(f"PRAGMA user_version = {moment.database['version']}")
    formats = {document.get("format", 1) for document in snapshots.records(moment, "plan")}
    assert formats and max(formats) < migrations.PLAN_FORMAT
    with SqliteFile(path).dump() as items:
        export_file.write(tmp_path / "older.gz", items)
    importing.run(target, "t", ExportFile(tmp_path / "older.gz"))
    with closing(SqliteStore(path)) as store:
        for kind in (Plan, Operation, Deployment, App):
            assert [dataclasses.replace(r, revision=0, sequence=0) for r in target.find(kind)] == [
                dataclasses.replace(r, revision=0, sequence=0) for r in store.find(kind)
            ]
        assert store.find(Plan)
