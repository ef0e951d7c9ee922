"""All issuers of a service: that of the settings `jwt_*`, and the tables."""

from __future__ import annotations

from deployer.settings.issuers.issuer import DEFAULT, VERBS, Issuer, Roles
from deployer.settings.table import Settings


def issuers_of(settings: Settings) -> tuple[Issuer, ...]:
    """The default one first, when there is one."""
    return (*((default_issuer(settings),) if settings.jwt_issuer else ()), *settings.issuers)


def default_issuer(settings: Settings) -> Issuer:
    """What the settings `jwt_*` describe. Its callers go by their names alone, as they always did."""
    return Issuer(
        name=DEFAULT,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=(settings.jwt_algorithm,),
        jwks_url=settings.jwt_jwks_url,
        jwks_ca_file=settings.jwt_jwks_ca_file,
        key_file=settings.jwt_key_file,
        name_claim=settings.jwt_name_claim,
        client_id=settings.jwt_client_id,
        scopes=settings.jwt_scopes,
        roles=Roles(
            namespaces_claim=settings.jwt_namespaces_claim,
            roles_claim=settings.jwt_roles_claim,
            by_verb={verb: getattr(settings, f"jwt_{verb}_role") for verb in VERBS},
        ),
    )
