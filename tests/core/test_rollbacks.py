"""Which versions can be gone back to without starting them anew."""

from __future__ import annotations

import pytest

from deployer.core.model.operation.target import Target
from deployer.core.model.plan import Previous
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status
from deployer.core.operations.rollbacks import is_warm
from deployer.core.ports.store import Create
from support.memory_store import MemoryStore

REPLACED = Target(by="second", previous=Previous(deployment="first", version="1"))


def replaced() -> Deployment:
    return Deployment(
        namespace="ns", app="shop", id="first", descriptor={}, created="", last_modified="", status=Status.UNDEPLOYING
    )


def operation(kind: OperationKind, deployment: str = "first", **more: object) -> Operation:
    return Operation(namespace="ns", app="shop", id=f"{kind}-{deployment}", kind=kind, deployment=deployment, **more)  # type: ignore[arg-type]


RETIRE, UNDEPLOY, WATCH = OperationKind.RETIRE, OperationKind.UNDEPLOY, OperationKind.WATCH


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([operation(RETIRE, target=REPLACED)], True),
        ([operation(RETIRE, target=REPLACED), operation(WATCH, "second")], True),
        ([operation(RETIRE, target=REPLACED, attempts=1)], False),
        ([operation(RETIRE, target=REPLACED, state=OperationState.RUNNING)], False),
        # An undeployment that was asked for while the next version was being deployed, and waited for that.
        ([operation(RETIRE, target=REPLACED), operation(UNDEPLOY)], False),
        ([operation(RETIRE, target=REPLACED), operation(UNDEPLOY, "second")], True),
    ],
)
def test_warm_is_what_nobody_removes(waiting: list[Operation], expected: bool) -> None:
    store = MemoryStore(clock=lambda: 0.0)
    first = replaced()
    store.commit(Create(first), *map(Create, waiting))
    assert is_warm(store, first) is expected
