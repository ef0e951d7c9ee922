"""Rollbacks: which version comes back, and the operation that brings it."""

from __future__ import annotations

import dataclasses

from deployer.core import log_context
from deployer.core.clock import wall_clock
from deployer.core.model.operation.target import Target
from deployer.core.model.operation.timeline import Timeline
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status, new_id
from deployer.core.ports.store import Change, Create, Store, Update

ROLLED_BACK = "RolledBack"
"""The reason of the failure of a version that was rolled back."""

NOT_WARM = "NotWarm"
"""The reason of the failure of a rollback to a version of which nothing is left that could be gone back to."""


def is_warm(store: Store, deployment: Deployment) -> bool:
    """Does a replaced version still run, and has nobody begun to remove it, or asked for that?"""
    if deployment.status is not Status.UNDEPLOYING:
        return False
    waiting = store.find(Operation, tag="open", namespace=deployment.namespace, app=deployment.app)
    mine = [o for o in waiting if o.deployment == deployment.id and not o.target.drop]
    if any(o.kind is OperationKind.UNDEPLOY for o in mine):
        return False  # asked for while its successor was being deployed
    return not any(o.begun or o.steps or o.attempts for o in mine if o.kind is OperationKind.RETIRE)


def back_to(store: Store, warm: Deployment, *, by: str = "", cause: str = "") -> list[Change]:
    """The changes that queue a rollback to a version that is still warm: it is not retired meanwhile.

    by     who asked for it
    cause  why, in a sentence, when nobody did
    """
    changes: list[Change] = []
    previous, until = None, 0.0
    for operation in store.find(Operation, tag="open", namespace=warm.namespace, app=warm.app):
        mine = operation.deployment == warm.id and operation.kind is OperationKind.RETIRE
        if mine and operation.target.previous is not None and not operation.target.drop:
            previous, until = operation.target.previous, operation.due
            changes.append(Update(dataclasses.replace(operation, state=OperationState.DONE)))
    return [
        *changes,
        Create(
            Operation(
                namespace=warm.namespace,
                app=warm.app,
                id=new_id(),
                kind=OperationKind.ROLLBACK,
                deployment=warm.id,
                target=Target(by=by, cause=cause, previous=previous, until=until),
                timeline=Timeline(asked=wall_clock()),
                request=log_context.request(),
            )
        ),
    ]
