"""What all providers have in common: a name, options, and their word on a descriptor.

Every method of a provider takes one context object, so that contexts can grow without breaking anybody. A new method
always comes with a default.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core.errors import Problem
from deployer.core.model.records import Document

Schema = Mapping[str, Any]


class Provider(ABC):
    """Base of everything that a plugin hands in."""

    name: str
    """What descriptors and settings call it. Unique among its kind."""

    @property
    def options_schema(self) -> Schema | None:
        """JSON Schema (2020-12) for this provider's options in a descriptor; None: it takes none."""
        return None

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        """What this provider cannot do for that (normalised) descriptor. Asked before anything is stored."""
        return ()

    def remarks(self, descriptor: Document) -> Sequence[Problem]:
        """What will have no effect in that (normalised) descriptor, although it is no mistake: shown, never refused."""
        return ()
