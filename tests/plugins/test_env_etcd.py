"""Tests of the etcd injector against a real etcd on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyetcd
import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Cancelled, DeadlineExceeded
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.env_etcd import v2
from deployer.sdk.environment import EnvContext, KubeReader
from deployer.sdk.errors import SettingsError, StepFailed
from deployer.settings import Settings
from deployer.testing.environment import CHECKS, InjectorBench
from support.etcd import Etcd, free_ports, with_both_stores

PREFIX = "/deployer/environment/"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    server = Etcd(tmp_path_factory.mktemp("etcd"))
    yield server
    server.close()


@pytest.fixture
def put(etcd: Etcd) -> Iterator[Callable[..., None]]:
    """Write keys below the prefix; everything is deleted afterwards."""
    with etcd.client() as client:

        def write(prefix: str = PREFIX, **values: str) -> None:
            for key, value in values.items():
                client.put(prefix + key.replace("__", "-"), value)

        client.delete_prefix("/")
        yield write
        client.delete_prefix("/")


def environment(*, scope: CancelScope | None = None, etcd: str = "", log: list[str] | None = None, **table: Any) -> Any:
    """What the injector gives, with this table of settings."""
    plugins = {"env_etcd": table} if table else {}
    registry = load_plugins(Settings(own_namespace="", etcd=etcd, plugins=plugins))
    (injector,) = registry.injectors
    said = log if log is not None else []
    nowhere = KubeReader(None)  # type: ignore[arg-type]
    return injector.environment(EnvContext("shop", "web", "1", said.append, scope or CancelScope(), nowhere))


# --- what is read -------------------------------------------------------------------------------------------------


def test_keys_become_variables(etcd, put):
    put(**{"database-url": "postgres://db", "Log_Level": "info", "empty": "", "umlaut": "ü=\n'$(X)"})
    put("/deployer/environmental/", not_this="1")
    assert environment(etcd=etcd.url) == [
        {"name": "DATABASE_URL", "value": "postgres://db"},
        {"name": "EMPTY", "value": ""},
        {"name": "LOG_LEVEL", "value": "info"},
        {"name": "UMLAUT", "value": "ü=\n'$(X)"},
    ]


def test_an_empty_prefix_gives_nothing_and_says_so(etcd, put):
    log: list[str] = []
    assert environment(etcd=etcd.url, log=log) == []
    assert log == ["etcd: there is no key below /deployer/environment/, so nothing is injected"]
    assert warnings(etcd.url) == log
    put(a="1")
    assert warnings(etcd.url) == []


def warnings(*endpoints: str) -> list[str]:
    """What is said when the service has started."""
    (injector,) = load_plugins(Settings(own_namespace="", etcd=",".join(endpoints))).injectors
    return list(injector.warnings(CancelScope(time.monotonic() + 10)))


# --- what the original had in the v2 store --------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Etcd]:
    """An etcd with both stores; the environment of the original is in the older one."""
    with with_both_stores(tmp_path) as server:
        for key in ("database-url", "token", "deeper/key"):
            server.put_v2(f"{PREFIX}{key}", "canary-value")
        yield server


def test_an_environment_that_is_only_in_the_v2_store_is_told_of(old):
    log: list[str] = []
    assert environment(etcd=old.url, log=log) == []
    assert "nothing is injected; but etcd's v2 store" in log[0] and "has 2 keys there: copy them to v3" in log[0]
    assert warnings(old.url) == log
    assert "canary" not in "".join(log)
    with old.client() as client:
        client.put(f"{PREFIX}a", "1")
    log.clear()
    assert environment(etcd=old.url, log=log) == [{"name": "A", "value": "1"}]
    assert (log, warnings(old.url)) == ([], [])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n\r\n[1]",
        b'HTTP/1.1 200 OK\r\n\r\n{"node": {"nodes": 5}}',
        b'HTTP/1.1 200 OK\r\n\r\n{"node": {}}',
        b'HTTP/1.1 401 Unauthorized\r\n\r\n{"node": {"nodes": [{"value": "x"}]}}',
        None,
    ],
)
def test_what_the_v2_store_answers_never_fails_or_delays_a_deployment(answer):
    """`None` is a server that says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(1000)
                if answer is None:
                    connection.recv(1000)  # until the other end has had enough
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        assert v2.keys([f"http://127.0.0.1:{server.getsockname()[1]}"], PREFIX, lambda: None) == ""
        assert time.monotonic() - began < 5
        thread.join()


def test_an_etcd_that_does_not_answer_is_told_of_at_the_start():
    (closed,) = free_ports(1)
    (said,) = warnings(f"http://127.0.0.1:{closed}")
    assert said.startswith(f"the environment cannot be read from etcd: http://127.0.0.1:{closed} ")


def test_the_prefix_can_be_set_with_or_without_its_slash(etcd, put):
    put("/mine/", a="1")
    put("/mine", b="2")
    assert environment(endpoints=[etcd.url], prefix="/mine") == [{"name": "A", "value": "1"}]


def test_keys_that_are_no_variable_names_are_skipped_by_name(etcd, put):
    put(**{"1st": "secret-1", "a.b": "secret-2", "x/y": "secret-3", "straße": "secret-4", "": "secret-5", "ok": "1"})
    log: list[str] = []
    assert environment(etcd=etcd.url, log=log) == [{"name": "OK", "value": "1"}]
    assert len(log) == 5
    assert "the key 'a.b' is skipped" in "".join(log)
    assert "secret" not in "".join(log)


def test_two_keys_of_one_variable(etcd, put):
    put(**{"a-b": "same", "A_B": "same"})
    assert environment(etcd=etcd.url) == [{"name": "A_B", "value": "same"}]
    put(a_b="secret")
    with pytest.raises(StepFailed, match="both mean the variable A_B") as caught:
        environment(etcd=etcd.url)
    assert "secret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("value", [b"\xff\xfe-secret", b"nul\x00-secret"])
def test_a_value_that_is_not_text(etcd, put, value):
    with etcd.client() as client:
        client.put(f"{PREFIX}binary", value)
    with pytest.raises(StepFailed, match="the value of the key 'binary' is not text") as caught:
        environment(etcd=etcd.url)
    assert "secret" not in str(caught.value)


# --- reaching it --------------------------------------------------------------------------------------------------


def test_without_endpoints_there_is_no_injector():
    assert load_plugins(Settings(own_namespace="")).injectors == ()
    assert load_plugins(Settings(own_namespace="", plugins={"env_etcd": {"timeout": 1}})).injectors == ()


def test_endpoints_are_tried_in_turn(etcd, put):
    put(a="1")
    (closed,) = free_ports(1)
    assert environment(endpoints=[f"http://127.0.0.1:{closed}", etcd.url]) == [{"name": "A", "value": "1"}]
    assert environment(etcd=f"http://127.0.0.1:{closed}, {etcd.url}") == [{"name": "A", "value": "1"}]


def test_no_endpoint_answers():
    one, two = free_ports(2)
    with pytest.raises(StepFailed) as caught:
        environment(endpoints=[f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}"])
    assert caught.value.reason == "InjectorFailed"
    assert str(caught.value).startswith("the environment cannot be read from etcd: http://127.0.0.1:")
    assert str(caught.value).count("cannot be reached") == 2


def test_an_endpoint_that_hangs_costs_its_share_of_the_time(etcd, put):
    put(a="1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert environment(endpoints=[hanging, etcd.url], timeout=1.0) == [{"name": "A", "value": "1"}]
        with pytest.raises(StepFailed, match="gave no answer in time"):
            environment(endpoints=[hanging], timeout=0.5)
        assert time.monotonic() - began < 3


def test_cancelling_ends_it_at_once():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        scope = CancelScope()
        timer = threading.Timer(0.3, scope.close, [Cancelled("stop")])
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            environment(endpoints=[f"http://127.0.0.1:{silent.getsockname()[1]}"], timeout=30, scope=scope)
        assert time.monotonic() - began < 1.3
        timer.join()


def test_the_gates_deadline_counts():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment(endpoints=[url], timeout=30, scope=CancelScope(time.monotonic() + 0.5))


# --- the suite -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_does_what_every_injector_must(check, etcd, put, cluster, tmp_path):
    put(**{"database-url": "postgres://user:s3cret-pass@db/shop", "token": "s3cret-token", "a.b": "s3cret-skipped"})
    put("/twice/", a__b="s3cret-one", a_b="s3cret-two")
    with etcd.client() as client:
        client.put("/binary/a", b"\xff s3cret-binary")
    (closed,) = free_ports(1)

    def injector(url: str, **table: Any) -> Any:
        (made,) = load_plugins(
            Settings(own_namespace="", plugins={"env_etcd": {"endpoints": [url], **table}})
        ).injectors
        return made

    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = f"http://127.0.0.1:{silent.getsockname()[1]}"
        check(
            InjectorBench(
                lambda: injector(etcd.url),
                away=lambda: injector(away, timeout=1.5),
                broken=[
                    lambda: injector(etcd.url, prefix="/twice"),
                    lambda: injector(etcd.url, prefix="/binary"),
                    lambda: injector(f"http://127.0.0.1:{closed}", timeout=0.3),
                ],
                values=["s3cret-skipped", "s3cret-one", "s3cret-two", "s3cret-binary"],
                cluster=cluster,
                path=tmp_path,
            )
        )


# --- authentication -----------------------------------------------------------------------------------------------


@pytest.fixture
def locked(etcd: Etcd, put: Callable[..., None]) -> Iterator[Etcd]:
    """The same etcd with authentication: `reader` may read the prefix."""
    put(a="1")
    with etcd.client() as client:
        auth = client.authstub
        etcdrpc = pyetcd.etcdrpc
        permission = etcdrpc.Permission
        auth.UserAdd(etcdrpc.AuthUserAddRequest(name="root", password="root-pw"), 5)
        auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user="root", role="root"), 5)
        auth.UserAdd(etcdrpc.AuthUserAddRequest(name="reader", password="canary-pw"), 5)
        auth.RoleAdd(etcdrpc.AuthRoleAddRequest(name="env"), 5)
        read = permission(permType=permission.READ, key=PREFIX.encode(), range_end=(PREFIX[:-1] + "0").encode())
        auth.RoleGrantPermission(etcdrpc.AuthRoleGrantPermissionRequest(name="env", perm=read), 5)
        auth.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user="reader", role="env"), 5)
        auth.AuthEnable(etcdrpc.AuthEnableRequest(), 5)
    yield etcd
    with etcd.client(user="root", password="root-pw") as client:
        auth, etcdrpc = client.authstub, pyetcd.etcdrpc
        token = client.metadata
        auth.AuthDisable(etcdrpc.AuthDisableRequest(), 5, metadata=token)
        for user in ("root", "reader"):
            auth.UserDelete(etcdrpc.AuthUserDeleteRequest(name=user), 5)
        auth.RoleDelete(etcdrpc.AuthRoleDeleteRequest(role="env"), 5)


def test_authentication(locked, tmp_path):
    reader = {"endpoints": [locked.url], "username": "reader"}
    assert environment(**reader, password="canary-pw") == [{"name": "A", "value": "1"}]
    file = tmp_path / "password"
    file.write_text("canary-pw\n")
    assert environment(**reader, password_file=str(file)) == [{"name": "A", "value": "1"}]
    file.write_text("canary-wrong")
    refusals = {
        "authentication failed": {**reader, "password_file": str(file)},
        "permission denied": {**reader, "password": "canary-pw", "prefix": "/other"},
        "user name is empty": {"endpoints": [locked.url]},
    }
    for said, table in refusals.items():
        with pytest.raises(StepFailed, match=said) as caught:
            environment(**table)
        assert "canary" not in str(caught.value) + repr(caught.value)


def test_the_services_own_user_is_used_for_the_same_etcd(locked):
    def inject(**table):
        core = Settings(
            own_namespace="",
            etcd=locked.url,
            etcd_username="reader",
            etcd_password="canary-pw",
            plugins={"env_etcd": table} if table else {},
        )
        (injector,) = load_plugins(core).injectors
        context = EnvContext("shop", "web", "1", lambda line: None, CancelScope(), KubeReader(None))
        return injector.environment(context)

    assert inject() == [{"name": "A", "value": "1"}]
    with pytest.raises(StepFailed, match="authentication failed"):
        inject(username="reader", password="canary-wrong")
    with pytest.raises(StepFailed, match="user name is empty"):
        inject(endpoints=[locked.url])


def test_a_password_for_an_etcd_without_authentication(etcd, put):
    with pytest.raises(StepFailed, match="authentication is not enabled"):
        environment(endpoints=[etcd.url], username="reader", password="canary-pw")


# --- TLS ----------------------------------------------------------------------------------------------------------


def certificates(path: Path) -> dict[str, Path]:
    """A self-signed certificate for 127.0.0.1, for both sides, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("the program openssl is missing")
    key, cert = path / "key.pem", path / "cert.pem"
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return {"key": key, "cert": cert}


def test_tls_with_certificates_on_both_sides(tmp_path):
    pair = certificates(tmp_path)
    files = {"ca_file": str(pair["cert"]), "cert_file": str(pair["cert"]), "key_file": str(pair["key"])}
    flags = {"cert_file": pair["cert"], "key_file": pair["key"], "trusted_ca_file": pair["cert"]}
    server = Etcd(tmp_path / "etcd", scheme="https", client_cert_auth="true", **flags)
    try:
        with server.client(ca_cert=pair["cert"], cert_cert=pair["cert"], cert_key=pair["key"]) as client:
            client.put(f"{PREFIX}a", "1")
        assert environment(endpoints=[server.url], **files) == [{"name": "A", "value": "1"}]
        with pytest.raises(StepFailed, match=r"cannot be reached|gave no answer in time"):
            environment(endpoints=[server.url], ca_file=files["ca_file"], timeout=1)
        with pytest.raises(StepFailed, match=server.url):
            environment(endpoints=[server.url], timeout=1)
    finally:
        server.close()


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"endpoints": ["etcd:2379"]}, "is not an address like http://host:2379"),
        ({"endpoints": ["http://h:1/v2/keys"]}, "is not an address like http://host:2379"),
        ({"endpoints": ["http://h:0"]}, "is not an address like http://host:2379"),
        ({"endpoints": ["http://u:canary-pw@h:1"]}, "may not contain credentials"),
        ({"endpoints": ["http://h:1"], "username": "u"}, "give both or none"),
        ({"endpoints": ["http://h:1"], "password": "canary-pw"}, "give both or none"),
        ({"endpoints": ["http://h:1"], "username": "u", "password": "canary-pw", "password_file": "f"}, "either"),
        (
            {"endpoints": ["http://h:1"], "cert_file": "f"},
            "key_file: is required where cert_file is given",
        ),
        ({"endpoints": "http://h:1"}, "endpoints: must be a list, not text"),
        ({"timeout": 0}, "timeout: must be more than 0"),
        ({"prefix": "x"}, "prefix: must match the pattern"),
        ({"pasword": "canary-pw"}, "pasword: is not a known field; did you mean password?"),
    ],
)
def test_wrong_settings_stop_the_service(table, said):
    with pytest.raises(SettingsError, match=said) as caught:
        load_plugins(Settings(own_namespace="", plugins={"env_etcd": table}))
    assert "canary-pw" not in str(caught.value)


def test_a_file_that_is_missing(tmp_path):
    missing = tmp_path / "ca.pem"
    with pytest.raises(StepFailed, match=f"the file {missing} cannot be read: No such file"):
        environment(endpoints=["https://127.0.0.1:1"], ca_file=str(missing))
