"""Gate `prometheus` against a real Prometheus on loopback, and against a server that answers anything."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.server
import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deployer.core.model.records import Plan
from deployer.descriptor.schema_errors import schema_problems
from deployer.plugins.gate_prometheus import MEASUREMENTS, PrometheusGate, measure, register_gates, settings_schema
from deployer.sdk.errors import Cancelled, SettingsError
from deployer.sdk.gate import Failed, Gate, Missing, Outcome, Passed, Pending, Verdict
from deployer.sdk.plugin import Document, PluginSettings
from deployer.settings import Settings
from deployer.testing.gates import CHECKS, Check, FakeGate, GateBench
from support.receiver import Receiver, reply

PLAN = Plan(namespace="shop-prod", app="shop", deployment="0c5f6c1e-5b1a-4b7e-9f57-0a0e9d5c0001", version="2")


def gate(**servers: Any) -> Gate:
    """As the service makes it from `[plugins.gate_prometheus.servers]`."""
    table = {"servers": servers}
    jsonschema.validate(table, settings_schema())
    (made,) = register_gates(PluginSettings(table, Settings(own_namespace="")))
    return made


class Bench(FakeGate):
    """A gate with a clock that goes on to when it wants to look again."""

    def __init__(self, made: Gate, **options: Any) -> None:
        assert not list(schema_problems(options, made.options_schema)), options
        super().__init__(options=options, name="errors", plan=PLAN, seconds=600.0)
        self.gate = made
        self.measurements: list[tuple[Any, str]] = []

    def check(self) -> Outcome:
        outcome = self.gate.check(self.context)
        assert isinstance(outcome, Passed | Failed | Missing | Pending)
        self.measurements += [(found.value, str(found.verdict)) for found in outcome.measurements]
        return outcome

    def ended(self) -> Outcome:
        """The verdict, after as many looks as it takes."""
        for _ in range(1000):
            outcome = self.check()
            if not isinstance(outcome, Pending):
                return outcome
            assert outcome.until > self.now
            self.now = outcome.until
        raise AssertionError("there is no verdict")


# --- a real one ---------------------------------------------------------------------------------------------------


class Shop:
    """What a Prometheus scrapes: counters of two versions."""

    def __init__(self) -> None:
        self.text = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reply(self, 200, outer.text.encode(), **{"Content-Type": "text/plain; version=0.0.4"})

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RealPrometheus:
    def __init__(self, path: Path, shop: Shop) -> None:
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [f"127.0.0.1:{shop.port}"]}]}],
        }
        (path / "prometheus.yml").write_text(json.dumps(config))  # which is YAML, too
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [
            "prometheus",
            f"--config.file={path / 'prometheus.yml'}",
            f"--storage.tsdb.path={path / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._log = (path / "log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=path)
        self.wait_for("up == 1")

    def wait_for(self, query: str) -> None:
        """Until the query gives something; a scrape comes every second."""
        end = time.monotonic() + 60
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        while time.monotonic() < end:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                if json.load(answer)["data"]["result"]:
                    return
            threading.Event().wait(0.1)
        raise AssertionError(f"nothing for {query}: {Path(self._log.name).read_text()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Iterator[RealPrometheus]:
    if not shutil.which("prometheus"):
        pytest.skip("the program prometheus is missing; on Debian: apt-get install prometheus")
    series = {
        'shop_errors{namespace="shop-prod",app="shop",version="1",pod="shop-1-a"}': 0.5,
        'shop_errors{namespace="shop-prod",app="shop",version="2",pod="shop-2-a"}': 0.01,
        'shop_errors{namespace="shop-prod",app="shop",version="2",pod="shop-2-b"}': 0.04,
        'shop_errors{namespace="other",app="shop",version="2",pod="shop-2-x"}': 0.9,
    }
    shop.text = "".join(f"{name} {value}\n" for name, value in series.items())
    made = RealPrometheus(tmp_path_factory.mktemp("prometheus"), shop)
    made.wait_for("shop_errors")
    yield made
    made.close()


def ask(prometheus: RealPrometheus, query: str, **options: Any) -> Bench:
    bounds = {} if "min" in options else {"max": 0.05}
    return Bench(gate(main={"url": prometheus.url}), query=query, **bounds, **options)


def test_what_stays_within_its_threshold_passes(prometheus: RealPrometheus) -> None:
    own = 'shop_errors{namespace="${namespace}",app="${app}",version="${version}",pod=~"${workload}-.*"}'
    bench = ask(prometheus, f"max({own})")
    outcome = bench.ended()
    assert outcome == Passed("3 of 3 measurements were <= 0.05", outcome.measurements)
    assert bench.measurements == [(0.04, "passed")] * 3
    assert bench.now == bench.began + 2 * 30


def test_each_series_has_to_be_within_it_and_the_worst_is_shown(prometheus: RealPrometheus) -> None:
    bench = ask(prometheus, "shop_errors{version='${version}',namespace='${namespace}'}", measurements=1)
    outcome = bench.ended()
    assert isinstance(outcome, Passed)
    (found,) = outcome.measurements
    assert found.value == 0.04 and 'pod="shop-2-b"' in found.name and found.threshold == "<= 0.05"
    bench = ask(prometheus, "shop_errors{app='${app}'}")
    outcome = bench.ended()
    assert isinstance(outcome, Failed) and bench.measurements[0][1] == "failed"
    assert re.fullmatch(r"0\.[59] is not <= 0\.05 \(1 measurement of 1\)", outcome.reason)


@pytest.mark.parametrize(
    ("query", "options", "measured", "said"),
    [
        ("vector(0.05)", {}, 0.05, Passed),
        ("0.05", {}, 0.05, Passed),
        ("scalar(vector(-1e300))", {}, -1e300, Passed),
        ("vector(0.050001)", {}, 0.050001, Failed),
        ("vector(2)", {"min": 1, "max": 3}, 2, Passed),
        ("vector(0.5)", {"min": 1}, 0.5, Failed),
        ("vector(1) / 0", {}, "+Inf", Failed),
        ("vector(1) / 0", {"min": 0}, "+Inf", Failed),
        ("vector(-1) / 0", {}, "-Inf", Failed),
        ("vector(0) / 0", {}, "NaN", Missing),
        ("0 / 0", {}, "NaN", Missing),
        ("scalar(nothing_like_it)", {}, "NaN", Missing),
        ("nothing_like_it", {}, None, Missing),
        ('vector(0.01) or label_replace(vector(0) / 0, "a", "b", "", "")', {}, "NaN", Missing),
        ('vector(0.1) or label_replace(vector(0) / 0, "a", "b", "", "")', {}, 0.1, Failed),
    ],
)
def test_what_a_value_says(
    prometheus: RealPrometheus, query: str, options: Document, measured: object, said: type[Outcome]
) -> None:
    bench = ask(prometheus, query, measurements=1, **options)
    outcome = bench.ended()
    assert isinstance(outcome, said), outcome
    verdict = {Passed: "passed", Failed: "failed", Missing: "inconclusive"}[said]
    assert bench.measurements == [(measured, verdict)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("shop_errors[5m]", r"it gives a range of values: leave out \[\.\.\.\]"),
        ('"a text"', "it gives a text, where a number is needed"),
        ("sum(", r"http://127\.0\.0\.1:\d+ refuses it: invalid parameter \"query\": 1:5: parse error"),
        ("", "no query"),
        ("nope(1)", "unknown function"),
    ],
)
def test_a_query_that_cannot_be_used_fails_at_once(prometheus: RealPrometheus, query: str, said: str) -> None:
    bench = ask(prometheus, query or "\n")
    outcome = bench.check()
    assert isinstance(outcome, Failed) and re.search(said if query else "refuses it", outcome.reason), outcome
    assert outcome.hint == "correct the gate's query, then deploy again"
    assert not bench.measurements


def test_what_cannot_be_computed_now_is_asked_again(prometheus: RealPrometheus) -> None:
    """Series that come and go together may match twice for a moment: 422, `execution`."""
    bench = ask(prometheus, "shop_errors * on(app) shop_errors")
    outcome = bench.check()
    assert isinstance(outcome, Pending) and outcome.until == bench.now + 10 and not bench.measurements
    assert "answers 422 Unprocessable Entity: " in outcome.reason and "duplicate series" in outcome.reason


NAMES = ['a"} or vector(0) or x{y="', "a' or vector(0) or x{y='", "a\\", "a\nb", "a`b", "\u2028é💥", "${app}"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_gets_out_of_its_string(prometheus: RealPrometheus, name: str) -> None:
    """Those of Kubernetes cannot even try."""
    for quote in "\"'":
        query = f'label_replace(vector(1), "said", {quote}{measure.escaped(name)}{quote}, "", "")'
        address = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            (found,) = json.load(answer)["data"]["result"]
        expected = name.replace("${app}", "")  # which label_replace fills in with what it matched
        assert found["metric"].get("said", "") == expected


def test_a_deployment_fills_in_its_own_names(prometheus: RealPrometheus) -> None:
    text = "${namespace} ${app} ${version} ${deployment} ${workload}"
    assert measure.filled(text, PLAN) == f"shop-prod shop 2 {PLAN.deployment} shop-2"
    assert measure.filled('{a=~"x$", b="$app {version}"}', PLAN) == '{a=~"x$", b="$app {version}"}'


# --- several looks ------------------------------------------------------------------------------------------------


@pytest.fixture
def stub() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def says(stub: Receiver, *values: object, **more: Any) -> None:
    """Answer with each value in turn, the last one for ever; None is no series, and a list several."""
    left = list(values)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        value = left.pop(0) if len(left) > 1 else left[0]
        series = [] if value is None else value if isinstance(value, list) else [value]
        result = [{"metric": {"n": str(n)}, "value": [1.5, str(v)]} for n, v in enumerate(series)]
        body = {"status": "success", "data": {"resultType": "vector", "result": result}, **more}
        reply(handler, 200, json.dumps(body).encode())

    stub.answer = answer


def stubbed(stub: Receiver, *, server: Document | None = None, **options: Any) -> Bench:
    return Bench(gate(main={"url": stub.origin, **(server or {})}), **{"query": "q", "max": 1, **options})


@pytest.mark.parametrize(
    ("values", "options", "said", "taken"),
    [
        ([0], {}, Passed, MEASUREMENTS),
        ([0, 0, 2], {}, Failed, 3),
        ([2, 0, 0], {}, Failed, 1),
        ([0, None, 0], {}, Missing, 2),
        ([2, 0, 0, 0], {"measurements": 4, "failures": 1}, Passed, 4),
        ([2, 0, 2, 0], {"measurements": 4, "failures": 1}, Failed, 3),
        ([None, 0, 0, 0], {"measurements": 4, "failures": 1}, Passed, 4),
        ([None, 2, 0, 0], {"measurements": 4, "failures": 1}, Missing, 2),
        ([None, None], {"measurements": 4, "failures": 1}, Missing, 2),
        ([2, 2, 2, 2, 0], {"measurements": 5, "failures": 4}, Passed, 5),
        ([None], {"measurements": 5, "failures": 4}, Missing, 5),
    ],
)
def test_what_several_looks_amount_to(
    stub: Receiver, values: list[Any], options: Document, said: type[Outcome], taken: int
) -> None:
    says(stub, *values)
    bench = stubbed(stub, **options)
    assert isinstance(bench.ended(), said)
    assert len(bench.measurements) == len(stub.requests) == taken


def test_between_two_looks_nothing_is_asked_even_after_a_restart(stub: Receiver) -> None:
    says(stub, 0)
    bench = stubbed(stub, interval=60, delay=20)
    outcome = bench.check()
    assert outcome == Pending(bench.began + 20, "measurement 1 of 3") and not stub.requests
    bench.now += 20
    outcome = bench.check()
    assert isinstance(outcome, Pending) and outcome.until == bench.now + 60
    assert outcome.reason == "measurement 2 of 3" and outcome.measurements[0].time == bench.now
    bench.gate = gate(main={"url": stub.origin})
    bench.now += 59
    assert bench.check() == Pending(bench.now + 1, "measurement 2 of 3")
    assert len(stub.requests) == 1


@pytest.mark.parametrize(("value", "said"), [(0, Passed), (2, Failed), (None, Missing)])
def test_what_was_measured_before_a_crash_counts(stub: Receiver, value: object, said: type[Outcome]) -> None:
    """Killed after the measurement was kept, and before the verdict was."""
    says(stub, value)
    bench = stubbed(stub, measurements=1)
    bench.check()
    says(stub, 0)
    assert isinstance(bench.check(), said)
    assert len(stub.requests) == 1


def test_an_outage_counts_for_nothing(stub: Receiver) -> None:
    stub.answer = lambda handler: reply(handler, 503, b"<html>starting</html>")
    bench = stubbed(stub, measurements=2, interval=60)
    for _ in range(3):
        outcome = bench.check()
        assert isinstance(outcome, Pending) and outcome.until == bench.now + 10
        assert outcome.reason.endswith("answers 503 Service Unavailable, which is no whole answer of a Prometheus")
        bench.now += 10
    says(stub, 0)
    assert isinstance(bench.ended(), Passed) and len(bench.measurements) == 2


# --- a server that answers anything -------------------------------------------------------------------------------

PARTIAL = {"warnings": ["No StoreAPIs matched for this query"]}


def test_what_may_not_be_all_is_no_evidence_for_but_may_be_against(stub: Receiver) -> None:
    """Thanos says so, and Prometheus of a federated read."""
    says(stub, 0, **PARTIAL)
    outcome = stubbed(stub).ended()
    assert isinstance(outcome, Missing) and outcome.reason.startswith("No StoreAPIs matched for this query (1 ")
    assert outcome.measurements[0].verdict is Verdict.INCONCLUSIVE
    says(stub, 2, **PARTIAL)
    assert isinstance(stubbed(stub).ended(), Failed)
    says(stub, 0, warnings=["PromQL info: metric might not be a counter"], infos=["PromQL info: x"])
    assert isinstance(stubbed(stub).ended(), Passed)


def body(**data: Any) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, b"<html>log in</html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"{"),
        (200, b"\xff\xfe"),
        (200, b"[" * 200_000),
        (200, b'{"status": "success"}'),
        (200, b'{"status": "error", "error": "x"}'),
        (200, b'{"data": {"resultType": "vector", "result": []}}'),
        (200, body(resultType="vector", result={})),
        (200, body(resultType="vector", result=None)),
        (200, body(resultType="vector", result=[1])),
        (200, body(resultType="vector", result=[{}])),
        (200, body(resultType="vector", result=[{"metric": {}}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": []}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, 0]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, "zero"]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, ""]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, " 0"]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, "1_0"]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, "infinity"]}])),
        (200, body(resultType="vector", result=[{"metric": {}, "value": [1, "\u0663"]}])),
        (200, body(resultType="vector", result=[{"metric": [], "value": [1, "0"]}])),
        (200, body(resultType="scalar", result=[1])),
        (200, body(resultType="scalar", result="10")),
        (200, body(resultType="scalar", result=[1, "0", "0"])),
        (200, body(resultType=["vector"], result=[])),
        (200, b'{"status": "success", "warnings": "x", "data": {"resultType": "vector", "result": []}}'),
        (201, body(resultType="scalar", result=[1, "0"])),
        (204, b""),
        (302, b""),
        (400, b"<html>bad gateway's own page</html>"),
        (400, b'{"status": "error", "errorType": "timeout", "error": "x"}'),
        (401, b"no"),
        (403, b"no"),
        (404, b"404 page not found"),
        (422, b'{"status": "error", "errorType": "execution", "error": "x"}'),
        (429, b""),
        (500, b'{"status": "error", "errorType": "internal", "error": "x"}'),
        (503, b'{"status": "error", "errorType": "timeout", "error": "query timed out in expression evaluation"}'),
    ],
)
def test_no_other_answer_passes_or_fails_the_gate(stub: Receiver, status: int, answer: bytes) -> None:
    elsewhere = Receiver()
    try:
        stub.answer = lambda handler: reply(handler, status, answer, Location=f"{elsewhere.origin}/api/v1/query")
        bench = stubbed(stub, measurements=1)
        outcome = bench.check()
        assert isinstance(outcome, Pending) and outcome.until > bench.now, outcome
        assert outcome.reason.startswith(f"an answer to its query: {stub.origin} answers ")
        assert not bench.measurements and not bench.memory and len(stub.requests) == 1 and not elsewhere.requests
    finally:
        elsewhere.close()


def test_a_huge_answer_is_not_read_to_its_end(stub: Receiver) -> None:
    says(stub, [0] * 100_000)
    outcome = stubbed(stub).check()
    assert isinstance(outcome, Failed) and "its answer has more than 1 MiB: aggregate it" in outcome.reason


def test_histograms_are_no_numbers(stub: Receiver) -> None:
    result = [{"metric": {}, "histogram": [1, {"count": "1", "sum": "1", "buckets": []}]}]
    stub.answer = lambda handler: reply(handler, 200, body(resultType="vector", result=result))
    outcome = stubbed(stub).check()
    assert isinstance(outcome, Failed) and "make a number of them, as with histogram_quantile()" in outcome.reason


def test_one_that_says_nothing_is_given_up_in_time(stub: Receiver) -> None:
    released = threading.Event()
    stub.answer = lambda handler: released.wait(30)
    began = time.monotonic()
    outcome = stubbed(stub, server={"timeout": 1}).check()
    released.set()
    assert isinstance(outcome, Pending) and outcome.reason.endswith("does not answer within 1 s")
    assert time.monotonic() - began < 5


def test_a_cancellation_ends_the_request(stub: Receiver) -> None:
    asked, released = threading.Event(), threading.Event()

    def hang(_: http.server.BaseHTTPRequestHandler) -> None:
        asked.set()
        released.wait(30)

    stub.answer = hang
    bench = stubbed(stub, server={"timeout": 25})
    context = bench.context

    def cancel() -> None:
        assert asked.wait(20)
        context.scope.close(Cancelled("stop"))

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        bench.gate.check(context)
    released.set()
    thread.join()


def test_one_that_is_not_there_is_asked_again() -> None:
    bench = Bench(gate(main={"url": f"http://127.0.0.1:{free_port()}"}), query="q", max=1)
    outcome = bench.check()
    assert isinstance(outcome, Pending) and "cannot be reached: ECONNREFUSED" in outcome.reason


# --- what is sent -------------------------------------------------------------------------------------------------


def test_what_a_server_is_asked(stub: Receiver, tmp_path: Path) -> None:
    says(stub, 0)
    (tmp_path / "token").write_text("secret-token\n")
    server = {"url": f"{stub.origin}/prom/", "token_file": str(tmp_path / "token"), "org_id": "team-a"}
    Bench(gate(main=server), query='up{app="${app}"} & x=1', max=1).check()
    (request,) = stub.requests
    assert request.path == "/prom/api/v1/query"
    sent = urllib.parse.parse_qs(request.body.decode(), strict_parsing=True)
    assert sent == {"query": ['up{app="shop"} & x=1'], "timeout": ["10s"]}
    assert request.headers["authorization"] == "Bearer secret-token" and request.headers["x-scope-orgid"] == "team-a"
    (tmp_path / "token").unlink()
    outcome = Bench(gate(main=server), query="q", max=1).check()
    assert isinstance(outcome, Pending) and "cannot be read: No such file" in outcome.reason


def test_a_password_is_sent_and_never_said(stub: Receiver) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        given = base64.b64decode(handler.headers["Authorization"].removeprefix("Basic ")).decode()
        error = {"status": "error", "errorType": "unavailable", "error": f"hello {given}\r\n\x1b[31m" + "x" * 1000}
        reply(handler, 503, json.dumps(error).encode())

    stub.answer = answer
    bench = stubbed(stub, server={"username": "deployer", "password": "hunter2-hunter2"})
    outcome = bench.check()
    assert isinstance(outcome, Pending) and "hello deployer:... ?[31mxxx" in outcome.reason
    assert "hunter2" not in outcome.reason and len(outcome.reason) < 500


# --- which server -------------------------------------------------------------------------------------------------

SHOP = {"url": "http://127.0.0.1:1", "namespaces": ["shop-*"]}
OTHER = {"url": "http://127.0.0.1:2", "namespaces": ["other"]}


def problems(made: Gate, *, timeout: int | None = None, **options: Any) -> list[str]:
    entry = {"type": "prometheus", "name": "errors", "options": {"query": "q", "max": 1, **options}}
    entry |= {"timeoutSeconds": timeout} if timeout else {}
    gates = {"afterSwitch": [{"type": "approval", "name": "a"}, entry]}
    found = made.check_descriptor({"namespace": "shop-prod", "gates": gates})
    return [f"{problem.path}: {problem.message}" for problem in found]


@pytest.mark.parametrize(
    ("servers", "options", "said"),
    [
        ({}, {}, "options.server: is missing: the settings name none that this namespace may ask"),
        ({"a": OTHER}, {}, "options.server: is missing: the settings name none that this namespace may ask"),
        (
            {"a": SHOP, "b": SHOP},
            {},
            "options.server: is required: there are several that this namespace may ask, a, b",
        ),
        ({"a": SHOP, "b": OTHER}, {"server": "b"}, "options.server: b is none of those that this namespace may ask, a"),
        ({"a": SHOP}, {"server": "http://evil"}, "http://evil is none of those that this namespace may ask, a"),
        ({"a": SHOP}, {"query": "x{a='${pod}'}"}, "${pod} stands for nothing; there are namespace, app, version,"),
        ({"a": SHOP}, {"query": "x{a='${app"}, ""),
        ({"a": SHOP}, {"min": 2}, "options.min: is more than max"),
        ({"a": SHOP}, {"failures": 3}, "options.failures: must be less than measurements, which is 3"),
        ({"a": SHOP}, {"interval": 150}, "timeoutSeconds: must be more than 300, which the measurements take"),
        ({"a": SHOP}, {"interval": 150, "timeout": 301}, ""),
        ({"a": SHOP}, {"delay": 3000}, "timeoutSeconds: must be more than 3060"),
        ({"a": SHOP, "default": SHOP, "b": OTHER}, {}, ""),
        ({"a": SHOP, "b": OTHER}, {}, ""),
    ],
)
def test_what_cannot_work_is_refused_with_the_descriptor_and_fails_a_forced_gate(
    servers: Document, options: Document, said: str
) -> None:
    made = gate(**servers)
    found = problems(made, **options)
    assert (len(found), bool(found)) == (1 if said else 0, bool(said)), found
    options = dict(options)
    seconds = options.pop("timeout", 300)
    bench = Bench(made, **{"query": "q", "max": 1, **options})
    bench.seconds = seconds
    outcome = bench.check()
    if said:
        assert said in found[0] and found[0].startswith("gates.afterSwitch[1].")
        assert isinstance(outcome, Failed) and outcome.hint == "ask those who run the Deployer"
    else:
        assert isinstance(outcome, Pending)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"query": "q"},
        {"query": "", "max": 1},
        {"query": "q" * 8_193, "max": 1},
        {"query": "q", "max": "1"},
        {"query": "q", "max": math.inf},
        {"query": "q", "max": 1, "measurements": 0},
        {"query": "q", "max": 1, "measurements": 1.5},
        {"query": "q", "max": 1, "interval": 0},
        {"query": "q", "max": 1, "url": "http://evil"},
        {"query": "q", "max": 1, "token": "x"},
        {"query": "q", "max": True},
    ],
)
def test_options_that_cannot_be_are_refused(options: Document) -> None:
    assert list(schema_problems(options, PrometheusGate({}).options_schema))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "url: the address is missing; give url or url_file"),
        ({"url": "prometheus:9090"}, "url: this is not an address like"),
        ({"url": "https://a:hidden@x/"}, "url: an address may not contain credentials"),
        ({"url": "https://x/", "token": "hid den"}, "token: a token consists of"),
        ({"url": "https://x/", "token": "hidden", "username": "a", "password": "b"}, "username: give either a token"),
        ({"url": "https://x/", "username": "a"}, "username: give both"),
        ({"url": "https://x/", "password": "hidden"}, "username: give both"),
        ({"url": "https://x/", "username": "a:b", "password": "hidden"}, "username: a username has no colon"),
        ({"url": "https://x/", "password": "hidden", "password_file": "x", "username": "a"}, "password: give either"),
    ],
)
def test_settings_that_cannot_work_say_so_without_a_secret(table: Document, said: str) -> None:
    with pytest.raises(SettingsError) as failure:
        gate(main=table)
    assert f"[plugins.gate_prometheus.servers.main] {said}" in str(failure.value)
    assert "hid" not in str(failure.value)


# --- what every gate must do --------------------------------------------------------------------------------------


def of_version(version: str) -> Callable[[FakeGate], None]:
    """A deployment of that version, which the query gives back."""

    def world(fake: FakeGate) -> None:
        fake.plan = dataclasses.replace(fake.plan, version=version)

    world.__name__ = f"version {version}"
    return world


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: getattr(check, "__name__", ""))
def test_it_does_what_every_gate_must(prometheus: RealPrometheus, check: Check) -> None:
    servers = {"main": {"url": prometheus.url, "token": "a-token-of-ours"}}
    servers["gone"] = {"url": f"http://127.0.0.1:{free_port()}/hidden-path", "token": "a-token-of-ours"}
    options = {"server": "main", "query": "vector(${version}) < 5", "max": 1}
    wrong = [{"query": "q"}, {**options, "server": "other"}, {**options, "failures": 3}, {**options, "interval": 400}]

    def silent(fake: FakeGate) -> None:
        fake.options = {**options, "server": "gone"}

    check(
        GateBench(
            lambda: gate(**servers),
            of_version("0"),
            [of_version("2")],
            [of_version("7"), silent],
            options,
            wrong,
            values=["a-token-of-ours", "hidden-path"],
        )
    )
