"""The observer `traces_otel`: the spans that arrive at a collector, and what happens when it does not take them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import NotDelivered, SettingsError
from deployer.core.model.records import Event, Status
from deployer.plugins.traces_otel import register_observers
from deployer.plugins.traces_otel.spans import spans_of
from deployer.sdk.observer import Notification
from deployer.sdk.plugin import PluginSettings
from deployer.settings import Settings
from support.receiver import Receiver, reply
from support.world import NGINX, World

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs the extra otel"
)
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")

ID = "0c5f6c1e-5b1a-4b7e-9f57-0a0e9d5c0001"
DEPLOYMENT = {
    "id": ID,
    "version": "2",
    "status": "FAILURE",
    "failure": {"reason": "Unhealthy", "message": "the health check failed"},
    "descriptor": {
        "namespace": "shop-prod",
        "appName": "shop",
        "podspec": {"containers": [{"env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
    },
}
STEPS = [
    {"id": "start", "phase": "START", "state": "undone", "began": 11.0, "ended": 12.5, "gate": ""},
    {"id": "health", "phase": "VERIFY", "state": "failed", "began": 12.5, "ended": 20.0, "gate": ""},
]
OPERATION = {"id": "op-1", "kind": "deploy", "request": "ci-7", "asked": 10.0, "ended": 21.0, "steps": STEPS}


def told(occurrence: str = "failed", **operation: Any) -> Notification:
    return Notification("n", "deployment_finished", occurrence, 21.0, "1", DEPLOYMENT, OPERATION | operation)


@pytest.fixture
def collector() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def received(collector: Receiver) -> list[tuple[dict[str, str], Any]]:
    """Spans as protobuf, with the attributes of their resource."""
    found = []
    for request in collector.requests:
        message = trace_service.ExportTraceServiceRequest.FromString(request.body)
        for resource in message.resource_spans:
            about = {a.key: a.value.string_value for a in resource.resource.attributes}
            found += [(about, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def observer(endpoint: str, **table: Any) -> Any:
    table = {"endpoint": endpoint, "timeout": 2, **table}
    (found,) = register_observers(PluginSettings(table, Settings()))
    return found


def test_an_operation_is_a_span_and_so_is_each_of_its_steps(collector: Receiver) -> None:
    traces = observer(f"{collector.origin}/v1/traces")
    traces.notify(told())
    spans = {span.name: span for _, span in received(collector)}
    assert list(spans) == ["deploy shop", "queue", "start", "health"]
    assert {span.trace_id for span in spans.values()} == {uuid.UUID(ID).bytes}
    root = spans["deploy shop"]
    assert (root.parent_span_id, root.start_time_unix_nano, root.end_time_unix_nano) == (b"", 10 * 10**9, 21 * 10**9)
    assert {spans[name].parent_span_id for name in ("queue", "start", "health")} == {root.span_id}
    assert (spans["start"].start_time_unix_nano, spans["start"].end_time_unix_nano) == (11 * 10**9, 12_500_000_000)
    about = {a.key: a.value.string_value for a in root.attributes}
    assert about["deployment.id"] == ID
    assert (about["deployment.status"], about["error.type"]) == ("failed", "Unhealthy")
    assert about["deployer.request.id"] == "ci-7"
    assert [span.status.code for span in spans.values()] == [2, 0, 0, 2]  # STATUS_CODE_ERROR, STATUS_CODE_UNSET
    assert received(collector)[0][0]["service.name"] == "deployer"
    assert all(b"hunter2" not in request.body for request in collector.requests)


def test_what_is_told_again_is_the_same_and_a_removal_belongs_to_the_trace() -> None:
    assert spans_of(told()) == spans_of(told())
    root = spans_of(told())[0]
    removal = spans_of(told("replaced", id="op-2", kind="retire"))
    assert (removal[0].trace, removal[0].parent) == (root.trace, root.id)
    assert removal[1].name == "drain"
    assert len({span.id for span in [*spans_of(told()), *removal]}) == 8
    assert spans_of(Notification("n", "deployment_finished", "failed", 21.0, "1", DEPLOYMENT)) == []


def test_a_collector_that_does_not_take_them_is_told_again(collector: Receiver) -> None:
    traces = observer(f"{collector.origin}/v1/traces")
    collector.answer = lambda handler: reply(handler, 400)
    with pytest.raises(NotDelivered, match="has not taken the spans"):
        traces.notify(told())


def test_without_the_table_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys; from deployer.settings import Settings; from deployer.plugin_manager.loader import load_plugins; "
        "load_plugins(Settings()); print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "deployer.plugins.traces_otel.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'kube-deployer\[otel\]'"):
        observer("http://127.0.0.1:9/v1/traces")


def test_a_deployment_that_was_resumed_is_one_trace(
    cluster: Any, tmp_path: Path, namespace: str, collector: Receiver
) -> None:
    table = {"endpoint": f"{collector.origin}/v1/traces"}
    world = World(cluster, tmp_path, namespace, plugins={"ingress_nginx": NGINX, "traces_otel": table}).start()
    try:
        first = world.deploy()
        world.until(lambda: "created shop-1" in world.log(first.id), "it to begin")
        world.stop()
        world.start()
        world.ended(first, Status.DEPLOYED)
        world.deployed()
        world.until(lambda: world.store.get(type(first), first.id).status is Status.UNDEPLOYED, "it to be removed")
        world.until(lambda: world.store.count(Event) == 0, "everything to be told")
    finally:
        world.close()
    mine = [span for _, span in received(collector) if span.trace_id == uuid.UUID(first.id).bytes]
    names = [span.name for span in mine]
    assert names.count("deploy shop") == names.count("retire shop") == names.count("drain") == 1
    (root,) = [span for span in mine if not span.parent_span_id]
    ids = {span.span_id for span in mine}
    assert root.name == "deploy shop" and all(span.parent_span_id in ids for span in mine if span is not root)
