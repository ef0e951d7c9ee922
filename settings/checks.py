"""Rules for single values: each returns what is wrong, or nothing."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from deployer.core.model.hosts import DNS_LABEL, DNS_SUBDOMAIN, PATH, canonical_host, is_address
from deployer.settings import freeze_windows as windows
from deployer.settings import gates, namespaces
from deployer.settings.issuers import issuer
from deployer.settings.options import ENV_PREFIX, Check, plain
from deployer.settings.spelling import similar

T = TypeVar("T")

# What browsers send as `Origin` (RFC 6454, 6.2): lower case, and without the scheme's own port.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

# Names under which people reach a service, also in their own DNS, where underscores are common.
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")

VOLUME_TYPES = (
    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI"),
    *("emptyDir", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath"),
    *("image", "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected"),
    *("quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume"),
)


def between(low: float, high: float) -> Check:
    def check(value: Any) -> str:
        return "" if low <= value <= high else f"{plain(value)} is not between {low:g} and {high:g}"

    return check


def url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and (parts.username or parts.password):
        # Such an address would end up in logs.
        return "an address may not contain credentials"
    return "" if good else f"{value!r} is not an address like http://host:8080"


def server(value: str) -> str:
    """An address, or only host and port, as the original took them."""
    if "://" in value or "/" in value.rstrip("/"):
        return url(value)
    return url(f"http://{value}") and f"{value!r} is not an address like http://host:8080"


def urls(value: str) -> str:
    return next((wrong for wrong in map(url, (part.strip() for part in value.split(","))) if wrong), "")


def prefix(value: str) -> str:
    good = value.startswith("/") and value.strip("/") and value.isascii() and value.isprintable()
    return "" if good else f"{value!r} is not a prefix like /deployer/store/"


def https(value: str) -> str:
    wrong = url(value)
    return wrong or ("" if value.startswith("https://") else f"{value!r} does not begin with https://")


def origins(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not _ORIGIN.fullmatch(v)]
    return f"{bad[0]!r} is not an origin like https://deploy.example.com (no path, no *)" if bad else ""


def allowed_hosts(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not (_HOST.fullmatch(v) or is_address(v.removeprefix("[").removesuffix("]")))]
    return f"{bad[0]!r} is not a host like deploy.example.com or *.example.com (no scheme, no port)" if bad else ""


def label(value: str) -> str:
    return "" if DNS_LABEL.fullmatch(value) else f"{value!r} is not a name of a-z, 0-9 and '-' (a DNS label)"


def patterns(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not re.fullmatch(r"[a-z0-9*?-]{1,63}", v)]
    return f"{bad[0]!r} is not a namespace or a pattern like kube-*" if bad else ""


def preview_host(value: str) -> str:
    try:
        good = DNS_SUBDOMAIN.fullmatch(value.format(app="a", namespace="b")) and "{app}" in value
    except (LookupError, ValueError, AttributeError):
        good = False
    if good and set(re.findall(r"\{(.*?)\}", value)) <= {"app", "namespace"}:
        return ""
    return f"{value!r} is not a host like {{app}}-preview.example.com, with {{app}} and perhaps {{namespace}} in it"


def preview_check(value: str) -> str:
    return "" if re.fullmatch(PATH, value) else f"{value!r} is not a path like /health"


def plugin_tables(value: Mapping[str, Any]) -> str:
    bad = [name for name, table in value.items() if not isinstance(table, Mapping)]
    return f"plugins.{bad[0]} is not a table; write [plugins.{bad[0]}]" if bad else ""


def host_lists(value: Mapping[str, Any]) -> str:
    for namespace, hosts in value.items():
        if label(namespace):
            return label(namespace)
        if not isinstance(hosts, list | tuple) or not all(isinstance(h, str) for h in hosts):
            return f"{namespace}: is not a list of hosts"
        bad = [h for h in hosts if not DNS_SUBDOMAIN.fullmatch(canonical_host(h).removeprefix("*."))]
        if bad:
            return f"{namespace}: {bad[0]!r} is not a host or a pattern like *.example.com"
    return ""


def allowed(value: Mapping[str, Any]) -> str:
    """Lists of names by namespace, `*` for those that are not listed."""
    for namespace, names in value.items():
        if namespace != "*" and label(namespace):
            return f"{namespace!r} is neither a namespace nor '*', which stands for all that are not listed"
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return f"{namespace}: is not a list of names"
        bad = [name for name in names if not re.fullmatch(r"[A-Za-z0-9._/*?-]{1,253}", name)]
        if bad:
            return f"{namespace}: {bad[0]!r} is not a name or a pattern like shop-*"
    return ""


def volume_types(value: tuple[str, ...]) -> str:
    bad = [v for v in value if v not in VOLUME_TYPES]
    return f"{bad[0]!r} is not a type of volume in core/v1{did_you_mean(bad[0], VOLUME_TYPES)}" if bad else ""


def secret_names(value: Mapping[str, Any]) -> str:
    for host, name in value.items():
        if not DNS_SUBDOMAIN.fullmatch(host):
            return f"{host!r} is not a host or domain"
        if not isinstance(name, str) or not DNS_SUBDOMAIN.fullmatch(name):
            return f"{host}: {name!r} is not the name of a Secret"
    return ""


def freeze_windows(value: Iterable[Mapping[str, Any]]) -> str:
    return _tables(value, "window", windows.parse)


def quotas(value: Iterable[Mapping[str, Any]]) -> str:
    return _tables(value, "quota", namespaces.parse_quota)


def forced_gates(value: Iterable[Mapping[str, Any]]) -> str:
    return _tables(value, "gate", gates.parse, gates.wrong_together)


def issuers(value: Iterable[Mapping[str, Any]]) -> str:
    return _tables(value, "issuer", issuer.parse, issuer.wrong_together, by_name=True)


def _tables(
    value: Iterable[Mapping[str, Any]],
    called: str,
    parse: Callable[[Mapping[str, Any]], T],
    together: Callable[[list[T]], str] | None = None,
    *,
    by_name: bool = False,
) -> str:
    """What is wrong with the first table that cannot be parsed, which is called by its place, or by its name where
    tables have one; else with all of them together."""
    found = []
    for number, table in enumerate(value, 1):
        try:
            found.append(parse(table))
        except ValueError as error:
            name = table.get("name") if by_name else None
            return f"{name if isinstance(name, str) and name.isprintable() else f'{called} {number}'}: {error}"
    return together(found) if together else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean x?)` for what looks like one of `known`, else an empty text."""
    by_rest = {k.removeprefix(ENV_PREFIX): k for k in known if k}
    near = similar(word.removeprefix(ENV_PREFIX), by_rest, most=3)
    return f" (did you mean {' or '.join(by_rest[rest] for rest in near)}?)" if near else ""
