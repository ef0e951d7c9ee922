"""Environment injector `etcd`: keys below a prefix in etcd become environment variables of every container."""

from __future__ import annotations

import re
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import pyetcd

from deployer.plugins.env_etcd import v2
from deployer.sdk.environment import EnvContext, EnvInjector
from deployer.sdk.errors import SettingsError, StepFailed
from deployer.sdk.plugin import CancelScope, PluginSettings, hookimpl

T = TypeVar("T")

PREFIX = "/deployer/environment/"
TIMEOUT = 5.0

# A C identifier, as shells and most languages want it; Kubernetes would allow a few more characters.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# Never through a proxy of the service's own environment.
_CHANNEL = (("grpc.enable_http_proxy", 0),)
_REFUSALS = ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How etcd is reached. Files are read at every call, so that rotated certificates and passwords take effect."""

    endpoints: tuple[str, ...]
    prefix: str = PREFIX
    timeout: float = TIMEOUT
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: str = ""
    password_file: str = ""

    def __repr__(self) -> str:
        return f"Access({', '.join(self.endpoints)})"

    def credentials(self) -> Any:
        """TLS material for gRPC. Raises StepFailed."""
        return grpc.ssl_channel_credentials(*(_read(f) for f in (self.ca_file, self.key_file, self.cert_file)))

    def tls(self) -> ssl.SSLContext:
        """The same for HTTP. Raises OSError."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def login(self) -> dict[str, str]:
        """User and password as the client's arguments. Raises StepFailed."""
        if not self.username:
            return {}
        secret = _read(self.password_file)
        password = self.password if secret is None else secret.decode("utf-8", "replace").rstrip("\r\n")
        return {"user": self.username, "password": password}


class EtcdInjector(EnvInjector):
    """Reads the prefix once per deployment, over a connection of its own: no token or connection can be stale."""

    name = "etcd"

    def __init__(self, access: Access) -> None:
        self._access = access

    def environment(self, context: EnvContext) -> Sequence[dict[str, Any]]:
        """Variables sorted by name. Raises StepFailed, never with a value in it, and what the scope raises."""
        found = self._read_prefix(context.scope)
        if not found:
            context.log(self._nothing())
        return _variables(found, context.log)

    def warnings(self, scope: CancelScope) -> Sequence[str]:
        """That etcd does not answer, or that there is nothing to inject, perhaps because it is in the v2 store."""
        try:
            return [] if self._read_prefix(scope) else [self._nothing()]
        except StepFailed as error:
            return [str(error)]

    def _nothing(self) -> str:
        """What is said when there is no key."""
        nothing = f"etcd: there is no key below {self._access.prefix}, so nothing is injected"
        if not (old := v2.keys(self._access.endpoints, self._access.prefix, self._access.tls)):
            return nothing
        return (
            f"{nothing}; but etcd's v2 store, which the original read and this Deployer does not, has {old} there: "
            "copy them to v3, as docs/etcd.md says"
        )

    def take_over(
        self, variables: Mapping[str, str], scope: CancelScope, *, write: bool
    ) -> tuple[list[str], list[str]]:
        """Store variables of the original where there is no key of that name; `write` False: only look.

        Returns the keys that were, or would be, stored, and those that have another value, which stays. Raises
        StepFailed.
        """
        there = {key.decode("utf-8", "replace"): value for key, value in self._read_prefix(scope)}
        new = {key: value for key, value in variables.items() if key not in there}
        if write and new:

            def put(client: Any) -> None:
                for key, value in new.items():
                    client.put_if_not_exists(self._access.prefix + key, value)

            self._each(scope, put)
        kept = [key for key, value in variables.items() if there.get(key, value.encode()) != value.encode()]
        return sorted(new), sorted(kept)

    def _read_prefix(self, scope: CancelScope) -> list[tuple[bytes, bytes]]:
        """Keys without the prefix, and values."""

        def read(client: Any) -> list[tuple[bytes, bytes]]:
            found = client.get_prefix_response(self._access.prefix)
            return [(pair.key[len(self._access.prefix.encode()) :], pair.value) for pair in found.kvs]

        return self._each(scope, read)

    def _each(self, scope: CancelScope, use: Callable[[Any], T]) -> T:
        """What `use` makes of a client of the first endpoint that answers. Raises StepFailed."""
        end = time.monotonic() + self._access.timeout
        failures = []
        for number, endpoint in enumerate(self._access.endpoints):
            scope.check()
            share = scope.remaining(max(0.0, end - time.monotonic())) / (len(self._access.endpoints) - number)
            try:
                return self._ask(endpoint, share, scope, use)
            except (grpc.RpcError, pyetcd.Etcd3Exception, ValueError) as error:
                scope.check()  # a closing scope closes the channel, which gRPC reports in one of several ways
                failures.append(f"{endpoint} {_reason(error)}")
        raise StepFailed(
            f"the environment cannot be read from etcd: {'; '.join(failures)}",
            reason="InjectorFailed",
            hint="check that etcd runs, and the settings [plugins.env_etcd] or --etcd",
        )

    def _ask(self, endpoint: str, seconds: float, scope: CancelScope, use: Callable[[Any], T]) -> T:
        parts = urllib.parse.urlsplit(endpoint)
        secure = parts.scheme == "https"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        node = pyetcd.Endpoint(
            host, parts.port or 2379, secure, self._access.credentials() if secure else None, opts=_CHANNEL
        )
        with closing(node):
            forget = scope.on_close(node.close)
            try:
                end = time.monotonic() + seconds
                # The client authenticates here, when there is somebody to authenticate.
                client = pyetcd.MultiEndpointEtcd3Client([node], timeout=seconds, **self._access.login())
                # It sends the token as metadata too, and gRPC refuses call credentials on a channel without TLS.
                client.call_credentials = None
                client.timeout = max(0.001, end - time.monotonic())
                return use(client)
            finally:
                forget()


def _variables(pairs: Iterable[tuple[bytes, bytes]], log: Callable[[str], None]) -> list[dict[str, Any]]:
    """EnvVar dicts of the keys that are variable names; the others are named in the log. Raises StepFailed."""
    found: dict[str, tuple[str, str]] = {}
    for raw, value in sorted(pairs):
        key = raw.decode("utf-8", "backslashreplace")
        name = key.upper().replace("-", "_")
        if not key.isascii() or not _VARIABLE.fullmatch(name):
            log(f"etcd: the key {key!r} is skipped, because {name!r} is no name for an environment variable")
            continue
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise StepFailed(f"etcd: the value of the key {key!r} is not text", reason="InjectorFailed")
        other, known = found.setdefault(name, (key, text))
        if known != text:
            raise StepFailed(
                f"etcd: the keys {other!r} and {key!r} both mean the variable {name} and have different values",
                reason="InjectorFailed",
                hint="delete one of them",
            )
    return [{"name": name, "value": text} for name, (_, text) in sorted(found.items())]


def _reason(error: Exception) -> str:
    """Why an endpoint gave nothing, as the rest of a sentence; never with a key's value or a password."""
    # The client's own exceptions say less than the gRPC error that they were raised for.
    cause = error if isinstance(error, grpc.RpcError) else error.__context__
    if not isinstance(cause, grpc.RpcError):
        return f"failed ({type(error).__name__})"
    code = cause.code().name
    if code == "DEADLINE_EXCEEDED":
        return "gave no answer in time"
    if code == "UNAVAILABLE":
        return "cannot be reached, has no quorum, or does not accept the TLS settings"
    if code in _REFUSALS:
        return f"refused: {' '.join(str(cause.details()).split())[:200]}"
    return f"failed ({code})"


def _read(file: str) -> bytes | None:
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise StepFailed(
            f"etcd: the file {file} cannot be read: {error.strerror or type(error).__name__}", reason="InjectorFailed"
        ) from None


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.env_etcd]`."""
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "endpoints": {"type": "array", "items": text},
            "prefix": {"type": "string", "pattern": "^/"},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 60},
            **dict.fromkeys(("ca_file", "cert_file", "key_file", "username", "password", "password_file"), text),
        },
        "dependentRequired": {"cert_file": ["key_file"], "key_file": ["cert_file"]},
    }


@hookimpl
def register_env_injectors(settings: PluginSettings) -> Sequence[EnvInjector]:
    """The injector, or none when no setting says where etcd is. Raises SettingsError."""
    table = dict(settings.table)
    given = table.pop("endpoints", None)
    if not given:
        given = [part.strip() for part in settings.core.etcd.split(",")]
        table = _of_the_service(settings, table)
    endpoints = tuple(endpoint for endpoint in given if endpoint)
    if not endpoints:
        return []
    for endpoint in endpoints:
        _check_endpoint(endpoint)
    secret = ("password" in table) + ("password_file" in table)
    if secret > 1 or bool(secret) != ("username" in table):
        raise SettingsError("[plugins.env_etcd] username goes with either password or password_file: give both or none")
    prefix = str(table.pop("prefix", PREFIX)).rstrip("/") + "/"
    return [EtcdInjector(Access(endpoints=endpoints, prefix=prefix, **table))]


def _of_the_service(settings: PluginSettings, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table, with what the service itself needs for the same etcd where the table says nothing of it."""
    core = settings.core
    tls = {"ca_file": core.etcd_ca_file, "cert_file": core.etcd_cert_file, "key_file": core.etcd_key_file}
    login = {"username": core.etcd_username, "password": core.etcd_password} if "username" not in table else {}
    return {name: value for name, value in {**tls, **login}.items() if value} | dict(table)


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urllib.parse.urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    # Not repeated in the message when it may hold a password.
    if good and (parts.username or parts.password):
        raise SettingsError("[plugins.env_etcd] endpoints: an address may not contain credentials; use username")
    if not good or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SettingsError(f"[plugins.env_etcd] endpoints: {endpoint!r} is not an address like http://host:2379")
