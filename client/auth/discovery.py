"""Where a service wants people to log in: what `GET /` says of its identity providers, which needs no token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from deployer.client.configuration import Profile
from deployer.client.connection import TRIES_FOR_PEOPLE, Connection
from deployer.client.errors import ClientError, Misused
from deployer.client.service import Service
from deployer.core.model.hosts import is_loopback


class NoLogin(Misused):
    """The service does not ask who anybody is."""


_OTHERWISE = "give a token with --token-file or DEPLOYER_TOKEN"


def completed(profile: Profile, wanted: str | None) -> tuple[Profile, str]:
    """The profile with what it lacks for a login, and the audience that tokens must have; "": not known.

    wanted   name or URL of one of the service's identity providers; None: that of the profile, or the only one

    Raises Misused when nobody can log in there, and a ClientError when the service has to be asked and does not answer.
    """
    given = profile.issuer if wanted is None else wanted
    enough = bool(profile.issuer and profile.client_id) and wanted in (None, profile.issuer)
    try:
        found = _chosen(profile, _authentication(profile), given)
    except ClientError:
        if enough:
            return profile, ""  # a login that was set up by hand does not need the service
        raise
    audience = str(found.get("audience", ""))
    if enough:
        return profile, audience
    scope = str(found.get("scopes") or profile.scope)
    return replace(profile, issuer=str(found["issuer"]), client_id=str(found["clientId"]), scope=scope), audience


def _authentication(profile: Profile) -> dict[str, Any]:
    """What the service says of it, asked without a token."""
    parts = urlsplit(profile.server)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise Misused(
            f"{profile.server} is not https: somebody on the way could name another place to log in. Use https, or set "
            "`issuer` and `client_id` with `deployer config set`"
        )
    document = Service(Connection(profile, tries=TRIES_FOR_PEOPLE), profile.namespace).start()
    found = document.get("authentication") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _chosen(profile: Profile, authentication: dict[str, Any], wanted: str) -> dict[str, Any]:
    """One of the service's issuers with which people can log in. Raises Misused."""
    server, method = profile.server, authentication.get("method")
    if method == "none":
        raise NoLogin(f"{server} needs no login: it does not ask who you are")
    if method == "kubernetes":
        raise Misused(
            f"{server} takes tokens of its cluster: `deployer config set kubeconfig default` uses the one of your "
            f"kubeconfig, or {_OTHERWISE}"
        )
    issuers = [one for one in authentication.get("issuers") or () if isinstance(one, dict) and one.get("issuer")]
    open_to_people = [one for one in issuers if one.get("clientId")]
    if wanted:
        same = [
            one for one in open_to_people if wanted.rstrip("/") in (one.get("name"), str(one["issuer"]).rstrip("/"))
        ]
        if same:
            return same[0]
        names = ", ".join(str(one.get("name")) for one in open_to_people) or "none"
        raise Misused(f"{server} has no identity provider {wanted} with which people log in; available: {names}")
    if len(open_to_people) == 1:
        return open_to_people[0]
    if open_to_people:
        names = ", ".join(str(one.get("name")) for one in open_to_people)
        raise Misused(f"{server} has several identity providers; say which with --issuer: {names}")
    raise Misused(f"{server} names no client with which people log in (`client_id` of an issuer); {_OTHERWISE}")
