"""Finding secrets: in which spellings, what is left readable, and at which cost."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployer.redaction.matching import PIECE, Matcher, counts
from deployer.redaction.redactor import clean_credentials

SECRET = "S3cret/Kanari+\u00e4 'x' \"y\" &"


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
def test_clean(secrets: list[str], text: str, clean: str) -> None:
    assert Matcher(secrets).clean(text) == clean


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
def test_it_is_found_in_the_usual_spellings(spell: object) -> None:
    cleaned = Matcher([SECRET]).clean(f"<<{spell(SECRET)}>>")  # type: ignore[operator]
    assert "***" in cleaned
    assert len(cleaned) <= len("<<''***''>>") + 16, cleaned  # base64 leaves some characters that its neighbours share


@given(
    st.text(min_size=8, max_size=40).filter(lambda s: counts(s) and len(s.strip()) == len(s)),
    st.binary(max_size=7),
    st.binary(max_size=7),
)
@example("k\u00e4seKuchen", b"a", b"b")
@settings(max_examples=200, deadline=None, database=None)
def test_nothing_of_it_is_left_in_base64(secret: str, before: bytes, after: bytes) -> None:
    cleaned = Matcher([secret]).clean(base64.b64encode(before + secret.encode() + after).decode())
    assert "***" in cleaned
    # At each end, one character may hold bits of the secret.
    left = len(cleaned.replace("***", ""))
    assert left <= -(-len(before) * 8 // 6) + -(-len(after) * 8 // 6) + 4


def test_the_password_of_a_url_counts_by_itself() -> None:
    assert (
        Matcher(["postgres://shop:pa%40ss-w0rd@db/shop"]).clean("tried pa@ss-w0rd and pa%40ss-w0rd")
        == "tried *** and ***"
    )


@pytest.mark.parametrize("end", ["", "...", "\u2026", " [cut here: it was long]"])
def test_a_cut_in_a_secret_leaves_nothing_of_it(end: str) -> None:
    matcher = Matcher(["correct horse battery staple"])
    assert matcher.clean(f"it is correct horse ba{end}") == f"it is ***{end}"
    assert matcher.clean("a correct horse bank") == "a correct horse bank"


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
def test_credentials_are_known_by_their_form(text: str, clean: str) -> None:
    assert clean_credentials(text) == clean


@given(st.lists(st.text("abc", min_size=8, max_size=10), min_size=1, max_size=4), st.text("abc", max_size=60))
@settings(max_examples=200, deadline=None, database=None)
def test_no_secret_is_left(secrets: list[str], text: str) -> None:
    cleaned = Matcher(secrets).clean(text)
    hidden = {i for s in secrets for at in range(len(text)) if text.startswith(s, at) for i in range(at, at + len(s))}
    assert cleaned.replace("***", "") == "".join(c for i, c in enumerate(text) if i not in hidden)
    assert not any(secret in cleaned for secret in secrets)


@given(st.lists(st.text("ab", min_size=8, max_size=PIECE + 20), min_size=1, max_size=6), st.data())
@settings(max_examples=300, deadline=None, database=None)
def test_of_secrets_of_any_length_nothing_is_left(secrets: list[str], data: st.DataObject) -> None:
    """Of those up to `PIECE` characters, nothing else is hidden."""
    text = "".join(data.draw(st.lists(st.sampled_from([*secrets, "a", "b", "abba"]), max_size=8)))
    covered = {i for start, end in Matcher(secrets).spans(f"{text} ") for i in range(start, end)}
    hidden = {i for s in secrets for at in range(len(text)) if text.startswith(s, at) for i in range(at, at + len(s))}
    assert covered >= hidden
    if all(len(secret) <= PIECE for secret in secrets):
        assert covered == hidden


@pytest.mark.parametrize("left", [12, 63, 64, 65, 70, 130, 190])
def test_of_a_long_secret_that_was_cut_nothing_is_left(left: int) -> None:
    secret = "".join(chr(ord("a") + number * number % 26) + str(number) for number in range(70))
    assert Matcher([secret]).clean(f"it is {secret[:left]}...") == "it is ***..."


def test_of_very_many_values_each_is_hidden_as_it_is() -> None:
    """2,000 values that begin alike, and a text that begins like all of them: neither multiplies the other."""
    values = ["A" * (number % 50) + f"value {number:05d}" for number in range(2000)]
    cleaned = Matcher(values).clean(" ".join(values) + " " + "A" * 160_000 + " x")
    assert cleaned == " ".join(["***"] * 2000) + " " + "A" * 160_000 + " x"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa55word@host",
        "https://user:pa55/word@host",
        "https://user:pa55word@host/a@b",
        "amqp://u:pa55w%2frd@h",
        "postgres://u:pa55@word@h/db",
    ],
)
def test_the_password_in_a_url_is_hidden_whoever_knows_it(url: str) -> None:
    cleaned = clean_credentials(f"cannot reach {url}: refused")
    assert "pa55" not in cleaned
    assert "word" not in cleaned
    assert cleaned.startswith(f"cannot reach {url.split(':', maxsplit=1)[0]}://")
    assert cleaned.endswith(": refused")


@pytest.mark.parametrize("value", ["redis://:pa55word@host", "https://user:pa55/word@host"])
def test_the_password_in_a_value_counts_by_itself_in_any_url(value: str) -> None:
    password = value.rpartition("@")[0].rpartition(":")[2]
    assert Matcher([value]).clean(f"tried {password} in vain") == "tried *** in vain"


@pytest.mark.parametrize(
    "written",
    ["a%2fb%3ac%20secret", "a%2Fb%3Ac%20secret", "a%2Fb%3Ac+secret", "a\\/b:c secret", "a/b%3Ac%20secret"],
)
def test_percent_encoding_and_json_of_other_languages(written: str) -> None:
    assert Matcher(["a/b:c secret"]).clean(f"<{written}>") == "<***>"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('it\'s "quoted" 77', "it&#39;s &#34;quoted&#34; 77"),
        ('it\'s "quoted" 77', r"it\u0027s \u0022quoted\u0022 77"),
        ("a+b'c&d 9xyz", r"a\u002Bb\u0027c\u0026d 9xyz"),
        ("p\u00e4sswort-\u00df9", r"p\u00E4sswort-\u00DF9"),
        ("p\u00e4sswort-\u00df9", r"p\xe4sswort-\xdf9"),
        ("p\u00e4sswort-\u00df9", r"p\xc3\xa4sswort-\xc3\x9f9"),
        ('say "hi" now', base64.b64encode(b'{"a": "say \\"hi\\" now"}').decode()),
    ],
)
def test_as_other_languages_write_it(value: str, written: str) -> None:
    cleaned = Matcher([value]).clean(f"<{written}>")
    assert "***" in cleaned
    assert len(cleaned) <= 5 + 16  # base64 leaves what it shares with its neighbours


def test_json_as_go_writes_it() -> None:
    assert Matcher(["<a&b> secret"]).clean(r'"\u003ca\u0026b\u003e secret"') == '"***"'
