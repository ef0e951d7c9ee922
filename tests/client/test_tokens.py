"""Where tokens come from, and what is said without a good one."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.impostor import Impostor, problem

from .conftest import Run

JSON = {"Content-Type": "application/json"}


def answer(document: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, JSON, json.dumps(document).encode()


@pytest.fixture
def provider() -> Iterator[Impostor]:
    """An identity provider that answers as a test says."""
    made = Impostor()
    yield made
    made.close()


def discovery(provider: Impostor) -> tuple[int, dict[str, str], bytes]:
    return answer(
        {
            "issuer": provider.url,
            "token_endpoint": f"{provider.url}/token",
            "device_authorization_endpoint": f"{provider.url}/device",
        }
    )


@pytest.fixture
def profile(run: Run, impostor: Impostor, provider: Impostor, environment: pytest.MonkeyPatch) -> Path:
    """A profile that logs in at the provider; the file in which its tokens are kept."""
    environment.setattr("deployer.client.auth.device._INTERVAL", 0.001)
    environment.setattr("deployer.client.auth.device._SLOWER", 0.001)
    for key, value in (("issuer", provider.url), ("client_id", "cli")):
        assert run("config", "set", key, value).code == 0
    return Path.home() / ".config" / "deployer" / "tokens" / "default.json"


DEVICE = {
    "device_code": "d",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://id.example/device",
    "expires_in": 60,
}


def test_a_person_logs_in_with_a_code(run: Run, provider: Impostor, impostor: Impostor, profile: Path) -> None:
    provider.answers = [
        discovery(provider),
        answer(DEVICE),
        answer({"error": "authorization_pending"}, 400),
        answer({"error": "slow_down"}, 400),
        answer({"access_token": "a.b", "refresh_token": "r1", "expires_in": 3600}),
    ]
    done = run("login")
    assert done.code == 0, done.err
    assert "Open https://id.example/device in a browser and type the code ABCD-EFGH" in done.err
    assert "a.b" not in done.out + done.err
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer a.b"
    assert run("logout").code == 0 and not profile.exists()
    done = run("status")
    assert done.code == 4 and "run `deployer login`" in done.err


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"error": "access_denied"}, "the login was denied"),
        ({"error": "expired_token"}, "nobody has agreed in time"),
        ({"error": "invalid_client", "error_description": "no such client"}, "no such client"),
    ],
)
def test_a_login_that_comes_to_nothing(run: Run, provider: Impostor, profile: Path, last: Any, said: str) -> None:
    provider.answers = [discovery(provider), answer(DEVICE), answer(last, 400)]
    done = run("login")
    assert done.code == 4 and said in done.err and not profile.exists()


def test_a_token_that_has_ended_is_refreshed_once(
    run: Run, provider: Impostor, impostor: Impostor, profile: Path
) -> None:
    kept = {"token": "old", "refresh": "r1", "expires": 1.0, "issuer": provider.url}
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text(json.dumps(kept))
    provider.answers = [discovery(provider), answer({"id_token": "new", "refresh_token": "r2", "expires_in": 3600})]
    for _ in range(2):
        assert run("status").code == 0
        assert impostor.asked[-1][2]["Authorization"] == "Bearer new"
    assert len(provider.asked) == 2
    assert json.loads(profile.read_text())["refresh"] == "r2"


def test_a_refresh_token_that_is_refused_means_logging_in_again(run: Run, provider: Impostor, profile: Path) -> None:
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text(json.dumps({"token": "old", "refresh": "r", "expires": 1.0, "issuer": provider.url}))
    provider.answers = [discovery(provider), answer({"error": "invalid_grant"}, 400)]
    done = run("status")
    assert done.code == 4 and "the login has ended (invalid_grant); run `deployer login`" in done.err


def test_an_issuer_that_says_it_is_another_one_gets_no_login(run: Run, provider: Impostor, profile: Path) -> None:
    provider.answers = [answer({"issuer": "https://evil.example", "token_endpoint": f"{provider.url}/token"})]
    assert run("login").code == 4
    assert [method for method, _, _ in provider.asked] == ["GET"]


def test_an_issuer_in_the_clear_is_refused(run: Run, impostor: Impostor) -> None:
    run("config", "set", "issuer", "http://id.example.com")
    run("config", "set", "client_id", "cli")
    done = run("login")
    assert done.code == 2 and "must be https" in done.err


# --- logging in where the service says --------------------------------------------------------------------------------


def signed_for(audience: str) -> str:
    """A token as far as a client can read it."""
    parts = ({"alg": "none"}, {"aud": audience})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".s"


def start(*issuers: dict[str, str], method: str = "jwt") -> tuple[int, dict[str, str], bytes]:
    """What `GET /` answers."""
    return answer({"service": "deployer", "authentication": {"method": method, "issuers": list(issuers)}})


@pytest.fixture
def people(provider: Impostor, environment: pytest.MonkeyPatch) -> dict[str, str]:
    """The provider as the service names it."""
    environment.setattr("deployer.client.auth.device._INTERVAL", 0.001)
    about = {"name": "people", "issuer": provider.url, "audience": "kube-deployer", "clientId": "deployer-cli"}
    return {**about, "scopes": "openid groups"}


def test_logging_in_takes_the_url_of_the_service_and_nothing_else(
    run: Run, impostor: Impostor, provider: Impostor, people: dict[str, str], environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("DEPLOYER_SERVER")
    ci = {"name": "github", "issuer": "https://token.actions.example.com", "audience": "x"}
    impostor.answers = [start(ci, people)]
    good, about_me = signed_for("kube-deployer"), signed_for("deployer-cli")
    more = {"id_token": about_me, "refresh_token": "r1", "expires_in": 3600}
    provider.answers = [discovery(provider), answer(DEVICE), answer({"access_token": good, **more})]
    done = run("login", "--server", impostor.url)
    assert done.code == 0, done.err
    assert "Authorization" not in impostor.asked[0][2]
    assert run("status").code == 0  # the profile has the service now
    assert impostor.asked[-1][2]["Authorization"] == f"Bearer {good}"
    kept = json.loads(run("config", "view", "-o", "json").out)
    wanted = {"server": impostor.url, "issuer": provider.url, "client_id": "deployer-cli", "scope": "openid groups"}
    assert {key: kept[key] for key in wanted} == wanted
    file = Path.home() / ".config" / "deployer" / "tokens" / "default.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "expires": 1.0}))
    provider.answers = [discovery(provider), answer({"access_token": signed_for("kube-deployer") + "2", **more})]
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == f"Bearer {good}2"


def test_of_several_providers_one_must_be_named(
    run: Run, impostor: Impostor, provider: Impostor, people: dict[str, str]
) -> None:
    other = {"name": "partners", "issuer": "https://id.example.com", "audience": "x", "clientId": "c"}
    impostor.default = start(people, other)
    done = run("login")
    assert done.code == 2 and "say which with --issuer: people, partners" in done.err
    done = run("login", "--issuer", "peeple")
    assert done.code == 2 and "available: people, partners" in done.err
    provider.answers = [discovery(provider), answer(DEVICE), answer({"access_token": "a.b"})]
    assert run("login", "--issuer", "people").code == 0


def test_a_service_that_asks_nobody_needs_no_login_and_is_kept(
    run: Run, impostor: Impostor, environment: pytest.MonkeyPatch
) -> None:
    impostor.default = start(method="none")
    done = run("login", "--server", impostor.url)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{impostor.url} needs no login: it does not ask who you are\n"
    environment.delenv("DEPLOYER_SERVER")
    assert json.loads(run("config", "view", "-o", "json").out)["server"] == impostor.url


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (start(method="kubernetes"), "`deployer config set kubeconfig default`"),
        (start({"name": "ci", "issuer": "https://ci.example.com", "audience": "x"}), "names no client"),
    ],
)
def test_a_service_at_which_nobody_can_log_in_says_what_to_do(
    run: Run, impostor: Impostor, service: Any, said: str
) -> None:
    impostor.default = service
    done = run("login")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1


def test_where_to_log_in_is_not_believed_in_the_clear(run: Run, environment: pytest.MonkeyPatch) -> None:
    done = run("login", "--server", "http://deployer.example.com")
    assert done.code == 2 and "is not https" in done.err


def test_a_login_is_not_kept_for_another_service(run: Run, impostor: Impostor, people: dict[str, str]) -> None:
    impostor.default = start(people)
    run("config", "set", "server", "https://deployer.example.com")
    done = run("login")
    assert done.code == 2 and "is for https://deployer.example.com" in done.err and impostor.asked == []


def test_a_token_that_wins_over_the_login_is_named(
    run: Run, impostor: Impostor, provider: Impostor, people: dict[str, str], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DEPLOYER_TOKEN", "other.token")
    impostor.default = start(people)
    provider.answers = [discovery(provider), answer(DEVICE), answer({"access_token": "a.b"})]
    done = run("login")
    assert done.code == 0 and "the variable DEPLOYER_TOKEN is set, and is used instead" in done.err


# --- of others --------------------------------------------------------------------------------------------------------


def kubeconfig(user: dict[str, Any]) -> None:
    context = {"name": "here", "context": {"cluster": "c", "user": "me"}}
    document = {"current-context": "here", "contexts": [context], "users": [{"name": "me", "user": user}]}
    Path("kubeconfig").write_text(json.dumps(document))


@pytest.fixture
def with_kubeconfig(run: Run, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    assert run("config", "set", "kubeconfig", "default").code == 0


def test_the_token_of_a_kubeconfig(run: Run, impostor: Impostor, with_kubeconfig: None, tmp_path: Path) -> None:
    kubeconfig({"token": "kube"})
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer kube"
    Path("token").write_text("from-file\n")
    kubeconfig({"tokenFile": "token"})
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer from-file"
    plugin = tmp_path / "plugin"
    plugin.write_text('#!/bin/sh\necho "{\\"status\\": {\\"token\\": \\"$ANSWER$1\\"}}"\n')
    plugin.chmod(0o755)
    kubeconfig({"exec": {"command": "./plugin", "args": ["x"], "env": [{"name": "ANSWER", "value": "by-plugin-"}]}})
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer by-plugin-x"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"client-certificate": "x"}, "has no token"),
        ({"exec": {"command": "./nowhere"}}, "gave no token"),
        ({"exec": {"command": "false"}}, "gave no token"),
    ],
)
def test_a_kubeconfig_without_a_token_is_one_sentence(
    run: Run, impostor: Impostor, with_kubeconfig: None, user: dict[str, Any], said: str
) -> None:
    kubeconfig(user)
    done = run("status")
    assert done.code == 4 and said in done.err and impostor.asked == []


def test_a_job_of_github_brings_its_own_token(
    run: Run, impostor: Impostor, provider: Impostor, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DEPLOYER_OIDC_AUDIENCE", "deployer")
    done = run("status")
    assert done.code == 2 and "id-token: write" in done.err
    environment.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{provider.url}/?api=1")
    environment.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner")
    provider.default = answer({"value": "job.token"})
    assert run("status").code == 0
    assert impostor.asked[-1][2]["Authorization"] == "Bearer job.token"
    assert provider.asked[0][1] == "/?api=1&audience=deployer"
    assert provider.asked[0][2]["Authorization"] == "Bearer runner"


def test_a_401_says_how_to_get_a_token(run: Run, impostor: Impostor) -> None:
    impostor.default = problem(401, "credentials are needed")
    done = run("deploy", "shop")
    assert done.code == 4 and "`deployer login`, --token-file or DEPLOYER_TOKEN" in done.err
