"""The log stream's auth: how credentials come, how long is waited for them, and what ends a stream."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from deployer.api.auth.access import Access
from deployer.api.auth.credentials import BEARER_PROTOCOL, PROTOCOL
from deployer.api.auth.jwt.issuers import GrantAuthorizer, open_issuers
from deployer.api.auth.principal import Authenticator, Authorizer, Principal, Unauthenticated, Unsure
from deployer.api.routes import Permission
from deployer.api.stream import server as stream
from deployer.settings import Settings
from support.issuer import AUDIENCE, ISSUER, Issuer, bearer

from .conftest import NS, Served
from .test_stream import HANDSHAKE, PING, flood

PAGE = "https://ui.example.com"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


class Counting(Authenticator):
    """Counts, and may be told to be away."""

    def __init__(self, inner: Authenticator) -> None:
        self.inner = inner
        self.asked = 0
        self.away = False

    def authenticate(self, token: str) -> Principal:
        self.asked += 1
        if self.away:
            raise Unsure("nobody knows")
        return self.inner.authenticate(token)


class Revocable(Authorizer):
    """Takes rights away."""

    def __init__(self, inner: Authorizer) -> None:
        self.inner = inner
        self.revoked = False

    def refusal(self, caller: Principal, permission: Permission, namespace: str, name: str) -> str:
        return "revoked" if self.revoked else self.inner.refusal(caller, permission, namespace, name)


@pytest.fixture
def parts(issuer: Issuer, tmp_path: Path) -> tuple[Counting, Revocable]:
    file = tmp_path / "key.pem"
    file.write_bytes(issuer.pem)
    settings = Settings(
        auth="jwt",
        jwt_algorithm="ES256",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_key_file=str(file),
        jwt_leeway=0.0,
    )
    return Counting(open_issuers(settings)), Revocable(GrantAuthorizer(settings))


@pytest.fixture
def access(parts: Any) -> Access:
    return Access(*parts)


def subprotocols(token: str, *more: str) -> list[Subprotocol]:
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    return [Subprotocol(p) for p in (f"{BEARER_PROTOCOL}{encoded}", *more)]


def end(viewer: ClientConnection) -> tuple[int | None, str | None]:
    """How it is closed; nothing may come before."""
    with pytest.raises(ConnectionClosed):
        message = viewer.recv(timeout=20)
        raise AssertionError(f"something came: {message!r}")
    return viewer.close_code, viewer.close_reason


# --- the three ways ---------------------------------------------------------------------------------------------------


def test_a_header(served: Served, issuer: Issuer) -> None:
    with served.watch(served.deployment().id, additional_headers=bearer(issuer.token())) as viewer:
        assert "queued" in viewer.recv(timeout=20)


def test_a_subprotocol_beside_the_real_one_which_alone_is_chosen(served: Served, issuer: Issuer) -> None:
    token = issuer.token()
    with served.watch(served.deployment().id, subprotocols=subprotocols(token, PROTOCOL)) as viewer:
        assert "queued" in viewer.recv(timeout=20)
        assert viewer.subprotocol == PROTOCOL
        assert viewer.response is not None
        assert token not in str(viewer.response.headers)


def test_a_first_message(served: Served, issuer: Issuer) -> None:
    with served.watch(served.deployment().id) as viewer:
        with pytest.raises(TimeoutError):
            viewer.recv(timeout=0.2)
        viewer.send(f"Bearer {issuer.token()}")
        assert "queued" in viewer.recv(timeout=20)


def test_the_real_subprotocol_alone_is_no_credential(served: Served, issuer: Issuer) -> None:
    with served.watch(served.deployment().id, subprotocols=[Subprotocol(PROTOCOL)]) as viewer:
        assert viewer.subprotocol == PROTOCOL
        viewer.send(f"Bearer {issuer.token()}")
        assert "queued" in viewer.recv(timeout=20)


@pytest.mark.parametrize("message", ["", "hello", "Bearer", "Bearer x", b"Bearer x", '{"token": "x"}', "Bearer é"])
def test_a_first_message_that_is_no_token(served: Served, message: Any) -> None:
    with served.watch(served.deployment().id) as viewer:
        viewer.send(message)
        assert end(viewer)[0] == 4401


@pytest.mark.parametrize("encoded", ["", "!!!", "AAAA", "w6k", "QmVhcmVyIHg"])
def test_a_subprotocol_that_is_no_token(served: Served, encoded: str) -> None:
    protocols = [Subprotocol(f"{BEARER_PROTOCOL}{encoded}"), Subprotocol(PROTOCOL)]
    with contextlib.ExitStack() as stack:
        try:
            viewer = stack.enter_context(served.watch(served.deployment().id, subprotocols=protocols))
        except InvalidStatus as error:
            assert error.response.status_code == 400  # the library finds it malformed before we do
            return
        assert end(viewer)[0] == 4401


def test_two_tokens_are_one_too_many(served: Served, issuer: Issuer) -> None:
    id, token = served.deployment().id, issuer.token()
    twice = subprotocols(token, *subprotocols(token), PROTOCOL)
    with served.watch(id, subprotocols=twice) as viewer:
        assert end(viewer)[0] == 4401
    with served.watch(id, subprotocols=subprotocols(token, PROTOCOL), additional_headers=bearer(token)) as viewer:
        assert end(viewer)[0] == 4401
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    with served.watch(id, additional_headers=headers) as viewer:
        assert end(viewer)[0] == 4401


def test_a_token_in_the_address_is_none(served: Served, issuer: Issuer) -> None:
    id = served.deployment().id
    with served.watch(id, f"{NS}&access_token={issuer.token()}&authorization=Bearer%20{issuer.token()}") as viewer:
        viewer.send("Bearer x")
        assert end(viewer)[0] == 4401


def test_who_may_not_read_learns_nothing(served: Served, issuer: Issuer) -> None:
    """Whether the deployment exists is said, and `!!error` sent, only after the caller's rights are known."""
    ends = []
    for id in (served.deployment().id, "nobody"):
        with served.watch(id, additional_headers=bearer(issuer.token(namespaces=["other"]))) as viewer:
            ends.append(end(viewer))
    assert ends[0] == ends[1] and ends[0][0] == 4403
    with served.watch("nobody", additional_headers=bearer(issuer.token())) as viewer:
        assert viewer.recv(timeout=20) == "!!error there is no such deployment in this namespace\n"
        assert end(viewer)[0] == 4404


# --- time and number --------------------------------------------------------------------------------------------------


class TestImpatient:
    @pytest.fixture
    def auth_options(self) -> dict[str, Any]:
        return {"first": 0.5, "waiting": 3}

    def test_who_says_nothing_is_sent_away(self, served: Served, audited: list[Any]) -> None:
        id = served.deployment().id
        began = time.monotonic()
        with served.watch(id) as viewer:
            code, reason = end(viewer)
        assert code == 4401 and "no credentials came within 0.5 s" in str(reason)
        assert time.monotonic() - began < 10
        (line,) = audited
        assert (line["who"], line["method"], line["status"], line["id"]) == (None, "WEBSOCKET", 4401, id)
        assert (line["source"], line["namespace"], line["outcome"]) == ("127.0.0.1", NS, "refused")

    def test_a_namespace_is_needed_too(self, served: Served, issuer: Issuer) -> None:
        id = served.deployment().id
        for headers in (bearer(issuer.token()), {}):
            with pytest.raises(InvalidStatus) as refused:
                served.watch(id, f"{NS}&namespace=other", additional_headers=headers)
            assert refused.value.response.status_code == 400


class TestCrowd:
    @pytest.fixture
    def auth_options(self) -> dict[str, Any]:
        return {"first": 30.0, "waiting": 3}

    def test_no_more_than_some_may_wait_and_they_keep_nobody_out(self, served: Served, issuer: Issuer) -> None:
        id = served.deployment().id
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(served.watch(id)) for _ in range(3)]
            deadline = time.monotonic() + 20
            while True:
                try:
                    stack.enter_context(served.watch(id))
                except InvalidStatus as refused:
                    assert refused.response.status_code == 503
                    assert refused.response.headers["Retry-After"]
                    break
                assert time.monotonic() < deadline
            for options in (
                {"additional_headers": bearer(issuer.token())},
                {"subprotocols": subprotocols(issuer.token(), PROTOCOL)},
            ):
                with served.watch(id, **options) as viewer:
                    assert "queued" in viewer.recv(timeout=20)
            waiting[0].send(f"Bearer {issuer.token()}")
            assert "queued" in waiting[0].recv(timeout=20)


class TestStrangers:
    """Connections that have not proved who they are have a share of their own, whatever they have sent."""

    @pytest.fixture
    def stream_options(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(stream, "OPENING", 10)
        return {"viewers": 3, "send_timeout": 2.0}

    @pytest.fixture
    def auth_options(self) -> dict[str, Any]:
        return {"first": 30.0, "waiting": 1000}

    @pytest.fixture
    def access(self, parts: Any) -> Iterator[Access]:
        self.scope = scope = threading.Event()

        class Slow(Authenticator):
            def authenticate(self, token: str) -> Principal:
                if token == "slow":
                    scope.wait(30)
                    raise Unauthenticated("at last")
                return parts[0].authenticate(token)

        yield Access(Slow(), parts[1])
        scope.set()

    def test_they_take_no_viewers_place(self, served: Served, issuer: Issuer) -> None:
        id = served.deployment().id
        handshake = HANDSHAKE.format(path=f"/stream/deployments/{id}/logs?namespace={NS}")
        slow = handshake.replace("\r\n\r\n", "\r\nAuthorization: Bearer slow\r\n\r\n")
        with contextlib.ExitStack() as stack:
            viewers = [stack.enter_context(served.watch(id, additional_headers=bearer(issuer.token())))]
            assert "queued" in viewers[0].recv(timeout=20)
            for number in range(60):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
                # No more than three are being checked: there are four threads for that.
                sock.sendall((slow if number < 3 else handshake).encode())
            deadline = time.monotonic() + 20
            while len(served.logs._connections) != 1 + 10:
                assert time.monotonic() < deadline
            assert served.logs.viewers == 1
            for _ in range(2):
                viewers.append(stack.enter_context(served.watch(id, additional_headers=bearer(issuer.token()))))
                assert "queued" in viewers[-1].recv(timeout=20)
            with pytest.raises(InvalidStatus) as refused:
                served.watch(id, additional_headers=bearer(issuer.token()))
            assert refused.value.response.status_code == 503
            served.deployment_log.append(id, "for all")
            assert all(viewer.recv(timeout=20).endswith("for all\n") for viewer in viewers)
            self.scope.set()

    def test_the_last_place_goes_to_one(self, served: Served, issuer: Issuer) -> None:
        """Both were admitted while there was one place left; who proves it later finds none."""
        id = served.deployment().id
        with contextlib.ExitStack() as stack:
            viewers = [stack.enter_context(served.watch(id)) for _ in range(5)]
            for viewer in viewers[:3]:
                viewer.send(f"Bearer {issuer.token()}")
                assert "queued" in viewer.recv(timeout=20)
            for viewer in viewers[3:]:
                viewer.send(f"Bearer {issuer.token()}")
                assert end(viewer)[0] == 1013

    def test_their_pings_are_bounded_too(self, served: Served) -> None:
        id = served.deployment().id
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect(("127.0.0.1", served.port))
            sock.sendall(HANDSHAKE.format(path=f"/stream/deployments/{id}/logs?namespace={NS}").encode())
            began = time.monotonic()
            assert flood(sock, PING * 100) < 16_000_000
            assert time.monotonic() - began < 10


# --- the end of credentials -------------------------------------------------------------------------------------------


def test_a_stream_ends_with_its_token_although_nothing_is_sent(served: Served, issuer: Issuer) -> None:
    id = served.deployment().id
    exp = int(time.time()) + 2
    with served.watch(id, additional_headers=bearer(issuer.token(exp=exp))) as viewer:
        assert "queued" in viewer.recv(timeout=20)
        assert end(viewer) == (4401, "the token has expired")
    assert exp <= time.time() < exp + 5
    assert served.call("GET", "/healthz").status == 200


class TestRecheck:
    @pytest.fixture
    def auth_options(self) -> dict[str, Any]:
        return {"recheck": 0.1}

    def test_a_right_that_is_revoked_ends_the_stream(self, served: Served, issuer: Issuer, parts: Any) -> None:
        id = served.deployment().id
        with served.watch(id, additional_headers=bearer(issuer.token())) as viewer:
            assert "queued" in viewer.recv(timeout=20)
            parts[1].revoked = True
            assert end(viewer) == (4403, "revoked")

    def test_doubt_ends_it_only_when_it_lasts(
        self, served: Served, issuer: Issuer, parts: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = served.deployment().id
        with served.watch(id, additional_headers=bearer(issuer.token())) as viewer:
            assert "queued" in viewer.recv(timeout=20)
            parts[0].away = True
            asked = parts[0].asked
            deadline = time.monotonic() + 20
            while parts[0].asked < asked + 3:
                assert time.monotonic() < deadline
            served.deployment_log.append(id, "still here")
            assert "still here" in viewer.recv(timeout=20)
            monkeypatch.setattr("deployer.api.auth.stream_auth.BORNE", 0.1)
            assert end(viewer) == (1013, "nobody knows")

    def test_doubt_lets_nobody_stay_beyond_the_tokens_end(self, served: Served, issuer: Issuer, parts: Any) -> None:
        id = served.deployment().id
        with served.watch(id, additional_headers=bearer(issuer.token(exp=int(time.time()) + 2))) as viewer:
            assert "queued" in viewer.recv(timeout=20)
            parts[0].away = True
            assert end(viewer) == (4401, "the token has expired")

    def test_while_nobody_knows_nobody_new_comes_in(self, served: Served, issuer: Issuer, parts: Any) -> None:
        parts[0].away = True
        with served.watch(served.deployment().id, additional_headers=bearer(issuer.token())) as viewer:
            assert end(viewer) == (1013, "nobody knows")


class TestSlowChecks:
    """Checking takes its time in threads of its own."""

    @pytest.fixture
    def access(self, parts: Any) -> Iterator[Access]:
        self.scope = threading.Event()
        scope = self.scope

        class Slow(Authenticator):
            def authenticate(self, token: str) -> Principal:
                if token == "slow":
                    scope.wait(30)
                    raise Unauthenticated("at last")
                return parts[0].authenticate(token)

        yield Access(Slow(), parts[1])
        self.scope.set()

    def test_they_hold_up_neither_viewers_nor_rest(self, served: Served, issuer: Issuer) -> None:
        id = served.deployment().id
        with served.watch(id, additional_headers=bearer(issuer.token())) as viewer, contextlib.ExitStack() as stack:
            assert "queued" in viewer.recv(timeout=20)
            slow = [stack.enter_context(served.watch(id, additional_headers=bearer("slow"))) for _ in range(20)]
            served.deployment_log.append(id, "live")
            assert "live" in viewer.recv(timeout=5)
            answer = served.call("GET", f"/deployments/{id}?namespace={NS}", headers=bearer(issuer.token()))
            assert answer.status == 200
            self.scope.set()
            assert {end(one) for one in slow} == {(4401, "at last")}


# --- pages ------------------------------------------------------------------------------------------------------------


class TestOrigins:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(own_namespace="deployer", ingress="none", allowed_origins=(PAGE,))

    @pytest.mark.parametrize("origin", [PAGE, None, "own"])
    def test_pages_of_allowed_origins_may_watch(self, served: Served, issuer: Issuer, origin: Any) -> None:
        origin = f"http://127.0.0.1:{served.port}" if origin == "own" else origin
        protocols = subprotocols(issuer.token(), PROTOCOL)
        with served.watch(served.deployment().id, origin=origin, subprotocols=protocols) as viewer:
            assert "queued" in viewer.recv(timeout=20)

    @pytest.mark.parametrize("origin", ["https://evil.example", "http://ui.example.com", PAGE + ":444", "null"])
    def test_others_may_not_whatever_token_they_have(self, served: Served, issuer: Issuer, origin: str) -> None:
        protocols = subprotocols(issuer.token(), PROTOCOL)
        with (
            pytest.raises(InvalidStatus) as refused,
            served.watch(served.deployment().id, origin=origin, subprotocols=protocols),
        ):
            pass
        assert refused.value.response.status_code == 403

    def test_two_origins_are_none(self, served: Served, issuer: Issuer) -> None:
        headers = [("Origin", PAGE), ("Origin", "https://evil.example"), *bearer(issuer.token()).items()]
        with pytest.raises(InvalidStatus) as refused, served.watch(served.deployment().id, additional_headers=headers):
            pass
        assert refused.value.response.status_code == 403
