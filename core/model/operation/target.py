"""What an operation is for, besides its deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from deployer.core.model import migrations
from deployer.core.model.plan import Document, Previous


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Pods that an undo left: their version, the uid of the controller that had them, their grace time in seconds."""

    version: str
    controller: str
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Of an operation; each field is for some operations only.

    by        of a retirement: id of the deployment that took over
    drop      of a retirement: what the new descriptor has no more, `route` or `service`
    previous  of a retirement: what was live, from the plan of the deployment that took over
    ending    of a retirement: it only waits for these pods
    awaits    of a deployment: id of the operation that must end before, `due` being how long that is waited for
    released  nothing but pods that end is left of the deployment
    cause     of a rollback: why, in a sentence; empty when somebody asked for it
    until     of a watch, its end; of a rollback, when the version was to be removed: seconds since the epoch
    """

    by: str = ""
    drop: tuple[str, ...] = ()
    previous: Previous | None = None
    ending: Ending | None = None
    awaits: str = ""
    released: bool = False
    cause: str = ""
    until: float = 0.0

    def to_document(self) -> Document:
        """As JSON; what is not given is left out."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Target:
        """The inverse of `to_document`, and what older releases wrote. Raises msgspec.ValidationError."""
        if not document:
            return NOTHING
        if document.get("previous"):
            document = {**document, "previous": migrations.previous_1_to_2(document["previous"])}
        return msgspec.convert(document, cls)


NOTHING = Target()


# As in `records.py`: learnt here, by one thread, and not by two at the first use.
msgspec.json.Decoder(Target)
