"""Where settings come from: flags, DEPLOYER_* variables and a TOML file."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployer.core.errors import SettingsError
from deployer.settings.checks import did_you_mean
from deployer.settings.consistency import check_together
from deployer.settings.convert import convert
from deployer.settings.options import ENV_PREFIX
from deployer.settings.table import OPTIONS, Settings

CONFIG_ENV = "DEPLOYER_CONFIG"

# Failpoints and tests have variables of their own, and Kubernetes puts variables for a Service named `deployer` (or
# `deployer-...`) into every pod of its namespace: https://kubernetes.io/docs/concepts/services-networking/service/
_NOT_OURS = re.compile(r"DEPLOYER_(FAILPOINT|TEST|(\w+_)?SERVICE_(HOST|PORT)(_|$)|(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_|$))")
# What the client of the command line reads: the same shell runs both.
CLIENT_VARIABLES = frozenset(
    f"DEPLOYER_{name}"
    for name in ("SERVER", "NAMESPACE", "PROFILE", "TOKEN", "TOKEN_FILE", "CA_FILE", "OIDC_AUDIENCE", "CLIENT_CONFIG")
)
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")

_BY_NAME = {option.name: option for option in OPTIONS}
_NO_AUTH = ("kubernetes_username", "kubernetes_password")


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None = None, *, whole: bool = True
) -> Settings:
    """Settings from flags (by field name; None = not given), variables and a TOML file, in this precedence.

    `config` is the file of `--config`; without it, the one that DEPLOYER_CONFIG names. Raises SettingsError with one
    sentence that names the flag, variable or key that is wrong. When not `whole`, settings that need others may lack
    them: for those who start no service.
    """
    path = config or (Path(environ[CONFIG_ENV]) if environ.get(CONFIG_ENV) else None)
    _refuse_unknown_variables(environ)
    raw: dict[str, tuple[str, object]] = {}
    if path:
        raw |= {name: (f"file {path}, key {key}", value) for name, key, value in _read_file(path)}
    for option in OPTIONS:
        if option.env and option.env in environ:
            raw[option.name] = (f"variable {option.env}", environ[option.env])
    for name, value in flags.items():
        if name not in _BY_NAME:
            raise SettingsError(f"there is no setting named {name!r}{did_you_mean(name, _BY_NAME)}")
        # click hands over an empty tuple for an option that may be repeated and was not given.
        if value is not None and not (value == () and _BY_NAME[name].kind == "names"):
            raw[name] = (f"flag {_BY_NAME[name].flag or name}", value)
    # The original's way to say that there is none, and its default.
    raw = {name: found for name, found in raw.items() if not (name in _NO_AUTH and found[1] == "noauth")}
    values = {name: convert(_BY_NAME[name], value, source) for name, (source, value) in raw.items()}
    for f in dataclasses.fields(Settings):
        if f.name not in values and f.metadata["computed"]:
            values[f.name] = f.metadata["computed"](environ)
    settings = Settings(**values)
    if whole:
        check_together(settings)
    return settings


def translate_original_flags(argv: Sequence[str]) -> list[str]:
    """The original's flags, with one or two dashes, as the canonical ones; everything else stays as it is.

    Go's flag package is the model: a value follows `=` or is the next argument, whatever it looks like; a switch takes
    a value only after `=`.

    >>> translate_original_flags(["-kubernetes", "http://k8s:8080", "-skipServerCertValidation", "-timeout=5"])
    ['--kubernetes=http://k8s:8080', '--skip-server-cert-validation', '--timeout=5']
    """
    originals = {option.original: option for option in OPTIONS if option.original}
    out: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--":
            out.append(argument)
            break
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        option = originals.get(name) if argument.startswith("-") else None
        if option is None:
            out.append(argument)
        elif option.kind == "switch":
            off = equals and value.lower() in ("false", "f", "0")
            out.append(option.flag.replace("--", "--no-", 1) if off else option.flag)
        else:
            following = value if equals else next(rest, None)
            out.append(option.flag if following is None else f"{option.flag}={following}")
    return [*out, *rest]


def _read_file(path: Path) -> list[tuple[str, str, object]]:
    """The file's settings as (field, key as written, value)."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"file {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"file {path} is not TOML: {error}") from None
    spellings = {option.original: option.name for option in OPTIONS if option.original} | {n: n for n in _BY_NAME}
    unknown = [f"{key}{did_you_mean(key, spellings)}" for key in document if key not in spellings]
    if unknown:
        raise SettingsError(f"file {path}: unknown key {'; unknown key '.join(unknown)}")
    seen: dict[str, str] = {}
    for key in document:
        if (other := seen.setdefault(spellings[key], key)) != key:
            raise SettingsError(f"file {path}: the keys {other} and {key} mean the same; keep one of them")
    return [(spellings[key], key, value) for key, value in document.items()]


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {option.env for option in OPTIONS} | {CONFIG_ENV}
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name in known or name in CLIENT_VARIABLES or _NOT_OURS.match(name):
            continue
        if name.endswith("_PORT") and _SERVICE_LINK.match(environ[name]):
            continue
        raise SettingsError(f"variable {name}: there is no such setting{did_you_mean(name, known)}")
