"""What the original left on a real cluster is this service's once its records are imported."""

from __future__ import annotations

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Status
from support import originals
from support.original_import import bring
from support.original_records import Records, deployment, descriptor
from support.world import HEALTHY

pytestmark = pytest.mark.cluster


def test_an_imported_version_is_replaced_gone_back_to_and_removed(world: RealWorld) -> None:
    world.stop()
    originals.leave(world.eyes, world.namespace, "", IMAGE, deployment="d41")
    of = descriptor(world.namespace, image=IMAGE)
    records = Records().descriptor(of).deployment(deployment("d41", "41", "DEPLOYED", of))
    report = bring(world, records)
    assert f"{world.namespace}/shop: version 41 is live (deployment d41)" in report.lines
    assert not +bring(world, records).new
    world.start()
    pods = set(world.pods())
    made = world.deployed(**HEALTHY, keepWarm=600)
    assert made.version == "42"
    RollbackCommands(world.service).roll_back(world.namespace, "shop")
    world.ended("d41", Status.DEPLOYED)
    assert world.live_version() == "41" and pods <= set(world.pods())
    world.service.undeploy(world.namespace, "d41")
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
