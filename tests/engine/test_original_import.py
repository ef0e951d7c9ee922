"""Apps that the original left are imported with its records, and run on under this service as if it had made them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from deployer import sandbox
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.errors import HostTaken, KubeConflict
from deployer.core.model.records import App, Deployment, HostClaim, Plan, Status, StoredDescriptor
from deployer.kube.client import KubeClient
from deployer.sandbox import Load
from deployer.sdk.kube import CONTROLLER, INGRESS, POD, SERVICE, Kind
from deployer.store.transfer.port import Lines
from support import originals
from support.original_import import bring, store_of
from support.original_records import Document, Records, deployment, descriptor
from support.world import HEALTHY, PATIENCE, World

LIVE = "6a1c7a0e-0000-4000-8000-000000000041"
"""Id of the deployment that serves."""


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Any, namespace: str, host: str) -> Iterator[World]:
    """Version 41 of the original is live. The service does not run yet."""
    made = World(cluster, tmp_path, namespace, keep_warm=0.0).start()
    made.stop()
    originals.leave(made.eyes, namespace, host, made.image, www=True, deployment=LIVE, affinity="cookie")
    yield made
    made.close()


def of_shop(world: World, host: str, **fields: Any) -> Document:
    return descriptor(world.namespace, image=world.image, frontend=host, redirectWww=True, **fields)


def records(world: World, host: str) -> Records:
    """Three versions of one app, the last one live, and one that had not come to its end."""
    of = of_shop(world, host)
    made = Records().descriptor(of)
    made.deployment(deployment("d39", "39", "UNDEPLOYED", of, "2017-10-10T10:00:00Z"))
    made.deployment(deployment("d40", "40", "DEPLOYED", of, "2017-10-11T10:00:00Z"))
    log = "2017-10-12T14:30:32Z Deployment id\n2017-10-12T14:30:33Z Blue-green deployment successful\n"
    made.deployment(deployment(LIVE, "41", "DEPLOYED", of, "2017-10-12T10:00:00Z"), log, '{"healthy": true}')
    return made.deployment(deployment("d57", "57", "DEPLOYING", of, "2017-10-13T10:00:00Z"))


def objects_of(world: World) -> Document:
    """What is written to them, not what becomes of them."""
    found = {}
    for kind in (CONTROLLER, SERVICE, INGRESS, POD):
        for item in world.eyes.list(kind, world.namespace)[0]:
            metadata = item["metadata"]
            written = (metadata["uid"], metadata.get("labels"), metadata.get("annotations"), item["spec"])
            found[f"{kind.plural}/{metadata['name']}"] = written
    return found


def content(world: World) -> list[Any]:
    with closing(store_of(world)) as store, store.dump() as items:
        return list(items)


def status_of(world: World) -> dict[str, tuple[str, Status]]:
    return {d.id: (d.version, d.status) for d in world.store.find(Deployment)}


@pytest.fixture
def load(world: World, host: str) -> Iterator[Load]:
    """Its users."""
    running = Load(world.cluster.ingress, host=host, rate=100).start()  # type: ignore[union-attr]
    running.wait_for(lambda report: report.by_version.get("41", 0) > 0, 30)
    yield running
    running.stop()


def test_records_come_over_and_what_serves_is_live(world: World, host: str, load: Load) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    pods = set(world.pods())
    specs = {name: item["spec"] for name, item in world.objects(CONTROLLER).items()}
    report = bring(world, records(world, host))
    world.start()
    assert status_of(world) == {
        "d39": ("39", Status.UNDEPLOYED),
        "d40": ("40", Status.UNDEPLOYED),
        LIVE: ("41", Status.DEPLOYED),
        "d57": ("57", Status.FAILURE),
    }
    assert [d.id for d in world.store.find(Deployment)] == ["d39", "d40", LIVE, "d57"]
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None and (app.live, app.live_version, app.highest) == (LIVE, "41", 57)
    assert world.log(LIVE).splitlines()[1] == "2017-10-12T14:30:33.000Z Blue-green deployment successful"
    claims = {claim.host for claim in world.store.find(HostClaim)}
    assert claims == {host, f"www.{host}"}
    assert [d.id for d in world.store.find(StoredDescriptor)] == ["descriptor-of-shop"]
    whose = f"{world.namespace}/shop"
    assert f"{whose}: version 41 is live (deployment {LIVE})" in report.lines
    assert f"deployment d40 of {whose}: DEPLOYED: becomes UNDEPLOYED, since version 40 does not serve" in report.lines
    assert f"deployment d57 of {whose}: DEPLOYING: becomes FAILURE, since the original has ended" in report.lines
    # Nothing moved, and nothing restarted.
    assert set(world.pods()) == pods
    assert {name: item["spec"] for name, item in world.objects(CONTROLLER).items()} == specs
    assert load.stop().failed == before


def between(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """It happens between the import's look at the controller and its mark."""
    patch, todo = KubeClient.patch, [what]

    def late(client: KubeClient, kind: Kind, *given: Any, **more: Any) -> Document:
        if kind is CONTROLLER and todo:
            todo.pop()()
        return patch(client, kind, *given, **more)

    monkeypatch.setattr(KubeClient, "patch", late)


def test_a_status_that_moves_on_meanwhile_does_not_stop_it(
    world: World, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_a_pod() -> None:
        def version() -> str:
            found: str = world.objects(CONTROLLER)["shop-41"]["metadata"]["resourceVersion"]
            return found

        before = version()
        for name, pod in world.pods().items():
            world.eyes.delete(POD, name, world.namespace, uid=pod["metadata"]["uid"], grace_seconds=0)
        world.until(lambda: version() != before, "the controller to notice")

    between(monkeypatch, lose_a_pod)
    report = bring(world, records(world, host))
    assert report.new["mark on an object in the cluster"] == 3
    world.start()
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None and app.live == LIVE


@pytest.mark.parametrize("change", [{"spec": {"replicas": 2}}, {"metadata": {"labels": {"app": "till"}}}], ids=str)
def test_what_somebody_changes_meanwhile_is_not_marked(
    world: World, host: str, monkeypatch: pytest.MonkeyPatch, change: Document
) -> None:
    between(monkeypatch, lambda: world.eyes.patch(CONTROLLER, "shop-41", change, world.namespace))
    with pytest.raises(KubeConflict):
        bring(world, records(world, host))


def test_a_second_run_changes_nothing(world: World, host: str) -> None:
    bring(world, records(world, host))
    stored, objects = content(world), objects_of(world)
    report = bring(world, records(world, host))
    assert content(world) == stored
    assert objects_of(world) == objects
    assert not +report.new


def test_a_dry_run_writes_nothing_to_the_cluster(world: World, host: str) -> None:
    objects = objects_of(world)
    report = bring(world, records(world, host), write=False)
    assert objects_of(world) == objects
    assert report.new["mark on an object in the cluster"] == 3 and report.new["deployment"] == 4


def test_an_import_that_ended_between_marks_and_records_goes_on(world: World, host: str) -> None:
    bring(world, records(world, host))
    for file in world.settings.data_dir.glob("deployer.db*"):
        file.unlink()
    report = bring(world, records(world, host))
    assert report.new["mark on an object in the cluster"] == 0
    world.start()
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None and app.live == LIVE


def test_it_is_undeployed_at_once(world: World, host: str) -> None:
    bring(world, records(world, host))
    world.start()
    world.service.undeploy(world.namespace, LIVE)
    world.quiet()
    assert world.record(LIVE).status is Status.UNDEPLOYED
    assert (world.names(), world.pods()) == ({}, {})
    assert world.deployed(**HEALTHY).version == "58"


def test_the_next_deployment_replaces_it_without_a_loss(world: World, host: str, load: Load) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    bring(world, records(world, host))
    world.start()
    made = world.deployed(**HEALTHY, frontend=host, redirectWww=True)
    assert made.version == "58"
    report = load.wait_for(lambda report: report.by_version.get("58", 0) > 20, 20)
    assert load.stop().failed == before == report.failed
    world.quiet()
    assert world.record(LIVE).status is Status.UNDEPLOYED
    assert world.names()["replicationcontrollers"] == {"shop-58"} and world.names()["ingresses"] == {"shop"}
    # TLS stays what the original chose.
    assert world.objects(INGRESS)["shop"]["spec"]["tls"] == [{"hosts": [host], "secretName": "shop-tls"}]
    assert "carrying over" not in world.log(made.id) and "adopting" not in world.log(made.id)


def test_the_next_deployment_goes_back_to_it_while_it_is_warm(world: World, host: str, load: Load) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    bring(world, records(world, host))
    world.start()
    pods = set(world.pods())
    made = world.deployed(**HEALTHY, frontend=host, keepWarm=600)
    load.wait_for(lambda report: report.by_version.get("58", 0) > 20, 20)
    asked = RollbackCommands(world.service).roll_back(world.namespace, "shop")
    assert (asked.deployment.id, asked.warm) == (LIVE, True)
    world.ended(LIVE, Status.DEPLOYED)
    assert pods <= set(world.pods())
    world.until(lambda: world.record(made.id).status is Status.FAILURE, "the newer version to be rolled back", PATIENCE)
    served = load.wait_for(lambda report: True, 1).by_version.get("41", 0)
    load.wait_for(lambda report: report.by_version.get("41", 0) > served + 20, 20)
    assert load.stop().failed == before
    assert world.live_version() == "41"


def test_an_earlier_version_is_rolled_back_to(world: World, host: str) -> None:
    found = records(world, host)
    bring(world, found)
    world.start()
    asked = RollbackCommands(world.service).roll_back(world.namespace, "shop")
    assert (asked.deployment.rollback_of, asked.warm) == ("d40", False)
    made = world.ended(asked.deployment.id, Status.DEPLOYED)
    world.quiet()
    assert made.version == world.live_version() == "40"
    assert world.record(LIVE).status is Status.UNDEPLOYED


def test_what_serves_without_a_record_is_left_to_the_next_deployment(world: World, host: str) -> None:
    of = of_shop(world, host)
    report = bring(world, Records().deployment(deployment(LIVE, "41", "DEPLOYING", of)))
    whose = f"{world.namespace}/shop"
    said = f"{whose}: version 41 serves, and no deployment says that it is DEPLOYED: the next deployment takes it over"
    assert said in report.lines
    world.start()
    made = world.deployed(**HEALTHY, frontend=host)
    assert made.version == "42" and "adopting version 41" in world.log(made.id)


def test_an_app_of_which_nothing_is_left_has_nothing_live(world: World, host: str) -> None:
    of = descriptor(world.namespace, "gone", image=world.image)
    bring(world, Records().deployment(deployment("g1", "7", "DEPLOYED", of)))
    world.start()
    assert status_of(world) == {"g1": ("7", Status.UNDEPLOYED)}
    assert world.store.get(Plan, "g1") is None
    assert world.deployed("gone", **HEALTHY).version == "8"


def test_a_host_belongs_to_the_app_that_is_live_with_it(world: World, host: str) -> None:
    other = descriptor(world.namespace, "other", image=world.image, frontend=host)
    found = Records().descriptor(other)
    found.keys |= records(world, host).keys
    report = bring(world, found)
    told = [line for line in report.lines if line.startswith(f"{world.namespace}/other: host {host} belongs to")]
    assert len(told) == 1 and f"belongs to {world.namespace}/shop" in told[0]
    world.start()
    claim = world.store.get(HostClaim, host)
    assert claim is not None and claim.app == "shop"
    assert world.store.count(StoredDescriptor, namespace=world.namespace) == 2
    with pytest.raises(HostTaken):
        world.descriptor("third", **HEALTHY, frontend=host)


def test_objects_of_somebody_else_are_not_taken_over(world: World, host: str) -> None:
    service = world.objects(SERVICE)["shop-41"]
    service["metadata"]["labels"]["mine"] = "true"
    world.eyes.replace(SERVICE, "shop-41", service, world.namespace)
    objects = objects_of(world)
    report = bring(world, records(world, host))
    assert f"{world.namespace}/shop: Service shop-41 is not as the original made it" in report.lines
    assert objects_of(world) == objects


def test_a_log_of_any_length_comes_over_and_is_completed_by_the_next_run(world: World, host: str) -> None:
    of = of_shop(world, host)
    log = "".join(f"2017-10-12T14:30:32Z line {number} {'x' * 900}\n" for number in range(2500))
    found = Records().deployment(deployment(LIVE, "41", "DEPLOYED", of), log)
    bring(world, found)
    lines = [item for item in content(world) if isinstance(item, Lines)]
    assert sum(len(item.lines) for item in lines) == 2500
    with closing(sqlite3.connect(world.settings.data_dir / "deployer.db")) as database, database:
        database.execute("DELETE FROM log WHERE number > 700")  # as if it had been interrupted
    bring(world, found)
    assert [item for item in content(world) if isinstance(item, Lines)] == lines


def test_versions_that_the_original_left_behind_are_told_of(world: World, host: str) -> None:
    kind, body = originals.objects(host, world.image, version="40")[0]
    world.eyes.create(kind, body, world.namespace)
    report = bring(world, records(world, host))
    said = "ReplicationController shop-40 is left of the original and serves nothing: delete it"
    assert f"{world.namespace}/shop: {said}" in report.lines
