"""What is asked about a descriptor beside its rules: ports, so that commands know neither clients nor manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployer.core.errors import Problem
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import Document
from deployer.settings import Settings

KINDS = (CONTROLLER.kind, POD.kind)
"""What a dry run asks about."""


@dataclass(slots=True)
class Findings:
    """What came of a dry run. `checked` has some of `KINDS`; `not_checked` says why, by kind."""

    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class DescriptorDryRun(Protocol):
    """Asks the cluster what it would say to a descriptor. Writes nothing, raises nothing, and is thread-safe."""

    def ask(self, descriptor: Mapping[str, Any], version: str) -> Findings:
        """What the cluster says, within a few seconds, to what would be deployed as that version.

        `descriptor` is normalised, but for its podspec, which may be anything with a list of containers. What injectors
        add is left out: their values are for pods alone.
        """

    def ask_quickly(self, descriptor: Mapping[str, Any], version: str) -> Findings:
        """What the cluster can never take of the podspec, for whoever stores a descriptor; arguments as for `ask`."""


Remarks = Callable[[Mapping[str, Any], Document, Settings], list[Problem]]
"""What in a valid descriptor means something else than it seems, or nothing: of the one that was sent, its normal form,
and the settings. No reason to refuse it."""


def no_remarks(*_: object) -> list[Problem]:
    """For commands that nobody asks for any."""
    return []
