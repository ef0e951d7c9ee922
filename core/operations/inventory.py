"""What each deployment made in the cluster, noted in its plan before it was made: the inventory for removing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from deployer.core.errors import Conflict, StaleRevision
from deployer.core.model.kind import Kind
from deployer.core.model.plan import Made
from deployer.core.model.records import Plan
from deployer.core.operations.journal import Journal
from deployer.core.ports.cluster import Inventory, Thing
from deployer.core.ports.store import Store, Update

ATTEMPTS = 5
"""How often a note is written anew when the plan changed in between."""


class PlanInventory(Inventory):
    """On the store, for one operation. The plan's own objects need no note: they are pinned with it."""

    def __init__(self, store: Store, journal: Journal, pinned: Callable[[Plan], list[Thing]]) -> None:
        """`pinned`: the objects that are pinned with a plan, in the order in which they are made."""
        self._store = store
        self._journal = journal
        self._pinned = pinned
        self._removed: set[tuple[str, Thing]] = set()

    def making(self, deployment: str, kind: Kind, name: str) -> None:
        """Note it, under the operation's lease. Raises Fenced, Conflict."""
        self._removed.discard((deployment, (kind, name)))
        note = Made(kind, name)
        for _ in range(ATTEMPTS):
            plan = self._store.get(Plan, deployment)
            if plan is None or (kind, name) in self._pinned(plan) or note in plan.made:
                return
            try:
                self._journal.write(Update(dataclasses.replace(plan, made=(*plan.made, note))))
            except StaleRevision:
                continue
            return
        raise Conflict(f"the plan of deployment {deployment} was changed by others again and again; deploy again")

    def removed(self, deployment: str, kind: Kind, name: str) -> None:
        """This operation need not look for it again; kept in memory only, as looking twice does no harm."""
        self._removed.add((deployment, (kind, name)))

    def left(self, plan: Plan) -> list[Thing]:
        """What the deployment may still have in the cluster, the last one made first."""
        made = [*self._pinned(plan), *((note.kind, note.name) for note in plan.made)]
        return [thing for thing in reversed(made) if (plan.deployment, thing) not in self._removed]
