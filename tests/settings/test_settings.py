"""Settings: precedence, every kind of option, sentences for every mistake, the original's flags."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from deployer.core.errors import SettingsError
from deployer.settings import OPTIONS, Settings, check_exposure, defaults, load, translate_original_flags

HOME = {"HOME": "/home/ann"}


@pytest.fixture(autouse=True)
def not_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "namespace"
    monkeypatch.setattr(defaults, "NAMESPACE_FILE", file)
    return file


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "deployer.toml"
        path.write_text(text)
        return path

    return write


def test_precedence_is_flag_variable_file_default(toml):
    path = toml("timeout = 1\nproxysleep = 2\ndeployport = 3\n")
    environ = HOME | {"DEPLOYER_PROXYSLEEP": "20.5", "DEPLOYER_DEPLOYPORT": "30"}
    settings = load({"deployport": 300, "timeout": None}, environ, path)
    assert (settings.timeout, settings.proxysleep, settings.deployport) == (1.0, 20.5, 300)
    assert settings.start_timeout == 300.0


def test_the_file_may_be_named_by_a_variable(toml):
    path = toml('instance = "blue"')
    assert load({}, HOME | {"DEPLOYER_CONFIG": str(path)}).instance == "blue"
    assert load({}, HOME | {"DEPLOYER_CONFIG": ""}).instance == "deployer"


def test_defaults_without_any_source_are_the_dataclass_defaults(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert load({}, HOME) == Settings()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/ann"}, "/state/kube-deployer"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/ann"}, "/home/ann/.local/state/kube-deployer"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/kube-deployer"),
        ({"DEPLOYER_DATA_DIR": "/data"}, "/data"),
    ],
)
def test_data_dir(environ, expected):
    assert load({}, environ).data_dir == Path(expected)


def test_the_own_namespace_is_the_pods(not_in_a_pod):
    not_in_a_pod.write_text("tools\n")
    settings = load({}, HOME)
    assert settings.own_namespace == "tools"
    assert settings.protects("tools")
    assert load({"own_namespace": "other"}, HOME).own_namespace == "other"


def test_every_option_can_be_given_in_every_way(toml):
    """Flag, variable and file agree on what a text means."""
    samples = {"text": "x", "integer": "7", "seconds": "7.5", "switch": "true", "path": "/p", "names": "a,b*"}
    special = {"kubernetes": "https://k8s:6443", "etcd": "http://a:2379,http://b:2379", "log_level": "debug"}
    special |= {"log_format": "json"}
    special |= {"pod_security": "restricted", "image_pull_policy": "Never", "health_via": "direct"}
    special |= {"enable_service_links": "false", "auto_rollback": "false", "deploy_allows_rollback": "no"}
    special |= {"auth": "kubernetes", "jwt_algorithm": "ES256", "jwt_jwks_url": "https://idp.example/keys"}
    special |= {"allowed_volume_types": "configMap,secret"}
    special |= {"allowed_origins": "https://a.example,http://[::1]:8080", "allowed_hosts": "a,*.b.example"}
    issuer = {"auth": "jwt", "jwt_issuer": "i", "jwt_audience": "a", "jwt_key_file": "k"}
    special |= {"store": "sqlite", "etcd_prefix": "/other/", "etcd_timeout": "7.5"}
    special |= {"preview_host": "{app}.{namespace}.preview.example", "preview_check": "/health?deep=1"}
    for option in OPTIONS:
        if not option.flag:
            continue
        text = special.get(option.name, samples[option.kind])
        pairs = [(f"{where}_username", f"{where}_password") for where in ("kubernetes", "etcd")]
        pairs.append(("etcd_cert_file", "etcd_key_file"))
        partner = dict(pairs) | {b: a for a, b in pairs}
        also = {partner[option.name]: "y"} if option.name in partner else {}
        if option.name.startswith("etcd_"):
            also["etcd"] = "http://a:2379"
        if option.name.startswith("jwt_"):
            source = "jwt_key_file" if "jwks" not in option.name else "jwt_jwks_url"
            also = {**issuer, "jwt_key_file": None, source: "https://k.example", option.name: None}
        elif option.name == "kubernetes_audiences":
            also = {"auth": "kubernetes"}
        by_flag = load({**also, option.name: text}, HOME)
        by_variable = load(also, HOME | {option.env: text})
        by_file = load(also, HOME, toml(f'{option.original or option.name} = "{text}"'))
        assert by_flag == by_variable == by_file, option.name
        assert getattr(by_flag, option.name) != getattr(Settings(), option.name), option.name


@pytest.mark.parametrize(
    "host",
    [
        "preview.example.com",
        "{app}",
        "{app}.{version}.example",
        "{app!r}.example",
        "{app",
        "{}",
        "a b.{app}",
        "{app}.Ü",
    ],
)
def test_a_preview_host_is_the_apps_own(host):
    if host == "{app}":
        assert load({"preview_host": host}, HOME).preview("web", "shop") == "shop"
        return
    with pytest.raises(SettingsError, match="is not a host like"):
        load({"preview_host": host}, HOME)


@pytest.mark.parametrize("path", ["health", "//host/x", "/a b", "/ü", "http://x/"])
def test_what_is_checked_through_the_preview_is_a_path(path):
    with pytest.raises(SettingsError, match="is not a path like"):
        load({"preview_check": path}, HOME)


def test_the_table_is_the_dataclass():
    """By subject; those about one subject are in the order in which they are written."""
    assert sorted(o.name for o in OPTIONS) == sorted(f.name for f in dataclasses.fields(Settings))
    subjects = [subject for subject, _ in itertools.groupby(o.subject for o in OPTIONS)]
    assert len(set(subjects)) == len(subjects) > 8
    assert all(o.help.endswith(".") for o in OPTIONS)
    assert {o.original for o in OPTIONS if o.original} == {
        "kubernetes",
        "etcd",
        "deployport",
        "kubernetesusername",
        "kubernetespassword",
        "timeout",
        "proxysleep",
        "skipServerCertValidation",
    }


def test_tables_come_from_the_file_and_cannot_be_changed(toml):
    settings = load(
        {},
        HOME,
        toml(
            'protected_namespaces = ["kube-*", "infra"]\n'
            '[plugins.nginx]\nclass = "internal"\n'
            '[namespace_hosts]\nshop = ["*.shop.example", "shop.example"]\n'
            '[tls_secrets]\n"shop.example" = "wildcard"\n'
        ),
    )
    assert settings.plugins["nginx"] == {"class": "internal"}
    assert settings.protects("infra") and settings.protects("kube-system") and not settings.protects("shop")
    assert settings.allows_host("shop", "a.b.shop.example") and settings.allows_host("shop", "shop.example")
    assert not settings.allows_host("shop", "evilshop.example")
    assert settings.allows_host("unlisted", "anything.example")
    assert not settings.allows_host("unlisted", "shop.example")
    assert settings.tls_secret("www.shop.example") == settings.tls_secret("shop.example") == "wildcard"
    assert settings.tls_secret("example") == ""
    with pytest.raises(TypeError):
        settings.plugins["other"] = {}  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.timeout = 1.0  # type: ignore[misc]


def test_a_namespace_with_an_empty_list_of_hosts_may_use_none():
    assert not Settings(namespace_hosts={"shop": ()}).allows_host("shop", "a.example")


@pytest.mark.parametrize(
    ("flags", "environ", "text", "sentence"),
    [
        ({"deployport": "http"}, {}, "", "flag --deployport: 'http' is not a whole number"),
        ({"deployport": 70000}, {}, "", "flag --deployport: 70000 is not between 0 and 65535"),
        ({}, {"DEPLOYER_TIMEOUT": "nan"}, "", "variable DEPLOYER_TIMEOUT: 'nan' is not a number of seconds"),
        ({}, {"DEPLOYER_TIMEOUT": "0"}, "", "variable DEPLOYER_TIMEOUT: 0 is not between 1 and 86400"),
        ({}, {}, "workers = true", "key workers: True is not a whole number"),
        ({}, {}, "insecure_no_auth = 1", "key insecure_no_auth: 1 is not true or false"),
        ({}, {}, 'pod_security = "none"', "'none' is not one of privileged, baseline, restricted"),
        ({}, {}, 'image_pull_policy = "always"', "'always' is not one of empty, Always, IfNotPresent, Never"),
        ({}, {}, 'instance = "My Deployer"', "'My Deployer' is not a name of a-z"),
        ({}, {}, 'instance = ""', "'' is not a name of a-z"),
        ({}, {}, 'kubernetes = "k8s:port"', "'k8s:port' is not an address like http://host:8080"),
        ({}, {}, 'kubernetes = "http//k8s:8080"', "'http//k8s:8080' is not an address like http://host:8080"),
        ({}, {}, 'etcd = "http://a:1,b"', "'b' is not an address"),
        ({}, {}, 'kubernetes = "http://u:p@k8s"', "key kubernetes: an address may not contain credentials"),
        ({}, {}, 'ingress = "a\\nb"', "is not a single line of text"),
        ({}, {}, "protected_namespaces = [1]", "is not a list of names"),
        ({}, {}, 'protected_namespaces = ["Kube"]', "'Kube' is not a namespace or a pattern"),
        ({}, {}, "plugins = 1", "key plugins: 1 is not a table"),
        ({}, {}, "[plugins]\nnginx = 1", "plugins.nginx is not a table; write [plugins.nginx]"),
        ({}, {}, '[namespace_hosts]\nshop = "a.example"', "shop: is not a list of hosts"),
        ({}, {}, '[namespace_hosts]\nshop = ["*"]', "'*' is not a host or a pattern"),
        ({}, {}, '[tls_secrets]\n"a.example" = "B"', "'B' is not the name of a Secret"),
        ({}, {}, "proxyslep = 3", "unknown key proxyslep (did you mean proxysleep?)"),
        ({}, {}, 'etcd = ""\ntimeout = 5\n[x]', "unknown key x"),
        ({}, {}, 'kubernetes_username = "a"\nkubernetesusername = "b"', "mean the same"),
        ({}, {}, "= 3", "is not TOML"),
        ({}, {"DEPLOYER_PROXY_SLEEP": "3"}, "", "no such setting (did you mean DEPLOYER_PROXYSLEEP?)"),
        ({"kubernetes_username": "ann"}, {}, "", "belong together"),
        ({"kubernetes": "http://k", "kubeconfig": "/k"}, {}, "", "exclude each other"),
        ({"store": "etcd"}, {}, "", "--store etcd also needs --etcd"),
        ({"etcd": "http://e", "etcd_username": "ann"}, {}, "", "--etcd-username and --etcd-password belong together"),
        ({"etcd": "http://e", "etcd_cert_file": "/c"}, {}, "", "--etcd-cert-file and --etcd-key-file belong together"),
        ({"etcd_ca_file": "/ca"}, {}, "", "--etcd-ca-file has no effect without --etcd"),
        ({"etcd": "http://e", "etcd_prefix": "store"}, {}, "", "'store' is not a prefix like /deployer/store/"),
        ({"proxy_sleep": 1}, {}, "", "there is no setting named 'proxy_sleep' (did you mean proxysleep?)"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_source(toml, flags, environ, text, sentence):
    path = toml(text)
    with pytest.raises(SettingsError) as caught:
        load(flags, HOME | environ, path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value).strip()
    if text:
        assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file"):
        load({}, HOME, tmp_path / "nowhere.toml")


def test_variables_of_others_are_let_be():
    load(
        {},
        HOME
        | {
            "DEPLOYER_FAILPOINT": "x",
            "DEPLOYER_TEST_ETCD": "x",
            # What Kubernetes puts into pods for Services named deployer and deployer-ui.
            "DEPLOYER_SERVICE_HOST": "10.0.0.1",
            "DEPLOYER_SERVICE_PORT": "8000",
            "DEPLOYER_SERVICE_PORT_HTTP": "8000",
            "DEPLOYER_PORT": "tcp://10.0.0.1:8000",
            "DEPLOYER_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "DEPLOYER_PORT_8000_TCP_PROTO": "tcp",
            "DEPLOYER_UI_SERVICE_HOST": "10.0.0.2",
            "DEPLOYER_UI_PORT": "tcp://10.0.0.2:80",
        },
    )
    with pytest.raises(SettingsError, match="DEPLOYER_PORT"):
        load({}, HOME | {"DEPLOYER_PORT": "9000"})


def test_secrets_are_not_shown():
    settings = load({"kubernetes_username": "ann", "kubernetes_password": "hunter2"}, HOME)
    assert settings.kubernetes_password == "hunter2"
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        load({"kubernetes_username": "ann", "kubernetes_password": "hunter\n2"}, HOME)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_authentication(host):
    check_exposure(Settings(deployhost=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "localhost.example", "deployer"])
def test_other_addresses_do(host):
    with pytest.raises(SettingsError, match="--insecure-no-auth"):
        check_exposure(Settings(deployhost=host))
    check_exposure(Settings(deployhost=host, insecure_no_auth=True))


@pytest.mark.parametrize("auth", ["jwt", "kubernetes"])
def test_with_authentication_every_address_is_allowed(auth):
    check_exposure(Settings(deployhost="0.0.0.0", auth=auth))


JWT = {"auth": "jwt", "jwt_issuer": "https://idp.example", "jwt_audience": "deployer", "jwt_key_file": "/k.pem"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"auth": "basic"}, "flag --auth: 'basic' is not one of none, jwt, kubernetes"),
        ({**JWT, "insecure_no_auth": True}, "--auth jwt and --insecure-no-auth contradict each other"),
        ({"auth": "kubernetes", "insecure_no_auth": True}, "--auth kubernetes and --insecure-no-auth contradict"),
        ({"jwt_issuer": "i"}, "--jwt-issuer has no effect without --auth jwt"),
        ({"auth": "kubernetes", "jwt_key_file": "/k"}, "--jwt-key-file has no effect without --auth jwt"),
        ({"kubernetes_audiences": "a"}, "--kubernetes-audiences has no effect without --auth kubernetes"),
        (
            {"auth": "jwt"},
            "--auth jwt also needs --jwt-issuer, --jwt-audience, --jwt-jwks-url or --jwt-key-file",
        ),
        ({**JWT, "jwt_key_file": None}, "--auth jwt also needs --jwt-jwks-url or --jwt-key-file"),
        ({**JWT, "jwt_name_claim": "", "jwt_read_role": ""}, "also needs --jwt-name-claim, --jwt-read-role"),
        ({**JWT, "jwt_jwks_url": "https://k"}, "--jwt-key-file and --jwt-jwks-url exclude each other"),
        ({**JWT, "jwt_jwks_ca_file": "/ca"}, "--jwt-jwks-ca-file has no effect without --jwt-jwks-url"),
        ({**JWT, "jwt_jwks_url": "http://k"}, "flag --jwt-jwks-url: 'http://k' does not begin with https://"),
        ({**JWT, "jwt_jwks_url": "https://u:p@k"}, "may not contain credentials"),
        ({**JWT, "jwt_read_role": "deploy"}, "--jwt-read-role and --jwt-deploy-role are the same"),
        ({**JWT, "jwt_override_role": ""}, "also needs --jwt-override-role"),
        ({**JWT, "jwt_freeze_role": "read"}, "--jwt-read-role is also the role for freezes"),
        ({**JWT, "jwt_override_role": "read"}, "--jwt-read-role is also the role for freezes"),
        ({**JWT, "jwt_algorithm": "HS256"}, "flag --jwt-algorithm: 'HS256' is not one of RS256"),
        ({**JWT, "jwt_algorithm": "none"}, "flag --jwt-algorithm: 'none' is not one of RS256"),
        ({"allowed_origins": "https://a.example/"}, "'https://a.example/' is not an origin like"),
        ({"allowed_origins": "*"}, "'*' is not an origin like"),
        ({"allowed_origins": "null"}, "'null' is not an origin like"),
    ],
)
def test_what_is_wrong_about_authentication_is_one_sentence(flags, sentence):
    with pytest.raises(SettingsError) as caught:
        load(flags, HOME)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("original", "canonical"),
    [
        ("-kubernetes http://k:8080", ["--kubernetes=http://k:8080"]),
        ("--kubernetes=http://k:8080", ["--kubernetes=http://k:8080"]),
        ("-deployport 8000 -timeout=5", ["--deployport=8000", "--timeout=5"]),
        ("-kubernetespassword -x", ["--kubernetes-password=-x"]),
        ("-skipServerCertValidation serve", ["--skip-server-cert-validation", "serve"]),
        ("-skipServerCertValidation=true", ["--skip-server-cert-validation"]),
        ("--skipServerCertValidation=false", ["--no-skip-server-cert-validation"]),
        ("serve --data-dir /x -h", ["serve", "--data-dir", "/x", "-h"]),
        ("-etcd", ["--etcd"]),
        ("-- -etcd x", ["--", "-etcd", "x"]),
        ("kubernetes etcd", ["kubernetes", "etcd"]),
    ],
)
def test_flags_of_the_original(original, canonical):
    assert translate_original_flags(original.split()) == canonical
    assert translate_original_flags(canonical) == canonical


@pytest.mark.parametrize("flag", ["noauth", ""])
def test_noauth_is_no_user(flag):
    """The original's default, which its users write out."""
    for source in ({"kubernetes_username": flag, "kubernetes_password": flag}, {"kubernetes_username": flag}):
        settings = load(source, {})
        assert (settings.kubernetes_username, settings.kubernetes_password) == ("", "")
    environ = {"DEPLOYER_KUBERNETES_USERNAME": flag, "DEPLOYER_KUBERNETES_PASSWORD": flag}
    assert load({}, environ).kubernetes_username == ""
    # A password that happens to be the word belongs to a user.
    with pytest.raises(SettingsError, match="belong together"):
        load({"kubernetes_username": "admin", "kubernetes_password": "noauth"}, {})
