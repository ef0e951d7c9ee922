"""What becomes of the original's records: line by line what moving from it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer.commands.descriptor_commands import DescriptorCommands
from deployer.core.deployment_log import format_line
from deployer.core.model.records import Deployment, Status, StoredDescriptor
from deployer.original.normalising import log_lines, utc
from deployer.original.records import Converter, Imported
from deployer.original.source import read
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings
from support.memory_store import MemoryStore
from support.original_records import AT_UTC, SECRET, Document, Records, deployment, descriptor


class Bench:
    """Converts, and keeps what was said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        settings = Settings(own_namespace="", ingress="nginx")
        self._commands = DescriptorCommands(MemoryStore(clock=lambda: 0.0), load_plugins(settings), settings)
        self.said: list[str] = []

    def _converter(self, records: Records) -> tuple[Converter, Any]:
        file = self._path / "saved.json"
        file.write_text(json.dumps(records.answer()))
        source = read(str(file))
        commands = self._commands
        converter = Converter(
            source,
            lambda namespace, document: commands.check(namespace, document, stored=True),
            commands.rules,
            lambda whose, what: self.said.append(f"{whose}: {what}"),
        )
        return converter, source

    def descriptor(self, document: Document) -> StoredDescriptor:
        converter, source = self._converter(Records().descriptor(document))
        made = converter.descriptor(source.descriptors[0])
        assert made is not None
        return made

    def imported(self, document: Document, log: str = "", health: str = "") -> Imported:
        converter, source = self._converter(Records().deployment(document, log, health))
        made = converter.deployment(source.deployments[0])
        assert made is not None
        return made

    def deployment(self, document: Document) -> Deployment:
        return self.imported(document).deployment

    @property
    def dropped(self) -> list[str]:
        return [sentence.partition(": ")[2] for sentence in self.said]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_descriptor_keeps_its_id_and_its_dates(bench: Bench) -> None:
    made = bench.descriptor(descriptor("default", "My.Shop_1"))
    assert (made.namespace, made.app, made.id) == ("default", "my-shop-1", "descriptor-of-My.Shop_1")
    assert (made.created, made.last_modified) == (AT_UTC, AT_UTC)
    assert made.public()["podspec"]["containers"][0]["env"] == [{"name": "OWN", "value": "kept-value"}]
    assert bench.said == []


def test_a_deployment_keeps_its_id_dates_version_and_status(bench: Bench) -> None:
    made = bench.deployment(deployment("d1", "41", "FAILURE", descriptor("default")))
    assert (made.id, made.created, made.last_modified) == ("d1", AT_UTC, AT_UTC)
    assert (made.version, made.status, made.failure) == ("41", Status.FAILURE, None)
    assert made.descriptor_id == made.descriptor["id"] == "descriptor-of-shop"
    assert (made.descriptor["created"], made.descriptor["lastModified"]) == (AT_UTC, AT_UTC)


def test_injected_secrets_are_taken_out_of_both_places(bench: Bench) -> None:
    of = descriptor("default", password="canary-password", email="a@example.com")
    imported = bench.imported(deployment("d1", "41", "DEPLOYED", of))
    stored = json.dumps(imported.deployment.to_document())
    assert SECRET not in stored and "canary-password" not in stored and "kept-value" in stored
    (container,) = imported.deployment.descriptor["podspec"]["containers"]
    assert container["env"] == [{"name": "OWN", "value": "kept-value"}]
    assert imported.environment == [{"name": "TOKEN", "value": SECRET}]
    assert bench.dropped == [
        "dropped variables that the original adds: APP_NAME, APP_VERSION, POD_NAME, POD_NAMESPACE, TOKEN",
        "dropped environment: what was injected then",
        "dropped password: a secret that is used for nothing",
    ]
    assert SECRET not in " ".join(bench.said)


def test_spaces_in_headers_are_no_longer_escaped(bench: Bench) -> None:
    headers = [{"Header": "X-Policy", "Value": r"default-src\ 'self';\ x"}]
    made = bench.descriptor(descriptor("default", additionHttpHeaders=headers))
    assert made.document["additionHttpHeaders"] == [{"Header": "X-Policy", "Value": "default-src 'self'; x"}]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [("Simple", "simple"), ("SIMPLE", "simple"), ("Probe", "probe"), ("tcp", "probe"), ("", "probe")],
)
def test_health_checks_mean_what_they_meant(bench: Bench, given: str, becomes: str) -> None:
    made = bench.descriptor(descriptor("default", useHealthCheck=True, healthCheckType=given, healthCheckPort=9999))
    assert made.document["healthCheckType"] == becomes
    assert made.document["healthCheckPath"] == "health"
    assert "healthCheckPort" not in made.document
    assert bench.dropped == ["dropped healthCheckPort: which the original never used"]


def test_a_path_that_is_given_stays(bench: Bench) -> None:
    made = bench.descriptor(descriptor("default", useHealthCheck=True, healthCheckType="probe", healthCheckPath="/ok"))
    assert made.document["healthCheckPath"] == "/ok"


def test_without_a_health_check_nothing_is_made_up(bench: Bench) -> None:
    assert not {"healthCheckType", "healthCheckPath"} & bench.descriptor(descriptor("default")).document.keys()


def test_unknown_fields_of_the_podspec_go_and_are_listed(bench: Bench) -> None:
    of = descriptor("default")
    of["podspec"]["containers"][0]["livenesProbe"] = {"x": 1}
    of["podspec"]["whatever"] = True
    made = bench.descriptor(of)
    assert "whatever" not in made.document["podspec"]
    assert "livenesProbe" not in made.document["podspec"]["containers"][0]
    assert [text.partition(": Kubernetes")[0] for text in bench.dropped] == [
        "dropped podspec.whatever",
        "dropped podspec.containers[0].livenesProbe",
    ]


def test_what_still_does_not_fit_is_kept_and_told(bench: Bench) -> None:
    of = descriptor("default", frontend="http://no.host", replicas=5000)
    of["podspec"]["hostNetwork"] = True
    made = bench.descriptor(of)
    assert made.document["frontend"] == "http://no.host"
    assert made.document["replicas"] == 5000 and made.document["podspec"]["hostNetwork"] is True
    told = [text.removeprefix("kept as it is, correct it before you deploy it: ").split()[0] for text in bench.dropped]
    assert set(told) == {"frontend", "replicas", "podspec.hostNetwork"}


@pytest.mark.parametrize("status", ["DEPLOYING", "UNDEPLOYING", "WHATEVER"])
def test_what_had_not_ended_has_failed(bench: Bench, status: str) -> None:
    made = bench.deployment(deployment("d1", "000", status, descriptor("default")))
    assert (made.status, made.version) == (Status.FAILURE, "")
    assert made.failure == {
        "reason": "OriginalEnded",
        "message": "the original Deployer ended before this deployment did",
    }
    assert bench.dropped[-1] == f"{status}: becomes FAILURE, since the original has ended"


def test_what_was_live_can_be_rolled_back_to(bench: Bench) -> None:
    made = bench.deployment(deployment("d1", "40", "UNDEPLOYED", descriptor("default")))
    assert made.went_live == AT_UTC
    assert bench.deployment(deployment("d2", "41", "FAILURE", descriptor("default"))).went_live == ""


def test_the_log_is_kept_message_by_message_and_says_no_secret(bench: Bench) -> None:
    log = (
        "2017-10-12T14:30:32+02:00 Deployment id: d1\n"
        f'2017-10-12T14:30:33+02:00 {{\n  "value": "kept-value",\n  "token": "{SECRET}"\n}}\n'
        "2017-10-12T14:30:34+02:00 Deployed\n"
    )
    imported = bench.imported(deployment("d1", "41", "DEPLOYED", descriptor("default")), log)
    assert [line.number for line in imported.lines] == [1, 2, 3]
    assert [format_line(line) for line in imported.lines] == [
        "2017-10-12T12:30:32.000Z Deployment id: d1",
        '2017-10-12T12:30:33.000Z {\n    "value": "***",\n    "token": "***"\n  }',
        "2017-10-12T12:30:34.000Z Deployed",
    ]


def test_a_log_that_does_not_begin_with_a_time_loses_nothing() -> None:
    assert [line.text for line in log_lines("before\n\n2017-10-12T14:30:32Z one\ntwo")] == ["before\n", "one\ntwo"]
    assert log_lines("") == []


def test_health_data_is_kept_by_pod_and_says_no_secret(bench: Bench) -> None:
    imported = bench.imported(deployment("d1", "41", "DEPLOYED", descriptor("default")), health=f'{{"a": "{SECRET}"}}')
    assert imported.health is not None
    assert imported.health.entries == [{"podName": "shop-41-x7k2p", "value": '{"a": "***"}'}]


@pytest.mark.parametrize(("text", "becomes"), [("2017-10-12T14:30:32Z", "2017-10-12T14:30:32Z"), ("", ""), (None, "")])
def test_times_are_kept_as_moments(text: Any, becomes: str) -> None:
    assert utc(text) == becomes


@pytest.mark.parametrize("value", ["", "[]", "{", "null", '"x"', "[" * 100_000])
def test_what_is_no_record_is_left_out_and_told(bench: Bench, value: str) -> None:
    records = Records().put("descriptors/default/shop/x", value).put("deployments/default/shop/y", value)
    converter, source = bench._converter(records.put("deployments/default/shop/z", {"id": "z"}))
    assert converter.descriptor(source.descriptors[0]) is None
    assert [converter.deployment(entry) for entry in source.deployments] == [None, None]
    assert bench.said == [
        "descriptor x of default/shop: is no JSON object: left out",
        "deployment y of default/shop: is no JSON object: left out",
        "deployment z of default/shop: has no descriptor: left out",
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"podspec": None},
        {"podspec": {"containers": None}},
        {"podspec": {"containers": [None, {"env": "x"}, {"env": [None, {"name": 1}]}]}},
        {"additionHttpHeaders": "x"},
        {"additionHttpHeaders": [None, {"Value": 1}]},
        {"replicas": "many", "frontend": 7, "environment": []},
        {"newVersion": None},
    ],
)
def test_any_shape_is_kept_and_told(bench: Bench, broken: Document) -> None:
    of = {**descriptor("default"), **broken}
    assert bench.descriptor(of).app == "shop"
    made = bench.deployment({"id": "d1", "status": "UNDEPLOYED", "version": "1", "descriptor": of})
    assert (made.app, made.status) == ("shop", Status.UNDEPLOYED)
    assert any("kept as it is" in sentence for sentence in bench.said)
