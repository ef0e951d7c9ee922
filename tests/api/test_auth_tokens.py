"""Tokens of an identity provider: which are good, and where the keys to check them come from."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from deployer.api.auth.access import Access, open_access
from deployer.api.auth.jwt import jwks
from deployer.api.auth.jwt.issuers import open_keys
from deployer.api.auth.jwt.jwks import KeySet
from deployer.api.auth.jwt.keys import PemFile
from deployer.api.auth.jwt.tokens import TokenAuthenticator
from deployer.api.auth.principal import Forbidden, Unauthenticated, Unsure
from deployer.api.routes import Permission
from deployer.core.errors import SettingsError
from deployer.settings import Settings
from deployer.settings.issuers.configured import default_issuer
from support.issuer import AUDIENCE, ISSUER, Issuer, KeyServer, bearer, part

from .conftest import NS, Served

READ, DEPLOY = Permission("deployments", "get"), Permission("deployments", "create")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def pem(issuer: Issuer, tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(issuer.pem)
    return file


def settings_of(file: Path | str, **more: Any) -> Settings:
    fields = {"jwt_algorithm": "ES256", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_key_file": str(file)}
    return Settings(auth="jwt", **{**fields, **more})


def authenticator(file: Path, **more: Any) -> TokenAuthenticator:
    issuer = default_issuer(settings_of(file, **more))
    return TokenAuthenticator(issuer, open_keys(issuer))


@pytest.fixture
def access(pem: Path) -> Iterator[Access]:
    made = open_access(settings_of(pem), None)  # type: ignore[arg-type]
    assert made is not None
    yield made
    made.close()


# --- what is refused --------------------------------------------------------------------------------------------------


def by_hand(issuer: Issuer, header: Any, sign: Any = None, claims: Any = None) -> str:
    signing = f"{part(header)}.{part(issuer.claims() if claims is None else claims)}"
    signature = b"" if sign is None else sign(signing.encode())
    return f"{signing}.{part(signature)}"


def with_public_key(issuer: Issuer, kid: str) -> str:
    """HS256, with the one secret that everybody knows: the public key (CVE-2015-9235)."""

    def sign(data: bytes) -> bytes:
        return hmac.new(issuer.pem, data, hashlib.sha256).digest()

    return by_hand(issuer, {"alg": "HS256", "typ": "JWT", "kid": kid}, sign)


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    now = int(time.time())
    good = issuer.token()
    header, claims, signature = good.split(".")
    stranger = Issuer()
    return {
        "none": by_hand(issuer, {"alg": "none", "typ": "JWT"}),
        "None": by_hand(issuer, {"alg": "None", "kid": "one"}),
        "no alg": by_hand(issuer, {"typ": "JWT"}),
        "alg is a list": by_hand(issuer, {"alg": ["ES256"], "kid": "one"}),
        "HS with the public key": with_public_key(issuer, "one"),
        "another algorithm of the same key": jwt.encode(
            issuer.claims(), rsa.generate_private_key(65537, 2048), algorithm="RS256", headers={"kid": "one"}
        ),
        "another's signature": stranger.token(),
        "no signature": f"{header}.{claims}.",
        "changed claims": f"{header}.{part(issuer.claims(sub='root'))}.{signature}",
        "changed header": f"{part({'alg': 'ES256', 'typ': 'JWT', 'kid': 'one', 'x': 1})}.{claims}.{signature}",
        "wrong aud": issuer.token(aud="another"),
        "wrong auds": issuer.token(aud=["another", "kube-deployer2"]),
        "aud is an object": issuer.token(aud={AUDIENCE: 1}),
        "missing aud": issuer.token(aud=None),
        "empty aud": issuer.token(aud=[]),
        "wrong iss": issuer.token(iss=ISSUER + "/"),
        "iss is a list": by_hand_signed(issuer, {**issuer.claims(), "iss": [ISSUER]}),
        "missing iss": issuer.token(iss=None),
        "missing exp": issuer.token(exp=None),
        "null exp": by_hand_signed(issuer, {**issuer.claims(), "exp": None}),
        "exp is a word": issuer.token(exp="never"),
        "endless exp": by_hand_signed(
            issuer, json.dumps(issuer.claims()).replace(str(issuer.claims()["exp"]), "1e999")
        ),
        "expired": issuer.token(exp=now - 31),
        "not yet": issuer.token(nbf=now + 600),
        "issued tomorrow": issuer.token(iat=now + 86_400),
        "crit": issuer.token(headers={"crit": ["exp"]}),
        "unknown crit": issuer.token(headers={"crit": ["urn:x"], "urn:x": 1}),
        "crit b64": by_hand(issuer, {"alg": "ES256", "kid": "one", "b64": False, "crit": ["b64"]}),
        "typ of a logout token": issuer.token(headers={"typ": "logout+jwt"}),
        "typ is a number": by_hand_signed(issuer, issuer.claims(), {"alg": "ES256", "kid": "one", "typ": 1}),
        "kid is a number": by_hand_signed(issuer, issuer.claims(), {"alg": "ES256", "kid": 1}),
        "no name": issuer.token(sub=None),
        "claims are a list": by_hand_signed(issuer, []),
        "claims are no JSON": by_hand_signed(issuer, b"{"),
        "nested claims": by_hand_signed(issuer, b"[" * 3000),
        "nested header": f"{part(b'[' * 5000)}.{claims}.{signature}",
        "header is no JSON": f"e30x.{claims}.{signature}",
        "one part": "abc",
        "five parts, as encrypted ones have": "a.b.c.d.e",
        "too long": issuer.token(x="x" * 9000),
    }


def by_hand_signed(issuer: Issuer, claims: Any, header: Any = None) -> str:
    header = header or {"alg": "ES256", "typ": "JWT", "kid": "one"}
    if isinstance(claims, str):
        claims = claims.encode()
    signing = f"{part(header)}.{part(claims)}"
    signature = jwt.get_algorithm_by_name("ES256").sign(signing.encode(), issuer.key)
    return f"{signing}.{part(signature)}"


KINDS = sorted(bad_tokens(Issuer()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_token_is_a_401_over_rest_and_a_4401_on_the_stream(served: Served, issuer: Issuer, kind: str) -> None:
    id = served.deployment().id
    token = bad_tokens(issuer)[kind]
    for _ in range(2):
        answer = served.call("GET", f"/deployments?namespace={NS}", headers=bearer(token))
        assert answer.problem["status"] == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    # Longer ones come as the first message: lines of a handshake end at 8 KiB.
    long = len(token) > 6000
    with served.watch(id, additional_headers={} if long else bearer(token)) as viewer:
        if long:
            viewer.send(f"Bearer {token}")
        with pytest.raises(Exception, match="4401"):
            viewer.recv(timeout=20)


def test_what_is_a_bit_off_is_good(issuer: Issuer, pem: Path) -> None:
    check = authenticator(pem)
    now = int(time.time())
    for token in (
        issuer.token(),
        issuer.token(aud=["other", AUDIENCE]),
        issuer.token(exp=now - 20),
        issuer.token(exp=10**300),
        issuer.token(exp=10**400),
        issuer.token(nbf=now + 20),
        issuer.token(headers={"typ": "at+jwt"}),
        issuer.token(headers={"typ": None}),
        issuer.token(headers={"kid": "of no matter with a file"}),
        issuer.token(headers={"jku": "https://evil.example/keys", "x5u": "https://evil.example"}),
    ):
        assert check.authenticate(token).name == "ann"


def test_nothing_outlives_its_token(issuer: Issuer, pem: Path) -> None:
    """Neither in memory nor otherwise; the clock is the test's."""
    checked = default_issuer(settings_of(pem))
    now = [time.time()]
    check = TokenAuthenticator(checked, open_keys(checked), leeway=0.0, clock=lambda: now[0])
    token = issuer.token(exp=int(now[0]) + 1)
    assert check.authenticate(token) is check.authenticate(token)  # remembered
    caller = check.authenticate(token)
    now[0] = caller.expires
    assert check._known.get((0, hashlib.sha256(token.encode()).digest())) is None
    assert caller.expires == int(jwt.decode(token, options={"verify_signature": False})["exp"])


def test_only_good_tokens_are_remembered_and_not_too_many(
    issuer: Issuer, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployer.api.auth.jwt.tokens.REMEMBERED", 3)
    check = authenticator(pem)
    tokens = [issuer.token(sub=str(number)) for number in range(10)]
    for token in tokens:
        check.authenticate(token)
        with pytest.raises(Unauthenticated):
            check.authenticate(token[:-3] + "AAA")
    assert len(check._known) == 3


# --- roles and namespaces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "namespaces_claim", "roles_claim", "reads", "deploys"),
    [
        ({"namespaces": [NS], "roles": ["deploy"]}, "namespaces", "roles", True, True),
        ({"namespaces": NS, "roles": "read"}, "namespaces", "roles", True, False),
        ({"namespaces": f"a {NS}", "scope": "openid deploy"}, "namespaces", "scope", True, True),
        ({"namespaces": ["*"], "roles": ["read", "x"]}, "namespaces", "roles", True, False),
        ({"a": {"b": {"ns": [NS]}}, "realm_access": {"roles": ["deploy"]}}, "a.b.ns", "realm_access.roles", True, True),
        ({"https://x.example/ns": [NS], "x.y": ["deploy"]}, "https://x.example/ns", "x.y", True, True),
        ({"namespaces": ["other"], "roles": ["deploy"]}, "namespaces", "roles", False, False),
        ({"namespaces": [NS + "x", "shop*", "shop-?s"], "roles": ["deploy"]}, "namespaces", "roles", False, False),
        ({"namespaces": [NS], "roles": ["Deploy", "deployer"]}, "namespaces", "roles", False, False),
        ({"namespaces": [NS], "roles": {"deploy": True}}, "namespaces", "roles", False, False),
        ({"namespaces": {NS: True}, "roles": ["deploy"]}, "namespaces", "roles", False, False),
        ({"namespaces": [[NS]], "roles": ["deploy"]}, "namespaces", "roles", False, False),
        ({"namespaces": None, "roles": ["deploy"]}, "namespaces", "roles", False, False),
        ({"namespaces": [NS]}, "namespaces", "roles.deploy", False, False),
        ({"namespaces": [NS], "roles": None}, "namespaces", "roles", False, False),
    ],
)
def test_claims(  # noqa: PLR0917
    issuer: Issuer, pem: Path, claims: Any, namespaces_claim: str, roles_claim: str, reads: bool, deploys: bool
) -> None:
    settings = settings_of(pem, jwt_namespaces_claim=namespaces_claim, jwt_roles_claim=roles_claim)
    access = open_access(settings, None)  # type: ignore[arg-type]
    assert access is not None
    caller = access.identify(issuer.token(**claims))
    for permission, allowed in ((READ, reads), (DEPLOY, deploys)):
        with contextlib.nullcontext() if allowed else pytest.raises(Forbidden):
            access.require(caller, permission, NS, "some-id")


def test_names_of_roles_and_the_name_are_settings(issuer: Issuer, pem: Path) -> None:
    settings = settings_of(pem, jwt_name_claim="email", jwt_read_role="viewer", jwt_deploy_role="ci")
    access = open_access(settings, None)  # type: ignore[arg-type]
    assert access is not None
    caller = access.identify(issuer.token(email="ann@example.com", roles=["viewer", "deploy"]))
    assert caller.name == "ann@example.com"
    access.require(caller, READ, NS)
    with pytest.raises(Forbidden, match="the role ci"):
        access.require(caller, DEPLOY, NS)


# --- keys in a file ---------------------------------------------------------------------------------------------------


def public(key: Any) -> bytes:
    pem = serialization.Encoding.PEM
    return key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_file_is_read_again_when_it_changes(issuer: Issuer, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.api.auth.jwt.keys._LOOK_AGAIN", 0.0)
    check = authenticator(pem)
    new = Issuer()
    old_token, new_token = issuer.token(), new.token()
    check.authenticate(old_token)
    with pytest.raises(Unauthenticated):
        check.authenticate(new_token)
    pem.write_bytes(issuer.pem + new.pem)  # both, while the issuer changes over
    check.authenticate(old_token)
    check.authenticate(new_token)
    pem.write_bytes(b"being written")
    check.authenticate(new_token)
    pem.unlink()
    check.authenticate(new_token)
    pem.write_bytes(new.pem)
    check.authenticate(new_token)
    with pytest.raises(Unauthenticated):  # although it was remembered
        check.authenticate(old_token)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no public key or certificate"),
        (b"secret", "holds no public key or certificate"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds something else than public keys"),
        ("rsa", "does not go with ES256: it is no key on the curve secp256r1"),
        ("p384", "does not go with ES256: it is no key on the curve secp256r1"),
        ("private", "holds a private key, which belongs to the issuer alone"),
    ],
)
def test_a_file_of_no_use_is_refused_at_the_start(tmp_path: Path, content: Any, said: str) -> None:
    file = tmp_path / "key.pem"
    if content == "rsa":
        content = public(rsa.generate_private_key(65537, 2048))
    elif content == "p384":
        content = public(ec.generate_private_key(ec.SECP384R1()))
    elif content == "private":
        content = Issuer().key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        open_access(settings_of(file), None)  # type: ignore[arg-type]
    assert said in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES384", "ES512", "EdDSA"])
def test_every_kind_of_key(tmp_path: Path, algorithm: str) -> None:
    key: Any = {
        "R": lambda: rsa.generate_private_key(65537, 2048),
        "P": lambda: rsa.generate_private_key(65537, 2048),
        "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm if algorithm[0] == "E" else algorithm[0]]()
    file = tmp_path / "key.pem"
    file.write_bytes(public(key))
    check = authenticator(file, jwt_algorithm=algorithm)
    assert check.authenticate(jwt.encode(Issuer().claims(), key, algorithm=algorithm)).name == "ann"


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(public(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(SettingsError, match="less than 2048 bits"):
        PemFile(file, ["RS256"])


# --- keys from an address ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, issuer: Issuer) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path, issuer)
    yield made
    made.close()


@pytest.fixture
def key_set(server: KeyServer) -> Iterator[KeySet]:
    made = KeySet(server.url, ["ES256"], str(server.ca), least=3600.0)
    yield made
    made.close()


def checking(keys: KeySet) -> TokenAuthenticator:
    return TokenAuthenticator(default_issuer(settings_of("", jwt_jwks_url="https://unused")), keys)


def test_keys_are_fetched_once_however_many_ask(server: KeyServer, key_set: KeySet, issuer: Issuer) -> None:
    check = checking(key_set)
    assert server.fetches == 0
    for number in range(20):
        assert check.authenticate(issuer.token(sub=str(number))).name == str(number)
    assert server.fetches == 1


def test_unknown_key_ids_fetch_no_more_often_than_is_allowed(
    server: KeyServer, key_set: KeySet, issuer: Issuer, run: Any
) -> None:
    check = checking(key_set)
    check.authenticate(issuer.token())

    def attack(number: int) -> int:
        refused = 0
        for more in range(50):
            with contextlib.suppress(Unsure):
                try:
                    check.authenticate(issuer.token(headers={"kid": f"{number}-{more}"}))
                except Unauthenticated:
                    refused += 1
        return refused

    assert [result.get(timeout=60) for result in [run(attack, n) for n in range(4)]] == [50] * 4
    assert server.fetches == 1


def test_a_new_key_is_found_by_its_id(server: KeyServer, issuer: Issuer) -> None:
    keys = KeySet(server.url, ["ES256"], str(server.ca), least=0.0)
    check = checking(keys)
    check.authenticate(issuer.token())
    new = Issuer("two")
    with pytest.raises(Unauthenticated):
        check.authenticate(new.token())
    server.issuers.append(new)
    assert check.authenticate(new.token()).name == "ann"
    # Withdrawn: what was signed with it counts no longer, although it was remembered.
    token = issuer.token()
    check.authenticate(token)
    server.issuers.remove(issuer)
    with pytest.raises(Unauthenticated):
        check.authenticate(new.token(headers={"kid": "three"}))
    with pytest.raises(Unauthenticated):
        check.authenticate(token)
    keys.close()


def test_a_token_without_a_key_id_needs_a_set_of_one(server: KeyServer, issuer: Issuer) -> None:
    keys = KeySet(server.url, ["ES256"], str(server.ca), least=0.0)
    check = checking(keys)
    nameless = jwt.encode(issuer.claims(), issuer.key, algorithm="ES256")
    assert check.authenticate(nameless).name == "ann"
    server.issuers.append(Issuer("two"))
    with pytest.raises(Unauthenticated):
        check.authenticate(issuer.token(headers={"kid": "none"}))
    with pytest.raises(Unauthenticated, match="names none of several"):
        check.authenticate(nameless)
    keys.close()


@pytest.mark.slow
def test_keys_outlive_a_server_that_fails_but_not_for_ever(
    server: KeyServer, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH", 0.0)
    keep = 2.0
    keys = KeySet(server.url, ["ES256"], str(server.ca), least=0.0, keep=keep)
    check = checking(keys)
    check.authenticate(issuer.token())
    server.reply = lambda request: server.send(request, b"", 500)
    began = time.monotonic()
    check.authenticate(issuer.token(sub="bob"))
    while time.monotonic() - began < 20:
        try:
            check.authenticate(issuer.token())
        except Unsure as error:
            assert "answered 500" in error.detail
            assert "127.0.0.1" not in str(error)
            break
    assert keep * 0.9 < time.monotonic() - began < 20
    assert "answered 500" in check.problem()
    server.reply = server._keys
    deadline = time.monotonic() + 20
    while check.problem():
        assert time.monotonic() < deadline
    check.authenticate(issuer.token())
    keys.close()


def trickle(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    stop = threading.Event()
    for _ in range(200):
        request.wfile.write(b" ")
        request.wfile.flush()
        stop.wait(0.02)


def key_of(kty: str, issuer: Issuer) -> dict[str, Any]:
    secret = base64.urlsafe_b64encode(issuer.pem).decode()
    return {
        "oct": {"kty": "oct", "k": secret, "kid": "one", "alg": "HS256"},
        "encryption": {**issuer.jwk, "use": "enc"},
        "other algorithm": {**issuer.jwk, "alg": "ES384"},
        "signing only": {**issuer.jwk, "key_ops": ["sign"]},
        "private": {**issuer.jwk, "d": "AAAA"},
        "kid is a list": {**issuer.jwk, "kid": ["one"]},
        "off the curve": {**issuer.jwk, "x": issuer.jwk["y"]},
        "x is a number": {**issuer.jwk, "x": 5},
    }[kty]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("redirect", "answered 302"),
        ("404", "answered 404"),
        ("too large", "larger than"),
        ("no JSON", "not JSON"),
        ("nested", "not JSON"),
        ("a list", "no JWK Set"),
        ("too many", "no JWK Set"),
        ("empty", "none of the 0 keys"),
        ("trickle", ""),
        ("hang up", ""),
        *[
            (kind, "none of the 1 keys")
            for kind in (
                "oct", "encryption", "other algorithm", "signing only", "private", "kid is a list", "off the curve",
                "x is a number",
            )
        ],
    ],
)  # fmt: skip
def test_a_server_that_answers_anything_else(  # noqa: PLR0917
    server: KeyServer, key_set: KeySet, issuer: Issuer, kind: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "PATIENCE", 1.0)
    bodies = {
        "too large": b" " * (jwks.MAX_BYTES + 1),
        "no JSON": b"<html>",
        "nested": b"[" * 100_000,
        "a list": b"[]",
        "too many": json.dumps({"keys": [{}] * 101}).encode(),
        "empty": b'{"keys": []}',
    }
    elsewhere = server.url.replace("/keys", "/elsewhere")
    if kind == "redirect":
        server.reply = lambda request: server.send(request, b"", 302, Location=elsewhere)
    elif kind == "404":
        server.reply = lambda request: server.send(request, b"", 404)
    elif kind == "trickle":
        server.reply = trickle
    elif kind == "hang up":
        server.reply = lambda request: None
    else:
        body = bodies.get(kind) or json.dumps({"keys": [key_of(kind, issuer)]}).encode()
        server.reply = lambda request: server.send(request, body)
    check = checking(key_set)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unsure) as caught:
            check.authenticate(issuer.token())
        assert said in caught.value.detail
    assert time.monotonic() - began < 10
    assert server.fetches == 1


def test_a_certificate_of_a_stranger_is_not_accepted(server: KeyServer, issuer: Issuer) -> None:
    keys = KeySet(server.url, ["ES256"], "")
    with pytest.raises(Unsure) as caught:
        checking(keys).authenticate(issuer.token())
    assert "its certificate cannot be verified" in caught.value.detail and "--jwt-jwks-ca-file" in caught.value.detail
    keys.close()
    assert server.fetches == 0


def test_a_ca_file_of_no_use_is_refused_at_the_start(tmp_path: Path) -> None:
    for content in (None, b"no certificate"):
        file = tmp_path / "ca.pem"
        if content:
            file.write_bytes(content)
        with pytest.raises(SettingsError, match="jwt-jwks-ca-file cannot be used"):
            KeySet("https://127.0.0.1:1/", ["ES256"], str(file))


class TestWhileTheKeysAreAway:
    """A server that takes its time holds up two requests, and nothing else."""

    @pytest.fixture
    def access(self, server: KeyServer) -> Iterator[Access]:
        scope = threading.Event()
        self.asked = threading.Event()

        def wait(request: BaseHTTPRequestHandler) -> None:
            self.asked.set()
            scope.wait(30)
            server._keys(request)

        server.reply = wait
        self.scope = scope
        settings = settings_of("", jwt_jwks_url=server.url, jwt_jwks_ca_file=str(server.ca))
        made = open_access(settings, None)  # type: ignore[arg-type]
        assert made is not None
        yield made
        scope.set()
        made.close()

    def test_everything_else_goes_on(self, served: Served, issuer: Issuer, server: KeyServer, run: Any) -> None:
        target, headers = f"/deployments?namespace={NS}", bearer(issuer.token())
        results = [run(served.call, "GET", target, None, headers) for _ in range(20)]
        assert self.asked.wait(20)
        first = [results[0].get(timeout=1)] if not results[0].empty() else []
        began = time.monotonic()
        assert served.call("GET", "/healthz").status == 200
        assert served.call("GET", target).status == 401
        assert time.monotonic() - began < 2
        self.scope.set()
        answers = first + [result.get(timeout=30) for result in results[len(first) :]]
        statuses = sorted(answer.status for answer in answers)
        assert set(statuses) == {200, 503} and statuses.count(200) <= 3
        assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 503)
        assert server.fetches == 1
        assert served.call("GET", target, headers=headers).status == 200
