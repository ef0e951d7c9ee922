"""Several issuers at once: none is taken for another, what each allows, and what strangers can make the service do."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from deployer.api.auth.access import Access, open_access
from deployer.api.auth.jwt import jwks
from deployer.api.auth.principal import Forbidden, Unauthenticated, Unsure
from deployer.api.routes import OVERRIDE, ROLLBACK, ROUTES, Permission
from deployer.core.errors import SettingsError
from deployer.core.model.records import App, Operation, OperationKind, OperationState, Plan, Status, new_id
from deployer.core.ports.store import Create, Update
from deployer.settings import Settings
from support.issuer import AUDIENCE, ISSUER, Issuer, KeyServer, bearer

from .conftest import NS, Served
from .test_auth_tokens import by_hand_signed
from .test_openapi import validator

CI = "https://ci.example"
CI_AUDIENCE = "https://deploy.example"
RULES: list[dict[str, Any]] = [
    {"claims": {"repository": "acme/shop"}, "namespaces": [NS], "verbs": ["deploy"]},
    {"claims": {"repository": "acme/audit"}, "namespaces": ["*"], "verbs": ["read"]},
]
DEPLOY = Permission("deployments", "create")


@pytest.fixture(scope="module")
def people() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def ci() -> Issuer:
    """With a key of the same id."""
    return Issuer()


def ci_token(issuer: Issuer, **claims: Any) -> str:
    return issuer.token(
        **{"iss": CI, "aud": CI_AUDIENCE, "sub": "repo:acme/shop", "repository": "acme/shop", "roles": None} | claims
    )


def configured(directory: Path, people: Issuer, ci: Issuer, **more: Any) -> Settings:
    """People by the settings `jwt_*`, and the CI by a table."""
    for name, issuer in (("people", people), ("ci", ci)):
        (directory / f"{name}.pem").write_bytes(issuer.pem)
    table = {
        "name": "ci",
        "issuer": CI,
        "audience": CI_AUDIENCE,
        "algorithms": ["ES256"],
        "key_file": str(directory / "ci.pem"),
        "rules": RULES,
    }
    fields: dict[str, Any] = {
        "jwt_algorithm": "ES256",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_key_file": str(directory / "people.pem"),
        "issuers": (table,),
    }
    return Settings(auth="jwt", **fields | more)


def opened(settings: Settings) -> Access:
    made = open_access(settings, None)  # type: ignore[arg-type]
    assert made is not None
    return made


@pytest.fixture
def access(tmp_path: Path, people: Issuer, ci: Issuer) -> Iterator[Access]:
    made = opened(configured(tmp_path, people, ci))
    yield made
    made.close()


# --- each by its own --------------------------------------------------------------------------------------------------


def test_people_and_the_ci_are_both_let_in(served: Served, people: Issuer, ci: Issuer) -> None:
    target = f"/descriptors?namespace={NS}"
    body = {
        "namespace": NS,
        "appName": "shop",
        "newVersion": "1",
        "podspec": {"containers": [{"name": "a", "image": "b"}]},
    }
    made = served.call("POST", target, body, bearer(ci_token(ci))).json
    queued = served.call("POST", f"/deployments?namespace={NS}&descriptorId={made['id']}", None, bearer(ci_token(ci)))
    assert queued.json["createdBy"] == "ci:repo:acme/shop"
    shown = served.call("GET", f"/deployments/{queued.json['id']}?namespace={NS}", headers=bearer(people.token()))
    assert shown.json["createdBy"] == "ci:repo:acme/shop"
    assert served.call("GET", target, headers=bearer(ci_token(ci, repository="acme/other"))).problem["status"] == 403
    assert served.call("POST", target, body, bearer(ci_token(ci, repository="acme/audit"))).problem["status"] == 403
    assert served.call("GET", target, headers=bearer(ci_token(ci, repository="acme/audit"))).status == 200


def test_the_roles_of_a_token_count_for_nothing_where_there_are_rules(access: Access, ci: Issuer) -> None:
    caller = access.identify(ci_token(ci, repository="evil/shop", roles=["deploy"], namespaces=["*"]))
    with pytest.raises(Forbidden, match="may not use this namespace"):
        access.require(caller, DEPLOY, NS)


def test_a_refusal_says_what_is_missing(access: Access, ci: Issuer) -> None:
    caller = access.identify(ci_token(ci))
    with pytest.raises(Forbidden, match="may not approve deployments: that needs approve from a rule of issuer ci"):
        access.require(caller, Permission("deployments", "approve"), NS)
    with pytest.raises(Forbidden, match=r"may not use all namespaces: that needs \* among the namespaces of a rule"):
        access.require(caller, Permission("freezes", "update"), "*")


# --- mix-up -----------------------------------------------------------------------------------------------------------


def confused(people: Issuer, ci: Issuer) -> dict[str, str]:
    return {
        "the CI's key, people's name": ci.token(),
        "people's key, the CI's name": ci_token(people),
        "people's audience at the CI": ci_token(ci, aud=AUDIENCE),
        "the CI's audience at people's": people.token(aud=CI_AUDIENCE),
        "the audience is an issuer": ci_token(ci, aud=CI),
        "both names": by_hand_signed(ci, {**ci.claims(aud=CI_AUDIENCE), "iss": [CI, ISSUER]}),
        "one name twice": by_hand_signed(
            ci, json.dumps(ci.claims(aud=CI_AUDIENCE, iss=CI))[:-1] + f', "iss": "{ISSUER}"}}'
        ),
        "another spelling": ci_token(ci, iss=CI + "/"),
        "in capitals": ci_token(ci, iss=CI.upper()),
        "a stranger": ci_token(Issuer(), iss="https://evil.example"),
        "no name": ci_token(ci, iss=None),
        "an empty name": ci_token(ci, iss=""),
        "the name of a setting": ci_token(ci, iss="ci"),
        "no claims": "e30.W10.e30",
        "no token": "abc",
    }


@pytest.mark.parametrize("kind", sorted(confused(Issuer(), Issuer())))
def test_no_issuer_speaks_for_another(served: Served, access: Access, people: Issuer, ci: Issuer, kind: str) -> None:
    token = confused(people, ci)[kind]
    assert access.identify(people.token()).name == "ann"  # what is remembered of one is not the other's
    assert access.identify(ci_token(ci)).name == "ci:repo:acme/shop"
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            access.identify(token)
    assert served.call("GET", f"/deployments?namespace={NS}", headers=bearer(token)).problem["status"] == 401


def test_nobody_takes_a_name_of_another_issuers_callers(tmp_path: Path, people: Issuer, ci: Issuer) -> None:
    """A gate may want somebody else than who deployed: they must not be the same person with two names, nor the other
    way round."""
    made = opened(configured(tmp_path, people, ci))
    with pytest.raises(Unauthenticated, match="is a name of another issuer's callers"):
        made.identify(people.token(sub="ci:repo:acme/shop"))
    assert made.identify(people.token(sub="ci")).name == "ci"
    assert made.identify(ci_token(ci, sub="ann")).name == "ci:ann"
    with pytest.raises(Unauthenticated, match="printable text of 1 to 256"):
        made.identify(ci_token(ci, sub="x" * 254))
    made.close()


# --- algorithms -------------------------------------------------------------------------------------------------------


def test_each_key_checks_the_algorithm_that_it_is_for(tmp_path: Path, people: Issuer, ci: Issuer) -> None:
    """Two keys of one id, as when an issuer changes from RSA to curves."""
    private = rsa.generate_private_key(65537, 2048)
    entry = {**json.loads(RSAAlgorithm.to_jwk(private.public_key())), "kid": "one", "alg": "RS256", "use": "sig"}
    server = KeyServer(tmp_path, ci)
    server.reply = lambda request: server.send(request, json.dumps({"keys": [entry, ci.jwk]}).encode())
    base = configured(tmp_path, people, ci)
    table = {
        **{name: getattr(base.issuers[0], name) for name in ("name", "issuer", "audience")},
        "algorithms": ["ES256", "RS256"],
        "jwks_url": server.url,
        "jwks_ca_file": str(server.ca),
        "rules": RULES,
    }
    made = opened(configured(tmp_path, people, ci, issuers=(table,)))
    claims = jwt.decode(ci_token(ci), options={"verify_signature": False})

    def signed(algorithm: str, key: Any) -> str:
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "one"})

    assert made.identify(signed("RS256", private)).name == made.identify(ci_token(ci)).name == "ci:repo:acme/shop"
    for token in (
        signed("RS512", private),
        signed("PS256", private),
        signed("RS256", rsa.generate_private_key(65537, 2048)),
    ):
        with pytest.raises(Unauthenticated):
            made.identify(token)
    made.close()
    server.close()


# --- discovery --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, ci: Issuer) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path, ci)
    yield made
    made.close()


def discovering(directory: Path, server: KeyServer, **more: Any) -> Settings:
    table = {
        "name": "ci",
        "issuer": server.base,
        "audience": CI_AUDIENCE,
        "algorithms": ["ES256"],
        "jwks_ca_file": str(server.ca),
        "rules": RULES,
    }
    return Settings(auth="jwt", issuers=(table | more,))


def test_the_issuers_document_says_where_its_keys_are(tmp_path: Path, server: KeyServer, ci: Issuer) -> None:
    made = opened(discovering(tmp_path, server))
    for number in range(5):
        assert made.identify(ci_token(ci, iss=server.base, jti=str(number))).name == "ci:repo:acme/shop"
    assert server.asked == ["/.well-known/openid-configuration", "/keys"]
    assert made.problem() == ""
    made.close()


def test_an_issuer_with_a_path_has_its_document_below_it(tmp_path: Path, server: KeyServer, ci: Issuer) -> None:
    """OpenID Connect Discovery 1.0, 4.1."""
    issuer = f"{server.base}/realms/dev/"
    keys = server._keys

    def reply(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/realms/dev/.well-known/openid-configuration":
            server.send(request, json.dumps({"issuer": issuer, "jwks_uri": server.url}).encode())
        else:
            keys(request)

    server.reply = reply
    made = opened(discovering(tmp_path, server, issuer=issuer))
    assert made.identify(ci_token(ci, iss=issuer)).name == "ci:repo:acme/shop"
    made.close()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"issuer": "https://evil.example"}, "not that of the issuer"),
        ({"issuer": None}, "not that of the issuer"),
        ({"jwks_uri": None}, "no address that begins with https://"),
        ({"jwks_uri": "http://127.0.0.1/keys"}, "no address that begins with https://"),
        ({"jwks_uri": "file:///etc/passwd"}, "no address that begins with https://"),
        ({"jwks_uri": "https://a:b@127.0.0.1/keys"}, "no address that begins with https://"),
        ({"jwks_uri": "https://169.254.169.254/keys"}, "at another host"),
        ({"jwks_uri": "https://127.0.0.1:1/keys"}, "at another host"),
        ({"jwks_uri": ["https://127.0.0.1/keys"]}, "no address that begins with https://"),
        ([], "not that of the issuer"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (jwks.MAX_BYTES + 1), "larger than"),
        (302, "answered 302"),
        (404, "answered 404"),
    ],
)
def test_a_document_that_leads_elsewhere_leads_nowhere(
    tmp_path: Path, server: KeyServer, ci: Issuer, document: Any, said: str
) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        if isinstance(document, int):
            server.send(request, b"", document, Location=server.url)
            return
        body = document if isinstance(document, bytes) else json.dumps(
            server.document | document if isinstance(document, dict) else document
        ).encode()  # fmt: skip
        server.send(request, body)

    server.reply = reply
    made = opened(discovering(tmp_path, server))
    for _ in range(3):
        with pytest.raises(Unsure) as caught:
            made.identify(ci_token(ci, iss=server.base))
        assert said in caught.value.detail
        assert server.base not in str(caught.value)
    assert server.asked == ["/.well-known/openid-configuration"]
    made.close()


def test_a_certificate_that_cannot_be_verified_names_the_key_of_the_table(
    tmp_path: Path, server: KeyServer, ci: Issuer
) -> None:
    table = discovering(tmp_path, server).issuers[0]
    made = opened(Settings(auth="jwt", issuers=({**discovering_table(table), "jwks_ca_file": ""},)))
    with pytest.raises(Unsure) as caught:
        made.identify(ci_token(ci, iss=server.base))
    assert "its certificate cannot be verified" in caught.value.detail and "by jwks_ca_file" in caught.value.detail
    made.close()
    with pytest.raises(SettingsError, match=r"issuer ci: the file /nowhere of jwks_ca_file cannot be used"):
        opened(Settings(auth="jwt", issuers=({**discovering_table(table), "jwks_ca_file": "/nowhere"},)))


def discovering_table(issuer: Any) -> dict[str, Any]:
    return {"name": issuer.name, "issuer": issuer.issuer, "audience": issuer.audience, "rules": RULES}


# --- what strangers can make it do ------------------------------------------------------------------------------------


def test_a_flood_of_unknown_issuers_and_keys_fetches_next_to_nothing(
    tmp_path: Path, people: Issuer, ci: Issuer, server: KeyServer, run: Any
) -> None:
    table = discovering(tmp_path, server).issuers[0]
    one = {**discovering_table(table), "algorithms": ["ES256"], "jwks_ca_file": str(server.ca)}
    made = opened(configured(tmp_path, people, ci, issuers=(one,)))
    made.identify(ci_token(ci, iss=server.base))
    stranger = Issuer()

    def attack(number: int) -> int:
        refused = 0
        for more in range(30):
            for token in (
                stranger.token(iss=f"https://{number}-{more}.evil.example"),
                stranger.token(iss=server.base, aud=CI_AUDIENCE, headers={"kid": f"{number}-{more}"}),
                stranger.token(headers={"kid": f"{number}-{more}"}),
            ):
                try:
                    made.identify(token)
                except Unauthenticated:
                    refused += 1
                except Unsure:
                    pass
        return refused

    assert [result.get(timeout=60) for result in [run(attack, n) for n in range(4)]] == [90] * 4
    assert len(server.asked) == 2
    assert made.identify(people.token()).name == "ann"
    made.close()


class TestIssuersThatHang:
    """Their servers take connections and say nothing."""

    @pytest.fixture
    def access(self, tmp_path: Path, people: Issuer, ci: Issuer) -> Iterator[Access]:
        self.go = threading.Event()
        self.servers = []
        tables = []
        for name in ("one", "two", "three"):
            directory = tmp_path / name
            directory.mkdir()
            server = KeyServer(directory, ci)
            server.reply = self._hang(server)
            self.servers.append(server)
            tables.append(
                {
                    "name": name,
                    "issuer": server.base,
                    "audience": CI_AUDIENCE,
                    "rules": RULES,
                    "algorithms": ["ES256"],
                    "jwks_ca_file": str(server.ca),
                }
            )
        made = opened(configured(tmp_path, people, ci, issuers=tuple(tables)))
        yield made
        self.go.set()
        made.close()
        for server in self.servers:
            server.close()

    def _hang(self, server: KeyServer) -> Callable[[BaseHTTPRequestHandler], None]:
        def reply(request: BaseHTTPRequestHandler) -> None:
            self.go.wait(30)
            server._keys(request)

        return reply

    def test_they_hold_up_two_requests_and_nobody_elses_callers(
        self, served: Served, access: Access, people: Issuer, ci: Issuer, run: Any
    ) -> None:
        target = f"/deployments?namespace={NS}"
        tokens = [ci_token(ci, iss=server.base, jti=str(n)) for server in self.servers for n in range(6)]
        results = [run(served.call, "GET", target, None, bearer(token)) for token in tokens]
        # All but the two that wait are told to come again at once.
        answers: list[Any] = []
        end = time.monotonic() + 20
        while len(answers) < len(tokens) - 2 and time.monotonic() < end:
            answers += [result.get() for result in results if not result.empty()]
            assert served.call("GET", target, headers=bearer(people.token())).status == 200
        assert len(answers) == len(tokens) - 2
        assert {answer.status for answer in answers} == {503}
        assert served.call("GET", "/readyz").status == 200
        assert access.problem() == ""  # one issuer is enough to be ready
        self.go.set()


def test_an_issuer_that_hangs_holds_up_no_probe(
    tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubelet gives a probe a second; each fetch takes all the time that there is for one."""
    go = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        go.wait(30)

    server.reply = hang
    keys = jwks.KeySet(server.url, ("ES256",), str(server.ca), least=0)
    monkeypatch.setattr(jwks, "PATIENCE", 0.5)
    end = time.monotonic() + 20
    while "no answer" not in keys.problem():  # of the first fetch it is waited for
        assert time.monotonic() < end
    monkeypatch.setattr(jwks, "PATIENCE", 10.0)
    began = time.monotonic()
    assert "no answer" in keys.problem() and "no answer" in keys.problem()  # another fetch has begun meanwhile
    took = time.monotonic() - began
    go.set()
    keys.close()
    assert took < 5


def test_probes_fetch_no_keys_that_are_there(server: KeyServer) -> None:
    keys = jwks.KeySet(server.url, ("ES256",), str(server.ca), least=0)
    for _ in range(3):
        assert keys.problem() == ""
        for thread in threading.enumerate():
            if thread.name == "jwks":  # that fetches
                thread.join(20)
    keys.close()
    assert server.fetches == 1


def test_it_is_not_ready_when_no_issuer_can_be_asked(tmp_path: Path, server: KeyServer, ci: Issuer) -> None:
    server.reply = lambda request: server.send(request, b"", 500)
    made = opened(discovering(tmp_path, server))
    assert "answered 500" in made.problem()
    made.close()


# --- verbs ------------------------------------------------------------------------------------------------------------

ONE_VERB = ("read", "deploy", "approve", "rollback", "freeze", "override")
NEEDED: dict[tuple[str, str], set[str]] = {
    **{(resource, verb): {"read", "deploy"} for resource in ("descriptors", "deployments") for verb in ("get", "list")},
    **{
        (resource, verb): {"deploy"}
        for resource in ("descriptors", "deployments")
        for verb in ("create", "update", "delete", "deletecollection")
    },
    ("deployments", "approve"): {"approve"},
    ("deployments", "rollback"): {"rollback", "deploy"},
    **{("freezes", verb): {"read", "deploy", "freeze"} for verb in ("get", "list")},
    **{("freezes", verb): {"freeze"} for verb in ("update", "delete")},
    ("freezes", "override"): {"override"},
}
"""The verbs of which one is enough."""


def permissions() -> set[Permission]:
    found = {p for route in ROUTES for p in (*route.methods.values(), *route.parameters.values())}
    return {p for p in found if isinstance(p, Permission)}


@pytest.mark.parametrize("verb", ONE_VERB)
@pytest.mark.parametrize("by", ["rule", "role"])
def test_a_verb_allows_what_its_table_says_of_every_route(
    tmp_path: Path, people: Issuer, ci: Issuer, verb: str, by: str
) -> None:
    rules = [{"claims": {"repository": "acme/shop"}, "namespaces": [NS], "verbs": [verb]}]
    table = {"name": "ci", "issuer": CI, "audience": CI_AUDIENCE, "algorithms": ["ES256"], "rules": rules}
    made = opened(configured(tmp_path, people, ci, issuers=(table | {"key_file": str(tmp_path / "ci.pem")},)))
    role = "override-freeze" if verb == "override" else verb
    caller = made.identify(ci_token(ci) if by == "rule" else people.token(roles=[role]))
    assert permissions() >= {OVERRIDE, ROLLBACK}
    for permission in permissions():
        assert made.allows(caller, permission, NS) == (verb in NEEDED[permission.resource, permission.verb]), permission
        assert not made.allows(caller, permission, "other-ns")
        assert not made.allows(caller, permission, "*")
    made.close()


class TestRollbackByItself:
    """`deploy_allows_rollback` is off."""

    @pytest.fixture
    def access(self, tmp_path: Path, people: Issuer, ci: Issuer) -> Iterator[Access]:
        made = opened(configured(tmp_path, people, ci, deploy_allows_rollback=False))
        yield made
        made.close()

    def test_whoever_may_deploy_may_not_roll_back(self, served: Served, people: Issuer) -> None:
        served.end(served.deployment().id)
        target = f"/rollbacks?namespace={NS}&appname=shop"
        answer = served.call("POST", target, headers=bearer(people.token(roles=["deploy"])))
        assert answer.problem["status"] == 403
        assert "that needs the role rollback" in answer.problem["detail"]
        assert served.call("POST", target, headers=bearer(people.token(roles=["rollback"]))).problem["status"] == 404

    def test_redeploying_is_not_a_way_around(self, served: Served, people: Issuer) -> None:
        asked = []
        redeploy = served.service.redeploy

        def watched(*args: Any, **more: Any) -> Any:
            asked.append(args)
            return redeploy(*args, **more)

        served.service.redeploy = watched  # type: ignore[method-assign]
        warm = warm_version(served)
        for roles, redeployed in ((["deploy"], 1), (["deploy", "rollback"], 1)):
            answer = served.call(
                "PUT", f"/deployments/{warm}?namespace={NS}", headers=bearer(people.token(roles=roles))
            )
            assert answer.status == 202
            assert len(asked) == redeployed
            assert (answer.json["id"] == warm) == ("rollback" in roles)


def warm_version(served: Served) -> str:
    """The id of a version that was replaced and is still warm."""
    old, live = served.deployment("shop", "1"), served.deployment("shop", "2")
    served.end(old.id)
    going = served.end(old.id, Status.UNDEPLOYING)
    served.end(live.id)
    for operation in served.store.find(Operation, tag="open"):
        served.store.commit(Update(dataclasses.replace(operation, state=OperationState.DONE)))
    place = {"namespace": NS, "app": "shop"}
    retire = Operation(**place, id=new_id(), kind=OperationKind.RETIRE, deployment=old.id, due=time.time() + 600)
    app = App(**place, live=live.id, live_version="2", held=old.id, held_version="1")
    plan = Plan(**place, deployment=old.id, version="1")
    live_once = dataclasses.replace(going, went_live=going.created)
    served.store.commit(Create(retire), Create(app), Create(plan), Update(live_once))
    return old.id


# --- logging in -------------------------------------------------------------------------------------------------------


class TestLoggingIn:
    @pytest.fixture
    def access(self, tmp_path: Path, people: Issuer, ci: Issuer) -> Iterator[Access]:
        made = opened(configured(tmp_path, people, ci, jwt_client_id="deployer-cli", jwt_scopes="openid"))
        yield made
        made.close()

    def test_whoever_wants_to_log_in_learns_where_and_nothing_else(self, served: Served) -> None:
        answer = served.call("GET", "/")
        assert answer.json["authentication"] == {
            "method": "jwt",
            "issuers": [
                {
                    "name": "default",
                    "issuer": ISSUER,
                    "audience": AUDIENCE,
                    "clientId": "deployer-cli",
                    "scopes": "openid",
                },
                {"name": "ci", "issuer": CI, "audience": CI_AUDIENCE},
            ],
        }
        validator(served.call("GET", "/openapi.json").json, "Start").validate(answer.json)
        for secret in ("acme", "repository", ".pem", "roles"):
            assert secret not in answer.body.decode()


# --- the guide --------------------------------------------------------------------------------------------------------

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "authentication.md").read_text()


def of_the_guide(name: str) -> Access:
    [part] = re.findall(rf"<!-- {name} -->\n```toml\n(.*?)```\n<!-- /{name} -->", GUIDE, re.DOTALL)
    return opened(Settings(**{key: tuple(v) if isinstance(v, list) else v for key, v in tomllib.loads(part).items()}))


def may(access: Access, name: str, claims: dict[str, Any], permission: Permission, namespace: str) -> bool:
    """Whether a token of that issuer with these claims may do that; its signature is not the point here."""
    issuer = next(one for one in access._authenticator._issuers.values() if one.issuer.name == name)  # type: ignore[attr-defined]
    return access.allows(issuer._caller({"exp": 2**31, "sub": "x", **claims}), permission, namespace)


# As https://docs.github.com/en/actions/reference/security/oidc has them.
PUSH = {
    "sub": "repo:acme/shop-web:ref:refs/heads/main",
    "repository": "acme/shop-web",
    "repository_owner": "acme",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
    "runner_environment": "github-hosted",
}


@pytest.mark.parametrize(
    ("changes", "deploys", "stages"),
    [
        ({}, True, False),
        ({"ref": "refs/heads/other"}, False, False),
        ({"ref": "refs/pull/1/merge", "event_name": "pull_request"}, False, False),
        ({"event_name": "pull_request_target"}, False, False),
        ({"repository": "evil/shop-web"}, False, False),
        ({"repository": "acme/other"}, False, False),
        ({"environment": "staging"}, True, True),
        ({"environment": "production"}, True, False),
    ],
)
def test_the_guide_to_github(changes: dict[str, Any], deploys: bool, stages: bool) -> None:
    access = of_the_guide("github")
    assert may(access, "github", PUSH | changes, DEPLOY, "shop") == deploys
    assert may(access, "github", PUSH | changes, DEPLOY, "staging-shop-web") == stages
    assert not may(access, "github", PUSH | changes, DEPLOY, "staging-other")
    assert not may(access, "github", PUSH | changes, Permission("deployments", "approve"), "shop")


# As https://docs.gitlab.com/ci/secrets/id_token_authentication/ has them.
JOB = {
    "sub": "project_path:acme/web/shop:ref_type:branch:ref:main",
    "project_path": "acme/web/shop",
    "namespace_path": "acme/web",
    "ref": "main",
    "ref_path": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "pipeline_source": "push",
}


@pytest.mark.parametrize(
    ("changes", "deploys"),
    [
        ({}, True),
        ({"ref_type": "tag"}, True),
        ({"ref_protected": "false"}, False),
        ({"ref_type": "merge_request"}, False),
        ({"project_path": "evil/acme/shop"}, False),
        ({"project_path": "acme2/shop"}, False),
    ],
)
def test_the_guide_to_gitlab(changes: dict[str, Any], deploys: bool) -> None:
    access = of_the_guide("gitlab")
    assert may(access, "gitlab", JOB | changes, DEPLOY, "shop-cart") == deploys
    assert not may(access, "gitlab", JOB | changes, DEPLOY, "other")


def test_the_guide_to_people() -> None:
    access = of_the_guide("gitlab")
    ann = {"preferred_username": "ann", "groups": ["shop-developers", "others"]}
    bob = {"preferred_username": "bob", "groups": ["on-call"]}
    read = Permission("deployments", "get")
    assert may(access, "people", ann, read, "shop") and not may(access, "people", ann, DEPLOY, "shop")
    assert not may(access, "people", ann, read, "other") and not may(access, "people", ann, ROLLBACK, "shop")
    assert may(access, "people", bob, ROLLBACK, "other") and not may(access, "people", bob, DEPLOY, "other")
    assert may(access, "people", bob, Permission("freezes", "update"), "*")
