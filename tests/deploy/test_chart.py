"""The chart: what it makes, what it refuses and in which words, and that it grants what `deploy/rbac` grants."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import deployer
from deployer.core.model.records import Document
from deployer.settings import Settings, load
from deployer.settings.table import OPTIONS
from support.helm import CHART, HELM_DOCS, ROOT, RefusedError, helm, needs_helm, only, template

KUBECTL = shutil.which("kubectl")
ETCD = {"etcd": {"endpoints": ["http://etcd-0.etcd:2379", "http://etcd-1.etcd:2379", "http://etcd-2.etcd:2379"]}}
EVERYTHING: dict[str, Any] = {
    "replicas": 3,
    "imagePullSecrets": [{"name": "registry"}],
    "config": {
        "auth": "kubernetes",
        "ingress": "gateway",
        "plugins": {"ingress_gateway": {"gateway": "infra/edge"}, "ingress_nginx": {"controller": "edge/nginx"}},
        "quotas": [{"namespaces": ["team-*"], "stored_bytes": "256Mi"}],
    },
    "configSecret": "secret-settings",
    "filesSecret": "secret-files",
    "etcd": {
        "endpoints": ["https://etcd:2379"],
        "tlsSecret": "etcd-tls",
        "clientCertificate": True,
        "authSecret": "etcd-user",
    },
    "namespaces": [
        "shop",
        {"name": "billing", "features": ["canary"], "tlsSecrets": ["billing.example.com"], "users": {"read": []}},
    ],
    "rbac": {"clusterHosts": True, "features": ["canary", "recreate", "jobs", "validate", "health-proxy", "import"]},
    "users": {
        "deploy": [{"kind": "Group", "name": "developers"}],
        "approve": [{"kind": "User", "name": "ann"}],
        "override-freeze": [{"kind": "ServiceAccount", "name": "on-call", "namespace": "ops"}],
    },
    "serviceAccount": {"annotations": {"example.com/role": "deployer"}},
    "ingress": {"enabled": True, "className": "nginx", "host": "deploy.example.com", "tlsSecret": "deploy-tls"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["deploy.example.com"]},
    "networkPolicy": {"from": [{"namespaceSelector": {}}], "egress": [{}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Delivery"}},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"example.com/note": "x"},
    "extraEnv": [{"name": "OTEL_SDK_DISABLED", "value": "true"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
}
BUNDLED: dict[str, Any] = {"replicas": 2, "etcd": {"bundled": {"enabled": True}}}


# --- what keeps its parts in step ----------------------------------------------------------------------------------


def test_its_release_is_that_of_the_service() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == deployer.__version__


def test_its_rules_are_those_of_deploy_rbac() -> None:
    ours = {file.name: file.read_text() for file in (CHART / "rbac").iterdir()}
    origin = {file.name: file.read_text() for file in (ROOT / "deploy" / "rbac").glob("*.yaml")}
    assert ours == {name: text for name, text in origin.items() if name in ours}, "run `make chart`"
    # The account is a template of its own, and who may freeze all namespaces at once is nobody's namespace's business.
    assert set(origin) - set(ours) == {"account.yaml", "freezes-everywhere.yaml"}


def test_its_schema_knows_every_setting() -> None:
    spec = importlib.util.spec_from_file_location("values_schema", ROOT / "deploy" / "values_schema.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema == module.values(), "run `make chart`"
    decided = {*module.DECIDED, *(option.name for option in OPTIONS if option.secret)}
    assert set(schema["properties"]["config"]["properties"]) | decided == {option.name for option in OPTIONS}


def test_its_readme_has_a_row_for_every_value() -> None:
    def leaves(values: Document, above: str = "") -> list[str]:
        out = []
        for key, value in values.items():
            name = above + key
            deeper = isinstance(value, dict) and value and f"\n| {name} |" not in readme
            out += leaves(value, f"{name}.") if deeper else [name]
        return out

    readme = (CHART / "README.md").read_text()
    values = leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
    rows = re.findall(r"^\| ([a-zA-Z.]+) \| (?:string|int|bool|list|object) \| (.*) \| (.*) \|$", readme, re.MULTILINE)
    assert [name for name, _, _ in rows] == sorted(values, key=values.index)
    assert not [name for name, _, says in rows if not says.strip()]


@pytest.mark.skipif(not HELM_DOCS, reason="needs helm-docs: `make helm` builds it with Go")
def test_its_readme_is_what_helm_docs_makes() -> None:
    command = [HELM_DOCS, "--dry-run", "--log-level", "error", "--sort-values-order", "file", "--chart-search-root"]
    made = subprocess.run([*command, str(CHART)], capture_output=True, check=True, text=True, timeout=60)
    assert made.stdout.strip() == (CHART / "README.md").read_text().strip(), "run `make chart`"


@needs_helm
def test_helm_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    for values in ({}, EVERYTHING, BUNDLED):
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
        assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(tmp_path / "values.yaml"))


# --- what it makes -------------------------------------------------------------------------------------------------


@needs_helm
@pytest.mark.skipif(not KUBECTL, reason="needs kubectl")
@pytest.mark.parametrize("which", ["base", "etcd"])
def test_it_makes_what_kustomize_makes(which: str, tmp_path: Path) -> None:
    directory = str(ROOT / "deploy" / "kustomize" / which)
    made = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, check=True, text=True, timeout=60)
    theirs = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(made.stdout)}
    values = {"replicas": 3, **ETCD} if which == "etcd" else {}
    ours = {(o["kind"], o["metadata"]["name"]): o for o in template(tmp_path, {**values, "execMayDeploy": False})}
    del theirs["Namespace", "deployer"]  # of `--create-namespace`
    settings = {name for kind, name in theirs if kind == "ConfigMap"}
    (theirs_settings,) = [theirs.pop(("ConfigMap", name)) for name in settings]
    ours_settings = ours.pop(("ConfigMap", "deployer-settings"))
    read = tomllib.loads(theirs_settings["data"]["settings.toml"])
    decided = {"instance": "deployer", "store": "sqlite"}
    if which == "etcd":
        decided = {"instance": "deployer", "store": "etcd", "etcd": ",".join(ETCD["etcd"]["endpoints"])}
    assert tomllib.loads(ours_settings["data"]["settings.toml"]) == read | decided
    if which == "base":
        ours.pop(("PersistentVolumeClaim", "deployer-data"))
    assert set(ours) == set(theirs)
    for key, mine in ours.items():
        assert meaning(mine) == meaning(theirs[key]), key


def meaning(made: Document) -> Document:
    """An object without that in which chart and kustomize differ on purpose."""
    made = json.loads(json.dumps(made))
    for metadata in (made["metadata"], made.get("spec", {}).get("template", {}).get("metadata", {})):
        for name in ("labels", "annotations", "namespace"):
            metadata.pop(name, None)
    if made["kind"] == "Service" and made["spec"].get("type") == "ClusterIP":
        del made["spec"]["type"]  # the default
    if made["kind"] == "StatefulSet":
        spec = made["spec"]
        pod = spec["template"]["spec"]
        spec.pop("volumeClaimTemplates", None)  # the chart has a claim of its own, which an upgrade may change
        for volume in pod["volumes"]:
            if volume["name"] == "settings":
                volume["configMap"]["name"] = "deployer-settings"  # kustomize adds a hash
        pod["volumes"] = [v for v in pod["volumes"] if v["name"] != "data" or "emptyDir" in v]
        pod["containers"][0]["volumeMounts"] = [m["name"] for m in pod["containers"][0]["volumeMounts"]]
        pod["containers"][0]["env"] = [e for e in pod["containers"][0]["env"] if e["name"] != "DEPLOYER_ETCD"]
    return made


@needs_helm
def test_everything_that_can_be_set_is_set(tmp_path: Path) -> None:
    made = template(tmp_path, EVERYTHING)
    pod = only(made, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {e["name"] for e in container["env"]} == {
        "DEPLOYER_CONFIG",
        "DEPLOYER_TOKEN_FILE",
        "DEPLOYER_ETCD_USERNAME",
        "DEPLOYER_ETCD_PASSWORD",
        "OTEL_SDK_DISABLED",
    }
    assert container["envFrom"] == [{"secretRef": {"name": "secret-settings"}}]
    settings = tomllib.loads(only(made, "ConfigMap", "deployer-settings")["data"]["settings.toml"])
    files = {key: settings[f"etcd_{key}_file"] for key in ("ca", "cert", "key")}
    assert files == {
        "ca": "/etc/deployer/etcd/ca.crt",
        "cert": "/etc/deployer/etcd/tls.crt",
        "key": "/etc/deployer/etcd/tls.key",
    }
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert pod["priorityClassName"] == "system-cluster-critical"
    backend = {"name": "deployer", "port": {"name": "http"}}
    rules = only(made, "Ingress")["spec"]["rules"]
    assert [(r["host"], r["http"]["paths"][0]["backend"]["service"]) for r in rules] == [
        ("deploy.example.com", backend)
    ]
    assert only(made, "HTTPRoute")["spec"]["rules"][0]["backendRefs"] == [{"name": "deployer", "port": 80}]
    assert only(made, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert only(made, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    dashboard = only(made, "ConfigMap", "deployer-dashboard")
    assert json.loads(dashboard["data"]["deployer.json"])["title"] == "Deployer"
    assert only(made, "PrometheusRule")["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())


@needs_helm
def test_the_process_reads_the_settings_that_were_given(tmp_path: Path) -> None:
    nasty = 'a "quote", a \\ and\na line {{ .Values.config }} <&> \u00e9 \U0001f680'
    config = {
        "auth": "jwt",
        "jwt_issuer": "https://id.example.com/{{ x }}",
        "jwt_audience": 'say "hello"',
        "jwt_key_file": "/etc/deployer/secrets/issuer.pem",
        "proxysleep": 2.5,
        "history_limit": 1000000,
        "auto_rollback": False,
        "protected_namespaces": ["kube-*", "monitoring"],
        "tls_secrets": {"example.com": "example-com-tls"},
        "plugins": {"nasty": {"text": nasty, "list": [1, {"a": [True]}], 'odd "key"': {}}},
        "quotas": [{"namespaces": ["team-*"], "descriptors": 5}, {"namespaces": ["*"], "log_bytes": "1Gi"}],
        "freeze_windows": [
            {"reason": "weekend", "from": "fri 16:00", "to": "mon 08:00", "time_zone": "Europe/Amsterdam"}
        ],
    }
    made = template(tmp_path, {"config": config})
    text = only(made, "ConfigMap")["data"]["settings.toml"]
    assert tomllib.loads(text) == config | {"instance": "deployer", "store": "sqlite"}
    (tmp_path / "settings.toml").write_text(text)
    settings = load({}, {}, tmp_path / "settings.toml")
    assert (settings.proxysleep, settings.history_limit, settings.auto_rollback) == (2.5, 1_000_000, False)
    assert settings.plugins["nasty"]["text"] == nasty


@needs_helm
def test_a_store_on_a_volume_may_have_an_etcd_beside_it(tmp_path: Path) -> None:
    made = template(tmp_path, {"store": "sqlite", **ETCD}, namespace="ops")
    text = only(made, "ConfigMap")["data"]["settings.toml"]
    (tmp_path / "settings.toml").write_text(text)
    settings = load({}, {}, tmp_path / "settings.toml")
    assert (settings.store, settings.etcd) == ("sqlite", ",".join(ETCD["etcd"]["endpoints"]))
    assert settings.etcd_prefix == f"/deployer-{settings.instance}/store/"
    assert only(made, "PersistentVolumeClaim")


@needs_helm
def test_the_values_of_the_page_are_good(tmp_path: Path) -> None:
    page, _, _ = (ROOT / "docs" / "installation.md").read_text().partition("## With kustomize")
    one, several = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    made = template(tmp_path, one)
    assert only(made, "Ingress")["spec"]["tls"] == [{"hosts": ["deployer.example.com"], "secretName": "deployer-tls"}]
    (tmp_path / "settings.toml").write_text(only(made, "ConfigMap")["data"]["settings.toml"])
    assert load({}, {}, tmp_path / "settings.toml").proxysleep == 30
    assert only(made, "RoleBinding", "deployer-read", "shop")["subjects"][0]["name"] == "developers"
    assert only(template(tmp_path, one | several), "StatefulSet")["spec"]["replicas"] == 3


@needs_helm
def test_other_settings_restart_the_pods(tmp_path: Path) -> None:
    def checksum(**config: Any) -> str:
        pod = only(template(tmp_path, {"config": config}), "StatefulSet")["spec"]["template"]["metadata"]
        return str(pod["annotations"]["checksum/settings"])

    assert checksum() == checksum()
    assert checksum(proxysleep=5) != checksum()


@needs_helm
def test_two_releases_share_nothing(tmp_path: Path) -> None:
    long = "a-name-that-is-as-long-as-helm-lets-a-release-be-long"
    names: set[tuple[str, str, str]] = set()
    prefixes: set[str] = set()
    installed = [
        ("deployer", "deployer"),
        ("1.deployer", "ops"),
        ("1-deployer", "ops"),
        ("deployer", "ops"),
        ("blue", "ops"),
        (long, "ops"),
        (f"{long[:-1]}z", "ops"),
    ]
    for release, namespace in installed:
        made = template(tmp_path, EVERYTHING, release=release, namespace=namespace)
        for each in made:
            metadata = each["metadata"]
            where = metadata.get("namespace", "" if each["kind"].startswith("Cluster") else namespace)
            assert (each["kind"], where, metadata["name"]) not in names
            names.add((each["kind"], where, metadata["name"]))
            assert len(metadata["name"]) <= (63 if "Role" not in each["kind"] else 253)
        settings = tomllib.loads(
            only(made, "ConfigMap", f"{only(made, 'StatefulSet')['metadata']['name']}-settings")["data"][
                "settings.toml"
            ]
        )
        prefixes.add(settings.get("etcd_prefix", "/deployer/store/"))
        (tmp_path / "settings.toml").write_text(f'instance = "{settings["instance"]}"\n')
        assert load({}, {}, tmp_path / "settings.toml").instance == settings["instance"]
    assert len(prefixes) == len(installed)
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and a.startswith(b)]


@needs_helm
def test_every_selector_finds_the_pods_of_its_own_kind(tmp_path: Path) -> None:
    made = template(tmp_path, BUNDLED)
    pods = {
        o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"] for o in made if o["kind"] == "StatefulSet"
    }
    for each in made:
        spec = each.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        selector = selector.get("matchLabels", selector)
        if selector:
            wanted = "deployer-etcd" if each["metadata"]["name"] == "deployer-etcd" else "deployer"
            assert [n for n, labels in pods.items() if selector.items() <= labels.items()] == [wanted], each


# --- rights --------------------------------------------------------------------------------------------------------


def rules_of(files: list[str], kind: str = "Role") -> list[Any]:
    """The rules in files of `deploy/rbac`, in their order."""
    found = [o for f in files for o in yaml.safe_load_all((ROOT / "deploy" / "rbac" / f"{f}.yaml").read_text())]
    return [rule for each in found if each["kind"] == kind for rule in each["rules"]]


@needs_helm
@pytest.mark.parametrize("ingress", ["nginx", "gateway", "none"])
def test_a_namespace_grants_what_its_apps_need_and_no_more(ingress: str, tmp_path: Path) -> None:
    values = {"namespaces": ["shop"], "execMayDeploy": False, "config": {"auth": "kubernetes", "ingress": ingress}}
    made = template(tmp_path, values)
    granted = [r for o in made if o["kind"] == "Role" for r in o["rules"]]
    assert granted == rules_of(["app", *([] if ingress == "none" else [f"app-ingress-{ingress}"])])
    assert [r for o in made if o["kind"] == "ClusterRole" for r in o["rules"]] == rules_of(["reviews"], "ClusterRole")
    for binding in (o for o in made if o["kind"] == "RoleBinding"):
        assert binding["metadata"]["namespace"] == "shop"
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert only(made, "Role", binding["roleRef"]["name"], "shop")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "deployer", "namespace": "deployer"}]


@needs_helm
def test_nothing_is_granted_that_was_not_asked_for(tmp_path: Path) -> None:
    assert {o["kind"] for o in template(tmp_path) if "Role" in o["kind"]} == {"ClusterRole", "ClusterRoleBinding"}
    jwt = {"auth": "jwt", "jwt_issuer": "https://id", "jwt_audience": "x", "jwt_jwks_url": "https://id/keys"}
    assert not [o for o in template(tmp_path, {"config": jwt}) if "Role" in o["kind"]]
    assert not [
        o for o in template(tmp_path, {"rbac": {"create": False}, "namespaces": ["shop"]}) if "Role" in o["kind"]
    ]


@needs_helm
def test_features_users_and_secrets_are_those_of_the_namespace(tmp_path: Path) -> None:
    made = template(tmp_path, EVERYTHING)
    roles = {(o["metadata"]["namespace"], o["metadata"]["name"]): o["rules"] for o in made if o["kind"] == "Role"}
    usual = {"deployer", "deployer-ingress-gateway", "deployer-deploy"}
    optional = {f"deployer-{f}" for f in ("canary", "recreate", "jobs", "validate", "health-proxy", "import")}
    people = {"deployer-approve", "deployer-override-freeze"}
    assert {name for space, name in roles if space == "shop"} == usual | optional | people
    assert {name for space, name in roles if space == "billing"} == usual | {"deployer-canary", "deployer-tls"}
    assert roles["billing", "deployer-tls"][0]["resourceNames"] == ["billing.example.com"]
    assert {space for space, _ in roles} == {"shop", "billing", "infra", "edge"}
    binding = only(made, "RoleBinding", "deployer-deploy", "shop")
    group = {"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}
    account = {"kind": "ServiceAccount", "name": "deployer", "namespace": "deployer"}
    assert binding["subjects"] == [group, account]  # the account is that of `kubectl exec`
    assert only(made, "RoleBinding", "deployer-deploy", "billing")["subjects"] == [account]


@needs_helm
def test_a_namespace_may_have_less_than_the_others(tmp_path: Path) -> None:
    values = {
        **EVERYTHING,
        "namespaces": ["shop", {"name": "bare", "features": [], "users": {}}],
        "execMayDeploy": False,
    }
    made = template(tmp_path, values)
    found = {o["metadata"]["name"] for o in made if o["kind"] == "Role" and o["metadata"]["namespace"] == "bare"}
    assert found == {"deployer", "deployer-ingress-gateway"}


@needs_helm
def test_the_command_in_the_pod_has_a_token_that_the_service_takes(tmp_path: Path) -> None:
    def audience(**config: Any) -> Any:
        spec = only(template(tmp_path, {"config": {"auth": "kubernetes", **config}}), "StatefulSet")["spec"]
        (token,) = [v["projected"]["sources"][0] for v in spec["template"]["spec"]["volumes"] if v["name"] == "token"]
        return token["serviceAccountToken"].get("audience")

    assert audience() == Settings().kubernetes_audiences[0]
    assert audience(kubernetes_audiences=["a", "b"]) == "a"
    assert audience(kubernetes_audiences=[]) is None  # the API server's own


# --- what it refuses -----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"replica": 1}, r"additional properties 'replica' not allowed"),
    "a misspelt setting": (
        {"config": {"proxyslep": 1}},
        r"at '/config': additional properties 'proxyslep' not allowed",
    ),
    "a setting of the wrong type": ({"config": {"queue_limit": "many"}}, r"at '/config/queue_limit': got string, want"),
    "an unknown choice": (
        {"config": {"auth": "basic"}},
        r"at '/config/auth': value must be one of 'none', 'jwt', 'kub",
    ),
    "a secret in the ConfigMap": ({"config": {"etcd_password": "x"}}, r"'etcd_password' not allowed"),
    "replicas that share a file": (
        {"replicas": 3},
        r"replicas is 3, but a store on a volume is for one process: keep",
    ),
    "part of a replica": ({"replicas": 1.5}, r"at '/replicas': got number, want integer"),
    "fewer than none": ({"replicas": -1}, r"at '/replicas': minimum: got -1, want 0"),
    "an etcd that is nowhere": (
        {"store": "etcd"},
        r"store is etcd, but there is no address of one: give etcd\.endpoints",
    ),
    "a user of no etcd": ({"etcd": {"authSecret": "user"}}, r"for an etcd of which there is no address"),
    "replicas that share a file beside an etcd": (
        {"replicas": 2, "store": "sqlite", **ETCD},
        r"replicas is 2, but a store",
    ),
    "two etcds": (
        {"etcd": {"endpoints": ["http://e:2379"], "bundled": {"enabled": True}}},
        r"etcd\.endpoints and etcd\.bundled\.enabled are both given: keep one",
    ),
    "an address without a scheme": (
        {"etcd": {"endpoints": ["etcd:2379"]}},
        r"at '/etcd/endpoints/0': 'etcd:2379' does not",
    ),
    "a certificate from nowhere": ({"etcd": {"clientCertificate": True}}, r"clientCertificate needs etcd\.tlsSecret"),
    "nobody is asked": (
        {"config": {"auth": "none"}},
        r"config\.auth is none, so that everybody who reaches the port may",
    ),
    "an Ingress without a host": ({"ingress": {"enabled": True}}, r"ingress\.enabled needs ingress\.host"),
    "a route without a Gateway": ({"httpRoute": {"enabled": True}}, r"httpRoute\.enabled needs httpRoute\.parentRefs"),
    "a host with a scheme": (
        {"ingress": {"host": "https://x"}},
        r"at '/ingress/host': 'https://x' does not match pattern",
    ),
    "a namespace that cannot be": (
        {"namespaces": ["Shop"]},
        r"at '/namespaces/0': .*\n.*'Shop' does not match pattern",
    ),
    "a namespace twice": ({"namespaces": ["shop", "shop"]}, r"at '/namespaces': items at 0 and 1 are equal"),
    "a namespace twice, in two ways": (
        {"namespaces": ["shop", {"name": "shop"}]},
        r"namespaces has a name twice: shop, shop",
    ),
    "users that nobody asks": (
        {"users": {"read": []}, "config": {"auth": "jwt"}},
        r"users is for config\.auth kubernetes, and config\.auth is jwt",
    ),
    "an unknown feature": (
        {"rbac": {"features": ["canaries"]}},
        r"at '/rbac/features/0': value must be one of 'canary'",
    ),
    "an account of no namespace": (
        {"users": {"deploy": [{"kind": "ServiceAccount", "name": "ci"}]}},
        r"at '/users/deploy/0'.*missing property 'namespace'",
    ),
    "an unknown right": ({"users": {"admin": []}}, r"at '/users': additional properties 'admin' not allowed"),
    "a size without a unit that exists": (
        {"persistence": {"size": "10GB"}},
        r"at '/persistence/size': '10GB' does not",
    ),
    "a tag in the repository": ({"image": {"repository": "r/x:1"}}, r"at '/image/repository': 'r/x:1' does not match"),
    "an annotation that is no text": ({"podAnnotations": {"a": 1}}, r"at '/podAnnotations/a': got number, want string"),
}


@needs_helm
@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_work_are_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    values, sentence = REFUSED[case]
    with pytest.raises(RefusedError) as refused:
        template(tmp_path, values)
    assert re.search(sentence, str(refused.value), re.DOTALL), refused.value


@needs_helm
def test_values_that_are_texts_stay_texts(tmp_path: Path) -> None:
    nasty = 'x: "y" {{ .Release.Name }}\n- z # \u00e9'
    values = {
        "podAnnotations": {"note": nasty},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": nasty}},
        "ingress": {"enabled": True, "host": "a.example", "annotations": {"example.com/snippet": nasty}},
        "extraEnv": [{"name": "NOTE", "value": nasty}],
        "users": {"deploy": [{"kind": "User", "name": nasty}]},
        "namespaces": ["yes", "null", "1234"],
        "config": {"auth": "kubernetes", "kubernetes_audiences": [nasty]},
        "image": {"repository": "registry.example.com:5000/tools/deployer", "tag": "1.10"},
    }
    made = template(tmp_path, values)
    pod = only(made, "StatefulSet")["spec"]["template"]
    assert pod["metadata"]["annotations"]["note"] == nasty
    assert pod["spec"]["containers"][0]["env"][-1] == {"name": "NOTE", "value": nasty}
    assert pod["spec"]["containers"][0]["image"] == "registry.example.com:5000/tools/deployer:1.10"
    (token,) = [v for v in pod["spec"]["volumes"] if v["name"] == "token"]
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == nasty
    assert only(made, "ConfigMap", "deployer-dashboard")["metadata"]["annotations"]["grafana_folder"] == nasty
    assert only(made, "Ingress")["metadata"]["annotations"]["example.com/snippet"] == nasty
    assert {o["metadata"]["namespace"] for o in made if o["kind"] == "Role"} == {"yes", "null", "1234"}
    assert only(made, "RoleBinding", "deployer-deploy", "yes")["subjects"][0]["name"] == nasty
