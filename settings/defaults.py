"""Defaults that depend on where the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployer.core.errors import SettingsError

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def state_dir(environ: Mapping[str, str]) -> Path:
    """The XDG base directory for state, as freedesktop.org's specification has it (relative values are ignored)."""
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path(environ.get("HOME") or Path("~").expanduser()) / ".local" / "state"
    return base / "kube-deployer"


def own_namespace(_: Mapping[str, str]) -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""  # not running in a pod
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {NAMESPACE_FILE} ({error}); give --own-namespace instead") from None
