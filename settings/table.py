"""The table of settings: every field of `Settings` carries its help text, its rules and the original's spelling."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deployer.core.model.hosts import canonical_host, www_twin
from deployer.settings import checks, defaults
from deployer.settings.freeze_windows import FreezeWindow, parse
from deployer.settings.gates import ForcedGate
from deployer.settings.gates import parse as parse_gate
from deployer.settings.issuers.callers import CallerSettings
from deployer.settings.namespaces import LIMITS, Quota, limits_of, parse_quota
from deployer.settings.options import TABLES, Option, setting

# Where durations end to make sense: a day, in seconds.
_DAY = 86_400.0

# What `{app}` and `{namespace}` in `preview_host` can become: DNS-1035 and DNS-1123 labels.
_PLACEHOLDERS = {"{app}": r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "{namespace}": r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CallerSettings):
    """Everything that can be set, checked. `Settings()` has the defaults; `load` reads the usual sources."""

    kubernetes: str = setting(
        "text",
        "",
        "Address of the Kubernetes API server; without a scheme http, or https together with --kubernetes-ca-file or "
        "--skip-server-cert-validation. Without an address: the pod's own account, else the kubeconfig.",
        original="kubernetes",
        check=checks.server,
    )
    kubernetes_username: str = setting(
        "text", "", "User name for basic authentication at the API server.", original="kubernetesusername"
    )
    kubernetes_password: str = setting(
        "text",
        "",
        "Password to the user name; better given as a variable than as a flag, which other users can see.",
        original="kubernetespassword",
        secret=True,
    )
    kubernetes_token_file: str = setting(
        "text", "", "File with a bearer token for the API server; read again when it changes."
    )
    kubernetes_ca_file: str = setting("text", "", "File with the certificates that the API server's is checked with.")
    kubeconfig: str = setting("text", "", "kubeconfig file.", shown="$KUBECONFIG, else ~/.kube/config")
    kube_context: str = setting("text", "", "Context of the kubeconfig.", shown="its current context")
    skip_server_cert_validation: bool = setting(
        "switch",
        False,
        "Do not check the API server's certificate: whoever gets in between can read and change everything.",
        original="skipServerCertValidation",
    )
    etcd: str = setting(
        "text",
        "",
        "Addresses of etcd, separated by commas: it keeps the Deployer's own records (see --store), and the env_etcd "
        "plugin reads the environment variables to inject from it.",
        original="etcd",
        check=checks.urls,
    )
    etcd_username: str = setting("text", "", "User name at etcd.")
    etcd_password: str = setting("text", "", "Password to the user name; better given as a variable.", secret=True)
    etcd_ca_file: str = setting("text", "", "File with the certificates that etcd's is checked with.")
    etcd_cert_file: str = setting("text", "", "File with the client certificate for etcd; read again when it changes.")
    etcd_key_file: str = setting("text", "", "File with the key to the client certificate.")
    etcd_prefix: str = setting(
        "text", "/deployer/store/", "Prefix of records' keys in etcd; two Deployers need two.", check=checks.prefix
    )
    etcd_timeout: float = setting(
        "seconds", 5.0, "How long one request to etcd may take, over all addresses.", check=checks.between(0.5, 60)
    )
    deployport: int = setting(
        "integer",
        8000,
        "Port of REST, page and log stream; 0 takes any free one.",
        original="deployport",
        check=checks.between(0, 65_535),
    )
    deployhost: str = setting("text", "127.0.0.1", "Address to listen on; others than loopback need authentication.")
    allowed_origins: tuple[str, ...] = setting(
        "names",
        (),
        "Origins of web pages that may use REST and log stream, like https://ui.example.com, beside the service's own.",
        check=checks.origins,
    )
    allowed_hosts: tuple[str, ...] = setting(
        "names",
        (),
        "Names under which the service may be asked (the header Host), beside localhost and the address that it "
        "listens on: names, IP addresses, and *.example.com for all below a domain. Without authentication everything "
        "else gets a 421, so that no web page can pass for one of this service; with it, only when this is set.",
        check=checks.allowed_hosts,
    )
    timeout: float = setting(
        "seconds",
        60.0,
        "Time for a new version's health checks, once its pods are ready.",
        original="timeout",
        check=checks.between(1, _DAY),
    )
    start_timeout: float = setting(
        "seconds", 300.0, "Time for a new version's pods to become ready.", check=checks.between(1, _DAY)
    )
    expose_timeout: float = setting("seconds", 60.0, "Time to move the traffic.", check=checks.between(1, _DAY))
    undo_timeout: float = setting(
        "seconds", 120.0, "Time to take a failed deployment back.", check=checks.between(1, _DAY)
    )
    proxysleep: float = setting(
        "seconds",
        20.0,
        "How long the old version is kept after the switch, for requests under way.",
        original="proxysleep",
        check=checks.between(0, _DAY),
    )
    keep_warm: float = setting(
        "seconds",
        0.0,
        "How long the old version is kept warm after the switch, for a rollback in a second; at least proxysleep.",
        check=checks.between(0, 7 * _DAY),
    )
    auto_rollback: bool = setting(
        "switch",
        True,
        "Whether a version that fails is rolled back by itself while the old one is warm, when the descriptor does "
        "not say (autoRollback).",
        shown="true",
    )
    watch_interval: float = setting(
        "seconds",
        5.0,
        "Time between two rounds of health checks of a version that has just taken over.",
        check=checks.between(1, 3600),
    )
    store: str = setting(
        "text",
        "auto",
        "Where records are kept: sqlite in a file of --data-dir, for one process; etcd in that of --etcd, for several; "
        "auto in etcd when --etcd is given.",
        choices=("auto", "sqlite", "etcd"),
    )
    data_dir: Path = setting(  # noqa: RUF009 (it is a dataclasses.field)
        "path",
        defaults.state_dir,
        "Directory of the embedded store.",
        shown="$XDG_STATE_HOME/kube-deployer, else ~/.local/state/kube-deployer",
    )
    history_days: int = setting(
        "integer",
        90,
        "Days after its end for which an ended deployment is kept, with its log and all else; 0: for ever.",
        check=checks.between(0, 36_500),
    )
    history_limit: int = setting(
        "integer",
        1000,
        "Ended deployments of each app that are kept at most, the newest; 0: all.",
        check=checks.between(0, 1_000_000),
    )
    history_rollbacks: int = setting(
        "integer",
        10,
        "Earlier versions of each app, the newest of those that were live, that are kept whatever history_days and "
        "history_limit say: a rollback can go back to them.",
        check=checks.between(1, 1000),
    )
    instance: str = setting(
        "text",
        "deployer",
        "Name of this Deployer on its objects; two in one cluster need two names.",
        check=checks.label,
    )
    ingress: str = setting("text", "nginx", 'Ingress provider; "none" exposes nothing outside of the cluster.')
    preview_host: str = setting(
        "text",
        "",
        "Host under which a new version can be looked at before the switch, with {app} and perhaps {namespace} in it: "
        "{app}-preview.example.com.",
        check=checks.preview_host,
    )
    preview_check: str = setting(
        "text",
        "",
        "Path that must answer 200 to 399 through the preview before the switch, at every address of the ingress; "
        "previewCheck in a descriptor's ingressOptions counts more.",
        check=checks.preview_check,
    )
    protected_namespaces: tuple[str, ...] = setting(
        "names", ("kube-*",), "Namespaces in which nobody may deploy.", check=checks.patterns
    )
    own_namespace: str = setting(
        "text",
        defaults.own_namespace,
        "The Deployer's own namespace, in which nobody may deploy.",
        shown="the pod's namespace",
        check=checks.label,
    )
    pod_security: str = setting(
        "text",
        "baseline",
        "Pod Security level that every podspec must keep.",
        choices=("privileged", "baseline", "restricted"),
    )
    forbid_node_name: bool = setting(
        "switch",
        False,
        "Refuse podspecs with nodeName, which puts a pod on a node past the scheduler and the taints that it respects.",
    )
    allowed_volume_types: tuple[str, ...] = setting(
        "names",
        (),
        "Types of volumes that podspecs may have, as core/v1 calls them: configMap, emptyDir, secret ...",
        shown="all that the Pod Security level allows",
        check=checks.volume_types,
    )
    lenient_podspec: bool = setting(
        "switch",
        False,
        "Drop fields of podspecs that the cluster does not know, and name them in the deployment's log; the original "
        "dropped them without a word. Otherwise such a podspec is refused.",
    )
    image_pull_policy: str = setting(
        "text",
        "Always",
        "imagePullPolicy of containers that name none; empty leaves it to Kubernetes.",
        choices=("", "Always", "IfNotPresent", "Never"),
    )
    enable_service_links: bool = setting(
        "switch",
        True,
        "Whether pods get variables of the Services of their namespace, as <APP>_PORT=tcp://..., when the podspec does "
        "not say (enableServiceLinks). On is Kubernetes' own default.",
        shown="true",
    )
    queue_limit: int = setting(
        "integer", 200, "Deployments of a namespace that may wait or run before 429.", check=checks.between(1, 100_000)
    )
    idempotency_ttl: float = setting(
        "seconds",
        _DAY,
        "How long a request that is sent again with the same Idempotency-Key is answered as the first one was.",
        check=checks.between(1, 7 * _DAY),
    )
    workers: int = setting(
        "integer",
        128,
        "Operations that may run at once; one namespace alone gets half of them.",
        check=checks.between(1, 1024),
    )
    unschedulable_grace: float = setting(
        "seconds",
        30.0,
        "How long a pod may be unschedulable before its deployment fails.",
        check=checks.between(0, _DAY),
    )
    admission_grace: float = setting(
        "seconds",
        10.0,
        "How long a quota, a webhook or a missing Secret may hold pods up before the deployment fails.",
        check=checks.between(0, _DAY),
    )
    min_ready: float = setting(
        "seconds",
        2.0,
        "How long pods without a readiness probe must stay ready where no health check counts.",
        check=checks.between(0, _DAY),
    )
    max_restarts: int = setting(
        "integer",
        3,
        "Restarts of a new version's container that make its deployment fail.",
        check=checks.between(1, 1000),
    )
    image_pull_attempts: int = setting(
        "integer",
        3,
        "Failed image pulls that make a deployment fail; of what the registry refuses for good, two do.",
        check=checks.between(1, 1000),
    )
    health_via: str = setting(
        "text",
        "auto",
        "How pods are asked for their health: direct dials them, apiserver goes through the API server's pod proxy, "
        "auto is direct in a pod of the same cluster and apiserver everywhere else.",
        choices=("auto", "direct", "apiserver"),
    )
    loopback_pods: bool = setting(
        "switch", False, "Ask pods on loopback addresses for their health too, as the sandbox's are."
    )
    log_level: str = setting(
        "text", "info", "What the service logs of itself.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "text",
        "text",
        "Form of that log: text for people, or json, an object a line with the ids of what it is about.",
        choices=("text", "json"),
    )
    metrics_namespaces: int = setting(
        "integer",
        20,
        "Namespaces by which /metrics divides its figures, the first that are seen; all later ones are `other`.",
        check=checks.between(0, 1000),
    )
    metrics_port: int = setting(
        "integer",
        0,
        "Port on which /metrics, and nothing else, is answered without a token, for Prometheus; 0: none.",
        check=checks.between(0, 65_535),
    )
    plugins: Mapping[str, dict[str, Any]] = setting(
        "table", {}, "[plugins.<name>]: settings of a plugin, checked by its own schema.", check=checks.plugin_tables
    )
    namespace_hosts: Mapping[str, tuple[str, ...]] = setting(
        "table",
        {},
        "Hosts that a namespace may use, as a list of names and *.patterns; [] means none. What is listed for one "
        "namespace is closed to all others. A namespace that is not listed may use whatever nobody has listed.",
        check=checks.host_lists,
    )
    allowed_service_accounts: Mapping[str, tuple[str, ...]] = setting(
        "table",
        {},
        "ServiceAccounts that pods of a namespace may have, as a list of names and patterns like shop-*; `default` is "
        'that of podspecs that name none. `"*"` stands for all namespaces that are not listed; without it those may '
        "use any.",
        check=checks.allowed,
    )
    allowed_secrets: Mapping[str, tuple[str, ...]] = setting(
        "table",
        {},
        "Secrets that descriptors of a namespace may refer to, in podspec, imagePullSecrets, tlsSecretName and gates; "
        "listed like service accounts.",
        check=checks.allowed,
    )
    allowed_priority_classes: Mapping[str, tuple[str, ...]] = setting(
        "table",
        {},
        "Priority classes that podspecs of a namespace may name; listed like service accounts.",
        check=checks.allowed,
    )
    allowed_tolerations: Mapping[str, tuple[str, ...]] = setting(
        "table",
        {},
        "Keys of the taints that podspecs of a namespace may tolerate; listed like service accounts. A toleration "
        "without a key, which stands for every taint, needs the pattern *.",
        check=checks.allowed,
    )
    tls_secrets: Mapping[str, str] = setting(
        "table", {}, "The TLS Secret of a host or of a domain with everything below it.", check=checks.secret_names
    )

    freeze_windows: tuple[FreezeWindow, ...] = setting(
        "tables",
        (),
        "[[freeze_windows]]: times in which nothing new is deployed, every week, as `from` and `to` on the clock of "
        "`time_zone`; see docs/freezes.md.",
        check=checks.freeze_windows,
    )

    quotas: tuple[Quota, ...] = setting(
        "tables",
        (),
        "[[quotas]]: what `namespaces` (patterns) may have at most: `descriptors`, `deployments` that wait or run, "
        "`stored_bytes`, `log_bytes`, `viewers` of logs. The first table that names a limit counts; see "
        "docs/operations.md.",
        check=checks.quotas,
    )

    gates: tuple[ForcedGate, ...] = setting(
        "tables",
        (),
        "[[gates]]: gates that every deployment in `namespaces` (patterns) must pass, before those of its descriptor: "
        "`point`, `type`, `name`, and perhaps `timeoutSeconds`, `onMissing`, `dryRun`, `options`; see docs/gates.md.",
        check=checks.forced_gates,
    )

    def __post_init__(self) -> None:
        for table in (f.name for f in dataclasses.fields(self) if f.metadata["kind"] == "table"):
            value = getattr(self, table)
            if not isinstance(value, MappingProxyType):
                object.__setattr__(self, table, MappingProxyType(copy.deepcopy(dict(value))))
        lists = {name: tuple(map(canonical_host, hosts)) for name, hosts in self.namespace_hosts.items()}
        object.__setattr__(self, "namespace_hosts", MappingProxyType(lists))
        windows = tuple(parse(window) if isinstance(window, Mapping) else window for window in self.freeze_windows)
        object.__setattr__(self, "freeze_windows", windows)
        quotas = tuple(parse_quota(quota) if isinstance(quota, Mapping) else quota for quota in self.quotas)
        object.__setattr__(self, "quotas", quotas)
        gates = tuple(parse_gate(gate) if isinstance(gate, Mapping) else gate for gate in self.gates)
        object.__setattr__(self, "gates", gates)
        self._parse_issuers()

    def protects(self, namespace: str) -> bool:
        """True when nobody may deploy in `namespace`."""
        own = bool(self.own_namespace) and namespace == self.own_namespace
        return own or any(fnmatch.fnmatchcase(namespace, pattern) for pattern in self.protected_namespaces)

    def forced_gates(self, namespace: str) -> list[dict[str, Any]]:
        """The gates that deployments in `namespace` must pass besides their own, each with its `point`."""
        return [gate.document() for gate in self.gates if gate.covers(namespace)]

    def limit(self, namespace: str, name: str) -> int:
        """What a namespace may have at most; the names are those of `LIMITS`."""
        default = self.queue_limit if name == "deployments" else LIMITS[name]
        return limits_of(self.quotas, namespace).get(name, default)

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


SUBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "kubernetes": "The cluster",
        "etcd": "Connection to etcd",
        "deployport": "Listening",
        "auth": "Who may call",
        "timeout": "Times of a deployment",
        "store": "Records",
        "ingress": "Ingress",
        "protected_namespaces": "What may be deployed",
        "queue_limit": "Limits",
        "unschedulable_grace": "Readiness and health",
        "log_level": "Log and metrics",
        "plugins": "In the TOML file only",
    }
)
"""In the order of the help, by the first setting about each; those that follow it in the table are about the same."""


def _row(f: dataclasses.Field[Any], subject: str) -> Option:
    meta = f.metadata
    default = f.default
    if meta["kind"] == "table":
        default = MappingProxyType({})
    elif meta["computed"]:
        default = None
    names = ("kind", "shown", "help", "original", "choices", "secret")
    return Option(name=f.name, default=default, subject=subject, **{name: meta[name] for name in names})


def _rows() -> Iterator[Option]:
    """In the order of their subjects."""
    subject, by_subject = "", {name: list[Option]() for name in SUBJECTS.values()}
    for f in dataclasses.fields(Settings):
        subject = SUBJECTS["plugins"] if f.metadata["kind"] in TABLES else SUBJECTS.get(f.name, subject)
        by_subject[subject].append(_row(f, subject))
    return itertools.chain.from_iterable(by_subject.values())


OPTIONS: tuple[Option, ...] = tuple(_rows())
_BY_NAME = {option.name: option for option in OPTIONS}


def option(name: str) -> Option:
    """The row of that name."""
    return _BY_NAME[name]
