"""The gates that ship do what every gate must, and the suite finds each kind of mistake."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.plugins.gate_approval import Approval
from deployer.plugins.gate_http import HttpGate, Target
from deployer.sdk.gate import Decision, Failed, Gate, Measurement, Missing, Outcome, Passed, Pending, Verdict
from deployer.sdk.kube import CONFIG_MAP
from deployer.sdk.webhook import Receiver as Address
from deployer.testing.gates import CHECKS, Check, FakeGate, FakeVersion, GateBench
from deployer.testing.pods import FakePod, answer, hang
from support.receiver import Receiver, reply

ids = {"ids": lambda check: getattr(check, "__name__", "")}

# --- approval -----------------------------------------------------------------------------------------------------


def approved(fake: FakeGate) -> None:
    fake.decision = Decision(True, "otto", fake.now, "go")


def refused(fake: FakeGate) -> None:
    fake.decision = Decision(False, "otto", fake.now)


def undecided(fake: FakeGate) -> None:
    fake.decision = None


@pytest.mark.parametrize("check", CHECKS, **ids)  # type: ignore[call-overload]
def test_approval(check: Check) -> None:
    wrong = [{"notByRequester": "yes"}]
    check(GateBench(Approval, approved, [refused], [undecided], {"notByRequester": True}, wrong))


# --- http ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def says(receiver: Receiver, status: int, document: Any = None) -> Callable[[FakeGate], None]:
    """The receiver answers so."""

    def world(_: FakeGate) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        receiver.answer = lambda handler: reply(handler, status, body)

    return world


def mute(receiver: Receiver) -> Callable[[FakeGate], None]:
    """It takes the request, and answers late."""

    def world(_: FakeGate) -> None:
        receiver.answer = lambda handler: time.sleep(1.5)

    return world


@pytest.mark.parametrize("check", CHECKS, **ids)  # type: ignore[call-overload]
def test_http_of_a_receiver(check: Check, receiver: Receiver) -> None:
    if check.__name__ == "calls_at_once_are_apart":
        return  # one receiver cannot say two things at once
    address = Address(url=f"{receiver.origin}/hidden-path", token="a-token-of-ours", timeout=1.0)
    check(
        GateBench(
            lambda: HttpGate({"qa": Target(address, ["*"])}),
            says(receiver, 200, {"green": True}),
            [says(receiver, 200, {"green": False}), says(receiver, 500, {"green": True})],
            [says(receiver, 200), mute(receiver)],
            {"target": "qa", "interval": 100, "expect": {"field": "green", "value": True}},
            [{}, {"target": "other"}, {"target": "qa", "expect": {"status": [99]}}],
            values=["a-token-of-ours", "hidden-path"],
        )
    )


@pytest.mark.parametrize("check", CHECKS, **ids)  # type: ignore[call-overload]
def test_http_of_the_version(check: Check) -> None:
    with FakePod(answer("200 OK", b"fine")) as well, FakePod(answer("500 Ill", b"")) as ill, FakePod(hang) as silent:
        pods = {"well": [well], "ill": [well, ill], "silent": [silent], "nobody": []}

        def world(name: str) -> Callable[[FakeGate], None]:
            def arrange(fake: FakeGate) -> None:
                scope = fake.kube.scope
                fake.version = FakeVersion([pod.target(timeout=0.5, scope=scope) for pod in pods[name]])

            return arrange

        check(
            GateBench(
                lambda: HttpGate({}),
                world("well"),
                [world("ill")],
                [world("silent"), world("nobody")],
                {"version": "pods", "path": "/", "interval": 100},
                [{"version": "pods"}, {"version": "nodes", "path": "/"}],
            )
        )


# --- mistakes -----------------------------------------------------------------------------------------------------


class Word(Gate):
    """Passes when a ConfigMap says `yes` twice in a row; what follows is wrong in one way each."""

    name = "word"

    def word(self, context: Any) -> str | None:
        found = context.kube.get(CONFIG_MAP, "word")
        return None if found is None else str(found["data"]["word"])

    def check(self, context: Any) -> Outcome:
        word = self.word(context)
        if word is None:
            return Missing("there is no word")
        if word != "yes":
            return Failed(f"it says {word}", [Measurement(word, "yes", Verdict.FAILED)])
        if not context.recall("seen", False):
            context.remember("seen", True)
            return Pending(context.now() + 5, "a second look")
        return Passed("it said yes twice", [Measurement(word, "yes")])


def put(word: str) -> Callable[[FakeGate], None]:
    """The ConfigMap says that."""

    def world(fake: FakeGate) -> None:
        fake.put(CONFIG_MAP, {"metadata": {"name": "word"}, "data": {"word": word, "secret": "hunter2-hunter2"}})

    return world


def gone(fake: FakeGate) -> None:
    fake.kube.objects.clear()


class Optimist(Word):
    def check(self, context: Any) -> Outcome:
        return Passed("as always")


class Pessimist(Word):
    def check(self, context: Any) -> Outcome:
        return Failed("as always")


class Absent(Word):
    def check(self, context: Any) -> Outcome:
        return Passed("nobody said no") if self.word(context) is None else super().check(context)


class Forgetful(Word):
    seen = False

    def check(self, context: Any) -> Outcome:
        first, self.seen = not self.seen, True
        return Pending(context.now() + 5, "a second look") if first else super().check(context)


class Shared(Word):
    """Keeps in memory what another deployment's call overwrites."""

    def check(self, context: Any) -> Outcome:
        self.last = self.word(context)
        time.sleep(0.05)
        passed = self.last == "yes"
        return Passed("it says yes") if passed else Missing("no word") if self.last is None else Failed("it says no")


class Remembering(Word):
    def check(self, context: Any) -> Outcome:
        return Passed("it was there") if context.recall("seen", False) else super().check(context)


class Restless(Word):
    def check(self, context: Any) -> Outcome:
        outcome = super().check(context)
        return Pending(context.now() - 60, "now") if isinstance(outcome, Pending) else outcome


class Endless(Word):
    def check(self, context: Any) -> Outcome:
        return Pending(context.now(), "better times")


class Silent(Word):
    def check(self, context: Any) -> Outcome:
        outcome = super().check(context)
        return Passed("") if isinstance(outcome, Passed) else outcome


class Crashing(Word):
    def check(self, context: Any) -> Outcome:
        return Passed(f"it says {context.kube.get(CONFIG_MAP, 'word')['data']['word']}")


class Wordless(Word):
    def check(self, context: Any) -> Outcome:
        return bool(self.word(context))  # type: ignore[return-value]


class Deaf(Word):
    def check(self, context: Any) -> Outcome:
        threading.Event().wait(3)
        return super().check(context)


class Hoarder(Word):
    def check(self, context: Any) -> Outcome:
        outcome = super().check(context)
        body = {"metadata": {"name": f"n-{len(context.kube.list(CONFIG_MAP))}"}, "data": {}}
        context.kube.create(CONFIG_MAP, body)
        return outcome


class Twice(Word):
    def check(self, context: Any) -> Outcome:
        metadata = {"name": "made", "annotations": context.kube.annotations("versioned-made")}
        if context.kube.get(CONFIG_MAP, "made"):
            context.kube.delete(CONFIG_MAP, "made")
        context.kube.create(CONFIG_MAP, {"metadata": metadata, "data": {}})
        return super().check(context)


class Chatty(Word):
    def check(self, context: Any) -> Outcome:
        if found := context.kube.get(CONFIG_MAP, "word"):
            context.log(str(found["data"]))
        return super().check(context)


class Unending(Word):
    def end(self, context: Any) -> None:
        raise KeyError(context.recall("seen", None))


class Careless(Word):
    options_schema = {"type": "object"}  # noqa: RUF012


class Pointless(Word):
    points = ("beforeLunch",)  # type: ignore[assignment]


MISTAKES = [
    (Optimist, "it_says_no", "it passes with"),
    (Pessimist, "it_passes_with_evidence", "it does not pass"),
    (Absent, "silence_is_no_pass", "it passes with"),
    (Forgetful, "it_passes_after_restarts", "neither said anything|does not pass"),
    (Shared, "calls_at_once_are_apart", "at once"),
    (Remembering, "no_evidence_from_an_earlier_look_is_left", "by what it saw before"),
    (Restless, "it_waits_for_something", "ago"),
    (Endless, "it_passes_with_evidence", "neither said anything"),
    (Silent, "it_passes_with_evidence", "has no reason"),
    (Crashing, "silence_is_no_pass", "raised TypeError"),
    (Wordless, "it_passes_with_evidence", "returned bool"),
    (Deaf, "it_stops_when_it_is_cancelled", "although it was cancelled"),
    (Hoarder, "what_it_makes_is_known", "has the role"),
    (Twice, "it_passes_after_restarts", "made twice"),
    (Chatty, "secrets_are_never_said", "it says a secret"),
    (Unending, "it_can_be_ended_at_any_time", "end.. raised KeyError"),
    (Careless, "it_says_what_it_is", "are accepted"),
    (Pointless, "it_says_what_it_is", "beforeLunch"),
]


def bench_of(gate: Callable[[], Gate]) -> GateBench:
    return GateBench(gate, put("yes"), [put("no")], [gone], wrong_options=[{"x": 1}], values=["hunter2-hunter2"])


@pytest.mark.parametrize("check", CHECKS, **ids)  # type: ignore[call-overload]
def test_a_gate_without_mistakes(check: Check) -> None:
    check(bench_of(Word))


@pytest.mark.parametrize(("gate", "name", "words"), MISTAKES)
def test_each_mistake_is_found(gate: Callable[[], Gate], name: str, words: str) -> None:
    (check,) = [check for check in CHECKS if check.__name__ == name]
    with pytest.raises(AssertionError, match=words):
        check(bench_of(gate))


def test_every_check_finds_a_mistake() -> None:
    assert {name for _, name, _ in MISTAKES} == {check.__name__ for check in CHECKS}
