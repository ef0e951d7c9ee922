"""`[[issuers]]`: what a table may say, and what its patterns match."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.api.auth.jwt.grants import claim, grants_of
from deployer.core.errors import SettingsError
from deployer.settings import Settings, load
from deployer.settings.issuers.configured import issuers_of
from deployer.settings.issuers.issuer import parse
from deployer.settings.issuers.patterns import Pattern

GITHUB = "https://token.actions.githubusercontent.com"
TABLE: dict[str, Any] = {
    "name": "ci",
    "issuer": "https://ci.example",
    "audience": "https://deploy.example",
    "rules": [{"claims": {"repository": "acme/shop"}, "namespaces": ["shop"], "verbs": ["deploy"]}],
}


def table(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(TABLE) | changes
    return {name: value for name, value in made.items() if value is not None}


def rule(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(TABLE["rules"][0]) | changes
    return table(rules=[{name: value for name, value in made.items() if value is not None}])


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("acme/shop", ["acme/shop"], ["acme/shopx", "xacme/shop", "Acme/Shop", "acme/shop\n", "acme/shop/", ""]),
        ("acme/shop-*", ["acme/shop-", "acme/shop-web"], ["acme/shop", "acme/shop-a/b", "acme/shop-a:b"]),
        ("acme/**", ["acme/a", "acme/a/b:c", "acme/"], ["acme", "acme2/a", "evil/acme/a"]),
        ("refs/tags/v?", ["refs/tags/v1"], ["refs/tags/v", "refs/tags/v12", "refs/tags/v/"]),
        (
            "repo:acme/*:ref:refs/heads/main",
            ["repo:acme/shop:ref:refs/heads/main"],
            ["repo:acme/shop:environment:x:ref:refs/heads/main", "repo:acme/a/b:ref:refs/heads/main"],
        ),
        ("a.b+(c)|[d]", ["a.b+(c)|[d]"], ["axb+(c)|[d]", "a.b", "d"]),
        ("acme/{app}", ["acme/shop", "acme/a-1"], ["acme/Shop", "acme/-a", "acme/a_b", "acme/a/b", "acme/*", "acme/"]),
        ("acme/{app}", ["acme/" + "a" * 63], ["acme/" + "a" * 64]),
    ],
)  # fmt: skip
def test_what_a_pattern_matches(pattern: str, matched: list[str], others: list[str]) -> None:
    made = Pattern(pattern)
    assert [text for text in matched if made.match(text) is None] == []
    assert [text for text in others if made.match(text) is not None] == []


@pytest.mark.timeout(20)
def test_no_value_takes_long() -> None:
    """Whoever names a branch must not be able to hold up the service: these would take years if they were tried."""
    pattern = Pattern("**a" + "*a" * 200 + "b")
    for _ in range(20):
        assert pattern.match("a" * 512) is None
    assert Pattern("a**").match("a" * 513) is None


@given(text=st.text("ab/:", max_size=12), pattern=st.text("ab/*?", min_size=1, max_size=8))
def test_it_matches_what_its_table_says(text: str, pattern: str) -> None:
    """Compared with the same, written down without a thought for time."""
    if pattern.count("**") > 1 or "***" in pattern:
        return
    plain = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/:]*").replace(r"\?", "[^/:]")
    assert (Pattern(pattern).match(text) is not None) == (re.fullmatch(plain, text, re.DOTALL) is not None)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "not a pattern of 1 to"),
        ("x" * 513, "not a pattern of 1 to"),
        ("a\nb", "not a pattern of 1 to"),
        ("acme/{app}-*", "{app} must be a whole part"),
        ("acme/x{app}", "{app} must be a whole part"),
        ("{a}{b}", "{a} must be a whole part"),
        ("acme/{app}/{app}", "a name in braces twice"),
        ("acme/{App}", "a brace without a name"),
        ("a**/b**", "** more than once"),
        ("acme/{", "a brace without a name"),
        ("acme/{}", "a brace without a name"),
    ],
)
def test_a_pattern_that_is_none(pattern: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Pattern(pattern)
    assert said in str(caught.value)


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (table(name=None), "name is missing"),
        (table(issuer=None, audience=None), "issuer and audience are missing"),
        (table(rules=[]), "rules is missing"),
        (table(audiance="x"), "unknown key audiance"),
        (table(name="CI"), "is not a name of a-z"),
        (table(name="default"), "is the issuer of the settings jwt_*"),
        (table(issuer="http://ci.example"), "is not an address like https://"),
        (table(issuer="https://ann:pw@ci.example"), "is not an address like https://"),
        (table(issuer="https://ci.example?x=1"), "is not an address like https://"),
        (table(jwks_url="http://ci.example/keys"), "jwks_url: 'http://ci.example/keys' is not an address"),
        (table(jwks_url="https://ci.example/keys", key_file="k"), "exclude each other"),
        (table(algorithms=["HS256"]), "'HS256' is not one of RS256"),
        (table(algorithms="RS256"), "algorithms is not a list"),
        (table(audience=["a"]), "audience: ['a'] is not a single line"),
        (table(scopes="openid"), "scopes are asked for with client_id"),
        (table(rules=["x"]), "rule 1: it is not a table"),
        (rule(verbs=None), "rule 1: verbs is missing"),
        (rule(claims={}), "rule 1: claims is missing"),
        (rule(verbs=["write"]), "rule 1: verbs: 'write' is not one of read, deploy"),
        (rule(verbs="deploy"), "rule 1: verbs is not a list"),
        (rule(namespaces=["Shop"]), "'Shop' is not a namespace or a pattern"),
        (rule(claims={"repository": 5}), "claims: repository is not a text"),
        (rule(claims={"repository": []}), "claims: repository is not a text"),
        (rule(claims={"repository": "acme/{a"}), "claims: repository: 'acme/{a' has a brace"),
        (rule(claims={"repository": "*"}), "no pattern begins with anything but a wildcard"),
        (rule(claims={"repository": ["acme/shop", "**"]}), "no pattern begins with anything but a wildcard"),
        (rule(claims={"repository": "{org}"}, namespaces=["{org}"]), "no pattern begins with anything but a wildcard"),
        (rule(namespaces=["{app}"]), "{app} is in no pattern of a claim"),
        (rule(claims={"repository": ["acme/{app}", "acme/x"]}, namespaces=["{app}"]), "{app} is in no pattern"),
        (rule(claims={"repository": "acme/{app}"}, namespaces=["{app}-*"]), "so it is no pattern"),
        (rule(claims={"repository": "acme/{a}", "ref": "x/{a}"}), "is in the patterns of two claims"),
        (rule(claims={"repository": "acme/{app}"}, namespaces=["{app}!"]), "'a!' is not a namespace"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(changed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("issuer", [GITHUB, GITHUB + "/", "https://gitlab.com"])
@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"ref": "refs/heads/main"}, False),
        ({"ref": "refs/heads/main", "environment": "production"}, False),
        ({"sub": "repo:acme*"}, False),
        ({"sub": "repo:*/shop:ref:refs/heads/main"}, False),
        ({"repository": "acme*/shop", "project_path": "acme*/shop"}, False),
        ({"repository": "a?me/shop", "project_path": "{org}/shop", "ref": "refs/heads/main"}, False),
        ({"repository": ["acme/shop", "acme*/shop"], "project_path": ["acme/shop", "**"]}, False),
        ({"sub": "repo:acme/*:ref:refs/heads/main"}, True),
        ({"repository_owner_id": "123", "namespace_id": "123"}, True),
        ({"repository": "acme/*", "project_path": "acme/**", "ref": "refs/heads/main"}, True),
    ],
)
def test_an_issuer_for_everybody_needs_to_be_told_whose(issuer: str, claims: dict[str, Any], good: bool) -> None:
    changed = rule(claims=claims) | {"issuer": issuer}
    if good:
        assert parse(changed).rules
        return
    with pytest.raises(ValueError, match=r"signs for everybody|begins with anything but a wildcard"):
        parse(changed)


HOME = {"HOME": "/home/nobody"}
JWT = {"auth": "jwt", "jwt_issuer": "https://idp.example", "jwt_audience": "deployer", "jwt_key_file": "/k.pem"}


def loaded(tmp_path: Any, text: str, **flags: Any) -> Settings:
    file = tmp_path / "deployer.toml"
    file.write_text(text)
    return load(flags, HOME, file)


TOML = """
[[issuers]]
name = "ci"
issuer = "https://ci.example"
audience = "deploy"
[[issuers.rules]]
claims = {repository = ["acme/shop", "acme/cart"], "a.b" = "c"}
namespaces = ["shop", "team-*"]
verbs = ["read", "deploy"]
"""


def test_it_stands_in_the_file(tmp_path: Any) -> None:
    settings = loaded(tmp_path, TOML, auth="jwt")
    (issuer,) = settings.issuers
    assert (issuer.name, issuer.issuer, issuer.algorithms) == ("ci", "https://ci.example", ("RS256",))
    assert (issuer.name_claim, issuer.name_prefix) == ("sub", "ci:")
    assert issuers_of(settings) == (issuer,)
    both = loaded(tmp_path, TOML, **JWT)
    assert [issuer.name for issuer in issuers_of(both)] == ["default", "ci"]
    assert issuers_of(both)[0].name_prefix == ""
    assert dataclasses.replace(settings) == settings


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (TOML, {}, "[[issuers]] has no effect without --auth jwt"),
        (TOML, {"auth": "kubernetes"}, "[[issuers]] has no effect without --auth jwt"),
        (TOML + TOML.replace('"ci"', '"other"'), {"auth": "jwt"}, "have the same issuer 'https://ci.example'"),
        (TOML + TOML.replace("ci.example", "b.example"), {"auth": "jwt"}, "have the same name 'ci'"),
        (TOML, JWT | {"jwt_issuer": "https://ci.example"}, "default and ci have the same issuer"),
        (TOML.replace('"deploy"\n', '"deploy"\nname_prefix = ""\n'), JWT, "have the same name_prefix ''"),
        (TOML, {"auth": "jwt", "jwt_audience": "a"}, "--auth jwt also needs --jwt-issuer"),
        (TOML.replace('["shop", "team-*"]', "[]"), {"auth": "jwt"}, "ci: rule 1: namespaces is missing"),
        ("[issuers]\nname = 1\n", {"auth": "jwt"}, "key issuers"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path: Any, text: str, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, text, **flags)
    assert said in str(caught.value)


# --- what rules make of claims ----------------------------------------------------------------------------------------


def allowed(rules: list[dict[str, Any]], claims: dict[str, Any], namespace: str) -> set[str]:
    """The verbs that a token has in a namespace."""
    grants = grants_of(parse(table(rules=rules)), claims)
    return {verb for grant in grants if grant.covers(namespace) for verb in grant.verbs}


MAIN = {"claims": {"repository": "acme/shop", "ref": "refs/heads/main"}, "namespaces": ["shop"], "verbs": ["deploy"]}
ANY_REF = {"claims": {"repository": "acme/*"}, "namespaces": ["team-*"], "verbs": ["read", "freeze"]}


@pytest.mark.parametrize(
    ("claims", "namespace", "verbs"),
    [
        ({"repository": "acme/shop", "ref": "refs/heads/main"}, "shop", {"deploy"}),
        ({"repository": "acme/shop", "ref": "refs/heads/main"}, "team-a", {"read", "freeze"}),
        ({"repository": "acme/shop", "ref": "refs/heads/other"}, "shop", set()),
        ({"repository": "acme/shop"}, "shop", set()),
        ({"ref": "refs/heads/main"}, "shop", set()),
        ({"repository": "acme/shop", "ref": ["refs/heads/x", "refs/heads/main"]}, "shop", {"deploy"}),
        ({"repository": "acme/shop", "ref": {"refs/heads/main": True}}, "shop", set()),
        ({"repository": "acme/shop", "ref": [["refs/heads/main"]]}, "shop", set()),
        ({"repository": "acme/shop", "ref": None}, "shop", set()),
        ({"repository": "acme/*", "ref": "refs/heads/main"}, "shop", set()),
        ({"repository": "*", "ref": "*"}, "shop", set()),
        ({"repository": "acme/x"}, "team-*", {"read", "freeze"}),  # it has no other meaning than its characters
        ({"repository": "acme/x"}, "*", set()),
        ({}, "shop", set()),
    ],
)
def test_all_conditions_of_a_rule_and_any_rule(claims: dict[str, Any], namespace: str, verbs: set[str]) -> None:
    assert allowed([MAIN, ANY_REF], claims, namespace) == verbs


@pytest.mark.parametrize(
    ("pattern", "value", "good"),
    [
        ("true", True, True),
        ("false", True, False),
        ("12", 12, True),
        ("1", True, False),
        ("12", 12.0, False),
        ("None", None, False),
    ],
)
def test_numbers_and_truth_values_as_json_writes_them(pattern: str, value: Any, good: bool) -> None:
    rules = [{"claims": {"protected": pattern}, "namespaces": ["shop"], "verbs": ["read"]}]
    assert bool(allowed(rules, {"protected": value}, "shop")) == good


CAPTURING = [{"claims": {"repository": "acme/{app}"}, "namespaces": ["{app}", "app-{app}"], "verbs": ["deploy"]}]


@pytest.mark.parametrize(
    ("repository", "namespaces"),
    [
        ("acme/shop", {"shop", "app-shop"}),
        ("acme/" + "a" * 63, {"a" * 63}),  # app-aaa... would be no namespace
        ("acme/*", set()),
        ("acme/?", set()),
        ("acme/shop*", set()),
        ("acme/{app}", set()),
        ("acme/a/shop", set()),
        ("acme/shop\n", set()),
        ("evil/shop", set()),
        (["acme/shop"], set()),
        (["acme/cart", "acme/shop"], set()),
    ],
)
def test_what_is_captured_is_one_name_and_never_a_pattern(repository: Any, namespaces: set[str]) -> None:
    known = ["shop", "app-shop", "a" * 63, "app-" + "a" * 59, "cart", "kube-system", "*", "?", "shopx"]
    found = {name for name in known if allowed(CAPTURING, {"repository": repository}, name)}
    assert found == namespaces


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"a.b": "x", "a": {"b": "y"}}, "a.b", "x"),
        ({"a.b": {"c": "x"}}, "a.b.c", "x"),
        ({"a.b": "x", "a": {"b": {"c": "y"}}}, "a.b.c", "y"),
        ({"a": {"b.c": "x"}}, "a.b.c", "x"),
        ({"a": {"b": {}}}, "a.b.c", None),
        ({"a": "x"}, "a.b", None),
        ({"a": None}, "a", None),
        ({}, "", None),
    ],
)
def test_dots_in_a_claims_name_are_its_own_or_lead_into_objects(claims: dict[str, Any], path: str, found: Any) -> None:
    assert claim(claims, path) == found


def test_only_a_star_of_its_own_is_about_everything() -> None:
    for namespaces, everything in ((["*"], True), (["?"], False), (["?*"], False), (["team-*", "*"], True)):
        rules = [{"claims": {"iss": "https://ci.example"}, "namespaces": namespaces, "verbs": ["freeze"]}]
        assert bool(allowed(rules, {"iss": "https://ci.example"}, "*")) == everything, namespaces
