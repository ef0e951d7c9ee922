"""Connecting: every way and spelling, what is warned of, and one sentence for whatever a newcomer gets wrong."""

from __future__ import annotations

import json
import logging
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeadlineExceeded, DeployerError, KubeForbidden, KubeRejected, SettingsError
from deployer.core.model.kind import POD
from deployer.kube.client import KubeClient, connect
from deployer.kube.http import connection
from deployer.settings import Settings, load, translate_original_flags

ELSEWHERE = "k8s.example.com:6443"
TOKEN = "eyJhbGciOiJ-secret_1.x"


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that knows of no cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return str(file)


def kubeconfig(path: Path, server: str, *, user: Any = None, **cluster: Any) -> str:
    """A kubeconfig file with the context `x`."""
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = path / "kubeconfig"
    file.write_text(json.dumps(document))
    return str(file)


def said(error: DeployerError | str) -> str:
    """A sentence on one line, without the token."""
    text = str(error)
    assert "\n" not in text and TOKEN not in text and "Traceback" not in text
    return text


def refusal(settings: Settings) -> str:
    """Why no connection can be made with these settings."""
    with pytest.raises(SettingsError) as caught:
        connect(settings)
    return said(caught.value)


def trouble(client: KubeClient) -> str:
    """What a request ends with."""
    with pytest.raises((DeployerError, DeadlineExceeded)) as caught:
        client.get(POD, "a", "ns", scope=CancelScope(time.monotonic() + 0.5))
    client.close()
    return said(caught.value)


# --- what is warned of --------------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    caplog.clear()
    connect(Settings(**settings)).close()
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
    return [said(record.getMessage()) for record in caplog.records]


def test_a_certificate_that_is_not_checked_is_warned_of_loudly(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, token_file: str
) -> None:
    https = f"https://{ELSEWHERE}"
    for given in (
        {"kubernetes": https, "skip_server_cert_validation": True},
        {"kubernetes": https, "skip_server_cert_validation": True, "kubernetes_token_file": token_file},
        {"kubeconfig": kubeconfig(tmp_path, https, **{"insecure-skip-tls-verify": True})},
    ):
        (line,) = warnings(caplog, **given)
        assert all(word in line for word in (https, "NOT CHECKED", "--kubernetes-ca-file", "credentials"))
    assert warnings(caplog, kubernetes=https, kubernetes_token_file=token_file) == []


def test_credentials_over_plain_http_are_warned_of(caplog: pytest.LogCaptureFixture, token_file: str) -> None:
    password = {"kubernetes_username": "ann", "kubernetes_password": "hunter2"}
    for given in ({"kubernetes_token_file": token_file}, password):
        (line,) = warnings(caplog, kubernetes=f"http://{ELSEWHERE}", **given)
        assert "UNENCRYPTED" in line and ELSEWHERE in line and "https://" in line and "hunter2" not in line
        assert warnings(caplog, kubernetes="http://localhost.example.com", **given)
        for address in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", f"https://{ELSEWHERE}"):
            assert warnings(caplog, kubernetes=address, **given) == []
    assert warnings(caplog, kubernetes=f"http://{ELSEWHERE}") == []


# --- the original's flags -----------------------------------------------------------------------------------------


def original(flags: str) -> KubeClient:
    """A client as the original's flags ask for it."""
    canonical = [argument.removeprefix("--").partition("=") for argument in translate_original_flags(flags.split())]
    return connect(load({name.replace("-", "_"): value or True for name, _, value in canonical}, {"HOME": "/"}))


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ("-kubernetes http://localhost:8080", "http://localhost:8080"),
        ("-kubernetes http://localhost:8080/", "http://localhost:8080"),
        ("-kubernetes localhost:8080", "http://localhost:8080"),
        ("--kubernetes=k8s", "http://k8s"),
        ("-kubernetes 10.0.0.1:6443 -skipServerCertValidation", "https://10.0.0.1:6443"),
        ("-kubernetes [fd00::1]:8080", "http://[fd00::1]:8080"),
        ("-kubernetes https://[fd00::1]", "https://[fd00::1]"),
        ("-kubernetes https://k8s/prefix/", "https://k8s/prefix"),
    ],
)
def test_addresses_as_the_original_took_them(flags: str, address: str) -> None:
    client = original(flags)
    assert client.address == address
    client.close()


def test_user_name_and_password_go_over_the_wire_and_a_server_that_knows_none_is_explained(
    server: Any, quick: None
) -> None:
    server.answer = lambda request: request.status(401, "Unauthorized", "Unauthorized")
    flags = f"-kubernetes {server.url} -kubernetesusername ann -kubernetespassword hunter2 -skipServerCertValidation"
    text = trouble(original(flags))
    assert {request.headers["Authorization"] for request in server.requests} == {"Basic YW5uOmh1bnRlcjI="}
    assert "refused to get pods a in namespace ns: Unauthorized" in text and "hunter2" not in text
    assert "knows no user names and passwords" in text and "--kubernetes-token-file" in text


def test_a_server_that_takes_a_password_for_nobody_is_explained(server: Any) -> None:
    """As one does that lets anonymous requests in."""
    message = 'pods "a" is forbidden: User "system:anonymous" cannot get resource "pods"'
    server.answer = lambda request: request.status(403, "Forbidden", message)
    text = trouble(original(f"-kubernetes {server.url} -kubernetesusername ann -kubernetespassword x"))
    assert message in text and "--kubernetes-token-file" in text
    text = trouble(original(f"-kubernetes {server.url}"))
    assert "no credentials were given: give --kubernetes-token-file" in text


# --- credentials --------------------------------------------------------------------------------------------------


def test_a_token_that_is_not_known_names_where_it_came_from(
    server: Any, tmp_path: Path, token_file: str, quick: None
) -> None:
    server.answer = lambda request: request.status(401, "Unauthorized", "Unauthorized")
    text = trouble(connect(Settings(kubernetes=server.url, kubernetes_token_file=token_file)))
    assert f"does not know the token in {token_file}" in text and "expired" in text
    file = kubeconfig(tmp_path, server.url)
    assert f"does not know the credentials in {file}" in trouble(connect(Settings(kubeconfig=file)))
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=token_file))
    with pytest.raises(KubeForbidden, match=r"^the API server refused to get /version: Unauthorized; it does not know"):
        client.version()
    with pytest.raises(KubeForbidden, match="does not know the token"):
        next(client.watch(POD, "ns", "1"))
    client.close()


def test_token_files_that_hold_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = Settings(kubernetes="https://k8s", kubernetes_token_file=str(file))
    assert refusal(settings) == f"the token file {file} cannot be read: No such file or directory"
    file.mkdir()
    assert refusal(settings) == f"the token file {file} cannot be read: Is a directory"
    file.rmdir()
    file.write_text("\n")
    assert refusal(settings) == f"the token file {file} is empty"
    for content in (f"{TOKEN}\n{TOKEN}\n", "token: x y", "t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken"):
        file.write_text(content)
        assert refusal(settings) == f"the token file {file} holds more than a token, or something else"


def test_a_token_that_cannot_be_sent_is_not_shown(server: Any, token_file: str, tmp_path: Path) -> None:
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=token_file))
    Path(token_file).write_text(f"{TOKEN}\n{TOKEN} {TOKEN}")
    assert "the token holds characters that cannot be sent" in trouble(client)
    file = kubeconfig(tmp_path, server.url, user={"token": f"{TOKEN}\n{TOKEN}"})
    assert "the token holds characters that cannot be sent" in trouble(connect(Settings(kubeconfig=file)))
    assert server.requests == []


# --- a kubeconfig, a pod ------------------------------------------------------------------------------------------


def test_without_any_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(Settings())
    assert text.startswith("there is no Kubernetes to connect to: --kubernetes is not given, this is not a pod, and ")
    assert "~/.kube/config" in text
    missing = str(tmp_path / "missing")
    assert (
        refusal(Settings(kubeconfig=missing)) == f"the kubeconfig {missing}, which --kubeconfig names, does not exist"
    )
    monkeypatch.setenv("KUBECONFIG", missing)
    assert refusal(Settings()) == f"the kubeconfig {missing}, which KUBECONFIG names, does not exist"


def test_a_pod_without_an_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "_ACCOUNT", tmp_path / "account")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert f"this pod has no account ({tmp_path}/account/token is missing)" in refusal(Settings())


def test_kubeconfigs_that_cannot_be_used(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "https://k8s")
    text = refusal(Settings(kubeconfig=file, kube_context="nope"))
    assert text.startswith(f"context nope of the kubeconfig {file} cannot be used: ") and "nope" in text
    for content in ("{", "just words", "[]", "{}", '{"clusters": 1, "contexts": [], "current-context": "x"}'):
        Path(file).write_text(content)
        assert refusal(Settings(kubeconfig=file)).startswith(f"the kubeconfig {file} cannot be used: ")
    authority = str(tmp_path / "ca.crt")
    kubeconfig(tmp_path, "https://k8s", **{"certificate-authority": authority})
    assert authority in refusal(Settings(kubeconfig=file))
    certificate = str(tmp_path / "client.crt")
    kubeconfig(tmp_path, "https://k8s", user={"client-certificate": certificate, "client-key": certificate})
    assert certificate in refusal(Settings(kubeconfig=file))


def test_several_kubeconfigs_are_one(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{kubeconfig(tmp_path, server.url)}")
    server.answer = lambda request: request.json({"gitVersion": "v1"})
    client = connect(Settings())
    assert client.version() == {"gitVersion": "v1"}
    client.close()


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the name localhost only; `key.pem` is beside it."""
    if not shutil.which("openssl"):
        pytest.skip("the program openssl is missing")
    path = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    files = ["-keyout", str(path / "key.pem"), "-out", str(path / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return path / "cert.pem"


@pytest.fixture
def secure(fault_server: Any, certificate: Path) -> Iterator[Any]:
    """A server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    running = fault_server(tls=context)
    running.answer = lambda request: request.json({"metadata": {"name": "a"}})
    yield running
    running.close()


def test_certificates(secure: Any, certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = trouble(connect(Settings(kubernetes=secure.url)))
    assert "its certificate cannot be verified (self" in text and "--kubernetes-ca-file" in text
    text = trouble(connect(Settings(kubernetes=secure.url, kubernetes_ca_file=str(certificate))))
    assert "its certificate is made out for another name" in text and "127.0.0.1" in text
    assert secure.requests == []
    by_name = secure.url.replace("127.0.0.1", "localhost")
    for settings in (
        Settings(kubernetes=by_name, kubernetes_ca_file=str(certificate)),
        Settings(kubernetes=by_name.removeprefix("https://"), kubernetes_ca_file=str(certificate)),
        Settings(kubernetes=secure.url, skip_server_cert_validation=True),
    ):
        client = connect(settings)
        assert client.get(POD, "a", "ns")
        client.close()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING and "NOT CHECKED" in r.getMessage()]) == 1


def test_the_wrong_scheme(server: Any) -> None:
    assert "is it http:// instead of https://?" in trouble(
        connect(Settings(kubernetes=f"https://127.0.0.1:{server.port}"))
    )
    server.answer = lambda request: request.json(b"Client sent an HTTP request to an HTTPS server.\n", 400)
    client = connect(Settings(kubernetes=server.url))
    with pytest.raises(KubeRejected, match=f"^{server.url} speaks TLS: write https:// instead of http://$"):
        client.version()
    client.close()


def test_files_for_tls_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    settings = Settings(kubernetes="https://k8s", kubernetes_ca_file=str(file))
    text = refusal(settings)
    assert text == f"the certificate authority's file {file} cannot be read: No such file or directory"
    file.write_text("no certificate")
    assert f"the file {file} does not hold the certificates of an authority in PEM form" in refusal(settings)
    user = {"client-certificate": str(file), "client-key": str(file)}
    text = refusal(Settings(kubeconfig=kubeconfig(tmp_path, "https://k8s", user=user)))
    assert f"the file {file} does not hold a client certificate and its key in PEM form" in text


def test_a_host_that_nobody_knows() -> None:
    text = trouble(connect(Settings(kubernetes="https://k8s.invalid:6443")))
    assert "the API server at https://k8s.invalid:6443 cannot be reached" in text
