"""`--log-format json`: a request is followed from its id to the removal of the version that it replaced."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer.api.request_id import request_id
from deployer.cli.process import JsonLines
from deployer.cli.sandbox import sample
from deployer.core import log_context
from deployer.redaction.log_records import guard_logging
from deployer.redaction.redactor import Redactor
from deployer.sandbox import Sandbox
from support.command import awaited
from support.world import World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvdHRvIn0.c2lnbmF0dXJl"


def test_a_request_is_followed_to_the_last_line_about_it(
    deployer: Any, cluster: Sandbox, tmp_path: Path, world: World
) -> None:
    """`world` is here for its namespace; its own engine sleeps."""
    world.stop()
    flags = ["--kubernetes", cluster.api, "--loopback-pods", "--data-dir", str(tmp_path / "data")]
    process, rest = deployer.serve("serve", *flags, "--ingress=none", "--proxysleep=0", "--log-format=json")
    rest.namespace = world.namespace
    descriptor = {**sample.descriptor(PASSWORD="hunter2-Secret"), "namespace": world.namespace, "frontend": None}
    rest.headers["X-Request-Id"] = "first/1"
    old = rest.deploy(descriptor)
    awaited(lambda: rest.status(old) == "DEPLOYED", "the first version")
    rest.headers = {"traceparent": TRACEPARENT}
    new = rest.deploy({**descriptor, "newVersion": "2"})
    awaited(lambda: rest.status(old) == "UNDEPLOYED", "the first version to be removed")
    answer = rest.request("GET", "/healthz")[1]
    assert answer["X-Request-Id"] == TRACE
    assert process.end() == 0
    written = process.rest("err")
    assert "hunter2" not in written
    lines = [json.loads(line) for line in written.splitlines()]
    own = [line for line in lines if "audit" not in line]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in own)
    about = [line for line in own if old in line["message"] or new in line["message"]]
    assert all(line["deployment"] in (old, new) and line["namespace"] == world.namespace for line in about)
    ended = [(line["deployment"], line["request"]) for line in about if "has ended" in line["message"]]
    # The version that was replaced is removed because of the second request.
    assert ended == [(old, "first/1"), (new, TRACE), (old, TRACE)]
    assert all(line["operation"] for line in about if "has ended" in line["message"])
    audited = [line for line in lines if line.get("audit") and line.get("resource") == "deployments"]
    assert [line["request"] for line in audited] == ["first/1", TRACE]


@pytest.mark.parametrize(
    ("given", "traceparent", "expected"),
    [
        ("ci-1234", TRACEPARENT, "ci-1234"),
        ("a" * 128, None, "a" * 128),
        (None, TRACEPARENT, TRACE),
        ("two words", TRACEPARENT, TRACE),
        ("line\nbreak", TRACEPARENT, TRACE),
        ("a" * 129, TRACEPARENT, TRACE),
        (TOKEN, TRACEPARENT, TRACE),
        (None, f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
    ],
)
def test_an_id_is_taken_over_when_it_is_one(given: str | None, traceparent: str | None, expected: str) -> None:
    assert request_id(given, traceparent) == expected


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        f"ff-{TRACE}-00f067aa0ba902b7-01",  # W3C Trace Context, 3.2.2.1: forbidden
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",  # version 00 has four fields
    ],
)
def test_a_request_without_one_gets_one(traceparent: str | None) -> None:
    made = {request_id(None, traceparent) for _ in range(2)}
    assert len(made) == 2 and TRACE not in made
    assert all(len(id) == 32 for id in made)


def test_secrets_are_hidden_in_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, redactor = io.StringIO(), Redactor()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("deployer.test_log_format")
    monkeypatch.setattr(log, "handlers", [handler])
    undo = guard_logging(redactor)
    try:
        secret = 'Sn0w"flake\\2026'
        with redactor.about("d", {secret}), log_context.about(deployment="d", request=f"x-{TOKEN}", app=""):
            try:
                raise ValueError(secret)
            except ValueError:
                log.error("it said %s\nand %s", secret, {"value": secret}, exc_info=True, stack_info=True)
    finally:
        undo()
    (written,) = stream.getvalue().splitlines()
    line = json.loads(written)
    assert "flake" not in written and TOKEN not in written
    assert line["message"].startswith("it said ***\nand ")
    assert line["exception"].endswith("ValueError: ***")
    assert line["stack"].startswith("Stack (most recent call last)")
    assert (line["deployment"], line["request"]) == ("d", "x-***")
    assert (line["level"], line["logger"], "app" in line) == ("ERROR", "deployer.test_log_format", False)


def test_a_line_is_written_before_the_guard_is_there() -> None:
    try:
        raise ValueError("early")
    except ValueError:
        record = logging.LogRecord("early", logging.INFO, "", 1, "begins %d\u2028", (1,), sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert (line["message"], "ValueError: early" in line["exception"]) == ("begins 1\u2028", True)
