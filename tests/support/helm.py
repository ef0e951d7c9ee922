"""Helm and the chart: what it makes of values, and what it says of those that it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.core.model.records import Document

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "chart"
PATH = os.pathsep.join([str(ROOT / "build" / "bin"), os.environ.get("PATH", "")])
HELM = shutil.which("helm", path=PATH) or ""
HELM_DOCS = shutil.which("helm-docs", path=PATH) or ""

needs_helm = pytest.mark.skipif(not HELM, reason="needs helm: `make helm` builds it with Go")

Object = Mapping[str, Any]


class RefusedError(Exception):
    """Helm ended with an error: what it said."""


def helm(*arguments: str, timeout: float = 240.0) -> str:
    """What helm says. Raises RefusedError."""
    done = subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise RefusedError(done.stderr)
    return done.stdout


def template(
    path: Path, values: Object | None = None, *flags: str, release: str = "deployer", namespace: str = "deployer"
) -> list[Document]:
    """All objects that the chart makes; `path` is a directory for a file with the values."""
    flags += values_flags(path, values or {})
    made = helm("template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.34.0", *flags)
    return [each for each in yaml.safe_load_all(made) if each]


def values_flags(path: Path, values: Object) -> tuple[str, ...]:
    """The flags that give these values."""
    file = path / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    return ("--values", str(file))


def only(objects: list[Document], kind: str, name: str = "", namespace: str | None = None) -> Document:
    """The one object of that kind, name and namespace."""
    (found,) = [
        each
        for each in objects
        if each["kind"] == kind
        and name in ("", each["metadata"]["name"])
        and namespace in (None, each["metadata"].get("namespace"))
    ]
    return found
