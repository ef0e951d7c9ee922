"""Rules for settings that go together. Each raises SettingsError."""

from __future__ import annotations

from deployer.core.errors import SettingsError
from deployer.core.model.hosts import is_loopback
from deployer.settings.issuers.configured import issuers_of
from deployer.settings.issuers.issuer import wrong_together
from deployer.settings.table import OPTIONS, Settings


def check_together(settings: Settings) -> None:
    """Refuse settings that contradict each other or lack something. Raises SettingsError."""
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
    _check_etcd(settings)
    check_auth(settings)


def _check_etcd(settings: Settings) -> None:
    if settings.store == "etcd" and not settings.etcd:
        raise SettingsError("--store etcd also needs --etcd, the addresses of etcd")
    if bool(settings.etcd_username) != bool(settings.etcd_password):
        raise SettingsError("--etcd-username and --etcd-password belong together: give both or none")
    if bool(settings.etcd_cert_file) != bool(settings.etcd_key_file):
        raise SettingsError("--etcd-cert-file and --etcd-key-file belong together: give both or none")
    given = [o.flag for o in OPTIONS if o.name.startswith("etcd_") and getattr(settings, o.name) != o.default]
    if given and not settings.etcd:
        raise SettingsError(f"{given[0]} has no effect without --etcd: set that too, or leave it out")


def check_auth(settings: Settings) -> None:
    """Refuse settings of authentication that contradict each other or lack something. Raises SettingsError."""
    if settings.auth != "none" and settings.insecure_no_auth:
        raise SettingsError(
            f"--auth {settings.auth} and --insecure-no-auth contradict each other: everybody has to prove who they "
            "are, or nobody; leave one of them out"
        )
    for prefix, auth in (("jwt_", "jwt"), ("issuers", "jwt"), ("kubernetes_audiences", "kubernetes")):
        given = [o for o in OPTIONS if o.name.startswith(prefix) and getattr(settings, o.name) != o.default]
        if given and settings.auth != auth:
            # Somebody thinks that tokens are checked.
            name = given[0].flag or f"[[{given[0].name}]]"
            raise SettingsError(f"{name} has no effect without --auth {auth}: set that too, or leave it out")
    if settings.auth == "jwt":
        if _describes_an_issuer(settings):
            _check_jwt(settings)
        if wrong := wrong_together(issuers_of(settings)):
            raise SettingsError(f"issuers: {wrong}")


def _describes_an_issuer(settings: Settings) -> bool:
    """Do the settings `jwt_*` say something? They must where there is no other issuer."""
    own = [o for o in OPTIONS if o.name.startswith("jwt_") and o.name != "jwt_leeway"]
    return not settings.issuers or any(getattr(settings, o.name) != o.default for o in own)


def _check_jwt(settings: Settings) -> None:
    needed = {"--jwt-issuer": settings.jwt_issuer, "--jwt-audience": settings.jwt_audience}
    missing = [flag for flag, value in needed.items() if not value]
    if not (settings.jwt_key_file or settings.jwt_jwks_url):
        missing.append("--jwt-jwks-url or --jwt-key-file")
    for name in (
        "name_claim",
        "namespaces_claim",
        "roles_claim",
        "read_role",
        "deploy_role",
        "freeze_role",
        "override_role",
        "approve_role",
        "rollback_role",
    ):
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
    if settings.jwt_read_role in (settings.jwt_freeze_role, settings.jwt_override_role):
        raise SettingsError("--jwt-read-role is also the role for freezes, so that reading would be freezing")
    if settings.jwt_read_role == settings.jwt_rollback_role:
        raise SettingsError(
            "--jwt-read-role and --jwt-rollback-role are the same, so that reading would be rolling back"
        )
    if settings.jwt_read_role == settings.jwt_approve_role:
        raise SettingsError("--jwt-read-role and --jwt-approve-role are the same, so that reading would be approving")


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without authentication. Raises SettingsError."""
    if settings.insecure_no_auth or settings.auth != "none" or is_loopback(settings.deployhost):
        return
    raise SettingsError(
        f"--deployhost {settings.deployhost or '(empty)'} can be reached from other machines and there is no "
        "authentication: set --auth to jwt or kubernetes, use 127.0.0.1, or say --insecure-no-auth if everybody there "
        "may deploy"
    )
