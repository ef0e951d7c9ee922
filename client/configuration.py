"""Settings of the client: flags, then DEPLOYER_* variables, then a profile of ~/.config/deployer/config.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployer.client.errors import Misused

DEFAULT_SERVER = "http://127.0.0.1:8000"
"""Where `make run` and `deployer serve` listen when nobody says otherwise."""

CONFIG_VARIABLE = "DEPLOYER_CLIENT_CONFIG"
PROFILE_VARIABLE = "DEPLOYER_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How to talk to one service. Every field may be a key of a profile; empty: not given.

    server         URL, `http` or `https`, perhaps with a path
    namespace      for verbs that are given none
    token          the token itself: only from the variable DEPLOYER_TOKEN
    token_file     file with the token, read for each command
    kubeconfig     the kubeconfig whose token is used; `default`: KUBECONFIG, or ~/.kube/config
    kube_context   its context; empty: the current one
    issuer         URL of the identity provider of `deployer login`
    client_id      of the public client there
    scope          what `deployer login` asks for
    oidc_audience  in GitHub Actions: the audience of the job's own token
    ca_file        PEM file of the authorities that the service's certificate may be signed by
    proxy          URL of an HTTP proxy; empty: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say
    tls_verify     `false`: take any certificate
    """

    name: str = "default"
    server: str = DEFAULT_SERVER
    namespace: str = "default"
    token: str = ""
    token_file: str = ""
    kubeconfig: str = ""
    kube_context: str = ""
    issuer: str = ""
    client_id: str = ""
    scope: str = "openid offline_access"
    oidc_audience: str = ""
    ca_file: str = ""
    proxy: str = ""
    tls_verify: str = "true"

    @property
    def default_server(self) -> bool:
        """Nobody said where the service is."""
        return self.server == DEFAULT_SERVER


KEYS = tuple(field.name for field in fields(Profile) if field.name not in ("name", "token"))
"""What a profile may hold. A token is never written into a file of settings: `token_file` names where it is."""

VARIABLES: Mapping[str, str] = {
    "server": "DEPLOYER_SERVER",
    "namespace": "DEPLOYER_NAMESPACE",
    "token": "DEPLOYER_TOKEN",
    "token_file": "DEPLOYER_TOKEN_FILE",
    "oidc_audience": "DEPLOYER_OIDC_AUDIENCE",
    "ca_file": "DEPLOYER_CA_FILE",
}
"""Variables by key; beside them PROFILE_VARIABLE and CONFIG_VARIABLE."""

_SOURCES = ("token", "token_file", "oidc_audience", "kubeconfig", "issuer")  # of a token: one replaces the others


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the profiles are."""
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "deployer" / "config.toml"


def load(flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> Profile:
    """The profile in effect. `flags` by field, None: not given; `profile` is the name of one. Raises Misused."""
    path = config_file(environ)
    document = read_document(path)
    name = flags.get("profile") or environ.get(PROFILE_VARIABLE) or document.get("profile") or "default"
    profiles = document.get("profiles", {})
    asked_for = flags.get("profile") or environ.get(PROFILE_VARIABLE) or document.get("profile")
    if asked_for and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise Misused(f"there is no profile {name!r} in {path}; available: {known}. `deployer config set` makes one")
    values: dict[str, str] = {}
    layers: list[Mapping[str, str | None]] = [
        profiles.get(name, {}),
        {key: environ.get(variable) for key, variable in VARIABLES.items()},
        {key: flags.get(key) for key in KEYS},
    ]
    for layer in layers:
        given = {key: value for key, value in layer.items() if value}
        if any(source in given for source in _SOURCES):
            for source in _SOURCES:
                values.pop(source, None)
        values |= given
    profile = Profile(name=str(name), **values)
    check(profile)
    return profile


def read_document(path: Path) -> dict[str, Any]:
    """The file of settings, checked; empty when there is none. Raises Misused."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misused(f"{path} is not TOML: {error}") from None
    for key in document:
        if key not in ("profile", "profiles"):
            raise Misused(f"{path}: unknown key {key!r}; at the top stand `profile` and the tables [profiles.<name>]")
    if not isinstance(document.get("profile", ""), str) or not isinstance(document.get("profiles", {}), dict):
        raise Misused(f"{path}: `profile` is the name of a profile, and [profiles.<name>] a table")
    for name, table in document.get("profiles", {}).items():
        if not isinstance(table, dict):
            raise Misused(f"{path}: [profiles.{name}] must be a table")
        for key, value in table.items():
            check_key(key, f"{path}, profile {name}")
            if not isinstance(value, str):
                table[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return document


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write the file of settings, whole or not at all. Comments in it are lost. Raises Misused."""
    import json
    import tempfile

    lines = [f"profile = {json.dumps(document['profile'])}"] if "profile" in document else []
    for name, table in document.get("profiles", {}).items():
        # A basic string of TOML is written as one of JSON, as long as it has no DEL.
        lines += ["", f"[profiles.{json.dumps(name)}]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        Path(file.name).replace(path)
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror or error}") from None


def store(name: str, values: Mapping[str, str]) -> Path:
    """Set keys of a profile, which is made when it is not there; empty values are removed. Raises Misused."""
    path = config_file()
    document = read_document(path)
    table = document.setdefault("profiles", {}).setdefault(name, {})
    table.update(values)
    for key in [key for key, value in table.items() if not value]:
        del table[key]
    check(Profile(**table))
    document.setdefault("profile", name)
    write_document(path, document)
    return path


def stored(name: str) -> Mapping[str, str]:
    """What the file has of a profile. Raises Misused."""
    found: Mapping[str, str] = read_document(config_file()).get("profiles", {}).get(name, {})
    return found


def check_key(key: str, where: str) -> None:
    """Raises Misused when a profile has no such key."""
    if key not in KEYS:
        from deployer.client.output.words import did_you_mean

        instead = "; a token stands in a file that token_file names" if key == "token" else did_you_mean(key, KEYS)
        raise Misused(f"{where}: a profile has no key {key!r}{instead}")


def check(profile: Profile) -> None:
    """Raises Misused when what it holds makes no sense."""
    parts = urlsplit(profile.server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misused(f"the server {profile.server!r} is no URL such as https://deployer.example.com")
    if parts.username or parts.query or parts.fragment:
        raise Misused("the server's URL holds neither a name and password nor a query; tokens come from --token-file")
    if profile.tls_verify not in ("true", "false"):
        raise Misused("tls_verify must be true or false")
