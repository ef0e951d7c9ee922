"""The logbook: what a message becomes, and how logs are read and watched."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployer.core.deployment_log import MAX_MESSAGE, DeploymentLog
from deployer.core.model.records import Deployment, Plan, Status
from deployer.core.ports.store import Create, Store, Update
from deployer.redaction.redactor import Redactor
from deployer.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = SqliteStore(tmp_path / "deployer.db")
    yield opened
    opened.close()


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def deployment_log(store: Store, redactor: Redactor) -> DeploymentLog:
    return DeploymentLog(store, redactor)


def only_text(deployment_log: DeploymentLog) -> str:
    (line,) = deployment_log.read("d1")
    return line.text


def test_secrets_that_another_process_pinned_are_hidden(store: Store, deployment_log: DeploymentLog) -> None:
    """It asked the injectors; this one has looked up what was secret before that."""
    deployment = Deployment(
        namespace="shop",
        app="cart",
        id="d1",
        descriptor={"appName": "cart", "namespace": "shop", "newVersion": "1"},
        created="2026-01-01T00:00:00Z",
        last_modified="2026-01-01T00:00:00Z",
    )
    store.commit(Create(deployment))
    assert deployment_log.line("d1", "queued with hunter-two").text == "queued with hunter-two"
    told = threading.Event()
    store.subscribe(lambda kind, _: told.set() if kind == Plan.KIND else None)
    environment = [{"name": "PASSWORD", "value": "hunter-two"}]
    store.commit(Create(Plan(namespace="shop", app="cart", deployment="d1", version="1", environment=environment)))
    assert told.wait(20.0)
    assert deployment_log.line("d1", "approved with hunter-two").text == "approved with ***"


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_line_has_a_number_and_a_time_in_milliseconds(deployment_log: DeploymentLog) -> None:
    deployment_log.append("d1", "first")
    deployment_log.append("d1", "second")
    lines = deployment_log.read("d1")
    assert [(line.number, line.text) for line in lines] == [(1, "first"), (2, "second")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.time) for line in lines)
    assert lines[0].time <= lines[1].time


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("plain\twith tab", "plain\twith tab"),
        ("a\r\nb\nc\n\n", "a\nb\nc"),
        ("10%\r20%", "10%\\x0d20%"),
        ("\x1b[2Jgone\x07\x00\x7f", "\\x1b[2Jgone\\x07\\x00\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u2028b\u202ec\u2066", "a\\u2028b\\u202ec\\u2066"),
        ("lone \ud800", "lone \\ud800"),
        ("häße \U0001f600 日本", "häße \U0001f600 日本"),
        ("", ""),
    ],
)
def test_control_characters_are_escaped(deployment_log: DeploymentLog, message: str, text: str) -> None:
    deployment_log.append("d1", message)
    assert only_text(deployment_log) == text


def test_no_message_breaks_the_log_or_plays_with_a_terminal(deployment_log: DeploymentLog) -> None:
    messages: list[str] = []

    @given(st.text(st.characters(), max_size=200))
    @settings(max_examples=50, deadline=None, database=None)
    def check(message: str) -> None:
        messages.append(message)
        deployment_log.append("d1", message)
        (line,) = deployment_log.read("d1", after=len(messages) - 1)
        assert not [c for c in line.text if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]

    check()
    assert len(deployment_log.read("d1")) == len(messages)


@pytest.mark.parametrize("character", ["x", "ä", "\U0001f600", "\x1b"])
def test_a_huge_message_is_cut_with_a_note(deployment_log: DeploymentLog, character: str) -> None:
    deployment_log.append("d1", character * 1_000_000)
    text = only_text(deployment_log)
    note = " [cut here: the message had 1000000 characters]"
    assert text.endswith(note)
    assert MAX_MESSAGE - 4 <= len(text.removesuffix(note).encode()) <= MAX_MESSAGE


def test_a_message_of_exactly_the_limit_is_whole(deployment_log: DeploymentLog) -> None:
    deployment_log.append("d1", "x" * MAX_MESSAGE)
    assert only_text(deployment_log) == "x" * MAX_MESSAGE


# --- reading --------------------------------------------------------------------------------------------------------


def test_text_indents_further_lines(deployment_log: DeploymentLog) -> None:
    deployment_log.append("d1", "pod failed:\nline 1\nline 2")
    deployment_log.append("d1", "next")
    pieces = list(deployment_log.text("d1"))
    times = [line.time for line in deployment_log.read("d1")]
    assert pieces == [f"{times[0]} pod failed:\n  line 1\n  line 2\n", f"{times[1]} next\n"]
    assert list(deployment_log.text("d1", after=1)) == pieces[1:]
    assert list(deployment_log.text("nothing")) == []


@pytest.mark.parametrize("number", [999, 1000, 1001, 2500])
def test_text_goes_through_all_pages(deployment_log: DeploymentLog, number: int) -> None:
    for index in range(number):
        deployment_log.append("d1", str(index))
    assert [piece.split(" ")[1] for piece in deployment_log.text("d1")] == [f"{index}\n" for index in range(number)]
    assert [line.text for line in deployment_log.read("d1", after=5, limit=2)] == ["5", "6"]


# --- watching -------------------------------------------------------------------------------------------------------


def test_a_watcher_wakes_for_lines_and_status_of_its_deployment_only(
    deployment_log: DeploymentLog, store: Store
) -> None:
    mine, other = queue.Queue[str](), queue.Queue[str]()
    stop = deployment_log.watch("d1", lambda: mine.put("wake"))
    deployment_log.watch("d2", lambda: other.put("wake"))
    deployment_log.append("d1", "hello")
    assert mine.get(timeout=5) == "wake"
    assert [line.text for line in deployment_log.read("d1")] == ["hello"]
    record = Deployment(namespace="shop", app="cart", id="d1", descriptor={}, created="c", last_modified="m")
    store.commit(Create(record))
    assert mine.get(timeout=5) == "wake"
    stored = store.get(Deployment, "d1")
    assert stored is not None
    store.commit(Update(stored.to(Status.FAILURE)))
    assert mine.get(timeout=5) == "wake"
    stop()
    stop()
    deployment_log.append("d1", "nobody hears this")
    deployment_log.append("d2", "the store wakes in order: when this is heard, the other was passed")
    assert other.get(timeout=5) == "wake"
    assert mine.empty()


def test_each_viewer_of_a_deployment_is_woken_whatever_the_others_do(deployment_log: DeploymentLog) -> None:
    woken = [threading.Event() for _ in range(3)]

    def broken() -> None:
        raise RuntimeError("the loop is closed")

    deployment_log.watch("d1", broken)
    stops = [deployment_log.watch("d1", event.set) for event in woken]
    deployment_log.append("d1", "x")
    assert all(event.wait(5) for event in woken)
    for event in woken:
        event.clear()
    stops[1]()
    deployment_log.append("d1", "y")
    assert woken[0].wait(5)
    assert woken[2].wait(5)
    assert not woken[1].is_set()


def test_a_closed_logbook_wakes_nobody(deployment_log: DeploymentLog, store: Store) -> None:
    woken = threading.Event()
    deployment_log.watch("d1", woken.set)
    deployment_log.close()
    deployment_log.append("d1", "still recorded")
    store.close()
    assert not woken.is_set()


# --- redaction ------------------------------------------------------------------------------------------------------


def test_secrets_never_reach_the_store(deployment_log: DeploymentLog, redactor: Redactor) -> None:
    redactor.register("d1", ["hunter22"])
    deployment_log.append("d1", "password=hunter22, again hunter22")
    deployment_log.append("d1", "x" * (MAX_MESSAGE - 4) + "hunter22")  # the cut would have left a half
    first, second = deployment_log.read("d1")
    assert first.text == "password=***, again ***"
    assert second.text.startswith("x" * (MAX_MESSAGE - 4) + "***")
    assert "hunt" not in second.text
