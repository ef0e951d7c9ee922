"""`/metrics`: what is counted, under which labels, and that the number of series is bounded."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import deployer
from deployer.api.figures import labels
from deployer.api.figures.durations import PARTS, durations
from deployer.api.metrics import Metrics
from deployer.core.errors import StoreUnavailable
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import Event

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


def event(occurrence: Occurrence, status: str, namespace: str = "shop-ns", **more: Any) -> Event:
    times = {"created": "2026-01-01T00:00:00Z", "lastModified": "2026-01-01T00:01:30Z"}
    failure = {"failure": {"reason": more.pop("reason")}} if "reason" in more else {}
    told = {"id": "1", "status": status, **times, **failure}
    return Event(
        namespace=namespace, app="shop", id="e", name=occurrence.hook, deployment=told, occurrence=occurrence, **more
    )


def test_deployments_are_counted_when_they_end() -> None:
    metrics = Metrics()
    metrics.told(event(Occurrence.STARTED, "DEPLOYING"))
    metrics.told(event(Occurrence.ROLLED_BACK, "DEPLOYED"))
    metrics.told(event(Occurrence.REPLACED, "UNDEPLOYED"))
    seen = samples(metrics.render().decode())
    assert seen["deployer_deployments_ended_total", "shop-ns", "DEPLOYED"] == 1
    assert seen["deployer_deployments_ended_total", "shop-ns", "UNDEPLOYED"] == 1
    rollbacks = "deployer_rollbacks_total", "shop-ns"
    assert (seen[*rollbacks, "done"], seen[*rollbacks, "failed"]) == (1, 0)
    assert seen["deployer_deployments_ended_total", "shop-ns", "FAILURE"] == 0
    assert seen["deployer_deployment_duration_seconds_sum", "shop-ns", "DEPLOYED"] == 90
    # How long it had been live says nothing about deploying.
    assert ("deployer_deployment_duration_seconds_sum", "shop-ns", "UNDEPLOYED") not in seen


def test_failures_are_counted_by_reason_and_the_reasons_are_a_closed_set() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.told(event(Occurrence.FAILED, "FAILURE", reason=f"Made{number}"))
    metrics.told(event(Occurrence.FAILED, "FAILURE", reason="CrashLoop"))
    seen = samples(metrics.render().decode())
    failures = {key[2:]: value for key, value in seen.items() if key[0] == "deployer_deployment_failures_total"}
    assert failures == {("other",): 50, ("CrashLoop",): 1}


def test_every_documented_reason_has_a_label_of_its_own() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    page = page.replace(page[page.index("## Alerts") :].split("\n## ", 2)[0], "")
    rows = re.findall(r"^\| ((?:`[A-Z][A-Za-z]+`(?:, )?)+) \|", page, re.MULTILINE)
    documented = {reason for row in rows for reason in re.findall(r"`([A-Za-z]+)`", row)}
    assert documented | {"Invalid", "KubernetesError", "RollbackFailed"} == labels.REASONS


def test_only_so_many_namespaces_have_a_label() -> None:
    metrics = Metrics(namespaces=2)
    for namespace in ("a", "b", "c", "d", "a"):
        metrics.told(event(Occurrence.REMOVED, "UNDEPLOYED", namespace=namespace))
    seen = samples(metrics.render().decode())
    ended = {key[1]: value for key, value in seen.items() if key[0] == "deployer_deployments_ended_total" and value}
    assert ended == {"a": 2, "b": 1, "other": 2}
    assert Metrics(namespaces=0).namespace("a") == "other"


def step(id: str, phase: str, *times: float, state: str = "done", gate: str = "") -> dict[str, Any]:
    return {"id": id, "phase": phase, "state": state, "began": times[0], "ended": times[1], "gate": gate}


def test_an_operation_is_divided_into_its_parts() -> None:
    steps = [
        step("gate:beforeStart:ok", "START", 10, 12, gate="http"),
        step("start", "START", 12, 20),
        step("ready", "START", 20, 32),
        step("health", "VERIFY", 32, 35),
        step("gate:beforeSwitch:boss", "EXPOSE", 35, 95, gate="approval"),
        step("switch", "EXPOSE", 95, 96),
        step("confirm", "CONFIRM", 96, 97.5),
    ]
    deploy = {"kind": "deploy", "asked": 4.0, "ended": 97.5, "steps": steps}
    parts = {"queue": 6, "gates": 2, "start": 20, "verify": 3, "approval": 60, "switch": 2.5}
    assert durations(deploy) == parts
    metrics = Metrics()
    metrics.told(event(Occurrence.UPGRADED, "DEPLOYED", operation=deploy))
    retire = {"kind": "retire", "asked": 100.0, "ended": 128.0, "steps": [step("remove", "RETIRE", 120, 128)]}
    metrics.told(event(Occurrence.REPLACED, "UNDEPLOYED", operation=retire))
    seen = samples(metrics.render().decode())
    name = "deployer_deployment_part_duration_seconds"
    found = {key[2]: value for key, value in seen.items() if key[0] == f"{name}_sum"}
    assert found == parts | {"drain": 20, "remove": 8}
    assert set(found) == set(PARTS)


@pytest.mark.parametrize("state", ["failed", "cancelled", "running"])
def test_a_part_that_did_not_come_to_its_end_is_left_out(state: str) -> None:
    steps = [step("start", "START", 10, 12, state="undone"), step("health", "VERIFY", 12, 72, state=state)]
    assert durations({"kind": "deploy", "asked": 9.0, "steps": steps}) == {"queue": 1, "start": 2}


def test_what_is_not_known_is_no_duration() -> None:
    assert durations({}) == {}
    assert durations({"kind": "deploy", "asked": 9.0, "steps": []}) == {}
    assert durations({"kind": "deploy", "asked": 0, "steps": [step("x", "", 1, 2)]}) == {}


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")
def test_names_and_units_are_as_prometheus_wants_them() -> None:
    metrics = Metrics()
    metrics.observe("/", "GET", 200, 0.1)
    steps = [step("start", "START", 12, 20)]
    told = {"kind": "deploy", "asked": 4.0, "steps": steps}
    metrics.told(event(Occurrence.FAILED, "FAILURE", reason="CrashLoop", operation=told))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render(), capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
