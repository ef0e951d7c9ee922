"""The service's settings: one table of options, read from flags, DEPLOYER_* variables and a TOML file.

`Settings` is that table. Every field carries its help text, its rules and the original's spelling as metadata, and
`OPTIONS` is what the command line and the documentation are made from.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import fnmatch
import ipaddress
import math
import os
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deployer.core.errors import SettingsError

ENV_PREFIX = "DEPLOYER_"
CONFIG_ENV = "DEPLOYER_CONFIG"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")

# What `{app}` and `{namespace}` in `preview_host` can become: DNS-1035 and DNS-1123 labels.
_PLACEHOLDERS = {"{app}": r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "{namespace}": r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"}

PATH = r"/([!-.0-~][!-~]*)?"
"""A path that is asked for, with a query perhaps: printable ASCII, and not the start of an address (`//host`)."""

# Failpoints and tests have variables of their own, and Kubernetes puts variables for a Service named `deployer` (or
# `deployer-...`) into every pod of its namespace: https://kubernetes.io/docs/concepts/services-networking/service/
_NOT_OURS = re.compile(r"DEPLOYER_(FAILPOINT|TEST|(\w+_)?SERVICE_(HOST|PORT)(_|$)|(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_|$))")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")

# What browsers send as `Origin` (RFC 6454, 6.2): lower case, and without the scheme's own port.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

# Names under which people reach a service, also in their own DNS, where underscores are common.
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")

# Where durations end to make sense: a day, in seconds.
_DAY = 86_400.0

VOLUME_TYPES = (
    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI"),
    *("emptyDir", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath"),
    *("image", "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected"),
    *("quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume"),
)
"""The sources of a volume in core/v1, as of Kubernetes 1.34."""

Check = Callable[[Any], str]

JWT_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Signatures by a private key (RFC 7518, 8037). Not HS256: whoever can check such a token can also make one."""


# --- what one option is -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table of settings.

    kind      "text", "path", "integer", "seconds", "switch", "names" (several texts) or "table" (TOML file only)
    default   the value when nothing is said; for computed defaults what they are without an environment
    shown     the default in words, for help and documentation
    original  the flag of the original that means the same, without dashes; empty when there was none
    choices   the only texts allowed; empty when any will do
    secret    never shown
    """

    name: str
    kind: str
    default: Any
    shown: str
    help: str
    original: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False

    @property
    def flag(self) -> str:
        """The canonical flag, empty for tables; a switch also has `--no-...`."""
        return "" if self.kind == "table" else "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The variable, empty for tables."""
        return "" if self.kind == "table" else ENV_PREFIX + self.name.upper()


def _option(
    kind: str,
    default: Any,
    text: str,
    *,
    shown: str | None = None,
    original: str = "",
    choices: tuple[str, ...] = (),
    secret: bool = False,
    check: Check | None = None,
) -> Any:
    """A dataclass field with a row's metadata. A callable default is given the environment's variables."""
    meta = {"kind": kind, "help": text, "original": original, "choices": choices, "secret": secret, "check": check}
    computed = callable(default)
    if shown is None:
        shown = {"switch": "false", "table": "none"}.get(kind, "") if not default else _plain(default)
    meta |= {"shown": shown, "computed": default if computed else None}
    if computed:
        return field(default_factory=lambda: default(os.environ), metadata=meta, repr=not secret)
    if kind == "table":
        return field(default_factory=lambda: MappingProxyType({}), metadata=meta)
    return field(default=default, metadata=meta, repr=not secret)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- rules for single values: each returns what is wrong, or nothing -----------------------------------------------


def _between(low: float, high: float) -> Check:
    def check(value: Any) -> str:
        return "" if low <= value <= high else f"{_plain(value)} is not between {low:g} and {high:g}"

    return check


def _url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and (parts.username or parts.password):
        # Such an address would end up in logs.
        return "an address may not contain credentials"
    return "" if good else f"{value!r} is not an address like http://host:8080"


def _server(value: str) -> str:
    """An address, or only host and port, as the original took them."""
    if "://" in value or "/" in value.rstrip("/"):
        return _url(value)
    return _url(f"http://{value}") and f"{value!r} is not an address like http://host:8080"


def _urls(value: str) -> str:
    return next((wrong for wrong in map(_url, (part.strip() for part in value.split(","))) if wrong), "")


def _https(value: str) -> str:
    wrong = _url(value)
    return wrong or ("" if value.startswith("https://") else f"{value!r} does not begin with https://")


def _origins(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not _ORIGIN.fullmatch(v)]
    return f"{bad[0]!r} is not an origin like https://deploy.example.com (no path, no *)" if bad else ""


def _allowed_hosts(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not (_HOST.fullmatch(v) or _is_address(v.removeprefix("[").removesuffix("]")))]
    return f"{bad[0]!r} is not a host like deploy.example.com or *.example.com (no scheme, no port)" if bad else ""


def _label(value: str) -> str:
    return "" if DNS_LABEL.fullmatch(value) else f"{value!r} is not a name of a-z, 0-9 and '-' (a DNS label)"


def _patterns(value: tuple[str, ...]) -> str:
    bad = [v for v in value if not re.fullmatch(r"[a-z0-9*?-]{1,63}", v)]
    return f"{bad[0]!r} is not a namespace or a pattern like kube-*" if bad else ""


def _preview_host(value: str) -> str:
    try:
        good = DNS_SUBDOMAIN.fullmatch(value.format(app="a", namespace="b")) and "{app}" in value
    except (LookupError, ValueError, AttributeError):
        good = False
    if good and set(re.findall(r"\{(.*?)\}", value)) <= {"app", "namespace"}:
        return ""
    return f"{value!r} is not a host like {{app}}-preview.example.com, with {{app}} and perhaps {{namespace}} in it"


def _preview_check(value: str) -> str:
    return "" if re.fullmatch(PATH, value) else f"{value!r} is not a path like /health"


def _plugin_tables(value: Mapping[str, Any]) -> str:
    bad = [name for name, table in value.items() if not isinstance(table, Mapping)]
    return f"plugins.{bad[0]} is not a table; write [plugins.{bad[0]}]" if bad else ""


def _host_lists(value: Mapping[str, Any]) -> str:
    for namespace, hosts in value.items():
        if _label(namespace):
            return _label(namespace)
        if not isinstance(hosts, list | tuple) or not all(isinstance(h, str) for h in hosts):
            return f"{namespace}: is not a list of hosts"
        bad = [h for h in hosts if not DNS_SUBDOMAIN.fullmatch(canonical_host(h).removeprefix("*."))]
        if bad:
            return f"{namespace}: {bad[0]!r} is not a host or a pattern like *.example.com"
    return ""


def _allowed(value: Mapping[str, Any]) -> str:
    """Lists of names by namespace, `*` for those that are not listed."""
    for namespace, names in value.items():
        if namespace != "*" and _label(namespace):
            return f"{namespace!r} is neither a namespace nor '*', which stands for all that are not listed"
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return f"{namespace}: is not a list of names"
        bad = [name for name in names if not re.fullmatch(r"[A-Za-z0-9._/*?-]{1,253}", name)]
        if bad:
            return f"{namespace}: {bad[0]!r} is not a name or a pattern like shop-*"
    return ""


def _volume_types(value: tuple[str, ...]) -> str:
    bad = [v for v in value if v not in VOLUME_TYPES]
    return f"{bad[0]!r} is not a type of volume in core/v1{_meant(bad[0], VOLUME_TYPES)}" if bad else ""


def _secret_names(value: Mapping[str, Any]) -> str:
    for host, name in value.items():
        if not DNS_SUBDOMAIN.fullmatch(host):
            return f"{host!r} is not a host or domain"
        if not isinstance(name, str) or not DNS_SUBDOMAIN.fullmatch(name):
            return f"{host}: {name!r} is not the name of a Secret"
    return ""


# --- computed defaults --------------------------------------------------------------------------------------------


def _state_dir(environ: Mapping[str, str]) -> Path:
    """The XDG base directory for state, as freedesktop.org's specification has it (relative values are ignored)."""
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path(environ.get("HOME") or Path("~").expanduser()) / ".local" / "state"
    return base / "kube-deployer"


def _own_namespace(_: Mapping[str, str]) -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""  # not running in a pod
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {NAMESPACE_FILE} ({error}); give --own-namespace instead") from None


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked. `Settings()` has the defaults; `load` reads the usual sources."""

    kubernetes: str = _option(
        "text",
        "",
        "Address of the Kubernetes API server; without a scheme http, or https together with --kubernetes-ca-file or "
        "--skip-server-cert-validation. Without an address: the pod's own account, else the kubeconfig.",
        original="kubernetes",
        check=_server,
    )
    kubernetes_username: str = _option(
        "text", "", "User name for basic authentication at the API server.", original="kubernetesusername"
    )
    kubernetes_password: str = _option(
        "text",
        "",
        "Password to the user name; better given as a variable than as a flag, which other users can see.",
        original="kubernetespassword",
        secret=True,
    )
    kubernetes_token_file: str = _option(
        "text", "", "File with a bearer token for the API server; read again when it changes."
    )
    kubernetes_ca_file: str = _option("text", "", "File with the certificates that the API server's is checked with.")
    kubeconfig: str = _option("text", "", "kubeconfig file.", shown="$KUBECONFIG, else ~/.kube/config")
    kube_context: str = _option("text", "", "Context of the kubeconfig.", shown="its current context")
    skip_server_cert_validation: bool = _option(
        "switch",
        False,
        "Do not check the API server's certificate: whoever gets in between can read and change everything.",
        original="skipServerCertValidation",
    )
    etcd: str = _option(
        "text",
        "",
        "Addresses of etcd, separated by commas, from which the env_etcd plugin reads the environment variables to "
        "inject. In this release the Deployer's own records stay in the embedded store (--data-dir) all the same.",
        original="etcd",
        check=_urls,
    )
    deployport: int = _option(
        "integer",
        8000,
        "Port of REST, page and log stream; 0 takes any free one.",
        original="deployport",
        check=_between(0, 65_535),
    )
    deployhost: str = _option("text", "127.0.0.1", "Address to listen on; others than loopback need authentication.")
    auth: str = _option(
        "text",
        "none",
        "How callers prove who they are: jwt by tokens of an identity provider, kubernetes by tokens that the API "
        "server checks. See docs/authentication.md.",
        choices=("none", "jwt", "kubernetes"),
    )
    insecure_no_auth: bool = _option(
        "switch", False, "Listen on other addresses than loopback although everybody there may deploy."
    )
    allowed_origins: tuple[str, ...] = _option(
        "names",
        (),
        "Origins of web pages that may use REST and log stream, like https://ui.example.com, beside the service's own.",
        check=_origins,
    )
    allowed_hosts: tuple[str, ...] = _option(
        "names",
        (),
        "Names under which the service may be asked (the header Host), beside localhost and the address that it "
        "listens on: names, IP addresses, and *.example.com for all below a domain. Without authentication everything "
        "else gets a 421, so that no web page can pass for one of this service; with it, only when this is set.",
        check=_allowed_hosts,
    )
    jwt_algorithm: str = _option(
        "text", "RS256", "The only algorithm in which tokens may be signed.", choices=JWT_ALGORITHMS
    )
    jwt_issuer: str = _option("text", "", "The issuer (iss) that tokens must have, exactly.")
    jwt_audience: str = _option("text", "", "The audience (aud) that tokens must be for.")
    jwt_key_file: str = _option(
        "text",
        "",
        "PEM file with the issuer's public key or certificate, or several of them; read again when it changes.",
    )
    jwt_jwks_url: str = _option(
        "text", "", "The issuer's keys as a JWK Set, at an address that begins with https://.", check=_https
    )
    jwt_jwks_ca_file: str = _option(
        "text",
        "",
        "File with the certificates that the server of --jwt-jwks-url is checked with.",
        shown="the system's",
    )
    jwt_name_claim: str = _option("text", "sub", "Claim with the caller's name, as in createdBy and in the audit log.")
    jwt_namespaces_claim: str = _option(
        "text",
        "namespaces",
        "Claim with the namespaces that the caller may use; * means all. Dots lead into objects: a.b is b in a.",
    )
    jwt_roles_claim: str = _option("text", "roles", "Claim with the caller's roles; dots lead into objects.")
    jwt_read_role: str = _option("text", "read", "The role that may read.")
    jwt_deploy_role: str = _option("text", "deploy", "The role that may do everything.")
    jwt_leeway: float = _option(
        "seconds", 30.0, "How far the issuer's clock may be from this one.", check=_between(0, 300)
    )
    kubernetes_audiences: tuple[str, ...] = _option(
        "names",
        ("kube-deployer",),
        "Audiences of which a token must have one, for auth = kubernetes. Empty: the API server's own, so that every "
        "token for it is good here too.",
    )
    auth_cache: float = _option(
        "seconds",
        10.0,
        "How long an answer of the API server about a token or a right is good, for auth = kubernetes.",
        check=_between(0, 300),
    )
    timeout: float = _option(
        "seconds",
        60.0,
        "Time for a new version's health checks, once its pods are ready.",
        original="timeout",
        check=_between(1, _DAY),
    )
    start_timeout: float = _option(
        "seconds", 300.0, "Time for a new version's pods to become ready.", check=_between(1, _DAY)
    )
    expose_timeout: float = _option("seconds", 60.0, "Time to move the traffic.", check=_between(1, _DAY))
    undo_timeout: float = _option("seconds", 120.0, "Time to take a failed deployment back.", check=_between(1, _DAY))
    proxysleep: float = _option(
        "seconds",
        20.0,
        "How long the old version is kept after the switch, for requests under way.",
        original="proxysleep",
        check=_between(0, _DAY),
    )
    data_dir: Path = _option(  # noqa: RUF009 (it is a dataclasses.field)
        "path",
        _state_dir,
        "Directory of the embedded store.",
        shown="$XDG_STATE_HOME/kube-deployer, else ~/.local/state/kube-deployer",
    )
    instance: str = _option(
        "text", "deployer", "Name of this Deployer on its objects; two in one cluster need two names.", check=_label
    )
    ingress: str = _option("text", "nginx", 'Ingress provider; "none" exposes nothing outside of the cluster.')
    preview_host: str = _option(
        "text",
        "",
        "Host under which a new version can be looked at before the switch, with {app} and perhaps {namespace} in it: "
        "{app}-preview.example.com.",
        check=_preview_host,
    )
    preview_check: str = _option(
        "text",
        "",
        "Path that must answer 200 to 399 through the preview before the switch, at every address of the ingress; "
        "previewCheck in a descriptor's ingressOptions counts more.",
        check=_preview_check,
    )
    protected_namespaces: tuple[str, ...] = _option(
        "names", ("kube-*",), "Namespaces in which nobody may deploy.", check=_patterns
    )
    own_namespace: str = _option(
        "text",
        _own_namespace,
        "The Deployer's own namespace, in which nobody may deploy.",
        shown="the pod's namespace",
        check=_label,
    )
    pod_security: str = _option(
        "text",
        "baseline",
        "Pod Security level that every podspec must keep.",
        choices=("privileged", "baseline", "restricted"),
    )
    forbid_node_name: bool = _option(
        "switch",
        False,
        "Refuse podspecs with nodeName, which puts a pod on a node past the scheduler and the taints that it respects.",
    )
    allowed_volume_types: tuple[str, ...] = _option(
        "names",
        (),
        "Types of volumes that podspecs may have, as core/v1 calls them: configMap, emptyDir, secret ...",
        shown="all that the Pod Security level allows",
        check=_volume_types,
    )
    lenient_podspec: bool = _option(
        "switch",
        False,
        "Drop fields of podspecs that the cluster does not know, and name them in the deployment's log; the original "
        "dropped them without a word. Otherwise such a podspec is refused.",
    )
    image_pull_policy: str = _option(
        "text",
        "Always",
        "imagePullPolicy of containers that name none; empty leaves it to Kubernetes.",
        choices=("", "Always", "IfNotPresent", "Never"),
    )
    enable_service_links: bool = _option(
        "switch",
        True,
        "Whether pods get variables of the Services of their namespace, as <APP>_PORT=tcp://..., when the podspec does "
        "not say (enableServiceLinks). On is Kubernetes' own default.",
        shown="true",
    )
    queue_limit: int = _option("integer", 200, "Deployments that may wait before 429.", check=_between(1, 100_000))
    workers: int = _option("integer", 128, "Operations that may run at once.", check=_between(1, 1024))
    unschedulable_grace: float = _option(
        "seconds", 30.0, "How long a pod may be unschedulable before its deployment fails.", check=_between(0, _DAY)
    )
    admission_grace: float = _option(
        "seconds",
        10.0,
        "How long a quota, a webhook or a missing Secret may hold pods up before the deployment fails.",
        check=_between(0, _DAY),
    )
    min_ready: float = _option(
        "seconds",
        2.0,
        "How long pods without a readiness probe must stay ready where no health check counts.",
        check=_between(0, _DAY),
    )
    max_restarts: int = _option(
        "integer", 3, "Restarts of a new version's container that make its deployment fail.", check=_between(1, 1000)
    )
    image_pull_attempts: int = _option(
        "integer",
        3,
        "Failed image pulls that make a deployment fail; of what the registry refuses for good, two do.",
        check=_between(1, 1000),
    )
    health_via: str = _option(
        "text",
        "auto",
        "How pods are asked for their health: direct dials them, apiserver goes through the API server's pod proxy, "
        "auto is direct in a pod of the same cluster and apiserver everywhere else.",
        choices=("auto", "direct", "apiserver"),
    )
    loopback_pods: bool = _option(
        "switch", False, "Ask pods on loopback addresses for their health too, as the sandbox's are."
    )
    log_level: str = _option(
        "text", "info", "What the service logs of itself.", choices=("debug", "info", "warning", "error")
    )
    plugins: Mapping[str, dict[str, Any]] = _option(
        "table", {}, "[plugins.<name>]: settings of a plugin, checked by its own schema.", check=_plugin_tables
    )
    namespace_hosts: Mapping[str, tuple[str, ...]] = _option(
        "table",
        {},
        "Hosts that a namespace may use, as a list of names and *.patterns; [] means none. What is listed for one "
        "namespace is closed to all others. A namespace that is not listed may use whatever nobody has listed.",
        check=_host_lists,
    )
    allowed_service_accounts: Mapping[str, tuple[str, ...]] = _option(
        "table",
        {},
        "ServiceAccounts that pods of a namespace may have, as a list of names and patterns like shop-*; `default` is "
        'that of podspecs that name none. `"*"` stands for all namespaces that are not listed; without it those may '
        "use any.",
        check=_allowed,
    )
    allowed_secrets: Mapping[str, tuple[str, ...]] = _option(
        "table",
        {},
        "Secrets that descriptors of a namespace may refer to, in podspec, imagePullSecrets and tlsSecretName; listed "
        "like service accounts.",
        check=_allowed,
    )
    allowed_priority_classes: Mapping[str, tuple[str, ...]] = _option(
        "table",
        {},
        "Priority classes that podspecs of a namespace may name; listed like service accounts.",
        check=_allowed,
    )
    allowed_tolerations: Mapping[str, tuple[str, ...]] = _option(
        "table",
        {},
        "Keys of the taints that podspecs of a namespace may tolerate; listed like service accounts. A toleration "
        "without a key, which stands for every taint, needs the pattern *.",
        check=_allowed,
    )
    tls_secrets: Mapping[str, str] = _option(
        "table", {}, "The TLS Secret of a host or of a domain with everything below it.", check=_secret_names
    )

    def __post_init__(self) -> None:
        for table in (f.name for f in dataclasses.fields(self) if f.metadata["kind"] == "table"):
            value = getattr(self, table)
            if not isinstance(value, MappingProxyType):
                object.__setattr__(self, table, MappingProxyType(copy.deepcopy(dict(value))))
        lists = {name: tuple(map(canonical_host, hosts)) for name, hosts in self.namespace_hosts.items()}
        object.__setattr__(self, "namespace_hosts", MappingProxyType(lists))

    def protects(self, namespace: str) -> bool:
        """True when nobody may deploy in `namespace`."""
        own = bool(self.own_namespace) and namespace == self.own_namespace
        return own or any(fnmatch.fnmatchcase(namespace, pattern) for pattern in self.protected_namespaces)

    def allows_host(self, namespace: str, host: str) -> bool:
        """True when apps of `namespace` may claim `host`.

        `*.example.com` covers every depth, not the domain itself. The most specific entry that covers a host decides
        whose it is, as with names in DNS: `shop.example.com` of one namespace is not covered by `*.example.com` of
        another. Namespaces with the same entry share it. The www twin of a listed host is closed to those that are
        not listed, as a redirect of www would answer for it.
        """
        host = canonical_host(host)
        if self.reserves_host(host):
            return False
        entries = {entry for listed in self.namespace_hosts.values() for entry in listed}
        covering = [e for e in entries if (host.endswith(e[1:]) if e.startswith("*.") else host == e)]
        listed = self.namespace_hosts.get(namespace)
        if covering:
            return max(covering, key=lambda e: (not e.startswith("*."), len(e))) in (listed or ())
        return listed is None and www_twin(host) not in entries

    def reserves_host(self, host: str) -> bool:
        """True when `host` could be the preview of some app, so that nobody may claim it as a frontend."""
        parts = re.split(r"(\{\w+\})", self.preview_host)
        pattern = "".join(_PLACEHOLDERS.get(part) or re.escape(part) for part in parts)
        return bool(pattern) and re.fullmatch(pattern, canonical_host(host)) is not None

    def preview(self, namespace: str, app: str) -> str:
        """The preview host of an app; empty when there is none. Not every app's name makes a host of it."""
        return self.preview_host.format(app=app, namespace=namespace)

    def tls_secret(self, host: str) -> str:
        """The Secret that the settings name for `host`: of the host itself, else of the closest domain, else empty."""
        labels = host.split(".")
        domains = (".".join(labels[n:]) for n in range(len(labels)))
        return next((self.tls_secrets[domain] for domain in domains if domain in self.tls_secrets), "")


def _row(f: dataclasses.Field[Any]) -> Option:
    meta = f.metadata
    default = f.default
    if meta["kind"] == "table":
        default = MappingProxyType({})
    elif meta["computed"]:
        default = None
    names = ("kind", "shown", "help", "original", "choices", "secret")
    return Option(name=f.name, default=default, **{name: meta[name] for name in names})


OPTIONS: tuple[Option, ...] = tuple(_row(f) for f in dataclasses.fields(Settings))
_FIELDS = {f.name: f for f in dataclasses.fields(Settings)}
_BY_NAME = {option.name: option for option in OPTIONS}
_NO_AUTH = ("kubernetes_username", "kubernetes_password")


def option(name: str) -> Option:
    """The row of that name."""
    return _BY_NAME[name]


# --- reading ------------------------------------------------------------------------------------------------------

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


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
            raise SettingsError(f"there is no setting named {name!r}{_meant(name, _BY_NAME)}")
        # click hands over an empty tuple for an option that may be repeated and was not given.
        if value is not None and not (value == () and _BY_NAME[name].kind == "names"):
            raw[name] = (f"flag {_BY_NAME[name].flag or name}", value)
    # The original's way to say that there is none, and its default.
    raw = {name: found for name, found in raw.items() if not (name in _NO_AUTH and found[1] == "noauth")}
    values = {name: _convert(_BY_NAME[name], value, source) for name, (source, value) in raw.items()}
    for name, f in _FIELDS.items():
        if name not in values and f.metadata["computed"]:
            values[name] = f.metadata["computed"](environ)
    settings = Settings(**values)
    if whole:
        _check_together(settings)
    return settings


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without authentication. Raises SettingsError."""
    if settings.insecure_no_auth or settings.auth != "none" or is_loopback(settings.deployhost):
        return
    raise SettingsError(
        f"--deployhost {settings.deployhost or '(empty)'} can be reached from other machines and there is no "
        "authentication: set --auth to jwt or kubernetes, use 127.0.0.1, or say --insecure-no-auth if everybody there "
        "may deploy"
    )


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
    unknown = [f"{key}{_meant(key, spellings)}" for key in document if key not in spellings]
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
        if not name.startswith(ENV_PREFIX) or name in known or _NOT_OURS.match(name):
            continue
        if name.endswith("_PORT") and _SERVICE_LINK.match(environ[name]):
            continue
        raise SettingsError(f"variable {name}: there is no such setting{_meant(name, known)}")


def _meant(word: str, known: Iterable[str]) -> str:
    by_rest = {k.removeprefix(ENV_PREFIX): k for k in known if k}
    near = difflib.get_close_matches(word.removeprefix(ENV_PREFIX), by_rest, n=3, cutoff=0.7)
    return f" (did you mean {' or '.join(by_rest[rest] for rest in near)}?)" if near else ""


def _convert(option: Option, value: object, source: str) -> Any:
    """`value` as the option's type, checked. Raises SettingsError that names `source`."""
    try:
        out = _CONVERTERS[option.kind](value)
    except ValueError as error:
        shown = "the value" if option.secret else repr(value)
        raise SettingsError(f"{source}: {shown} is not {error}") from None
    if option.choices and out not in option.choices:
        raise SettingsError(f"{source}: {out!r} is not one of {', '.join(c or 'empty' for c in option.choices)}")
    check: Check | None = _FIELDS[option.name].metadata["check"]
    # Empty means "not set" wherever the default is empty too, so that a variable can be cleared.
    if check and (out != "" or option.default not in ("", None)) and (wrong := check(out)):
        raise SettingsError(f"{source}: {wrong}")
    if option.kind == "table":
        return MappingProxyType({k: tuple(v) if isinstance(v, list) else v for k, v in out.items()})
    return out


def _to_text(value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value.strip()
    raise ValueError("a text on one line")


def _to_integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,15}\s*", value):
        return int(value)
    raise ValueError("a whole number")


def _to_seconds(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise ValueError("a number of seconds")


def _to_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("true or false")


def _to_path(value: object) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    if text := _to_text(value):
        return Path(text).expanduser()
    raise ValueError("a path")


def _to_names(value: object) -> tuple[str, ...]:
    """Several names: a list, or one text in which commas separate them (an empty one means none)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(part.strip() for part in value)
    raise ValueError("a list of names")


def _to_table(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return copy.deepcopy(dict(value))
    raise ValueError("a table")


_CONVERTERS: Mapping[str, Callable[[object], Any]] = {
    "text": _to_text,
    "integer": _to_integer,
    "seconds": _to_seconds,
    "switch": _to_switch,
    "path": _to_path,
    "names": _to_names,
    "table": _to_table,
}


def _check_together(settings: Settings) -> None:
    if bool(settings.kubernetes_username) != bool(settings.kubernetes_password):
        raise SettingsError("--kubernetes-username and --kubernetes-password belong together: give both or none")
    if settings.kubernetes_username and settings.kubernetes_token_file:
        raise SettingsError("--kubernetes-username and --kubernetes-token-file exclude each other: give one of them")
    if settings.kubernetes and (settings.kubeconfig or settings.kube_context):
        raise SettingsError("--kubernetes and --kubeconfig or --kube-context exclude each other: give one of them")
    for namespace, hosts in settings.namespace_hosts.items():
        for host in filter(settings.reserves_host, hosts):
            raise SettingsError(
                f"namespace_hosts lists {host} for {namespace}, but it could be the preview of an app "
                f"(--preview-host {settings.preview_host}): give previews a domain of their own"
            )
    check_auth(settings)


def check_auth(settings: Settings) -> None:
    """Refuse settings of authentication that contradict each other or lack something. Raises SettingsError."""
    if settings.auth != "none" and settings.insecure_no_auth:
        raise SettingsError(
            f"--auth {settings.auth} and --insecure-no-auth contradict each other: everybody has to prove who they "
            "are, or nobody; leave one of them out"
        )
    for prefix, auth in (("jwt_", "jwt"), ("kubernetes_audiences", "kubernetes")):
        given = [o.flag for o in OPTIONS if o.name.startswith(prefix) and getattr(settings, o.name) != o.default]
        if given and settings.auth != auth:
            # Somebody thinks that tokens are checked.
            raise SettingsError(f"{given[0]} has no effect without --auth {auth}: set that too, or leave it out")
    if settings.auth == "jwt":
        _check_jwt(settings)


def _check_jwt(settings: Settings) -> None:
    needed = {"--jwt-issuer": settings.jwt_issuer, "--jwt-audience": settings.jwt_audience}
    missing = [flag for flag, value in needed.items() if not value]
    if not (settings.jwt_key_file or settings.jwt_jwks_url):
        missing.append("--jwt-jwks-url or --jwt-key-file")
    for name in ("name_claim", "namespaces_claim", "roles_claim", "read_role", "deploy_role"):
        if not getattr(settings, f"jwt_{name}"):
            missing.append(f"--jwt-{name.replace('_', '-')}")
    if missing:
        raise SettingsError(f"--auth jwt also needs {', '.join(missing)}")
    if settings.jwt_key_file and settings.jwt_jwks_url:
        raise SettingsError("--jwt-key-file and --jwt-jwks-url exclude each other: give one of them")
    if settings.jwt_jwks_ca_file and not settings.jwt_jwks_url:
        raise SettingsError("--jwt-jwks-ca-file has no effect without --jwt-jwks-url")
    if settings.jwt_read_role == settings.jwt_deploy_role:
        raise SettingsError("--jwt-read-role and --jwt-deploy-role are the same, so that reading would be deploying")


def canonical_host(host: str) -> str:
    """A host as it is compared: DNS knows no case, and a dot at the end changes nothing (RFC 4343; RFC 1034, 3.1)."""
    return host.lower().removesuffix(".")


def www_twin(host: str) -> str:
    """`www.example.com` of `example.com`, and the other way round: what a redirect of www answers for as well."""
    return host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def is_loopback(host: str) -> bool:
    """True when nobody but this machine is reached at `host`, an IP address or a name."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
