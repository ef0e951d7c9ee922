"""Plans that older releases wrote are read as what they meant; what a newer one wrote is left alone."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from deployer.core.errors import StoreError, UnknownFormat
from deployer.core.model import migrations
from deployer.core.model.kind import CONFIG_MAP
from deployer.core.model.operation.target import Target
from deployer.core.model.plan import Backend, Made, PlannedStep, Previous, ProviderRef, Route
from deployer.core.model.records import Plan

OWN = {"name": "nginx", "source": "deployer:ingress_nginx", "version": "1.0"}

FORMAT_1: dict[str, Any] = {
    "namespace": "ns",
    "app": "shop",
    "deployment": "d2",
    "version": "2",
    "previous": {
        "deployment": "d1",
        "version": "1",
        "controller": "shop-1",
        "service": "shop-1",
        "route": None,
        "ingress": {},
        "service_object": None,
        "original": False,
        "original_route": None,
    },
    "descriptor": {"appName": "shop"},
    "strategy": {"name": "blue-green", "source": "deployer:strategy_bluegreen", "version": "1.0"},
    "ingress": OWN,
    "health": {},
    "steps": ["start-workload", "await-endpoints", "prepare-route", "switch-route", "sign"],
    "phases": {
        "start-workload": "START",
        "await-endpoints": "EXPOSE",
        "prepare-route": "EXPOSE",
        "switch-route": "EXPOSE",
        "sign": "CONFIRM",
    },
    "objects": {"controller": {"metadata": {"name": "shop-2"}}, "versioned_service": None, "service": None},
    "route": {
        "namespace": "ns",
        "app": "shop",
        "host": "shop.example.com",
        "version": "2",
        "deployment": "d2",
        "backend": {"service": "shop-2", "port": 80, "weight": 1},
        "previous": None,
        "tls_secret": "",
        "redirect_www": False,
        "compression": False,
        "sticky": False,
        "headers": [["X-A", "1"]],
        "options": {},
        "preview": {"host": "", "token": "t", "check": "", "tls_secret": ""},
        "stable": False,
        "displaces": "",
    },
    "replicas": 2,
    "environment": [{"name": "A", "value": "b"}],
    "budgets": {"START": 300, "VERIFY": 60.0, "EXPOSE": 60.0},
    "settings": {"hold": 20, "minimum_hold": 10.0, "proxysleep": 0.0, "max_restarts": 5, "image_pull_attempts": 2},
    "made": [{"kind": {"group": "", "version": "v1", "plural": "configmaps", "kind": "ConfigMap"}, "name": "x"}],
}
"""A plan as releases before formats had a number wrote it, but for the manifests."""


def read(document: dict[str, Any]) -> Plan:
    return Plan.from_document(document, revision=4, sequence=2)


def test_a_plan_of_format_1_means_what_it_meant() -> None:
    document = copy.deepcopy(FORMAT_1)
    plan = read(document)
    assert document == FORMAT_1
    assert plan.previous == Previous(deployment="d1", version="1", controller="shop-1", service="shop-1")
    assert (plan.ingress, plan.health, plan.displaced) == (ProviderRef(**OWN), None, "")
    assert plan.route == Route(
        namespace="ns",
        app="shop",
        host="shop.example.com",
        version="2",
        deployment="d2",
        backend=Backend("shop-2", 80),
        headers=(("X-A", "1"),),
        preview=plan.route.preview if plan.route else None,  # type: ignore[arg-type]
    )
    assert plan.route.preview.token == "t"
    assert plan.made == (Made(CONFIG_MAP, "x"),)
    assert (plan.settings.hold, plan.settings.max_restarts, plan.settings.lenient_podspec) == (20.0, 5, False)
    assert (plan.revision, plan.sequence, plan.budgets["START"]) == (4, 2, 300.0)


def test_steps_of_format_1_may_have_moved_traffic_where_traffic_moves() -> None:
    assert read(FORMAT_1).steps == (
        PlannedStep(id="start-workload", phase="START"),
        PlannedStep(id="await-endpoints", phase="EXPOSE"),
        PlannedStep(id="prepare-route", phase="EXPOSE"),
        PlannedStep(id="switch-route", phase="EXPOSE", exposes=True),
        PlannedStep(id="sign", phase="CONFIRM", exposes=True),
    )


def test_a_migrated_plan_is_written_in_the_present_format() -> None:
    document = json.loads(json.dumps(read(FORMAT_1).to_document()))
    assert document["format"] == migrations.PLAN_FORMAT == 2
    assert "phases" not in document
    assert migrations.migrated(document) is document
    assert read(document) == read(FORMAT_1)


def test_every_older_format_has_a_migration() -> None:
    assert sorted(migrations.MIGRATIONS) == list(range(1, migrations.PLAN_FORMAT))


@pytest.mark.parametrize("format", [3, 0, "2", None, 2.0, True])
def test_a_format_that_is_not_known_is_refused_in_one_sentence(format: object) -> None:
    with pytest.raises(UnknownFormat) as caught:
        read({**FORMAT_1, "format": format})
    assert str(caught.value) == (
        f"the plan of deployment d2 has format {format!r} and this release reads formats up to 2, so its objects are "
        "kept as they are: install the release that wrote it, or a later one"
    )


def test_fields_of_a_newer_release_are_ignored_in_the_parts_as_well() -> None:
    document = json.loads(json.dumps(read(FORMAT_1).to_document()))
    document["steps"][0]["mood"] = document["route"]["mood"] = document["previous"]["mood"] = "good"
    assert read(document) == read(FORMAT_1)


def test_what_is_no_plan_is_no_crash() -> None:
    with pytest.raises(StoreError, match=r"the plan of deployment d2 cannot be read \(.*replicas.*restore"):
        read({**FORMAT_1, "replicas": "many"})


def test_a_retirement_of_an_older_release_finds_what_it_retires() -> None:
    previous = {**FORMAT_1["previous"], "original_route": FORMAT_1["route"]}
    target = Target.from_document({"by": "d2", "previous": previous, "drop": ["route"]})
    assert target.previous is not None
    assert target.previous.original_route == target.previous.last_route == read(FORMAT_1).route
    assert (target.previous.ingress, target.drop, target.ending) == (None, ("route",), None)
    document = json.loads(json.dumps(target.to_document()))
    assert document.keys() == {"by", "previous", "drop"}, "what an older release would take for given"
    assert Target.from_document(document) == target
