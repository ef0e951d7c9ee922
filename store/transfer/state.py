"""How far an import has got: a record in the store that it fills, so that it can be resumed and nobody serves half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deployer.core.errors import SettingsError
from deployer.core.model.records import Record
from deployer.core.ports.store import Store

UNFINISHED, FINISHED = "unfinished", "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportState(Record):
    """Of the one import into this store.

    export    id of the export that is imported
    loaded    items of it that are in the store for sure
    finished  it was compared with the export and is complete
    """

    KIND: ClassVar[str] = "import"
    namespace: str = ""
    app: str = ""
    export: str
    loaded: int = 0
    finished: bool = False

    @property
    def key(self) -> str:
        return self.export

    @property
    def tag(self) -> str:
        return FINISHED if self.finished else UNFINISHED


def require_whole(store: Store, name: str) -> None:
    """Raise SettingsError when an import into the store has not come to its end; `name` is what the store is called."""
    if store.count(ImportState, tag=UNFINISHED):
        raise SettingsError(
            f"the store {name} holds a part of an export only, because its import was interrupted: run `deployer "
            "import` with the same file again, which goes on where it ended"
        )
