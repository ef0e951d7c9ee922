"""The client and a service that wants to know who calls: tokens, TLS, and what is told of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.api.auth.access import Access
from support.issuer import Issuer, KeyServer, access_by

from ..api.conftest import (
    NS,
    Served,
    auth_options,
    registry,
    served,
    server_options,
    settings,
    stream_options,
)
from .conftest import Run

__all__ = ["auth_options", "registry", "served", "server_options", "settings", "stream_options"]


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
    with access_by(issuer, tmp_path) as made:
        yield made


@pytest.fixture
def guarded(served: Served, run: Run, environment: pytest.MonkeyPatch) -> Served:
    """The service for whom `run` runs."""
    environment.setenv("DEPLOYER_SERVER", f"http://127.0.0.1:{served.port}")
    environment.setenv("DEPLOYER_NAMESPACE", NS)
    return served


def test_a_good_token_reads_and_follows(
    run: Run, guarded: Served, issuer: Issuer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DEPLOYER_TOKEN", issuer.token())
    deployment = guarded.deployment()
    guarded.end(deployment.id)
    done = run("logs", "-f", deployment.id)
    assert done.code == 0 and "queued: deployment of shop" in done.out, done.err
    assert run("status", "shop").code == 0


@pytest.mark.parametrize("verb", [("status",), ("logs", "shop"), ("deploy", "shop"), ("freeze", "--reason", "x")])
@pytest.mark.parametrize("token", ["", "not.a.token", "ended", "elsewhere"])
def test_any_other_is_exit_code_four_and_one_sentence(
    run: Run, guarded: Served, issuer: Issuer, verb: tuple[str, ...], token: str
) -> None:
    made = {"ended": issuer.token(exp=1), "elsewhere": issuer.token(namespaces=["other-ns"])}.get(token, token)
    Path("token").write_text(made)
    done = run(*verb, *(("--token-file", "token") if made else ()))
    assert (done.code, done.out) == (4, "")
    assert len(done.err.splitlines()) == 1 and (not made or made not in done.err)


def test_the_log_is_refused_as_rest_is(
    run: Run, guarded: Served, issuer: Issuer, environment: pytest.MonkeyPatch
) -> None:
    deployment = guarded.deployment()
    environment.setenv("DEPLOYER_TOKEN", issuer.token(namespaces=["other-ns"]))
    assert run("logs", "-f", deployment.id).code == 4
    assert run("wait", deployment.id).code == 4


def test_a_certificate_is_checked_with_the_authorities_that_are_named(
    run: Run, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with contextlib.closing(KeyServer(tmp_path)) as other:
        other.reply = lambda request: other.send(request, b"[]", **{"Content-Type": "application/json"})
        server = other.url.removesuffix("/keys")
        done = run("status", "--server", server)
        assert done.code == 5 and "is not trusted" in done.err and "--ca-file names the authority" in done.err
        assert run("status", "--server", server, "--ca-file", str(other.ca)).code == 0
        done = run("status", "--server", server, "--ca-file", str(tmp_path / "nowhere"))
        assert done.code == 2 and "cannot be used" in done.err
        done = run("status", "--server", server.replace("https", "http"))
        assert done.code == 5 and len(done.err.splitlines()) == 1
