"""Where the API server is and who we are to it: an address, the pod's own account or a kubeconfig, as set."""

from __future__ import annotations

import logging
import os
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from deployer import __version__
from deployer.core.errors import SettingsError
from deployer.core.model.hosts import is_loopback
from deployer.kube.http.transport import Basic, Credentials, FromClient, TokenFile, Transport
from deployer.settings import Settings

POOL_SIZE = 256
"""Connections that are kept open at most: one for each of 128 workers, the rest for informers and REST."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_log = logging.getLogger(__name__)


def open_transport(settings: Settings) -> Transport:
    """The way to the cluster that the settings name: an address, else the pod's own account, else the kubeconfig.

    Sends nothing yet; logs a warning for what is not safe. Raises SettingsError.
    """
    # Imported here: it takes longer than everything else together, and `deployer plugins` does without.
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    credentials = _configure(settings, configuration)
    if settings.kubernetes_ca_file:
        configuration.ssl_ca_cert = settings.kubernetes_ca_file
    if settings.kubernetes_token_file:
        credentials = _token_file(settings.kubernetes_token_file)
    if settings.kubernetes_username:
        credentials = Basic(settings.kubernetes_username, settings.kubernetes_password)
    if settings.kubernetes_token_file or settings.kubernetes_username:
        # The kubeconfig's client certificate would come first with the API server.
        configuration.cert_file = configuration.key_file = None
    if settings.skip_server_cert_validation:
        configuration.verify_ssl = False
        configuration.assert_hostname = False
    parts = urlsplit(configuration.host)
    local = is_loopback(parts.hostname or "")
    _warn(configuration, credentials, secure=parts.scheme == "https", local=local)
    if local:
        configuration.proxy = None
    configuration.connection_pool_maxsize = POOL_SIZE
    _check_files(configuration)
    return Transport(ApiClient(configuration), credentials, f"kube-deployer/{__version__}")


def _warn(configuration: Any, credentials: Credentials, *, secure: bool, local: bool) -> None:
    """Say loudly, once, what is not safe about the connection."""
    if secure and not configuration.verify_ssl:
        _log.warning(
            "the certificate of the API server at %s is NOT CHECKED: whoever gets in between can read the Deployer's "
            "credentials and every Secret that it reads, and change what it deploys; instead of "
            "--skip-server-cert-validation (in a kubeconfig: insecure-skip-tls-verify) name the file with the "
            "certificate of its authority by --kubernetes-ca-file",
            configuration.host,
        )
        # Said; another one for every request would only bury the log.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if not secure and not local and credentials.header() is not None:
        _log.warning(
            "credentials go to the API server at %s UNENCRYPTED: everybody on the way can read and use them; give an "
            "address that begins with https://",
            configuration.host,
        )


def _check_files(configuration: Any) -> None:
    """The files for TLS, which would otherwise be missed at the first request. Raises SettingsError."""
    for what, path in (
        ("certificate authority's file", configuration.ssl_ca_cert),
        ("client certificate's file", configuration.cert_file),
        ("client key's file", configuration.key_file),
    ):
        try:
            if path:
                Path(path).read_bytes()
        except OSError as error:
            raise SettingsError(f"the {what} {path} cannot be read: {error.strerror or error}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        what, path = "the certificates of an authority", configuration.ssl_ca_cert
        if path:
            context.load_verify_locations(path)
        what, path = "a client certificate and its key", configuration.cert_file
        if path:
            context.load_cert_chain(path, configuration.key_file)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise SettingsError(f"the file {path} does not hold {what} in PEM form ({why})") from error


def _configure(settings: Settings, configuration: Any) -> Credentials:
    """Where the API server is, and the credentials that come with it."""
    if settings.kubernetes:
        configuration.host = _with_scheme(settings).rstrip("/")
        return FromClient(configuration, "no credentials were given: give --kubernetes-token-file")
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    in_pod = bool(host and port)
    if host and port and not (settings.kubeconfig or settings.kube_context) and (_ACCOUNT / "token").exists():
        configuration.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        configuration.ssl_ca_cert = str(_ACCOUNT / "ca.crt")
        return _token_file(str(_ACCOUNT / "token"))
    return _from_kubeconfig(settings, configuration, in_pod=in_pod)


def _with_scheme(settings: Settings) -> str:
    """As client-go has it for the original: without a scheme http, unless something is said about certificates."""
    if "://" in settings.kubernetes:
        return settings.kubernetes
    tls = settings.kubernetes_ca_file or settings.skip_server_cert_validation
    return f"{'https' if tls else 'http'}://{settings.kubernetes}"


def _from_kubeconfig(settings: Settings, configuration: Any, *, in_pod: bool) -> Credentials:
    """What `--kubeconfig`, `KUBECONFIG` or `~/.kube/config` has for the context. Raises SettingsError."""
    from kubernetes.config import load_kube_config

    files = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not any(Path(file).expanduser().exists() for file in files.split(os.pathsep)):
        if settings.kubeconfig or os.environ.get("KUBECONFIG"):
            named = "--kubeconfig" if settings.kubeconfig else "KUBECONFIG"
            raise SettingsError(f"the kubeconfig {files}, which {named} names, does not exist")
        pod = f"this pod has no account ({_ACCOUNT}/token is missing)" if in_pod else "this is not a pod"
        raise SettingsError(
            f"there is no Kubernetes to connect to: --kubernetes is not given, {pod}, "
            f"and there is no kubeconfig ({files}); give one of them, or play with `deployer sandbox`"
        )
    try:
        load_kube_config(  # type: ignore[no-untyped-call, unused-ignore]
            config_file=files,
            context=settings.kube_context or None,
            client_configuration=configuration,
            persist_config=False,
        )
    except Exception as error:
        # Whatever may stand in such a file: the library and its parser let all sorts of exceptions through.
        context = f"context {settings.kube_context} of " if settings.kube_context else ""
        wrong_form = isinstance(error, TypeError | AttributeError | LookupError | ValueError)
        why = "it does not have the form of a kubeconfig" if wrong_form else _in_short(error)
        raise SettingsError(f"{context}the kubeconfig {files} cannot be used: {why}") from error
    return FromClient(
        configuration, f"it does not know the credentials in {files}: they have expired, or are another's"
    )


def _in_short(error: Exception) -> str:
    """One line without the client library's preface."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.removeprefix("Invalid kube-config file. ").split())[:300]


def _token_file(path: str) -> TokenFile:
    try:
        content = Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise SettingsError(f"the token file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        content = "\0"
    if not content:
        raise SettingsError(f"the token file {path} is empty")
    if not re.fullmatch(r"[!-~]+", content):
        raise SettingsError(f"the token file {path} holds more than a token, or something else")
    return TokenFile(Path(path))
