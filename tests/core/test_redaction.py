"""The redactor: what it hides, in which spellings, and what it leaves readable."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import threading
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployer.core import redaction
from deployer.core.records import Plan
from deployer.core.redaction import Redactor, guard_logging, secrets_of

SECRET = "S3cret/Kanari+\u00e4 'x' \"y\" &"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.mark.parametrize(
    ("secrets", "text", "clean"),
    [
        (["abcdefgh", "abcdefghij"], "abcdefghijk abcdefgh", "***k ***"),
        (["abcdefgh", "efghijkl"], "abcdefghijkl", "***"),
        (["abababab"], "ababababab", "***"),
        (["abcdefgh", "ijklmnop"], "abcdefghijklmnop", "***"),
        (["1", "no", "abc", ""], "1 no abc", "1 no abc"),
        (["a.*b.*c.*"], "axxbxxcxx a.*b.*c.*", "axxbxxcxx ***"),
        (['say "hi"'], r'{"value": "say \"hi\""}', '{"value": "***"}'),
        (["gr\u00fc\u00dfe an alle"], '"gr\\u00fc\\u00dfe an alle"', '"***"'),
        (["first line\nsecond line\nx"], "second line", "***"),
        (["first line\r\nsecond"], "a first line\r\nsecond b", "a *** b"),
        (["two  blanks here"], "it said: two blanks here.", "it said: ***."),
        ([], "nothing to hide", "nothing to hide"),
        # Short ones: of two kinds of characters, and only as words.
        (["ab1d"], "ab1d xab1d ab1dx ab1d_ (ab1d) ab1d", "*** xab1d ab1dx ab1d_ (***) ***"),
        (["shop", "SHOP", "123456"], "shop SHOP 123456", "shop SHOP 123456"),
        (["hunter2"], "password=hunter2;", "password=***;"),
        # What everybody knows.
        (
            ["true", "production", "Production", "8080", "localhost", "https://"],
            "true production 8080",
            "true production 8080",
        ),
        (["20241231"], "on 20241231", "on ***"),
    ],
)
def test_clean(redactor: Redactor, secrets: list[str], text: str, clean: str) -> None:
    for secret in secrets:
        redactor.add(secret)
    assert redactor.clean(text) == clean


@pytest.mark.parametrize(
    "spell",
    [
        str,
        json.dumps,
        lambda s: json.dumps(s, ensure_ascii=False),
        lambda s: json.dumps(json.dumps(s)),
        repr,
        html.escape,
        lambda s: urllib.parse.quote(s, safe=""),
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
        *(lambda s, n=n: base64.b64encode(b"user:x"[:n] + s.encode() + b"..").decode() for n in range(6)),
    ],
)
def test_it_is_found_in_the_usual_spellings(redactor: Redactor, spell: object) -> None:
    redactor.add(SECRET)
    cleaned = redactor.clean(f"<<{spell(SECRET)}>>")  # type: ignore[operator]
    assert "***" in cleaned
    assert len(cleaned) <= len("<<''***''>>") + 16, cleaned  # base64 leaves some characters that its neighbours share


@given(
    st.text(min_size=8, max_size=40).filter(lambda s: redaction.counts(s) and len(s.strip()) == len(s)),
    st.binary(max_size=7),
    st.binary(max_size=7),
)
@example("k\u00e4seKuchen", b"a", b"b")
@settings(max_examples=200, deadline=None, database=None)
def test_nothing_of_it_is_left_in_base64(secret: str, before: bytes, after: bytes) -> None:
    redactor = Redactor()
    redactor.add(secret)
    cleaned = redactor.clean(base64.b64encode(before + secret.encode() + after).decode())
    assert "***" in cleaned
    # At each end, one character may hold bits of the secret.
    left = len(cleaned.replace("***", ""))
    assert left <= -(-len(before) * 8 // 6) + -(-len(after) * 8 // 6) + 4


def test_the_password_of_a_url_counts_by_itself(redactor: Redactor) -> None:
    redactor.add("postgres://shop:pa%40ss-w0rd@db/shop")
    assert redactor.clean("tried pa@ss-w0rd and pa%40ss-w0rd") == "tried *** and ***"


@pytest.mark.parametrize("end", ["", "...", "\u2026", " [cut here: it was long]"])
def test_a_cut_in_a_secret_leaves_nothing_of_it(redactor: Redactor, end: str) -> None:
    redactor.add("correct horse battery staple")
    assert redactor.clean(f"it is correct horse ba{end}") == f"it is ***{end}"
    assert redactor.clean("a correct horse bank") == "a correct horse bank"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.DEF-123_xyz", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "authorization: basic ***"),
        ("no basic authentication, bearer token missing", "no basic authentication, bearer token missing"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln now", "got *** now"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJz", "got ***"),
        ("base64url.bearer.authorization.kube-deployer.YWJjZGVm", "base64url.bearer.authorization.kube-deployer.***"),
        ("at http://user:pass@host/path", "at http://user:***@host/path"),
        ("at http://host:80/a@b", "at http://host:80/a@b"),
    ],
)
def test_credentials_are_known_by_their_form(redactor: Redactor, text: str, clean: str) -> None:
    assert redactor.clean(text) == clean


def test_a_value_stays_hidden_until_its_last_owner_is_released_and_a_while_longer(
    redactor: Redactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "REMEMBERED", 1)
    redactor.release("nobody")
    redactor.hold("a", ["hunter22", "hunter22"])
    redactor.hold("a", ["hunter22", "another1"])
    redactor.hold("b", ["hunter22"])
    redactor.release("a")
    redactor.hold("c", ["something else"])
    redactor.release("c")
    assert redactor.clean("hunter22 another1") == "*** another1"
    redactor.release("b")
    assert redactor.clean("hunter22") == "***"
    redactor.hold("c", ["something else"])
    redactor.release("c")
    assert redactor.clean("hunter22 something else") == "hunter22 ***"
    redactor.hold("d", ["hunter22"])
    assert redactor.clean("hunter22") == "***"


@given(st.lists(st.text("abc", min_size=8, max_size=10), min_size=1, max_size=4), st.text("abc", max_size=60))
@settings(max_examples=200, deadline=None, database=None)
def test_no_secret_is_left(secrets: list[str], text: str) -> None:
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    cleaned = redactor.clean(text)
    hidden = {i for s in secrets for at in range(len(text)) if text.startswith(s, at) for i in range(at, at + len(s))}
    assert cleaned.replace("***", "") == "".join(c for i, c in enumerate(text) if i not in hidden)
    assert not any(secret in cleaned for secret in secrets)


def test_adding_while_others_clean(redactor: Redactor) -> None:
    redactor.add("always-secret")
    stop = threading.Event()
    seen: set[str] = set()

    def clean() -> None:
        while not stop.is_set():
            seen.add(redactor.clean("always-secret"))

    threads = [threading.Thread(target=clean) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(500):
        redactor.hold(str(number), [f"always-{number}"])
        redactor.release(str(number))
    stop.set()
    for thread in threads:
        thread.join()
    assert seen <= {"***"}


def test_many_secrets_that_begin_alike_cost_no_more(redactor: Redactor) -> None:
    """They are found and forgotten one by one."""
    secrets = [f"https://example.com/{number:05d}/{'x' * (number % 7)}" for number in range(3000)]
    redactor.hold("a", secrets)
    assert redactor.clean(f"{secrets[0]} {secrets[2999]} https://example.com/ https://example.com/0") == (
        "*** *** https://example.com/ ***"  # the last one may be the beginning of one that was cut
    )
    for number in range(redaction.REMEMBERED + 1):
        redactor.hold(str(number), [f"another secret {number}"])
        redactor.release(str(number))
    redactor.release("a")
    for number in range(redaction.REMEMBERED):
        redactor.hold(str(number), [f"one more secret {number}"])
        redactor.release(str(number))
    assert redactor.clean(secrets[7]) == secrets[7]
    assert redactor.clean("one more secret 7") == "***"


def test_documents(redactor: Redactor) -> None:
    redactor.add("hunter22")
    assert redactor.clean_document({"a hunter22": ["x hunter22", 1, None, ("hunter22",)]}) == {
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
        objects={"controller": {"spec": {"template": {"spec": rendered}}}},
        environment=[{"name": "F", "value": "overridden"}, {"name": "G", "valueFrom": {}}],
    )
    assert secrets_of(descriptor, plan) == {"own value", "of the init container", "injected", "overridden"}
    assert secrets_of({"podspec": [1]}) == set()


def test_settings_that_are_called_like_secrets() -> None:
    tables = {"env_etcd": {"password": "one", "password_file": "/two", "more": {"apiToken": "three"}, "url": "four"}}
    assert list(redaction.secret_settings(tables)) == ["one", "three"]


def test_the_service_log_hides_them_in_arguments_and_tracebacks(redactor: Redactor) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("deployer.test.redaction")
    logger.propagate = False
    logger.addHandler(handler)
    undo = guard_logging(redactor)
    try:
        redactor.add("hunter22")
        try:
            raise ValueError("value hunter22 is bad")
        except ValueError:
            logger.exception("failed with %s", ["hunter22"])
        undo()
        logger.warning("hunter22")
    finally:
        undo()
        logger.removeHandler(handler)
    lines = out.getvalue().splitlines()
    assert lines[0] == "ERROR failed with ['***']"
    assert lines[-2:] == ["ValueError: value *** is bad", "WARNING hunter22"]
