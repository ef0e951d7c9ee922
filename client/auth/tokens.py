"""The token of a profile: given, in a file, of a kubeconfig, of a CI job, or of `deployer login`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from deployer.client.auth.token_file import only_token, read_token
from deployer.client.configuration import Profile
from deployer.client.errors import Misused, Unauthorised


def used_instead(profile: Profile) -> str:
    """What gives the token although the profile has a login; empty when nothing does."""
    given = (key for key in ("token", "token_file", "oidc_audience", "kubeconfig") if getattr(profile, key))
    return next(given, "")


def token_source(profile: Profile, environ: Mapping[str, str] = os.environ) -> Callable[[], str]:
    """Gives the token of each request, empty where the profile has none. Called, it raises a ClientError."""
    if profile.token:
        token = only_token(profile.token, "the variable DEPLOYER_TOKEN")
        return lambda: token
    if profile.token_file:
        return lambda: read_token(Path(profile.token_file).expanduser())  # one that is mounted is replaced in time
    if profile.oidc_audience:
        return _once(lambda: github_token(profile, environ))
    if profile.kubeconfig:
        from deployer.client.auth import kubeconfig

        return _once(lambda: kubeconfig.token(profile, environ))
    if profile.issuer:
        from deployer.client.auth import device

        return device.Login(profile, environ).token
    return lambda: ""


def _once(get: Callable[[], str]) -> Callable[[], str]:
    found: list[str] = []

    def token() -> str:
        if not found:
            found.append(get())
        return found[0]

    return token


def github_token(profile: Profile, environ: Mapping[str, str]) -> str:
    """The own token of a job in GitHub Actions, for the profile's audience. Raises a ClientError.

    https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments
    """
    import urllib3

    from deployer.client.connection import pool, tls_context

    url, secret = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not secret:
        raise Misused(
            "DEPLOYER_OIDC_AUDIENCE asks for the token of a job in GitHub Actions, and this is none that may have one; "
            "the job needs `permissions: id-token: write`"
        )
    public = Profile(server=url, proxy=profile.proxy)
    tls = tls_context(public) if url.startswith("https:") else None
    try:
        response = pool(public, url, tls).request(
            "GET",
            f"{url}{'&' if '?' in url else '?'}audience={profile.oidc_audience}",
            headers={"Authorization": f"Bearer {secret}"},
            redirect=False,
            retries=urllib3.Retry(3, redirect=0, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504)),
        )
        return str(json.loads(response.data)["value"])
    except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError, TypeError):
        raise Unauthorised("GitHub Actions gives no token for this job; try the job again") from None
