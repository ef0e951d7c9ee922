"""Whatever the Deployer accepts, the sandbox accepts too; tests/cluster/ asks a real API server."""

from __future__ import annotations

from support import acceptance
from support.world import World


def test_good_descriptors_are_accepted(world: World) -> None:
    assert acceptance.good_ones_are_accepted(world, 60, 20) > 20


def test_what_we_render_ourselves_is_accepted(world: World) -> None:
    tried, _ = acceptance.what_we_render_ourselves_is_accepted(world, 60, 20)
    assert tried > 20


def test_what_validate_accepts_is_accepted(world: World) -> None:
    tried, _, _ = acceptance.what_validate_accepts_is_accepted(world, 60, 20)
    assert tried > 20
    assert not world.names()
