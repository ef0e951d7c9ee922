"""`/metrics`: what is counted, under which labels, and that the number of series is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import deployer
from deployer.api.metrics import Metrics
from deployer.core.errors import StoreUnavailable

Q = "?namespace=shop-ns"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and label values, the labels in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation or family.name.startswith("process")
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            if not sample.name.endswith("_bucket"):
                found[sample.name, *(labels[name] for name in sorted(labels))] = sample.value
    return found


def look(served: Any) -> dict[tuple[str, ...], float]:
    answer = served.call("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.body.decode())


COUNT = "deployer_http_request_duration_seconds_count"


def test_requests_are_counted_by_route_method_and_status(served: Any, make_document: Any) -> None:
    id = served.deployment().id
    for method, path in [
        ("GET", f"/deployments/{id}{Q}"),
        ("GET", f"/deployments/{id}/{Q}"),
        ("HEAD", f"/deployments/{id}/{Q}"),
        ("GET", f"/deployments/nobody/{Q}"),
        ("GET", "/deployments/x"),
        ("PATCH", f"/deployments/{id}"),
        ("GET", "/nothing/here"),
        ("GET", "/nor/here"),
        ("BREW", "/coffee"),
    ]:
        served.call(method, path)
    seen = look(served)
    # Labels in the order method, route, status.
    assert seen[COUNT, "GET", "/deployments/{id}", "200"] == 2
    assert seen[COUNT, "HEAD", "/deployments/{id}", "200"] == 1
    assert seen[COUNT, "GET", "/deployments/{id}", "404"] == 1
    assert seen[COUNT, "GET", "/deployments/{id}", "400"] == 1
    assert seen[COUNT, "PATCH", "/deployments/{id}", "405"] == 1
    assert seen[COUNT, "GET", "other", "404"] == 2
    assert seen[COUNT, "other", "other", "501"] == 1
    assert seen["deployer_http_request_duration_seconds_sum", "GET", "/deployments/{id}", "200"] > 0


def test_series_are_bounded_whatever_is_asked_for(served: Any) -> None:
    for number in range(50):
        served.call("GET", f"/deployments/{number}/{Q}")
        served.call("GET", f"/made/up/{number}")
        served.call(f"M{number}", "/")
    requests = [key for key in look(served) if key[0] == COUNT]
    assert len(requests) == 3


def test_each_application_counts_for_itself() -> None:
    one, two = Metrics(), Metrics()
    one.observe("/", "GET", 200, 0.1)
    assert samples(one.render().decode())[COUNT, "GET", "/", "200"] == 1
    assert (COUNT, "GET", "/", "200") not in samples(two.render().decode())


def test_the_release_is_named() -> None:
    assert f'version="{deployer.__version__}"' in Metrics().render().decode()


def test_nothing_is_said_about_when_a_series_began() -> None:
    metrics = Metrics()
    metrics.observe("/", "GET", 200, 0.1)
    assert "_created" not in metrics.render().decode()


def test_what_others_keep_is_asked_when_somebody_looks() -> None:
    metrics, values = Metrics(), {"a": 1.0}
    metrics.gauge("things", "Things by name.", lambda: values, "name")
    metrics.counter("more_things", "More things.", lambda: 7)
    values["b"] = 2
    seen = samples(metrics.render().decode())
    assert (seen["things", "a"], seen["things", "b"], seen[("more_things_total",)]) == (1, 2, 7)


def test_a_store_that_does_not_answer_costs_its_figures_only(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    def broken() -> float:
        raise StoreUnavailable("the disk is full")

    metrics.gauge("lost", "Lost.", broken)
    metrics.gauge("kept", "Kept.", lambda: 1)
    seen = samples(metrics.render().decode())
    assert ("lost",) not in seen and seen[("kept",)] == 1
    assert "lost is left out: the disk is full" in caplog.text


def test_deployments_are_counted_when_they_end() -> None:
    metrics = Metrics()
    times = {"created": "2026-01-01T00:00:00Z", "lastModified": "2026-01-01T00:01:30Z"}
    metrics.told("deployment_started", "started", {"status": "DEPLOYING", **times})
    metrics.told("deployment_finished", "rolledback", {"status": "DEPLOYED", **times})
    metrics.told("deployment_finished", "replaced", {"status": "UNDEPLOYED", **times})
    seen = samples(metrics.render().decode())
    assert seen["deployer_deployments_ended_total", "DEPLOYED"] == 1
    assert seen["deployer_deployments_ended_total", "UNDEPLOYED"] == 1
    assert (seen["deployer_rollbacks_total", "done"], seen["deployer_rollbacks_total", "failed"]) == (1, 0)
    assert seen["deployer_deployments_ended_total", "FAILURE"] == 0
    assert seen["deployer_deployment_duration_seconds_sum", "DEPLOYED"] == 90
    # How long it had been live says nothing about deploying.
    assert ("deployer_deployment_duration_seconds_sum", "UNDEPLOYED") not in seen
