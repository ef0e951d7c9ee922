"""The redactor: who knows which secrets, and which text is cleaned of what."""

from __future__ import annotations

import base64
import contextvars
import io
import logging
import threading
from collections.abc import Iterator

import pytest

from deployer.core.model.plan import PlannedGate, Workload
from deployer.core.model.records import Plan
from deployer.core.model.secrets import secrets_of, values_of
from deployer.redaction import redactor as redaction
from deployer.redaction.log_records import guard_logging
from deployer.redaction.redactor import Redactor, about_descriptor, about_nobody

TOKEN = "an-Opaque-t0ken-of-the-service"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def log(redactor: Redactor) -> Iterator[io.StringIO]:
    """What a handler of the service's own log has written."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.propagate = False
    logger.addHandler(handler)
    undo = guard_logging(redactor)
    yield out
    undo()
    logger.removeHandler(handler)


logger = logging.getLogger("deployer.test.redaction")


def test_a_deployment_is_cleaned_of_its_own_secrets_and_of_nobody_elses(redactor: Redactor) -> None:
    redactor.register("a", ["hunter22"])
    redactor.register("b", ["another1"])
    redactor.register("a", ["injected-later"])
    assert redactor.clean_of("a", "hunter22 another1 injected-later") == "*** another1 ***"
    assert redactor.clean_of("b", "hunter22 another1 injected-later") == "hunter22 *** injected-later"
    assert redactor.clean("hunter22 another1") == "hunter22 another1"


def test_secrets_that_are_not_at_hand_are_found_where_they_are_kept(
    redactor: Redactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "REMEMBERED", 1)
    stored = {"a": ["hunter22"], "b": ["another1"]}
    redactor.find = stored.get
    assert redactor.clean_of("nobody", "hunter22") == "hunter22"
    for _ in range(2):
        for deployment, (secret,) in stored.items():
            assert redactor.clean_of(deployment, f"{secret} said") == "*** said"
    with redactor.about("a", ["injected-and-not-stored-yet"]):
        redactor.clean_of("b", "")
        redactor.register("c", ["x"])
        assert redactor.clean_of("a", "injected-and-not-stored-yet") == "***"


@pytest.mark.parametrize(
    "text", ["an-Opaque-t0ken-of", "an-Opaque-t0ken-of...", "an-Opaque-t0ken-of\u2026", "hunter22"]
)
def test_what_others_may_write_tells_nothing_of_the_services_own_credentials(redactor: Redactor, text: str) -> None:
    """A whole token, which nobody can guess, is hidden; a part of it, or a password that can be tried, is not."""
    redactor.set_credentials("kubernetes", [TOKEN])
    redactor.set_credentials("settings", ["hunter22", ""])
    for clean in (redactor.clean, lambda given: redactor.clean_of("a", given)):
        assert clean(f"it said {text}") == f"it said {text}"
        assert clean(f"it said {TOKEN}, {TOKEN}!") == "it said ***, ***!"
        assert "***" in clean(base64.b64encode(TOKEN.encode()).decode())


def test_the_services_own_log_is_cleaned_of_all_its_credentials(redactor: Redactor, log: io.StringIO) -> None:
    redactor.set_credentials("kubernetes", [TOKEN])
    redactor.set_credentials("settings", ["hunter22"])
    logger.warning("sent %s, hunter22 and an-Opaque-t0ken-o...", TOKEN)
    assert log.getvalue() == "WARNING sent ***, *** and ***...\n"


def test_credentials_that_were_replaced_stay_hidden_for_a_while(redactor: Redactor) -> None:
    for number in range(redaction.REMEMBERED_CREDENTIALS + 2):
        redactor.set_credentials("kubernetes", [f"{TOKEN}-{number:02d}"])
    assert redactor.clean(f"{TOKEN}-11 {TOKEN}-01 {TOKEN}-00") == f"*** *** {TOKEN}-00"


def test_the_services_own_log_hides_what_the_thread_is_about(redactor: Redactor, log: io.StringIO) -> None:
    """In arguments and tracebacks, also in threads that take the context over; nothing else, and not afterwards."""

    def fail() -> None:
        try:
            raise ValueError("value hunter22 is bad")
        except ValueError:
            logger.exception("failed with %s and %s", ["hunter22"], "another1")

    redactor.register("b", ["another1"])
    with redactor.about("a", ["hunter22"]):
        redactor.register("a", ["injected-later"])
        thread = threading.Thread(target=contextvars.copy_context().run, args=(fail,))
        thread.start()
        thread.join()
        logger.warning("injected-later")
    about_nobody()
    logger.warning("hunter22")
    with about_descriptor({"podspec": {"containers": [{"env": [{"name": "A", "value": "hunter22"}]}]}}):
        logger.warning("hunter22")
    lines = log.getvalue().splitlines()
    assert lines[0] == "ERROR failed with ['***'] and another1"
    assert lines[-4:] == ["ValueError: value *** is bad", "WARNING ***", "WARNING hunter22", "WARNING ***"]


def test_a_thread_that_nobody_knows_is_cleaned_of_what_is_being_worked_on(redactor: Redactor, log: io.StringIO) -> None:
    """A plugin may start threads. What is no longer worked on costs nothing there."""

    def say() -> None:
        thread = threading.Thread(target=logger.warning, args=("hunter22 and another1",))
        thread.start()
        thread.join()

    with redactor.about("a", ["hunter22"]), redactor.about("b", ["another1"]):
        say()
    say()
    assert log.getvalue() == "WARNING *** and ***\nWARNING hunter22 and another1\n"


def test_a_wrong_call_to_the_log_is_written_all_the_same(redactor: Redactor, log: io.StringIO) -> None:
    redactor.set_credentials("settings", ["hunter22"])
    logger.warning("%d of hunter22", "one")
    assert "'%d of ***' (cannot be formatted:" in log.getvalue()


def test_no_handler_is_locked_while_its_text_is_cleaned(redactor: Redactor, log: io.StringIO) -> None:
    cleaning, go_on = threading.Event(), threading.Event()

    class Slow(str):
        def __str__(self) -> str:
            cleaning.set()
            assert go_on.wait(20)
            return "slow"

    thread = threading.Thread(target=logger.warning, args=("%s", Slow()))
    thread.start()
    assert cleaning.wait(20)
    logger.warning("quick")
    go_on.set()
    thread.join()
    assert log.getvalue() == "WARNING quick\nWARNING slow\n"


def test_adding_while_others_clean(redactor: Redactor) -> None:
    redactor.register("a", ["always-secret"])
    stop = threading.Event()
    seen: set[str] = set()

    def clean() -> None:
        while not stop.is_set():
            seen.add(redactor.clean_of("a", "always-secret"))

    threads = [threading.Thread(target=clean) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(500):
        redactor.register("a", [f"always-{number}"])
    stop.set()
    for thread in threads:
        thread.join()
    assert seen <= {"***"}


def test_documents(redactor: Redactor) -> None:
    redactor.set_credentials("kubernetes", [TOKEN])
    assert redactor.clean_document({f"a {TOKEN}": [f"x {TOKEN}", 1, None, (TOKEN,)]}) == {
        "a ***": ["x ***", 1, None, ["***"]]
    }


def test_secrets_of_a_deployment_are_the_values_of_its_environment_and_not_its_names() -> None:
    env = [{"name": "A", "value": "own value"}, {"name": "B", "value": "shop"}, {"name": "C", "value": 1}, {}, "x"]
    init = [{"env": [{"name": "D", "value": "of the init container"}]}, "x", {"env": None}]
    podspec = {"containers": [{"name": "web", "image": "r/web:1", "env": env}], "initContainers": init}
    descriptor = {"appName": "shop", "namespace": "shop-ns", "newVersion": "#", "podspec": podspec}
    assert secrets_of(descriptor) == {"own value", "of the init container"}
    rendered = {"containers": [{"env": [{"name": "APP", "value": "shop-7"}, {"name": "E", "value": "injected"}]}]}
    plan = Plan(
        namespace="shop-ns",
        app="shop",
        deployment="d",
        version="7",
        objects=Workload(controller={"spec": {"template": {"spec": rendered}}}),
        environment=[{"name": "F", "value": "overridden"}, {"name": "G", "valueFrom": {}}],
    )
    assert secrets_of(descriptor, plan) == {"own value", "of the init container", "injected", "overridden"}
    assert secrets_of({"podspec": [1], "gates": 1}) == set()


def test_what_gates_add_to_the_environment_is_as_secret() -> None:
    gates = [{"options": {"env": [{"name": "A", "value": "of the admin"}]}}, {"options": None}, {}, "x"]
    descriptor = {"appName": "shop", "gates": {"beforeStart": gates, "afterSwitch": None}}
    assert secrets_of(descriptor) == {"of the admin"}
    forced = PlannedGate(step="s", point="beforeStart", type="job", name="x", options={"env": [{"value": "forced"}]})
    plan = Plan(namespace="n", app="shop", deployment="d", version="7", gates=(forced,))
    assert secrets_of(descriptor, plan) == {"of the admin", "forced"}


def test_values_are_known_as_containers_get_them() -> None:
    """Kubernetes expands them before the app sees them; what it takes from elsewhere is not known."""
    env = [
        {"name": "A", "value": "pa$$word-77"},
        {"name": "B", "value": "$(A)/$(C)/$$(A)"},
        {"name": "P", "valueFrom": {}},
        {"name": "D", "value": "before-it-$(P)-after-it"},
    ]
    assert set(values_of(env)) == {
        *("pa$$word-77", "pa$word-77"),
        *("$(A)/$(C)/$$(A)", "pa$word-77/", "/$(A)"),
        *("before-it-$(P)-after-it", "before-it-", "-after-it"),
    }


def test_settings_that_are_called_like_secrets() -> None:
    tables = {"env_etcd": {"password": "one", "password_file": "/two", "more": {"apiToken": "three"}, "url": "four"}}
    assert list(redaction.secret_settings(tables)) == ["one", "three"]
    lists = {"chat": {"rooms": [{"token": "four", "name": "five"}, "six"], "secrets": ["seven", 8]}}
    assert list(redaction.secret_settings(lists)) == ["four", "seven"]
