"""What a deployment asks of the API server: no more than it needs, and no more in a namespace that is full."""

from __future__ import annotations

from collections import Counter

import pytest

from deployer.core.model.records import Status
from support.world import HEALTHY, World


@pytest.fixture
def spent(world: World) -> Counter[str]:
    """Requests by verb of a second deployment, whose descriptor is stored, and of retiring the first."""
    stored = world.descriptor(**HEALTHY)
    world.ended(world.service.deploy(world.namespace, stored.id), Status.DEPLOYED)
    world.quiet()
    before = world.client.requests
    world.ended(world.service.deploy(world.namespace, stored.id), Status.DEPLOYED)
    world.quiet()
    return world.client.requests - before


def test_a_deployment_and_the_retirement_of_the_old_version(spent: Counter[str]) -> None:
    # Deciding reads the Service, the live controller and the route. Moving the traffic looks at the new controller and
    # both Services anew. Retiring asks what the Service selects, reads the two objects that it deletes, lists the pods
    # once and, as it parked meanwhile, makes sure of the controller's end. The informer may not know a new controller
    # yet: two more.
    gets, events = spent.pop("get"), spent.pop("record")
    assert spent == {"create": 2, "replace": 1, "delete": 2, "list": 1}
    assert gets <= 12
    # Started, and Switched on both versions; those of the first deployment may come late.
    assert events <= 5
