"""The token of a kubeconfig's user, as kubectl finds it: a token, a file, or what a credential plugin prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.client.auth.token_file import read_token
from deployer.client.configuration import Profile
from deployer.client.errors import Misused, Unauthorised

_PATIENCE = 60.0  # seconds for a credential plugin, which may ask a person


def token(profile: Profile, environ: Mapping[str, str]) -> str:
    """Raises a ClientError."""
    path = _path(profile, environ)
    document = _read(path)
    context = profile.kube_context or document.get("current-context") or ""
    found = _named(document, "contexts", context).get("context")
    if not isinstance(found, dict):
        raise Misused(f"{path} has no context {context!r}; kube_context in the profile names one")
    user = _named(document, "users", str(found.get("user"))).get("user") or {}
    if isinstance(user.get("token"), str) and user["token"]:
        return str(user["token"])
    if user.get("tokenFile"):
        return read_token(path.parent / str(user["tokenFile"]))
    if isinstance(user.get("exec"), dict):
        return _from_plugin(user["exec"], path, environ)
    raise Unauthorised(
        f"the user of context {context!r} in {path} has no token: a client certificate is of no use to the Deployer"
    )


def _path(profile: Profile, environ: Mapping[str, str]) -> Path:
    if profile.kubeconfig != "default":
        return Path(profile.kubeconfig).expanduser()
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(named[0] if named else "~/.kube/config").expanduser()


def _read(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misused(f"the kubeconfig {path} cannot be read: {error.strerror or error}") from None
    except (YAMLError, UnicodeDecodeError):
        raise Misused(f"the kubeconfig {path} is no YAML") from None
    if not isinstance(document, dict):
        raise Misused(f"the kubeconfig {path} is empty")
    return document


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    items = document.get(kind) or ()
    return next((item for item in items if isinstance(item, dict) and item.get("name") == name), {})


def _from_plugin(plugin: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> str:
    """What a credential plugin prints: https://kubernetes.io/docs/reference/access-authn-authz/authentication/"""
    command = str(plugin.get("command") or "")
    if os.sep in command:
        command = str(path.parent / command)  # relative to the file, as kubectl has it
    more = {str(v.get("name")): str(v.get("value")) for v in plugin.get("env") or () if isinstance(v, dict)}
    asked = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    try:
        done = subprocess.run(
            [command, *(str(argument) for argument in plugin.get("args") or ())],
            env={**environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdout=subprocess.PIPE,
            timeout=_PATIENCE,
            check=True,
        )
        found = json.loads(done.stdout)["status"]["token"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise Unauthorised(f"the credential plugin {command!r} of {path} gave no token: {said}") from None
    return str(found)
