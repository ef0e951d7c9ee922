"""Whoever guesses a secret learns nothing: the answer to a right guess is that to a wrong one, byte by byte.

Guesses are sent wherever a request has room for a text, by somebody without credentials and by somebody with them, and
each as people would spell it: whole, cut, in base64, as URLs and JSON write it.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from deployer.api.auth.access import Access
from deployer.core.model.records import Plan
from deployer.core.ports.store import Create
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Served, document

SECRETS = {
    "another team's variable": "postgres://shop:Zq81-passw0rd@db/shop",
    "its password": "Zq81-passw0rd",
    "a short one": "q7Zx1",
    "what an injector gave": "inj3cted-Value of_the/platform",
    "the service's token": "An-0paque/Token.of+the=service-account",
    "the service's password": "kub3-passw0rd",
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "whole": str,
    "cut": lambda secret: f"{secret[:11]}\u2026",
    "cut with dots": lambda secret: f"{secret[:11]}...",
    "beginning": lambda secret: secret[:11],
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "JSON": lambda secret: json.dumps(secret)[1:-1],
}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
    with access_by(issuer, tmp_path) as made:
        yield made


@pytest.fixture
def knowing(served: Served) -> Served:
    """A service that knows every one of the secrets, and uses what it knows: they are hidden where they belong."""
    named = list(SECRETS.values())
    redactor = served.deployment_log.redactor
    redactor.set_credentials("kubernetes", named[4:5])
    redactor.set_credentials("settings", named[5:])
    env = [{"name": f"V{number}", "value": value} for number, value in enumerate(named[:3])]
    podspec = {"containers": [{"name": "main", "image": "example/shop:1", "env": env}]}
    stored = served.service.descriptors.create(NS, json.dumps(document(podspec=podspec)).encode())
    deployment = served.service.deploy(NS, stored.id)
    injected = [{"name": "I", "value": named[3]}]
    served.store.commit(
        Create(
            Plan(
                namespace=NS,
                app="shop",
                deployment=deployment.id,
                version="1",
                descriptor=deployment.descriptor,
                environment=injected,
            )
        )
    )
    redactor.register(deployment.id, named[3:4])
    served.deployment_log.append(deployment.id, " ".join(named[:5]))
    text = served.deployment_log.read(deployment.id)[-1].text
    assert set(text.split()) == {"***"}, text
    return served


def wrong(guess: str) -> str:
    """A guess of the same length and kind of characters that is no secret."""
    return guess.translate(str.maketrans("abcdefghijkmnopqrstuvwxyz0123456789", "bcdefghijkmnopqrstuvwxyza1234567890"))


def raw(served: Served, head: bytes, body: bytes = b"") -> bytes:
    """The whole answer, but for the date."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(head + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    return re.sub(rb"Date: [^\r]*", b"Date: -", answer)


def head(method: str, target: str, served: Served, **headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", "X-Request-Id: one"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("utf-8")


def printable(guess: str) -> str:
    """As a header's value can hold it."""
    return guess.encode("utf-8").decode("latin-1")


CHANNELS: dict[str, Callable[[Served, str, dict[str, str]], bytes]] = {
    "path": lambda w, g, a: raw(w, head("OPTIONS", f"/%20{urllib.parse.quote(g, safe='')}%20", w, **a)),
    "path of a resource": lambda w, g, a: raw(
        w, head("GET", f"/deployments/{urllib.parse.quote(g, safe='')}/?namespace={NS}", w, **a)
    ),
    "method": lambda w, g, a: raw(w, head(re.sub(r"[^A-Za-z0-9-]", "-", g), "/descriptors", w, **a)),
    "Origin": lambda w, g, a: raw(w, head("GET", "/healthz", w, Origin=printable(f"http://{g} "), **a)),
    "Accept": lambda w, g, a: raw(w, head("GET", "/healthz", w, Accept=printable(f"text/{g};q=1 "), **a)),
    "If-Match": lambda w, g, a: raw(
        w, head("DELETE", f"/descriptors/x/?namespace={NS}", w, If_Match=printable(g), **a)
    ),
    "Authorization": lambda w, g, a: raw(
        w, head("GET", f"/descriptors/?namespace={NS}", w, Authorization=printable(f"Bearer {g}"))
    ),
    **{
        f"parameter {name}": lambda w, g, a, name=name: raw(  # type: ignore[misc]
            w, head("GET", f"/deployments/?namespace={NS}&{name}={urllib.parse.quote(f' {g} ', safe='')}", w, **a)
        )
        for name in ("namespace", "appname", "limit", "status", "Limit", "x")
    },
    "namespace": lambda w, g, a: raw(
        w, head("GET", f"/descriptors/?namespace={urllib.parse.quote(f' {g} ', safe='')}", w, **a)
    ),
    "name of a parameter": lambda w, g, a: raw(
        w, head("GET", f"/descriptors/?namespace={NS}&{urllib.parse.quote(f' {g} ', safe='')}=1", w, **a)
    ),
}


TAG = re.compile(rb"Etag: [^\r]*\r\n")
"""Of a list: a digest of the question and of when anything was last written, with no part in what is stored."""


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("who", ["anonymous", "known"])
def test_answers_to_a_right_guess_and_to_a_wrong_one_are_the_same(
    knowing: Served, issuer: Issuer, channel: str, who: str
) -> None:
    """Nothing of the request is echoed."""
    ask = CHANNELS[channel]
    given = bearer(issuer.token(namespaces=["*"])) if who == "known" else {}
    for secret in SECRETS.values():
        for spell in SPELLINGS.values():
            guess = spell(secret)
            right, other = (TAG.sub(b"", ask(knowing, word, given)) for word in (guess, wrong(guess)))
            assert right == other


FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "unknown field": lambda guess: {f" {guess} ": 1},
    "newVersion": lambda guess: {"newVersion": f" {guess} "},
    "frontend": lambda guess: {"frontend": f" {guess} "},
    "healthCheckType": lambda guess: {"healthCheckType": f" {guess} "},
    "deploymentType": lambda guess: {"deploymentType": f" {guess} "},
    "additionHttpHeaders": lambda guess: {"additionHttpHeaders": [{"Header": f" {guess} ", "Value": "\n"}]},
    "image": lambda guess: {"podspec": {"containers": [{"name": "main", "image": f" {guess} ", "nonsense": guess}]}},
    "name of a container": lambda guess: {"podspec": {"containers": [{"name": f" {guess} ", "image": "a"}]}},
    "podspec": lambda guess: {"podspec": {f" {guess} ": 1}},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("route", ["/descriptors/", "/descriptors/validate"])
def test_what_is_said_of_a_descriptor_tells_nothing_of_other_descriptors(
    knowing: Served, issuer: Issuer, field: str, route: str
) -> None:
    """Its author may read it, so it may be repeated; but for that, the answers are the same. (What has the form of
    credentials is hidden, whether it is right or wrong.)"""
    given = bearer(issuer.token(namespaces=["*"]))
    for secret in (secret for secret in SECRETS.values() if "://" not in secret):
        for spell in SPELLINGS.values():
            said = []
            for guess in (spell(secret), wrong(spell(secret))):
                body = json.dumps(document("guesser", **FIELDS[field](guess))).encode()
                answer = knowing.call("POST", f"{route}?namespace={NS}", body, given)
                text = answer.body.decode()
                for written in sorted({guess, guess.lower(), json.dumps(guess)[1:-1], repr(guess)[1:-1]}, key=len):
                    text = text.replace(json.dumps(written, ensure_ascii=False)[1:-1], "G")
                text = re.sub(r'"(id|created|lastModified)": "[^"]*"', "", text)
                said.append((answer.status, text))
            assert said[0] == said[1]


@pytest.mark.parametrize("channel", ["path", "namespace", "after", "origin", "subprotocol"])
def test_the_stream_says_the_same_to_a_right_guess_and_to_a_wrong_one(
    knowing: Served, issuer: Issuer, channel: str
) -> None:
    token = issuer.token(namespaces=["*"])

    def ends(guess: str) -> tuple[Any, ...]:
        quoted = urllib.parse.quote(f" {guess} ", safe="")
        path = f"/stream/deployments/{quoted if channel == 'path' else 'x'}/logs"
        query = f"namespace={quoted if channel == 'namespace' else NS}"
        query += f"&after={quoted}" if channel == "after" else ""
        options: dict[str, Any] = {}
        if channel == "origin":
            options["origin"] = f"http://{printable(guess)}"
        if channel == "subprotocol":
            encoded = base64.urlsafe_b64encode(guess.encode()).decode().rstrip("=")
            options["subprotocols"] = [f"base64url.bearer.authorization.kube-deployer.{encoded}"]
        else:
            options["additional_headers"] = bearer(token)
        try:
            url = f"ws://127.0.0.1:{knowing.port}{path}?{query}"
            with connect(url, proxy=None, open_timeout=20, **options) as viewer:
                messages = []
                while True:
                    messages.append(viewer.recv(timeout=20))
        except ConnectionClosed as error:
            return messages, error.rcvd
        except InvalidStatus as error:
            return error.response.status_code, error.response.body

    for secret in SECRETS.values():
        guess = re.sub(r"[^!-~]", "-", secret[:11] + "...")
        assert ends(guess) == ends(wrong(guess))
