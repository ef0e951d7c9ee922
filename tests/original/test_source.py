"""The records of the original, as they are read from its etcd or from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.original.source import SourceProblem, read
from support.etcd import Etcd, with_both_stores
from support.original_records import Records, deployment, descriptor


def recorded() -> Records:
    made = descriptor("default")
    records = Records()
    for number in range(3):
        records.deployment(deployment(f"d{number}", str(number), "UNDEPLOYED", made), log="l\n", health="h")
    records.descriptor(made).put("environment/db-host", "db").put("environment/deep/er", "x")
    return records.put("ingressMigrationDone2", "done").put("proxy/x", "y").put("strange/key", "z")


def saved(path: Path, answer: object) -> str:
    file = path / "saved.json"
    file.write_text(json.dumps(answer))
    return str(file)


def test_a_saved_answer_is_read_in_the_order_of_arrival(tmp_path: Path) -> None:
    found = read(saved(tmp_path, recorded().answer()))
    assert [entry.id for entry in found.deployments] == ["d0", "d1", "d2"]
    assert [(e.namespace, e.app, e.id) for e in found.descriptors] == [("default", "shop", "descriptor-of-shop")]
    assert found.logs == {("default", f"d{number}"): "l\n" for number in range(3)}
    assert found.health["default", "d1"] == [("shop-41-x7k2p", "h")]
    assert found.environment == {"db-host": "db"}
    assert [sentence.partition(":")[0] for sentence in found.left_out] == [
        "/deployer/strange/key",
        "/deployer/environment/deep/er",
    ]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with with_both_stores(tmp_path) as server:
        yield server


def test_a_running_etcd_gives_the_same(etcd: Etcd, tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match=r"has no key /deployer/ in its v2 store, or no v2 store"):
        read(etcd.url)
    records = recorded()
    for key, value in records.keys.items():
        etcd.put_v2(f"/deployer/{key}", value)
    found, same = read(etcd.url + "/"), read(saved(tmp_path, records.answer()))
    assert [(e.id, e.value) for e in found.deployments] == [(e.id, e.value) for e in same.deployments]
    assert (found.logs, found.health, found.environment) == (same.logs, same.health, same.environment)
    assert sorted(found.left_out) == sorted(same.left_out)


@pytest.mark.parametrize("answer", [[], {}, {"node": 1}, {"errorCode": 100, "message": "Key not found"}])
def test_what_is_no_answer_of_etcd_is_refused(tmp_path: Path, answer: object) -> None:
    with pytest.raises(SourceProblem, match=r"saved\.json is no answer of etcd's v2 API"):
        read(saved(tmp_path, answer))


def test_what_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match=r"nothing\.json cannot be read \(No such file or directory\)"):
        read(str(tmp_path / "nothing.json"))
    with pytest.raises(SourceProblem, match=r"http://127\.0\.0\.1:1 cannot be read \(.*refused\)"):
        read("http://127.0.0.1:1")
