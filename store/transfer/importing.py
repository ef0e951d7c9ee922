"""Importing an export: refused where it does not belong, resumed where it was interrupted, compared in the end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Document
from deployer.core.ports.store import Create, Update
from deployer.store.transfer.export_file import TOKEN, ExportFile, Sums
from deployer.store.transfer.port import Item, Lines, Row, Transferable, numbered
from deployer.store.transfer.state import ImportState

BATCH = 100
"""Items that are loaded at a time, at most: a transaction of etcd has at most 128 operations by default."""
BATCH_SIZE = 512 * 1024
"""Characters after which no item is added to a batch: a request to etcd has at most 1.5 MiB by default."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an import: `sums` by kind, and what it `did`: imported, resumed, or nothing."""

    sums: Document
    did: str


def run(store: Transferable, name: str, file: ExportFile) -> Outcome:
    """Bring what the export holds into the store, which is called `name`.

    Raises FileProblem, SettingsError for a store that holds something else, StoreUnavailable.
    """
    header, wanted = file.check()
    state = store.get(ImportState, header.id)
    if state is not None and state.finished:
        return Outcome(wanted.document(), "nothing")
    resumed = state is not None
    if state is None:
        _require_empty(store, name)
        state = ImportState(export=header.id)
        revision = store.commit(Create(state))
        state = dataclasses.replace(state, revision=revision)
    for batch in _batches(itertools.islice(numbered(file.items()), state.loaded, None)):
        store.load(batch)
        state = _written(store, dataclasses.replace(state, loaded=state.loaded + len(batch)))
    _compare(store, name, wanted)
    _written(store, dataclasses.replace(state, finished=True))
    return Outcome(wanted.document(), "resumed" if resumed else "imported")


def _written(store: Transferable, state: ImportState) -> ImportState:
    return dataclasses.replace(state, revision=store.commit(Update(state)))


def _require_empty(store: Transferable, name: str) -> None:
    with store.dump() as items:
        found = next(items, None)
    if found is not None or store.count(ImportState):
        raise SettingsError(
            f"the store {name} is not empty, and an import does not mix stores: name an empty one with --data-dir or "
            "--etcd"
        )


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += _size(item)
        if len(batch) >= BATCH or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(item: Item) -> int:
    match item:
        case Row():
            return len(item.text)
        case Lines():
            return sum(len(line.text) for line in item.lines)
        case _:
            return 0


def _compare(store: Transferable, name: str, wanted: Sums) -> None:
    """Raise StoreUnavailable unless the store holds exactly that, by count, checksum and order of arrival."""
    found = Sums()
    with store.dump() as items:
        for item in items:
            found.add(item)
    there, expected = found.document(), wanted.document()
    for kind in sorted((there.keys() | expected.keys()) - {TOKEN}):
        if there.get(kind) != expected.get(kind):
            raise StoreUnavailable(
                f"the store {name} does not hold what was imported: {_told(there, kind)} instead of "
                f"{_told(expected, kind)} of kind {kind}; empty it, then import again"
            )
    for (namespace, app), token in wanted.tokens.items():
        if found.tokens.get((namespace, app), 0) < token:
            raise StoreUnavailable(
                f"the store {name} lost the fencing token of {namespace}/{app}; empty it, then import again"
            )


def _told(sums: Document, kind: str) -> str:
    found = sums.get(kind) or {"count": 0, "sha256": "none"}
    return f"{found['count']} with checksum {found['sha256'][:12]}"
