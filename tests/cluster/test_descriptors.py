"""Whatever the Deployer accepts, a real API server accepts too: hundreds of descriptors, strictly, as dry runs."""

from __future__ import annotations

import pytest

from cluster.conftest import RealWorld
from support import acceptance

pytestmark = pytest.mark.timeout(300)


# About one in 15 of the changed ones is accepted: so many are tried that the bounds below are no matter of luck.


def test_good_descriptors_are_accepted(world: RealWorld) -> None:
    tried = acceptance.good_ones_are_accepted(world, 400, 60)
    assert tried > 100


def test_what_we_render_ourselves_is_accepted(world: RealWorld) -> None:
    tried, taken = acceptance.what_we_render_ourselves_is_accepted(world, 800, 60)
    assert tried > 100
    assert taken > 20


def test_what_validate_accepts_is_accepted(world: RealWorld) -> None:
    tried, taken, only_by_validate = acceptance.what_validate_accepts_is_accepted(world, 800, 60)
    assert tried > 100
    assert taken > 20
    assert only_by_validate > 5
    assert not world.names()
    assert not world.pods()
