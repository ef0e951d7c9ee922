"""A service on a sandbox of its own, the process `deployer sandbox`, and namespaces there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployer.core.model.kind import NAMESPACE
from deployer.kube import client as kube_client
from deployer.sandbox import Sandbox
from deployer.settings import Settings
from support.command import of_a_new_user, running


@dataclass(frozen=True)
class Playground:
    """A service that runs, on a sandbox."""

    url: str
    cluster: Sandbox

    def namespace(self) -> str:
        """A new one, in the cluster too."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        eyes = kube_client.connect(Settings(kubernetes=self.cluster.api, own_namespace=""))
        try:
            eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, None)
        finally:
            eyes.close()
        return name


@contextmanager
def playing(path: Path, *flags: str) -> Iterator[Playground]:
    """One with these flags, and its files in `path`; in the end it must end well."""
    with running(of_a_new_user(path), path) as deployer:
        own = ["--deployport=0", "--ingress-port=0", f"--data-dir={path / 'data'}"]
        process = deployer.start("sandbox", *own, *flags)
        url = process.line("is a page to begin with").split()[0]
        cluster = Sandbox.attach(path / "data" / "sandbox")
        assert cluster is not None
        yield Playground(url, cluster)
        assert process.end() == 0
