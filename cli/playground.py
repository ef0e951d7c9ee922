"""`deployer sandbox`: the service and the sandbox together, for a person to play with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import click

from deployer import sandbox
from deployer.cli import sample, wiring
from deployer.cli.process import Ending
from deployer.core.errors import SettingsError
from deployer.core.settings import Settings
from deployer.sandbox import Sandbox

_STATE = "sandbox"
_STORES = "sandbox-stores"
_INSTANCE = re.compile(r"[0-9a-f]{32}")


def run(settings: Settings) -> None:
    """Serve until a signal comes; then stop both. The settings' data directory holds everything."""
    if settings.auth == "kubernetes":
        raise SettingsError("the sandbox has no accounts to ask about: --auth kubernetes needs a real cluster")
    base = settings.data_dir.absolute()
    ending = Ending(at_once=lambda: _kill(base / _STATE))
    found = Sandbox.attach(base / _STATE)
    cluster = found or sandbox.start(base / _STATE)
    try:
        running = wiring.start(fit(settings, cluster))
    except BaseException:
        # One that was there already may be somebody's, who uses it right now.
        if found is None:
            cluster.stop()
        raise
    try:
        _forget_other_stores(base / _STORES, cluster.instance)
        click.echo(_welcome(running.url, cluster, _write_sample(base)))
        ending.wait()
        click.echo("\nstopping")
    finally:
        running.stop(5.0)
        cluster.stop()


def fit(settings: Settings, cluster: Sandbox) -> Settings:
    """The settings for that sandbox. Objects live in its memory, so each sandbox has a store of its own: records of
    what no longer exists would only be in the way."""
    fields = sample.sandbox_settings(cluster)
    fields["plugins"] = {**fields["plugins"], **settings.plugins}
    return dataclasses.replace(settings, **fields, data_dir=settings.data_dir.absolute() / _STORES / cluster.instance)


def _forget_other_stores(stores: Path, instance: str) -> None:
    """Of sandboxes that are gone: they can be of no use any more."""
    for directory in stores.iterdir():
        if _INSTANCE.fullmatch(directory.name) and directory.name != instance:
            shutil.rmtree(directory, ignore_errors=True)


def _write_sample(base: Path) -> Path:
    """The sample descriptor as a file that a person may edit; one that is there stays."""
    path = base / f"{sample.APP}.json"
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(sample.descriptor(), indent=2) + "\n")
    return path


def _welcome(url: str, cluster: Sandbox, descriptor: Path) -> str:
    api, namespace = url.rstrip("/"), sample.NAMESPACE
    return f"""\
The Deployer runs on the embedded sandbox; Ctrl-C ends both.

  export API={api} INGRESS={cluster.ingress} KUBECONFIG={shlex.quote(cluster.kubeconfig)}

Store a descriptor, deploy it with the id that it was given, look at its log, and ask the app itself:

  curl -d @{shlex.quote(str(descriptor))} '{api}/descriptors/?namespace={namespace}'

  curl -X POST '{api}/deployments/?namespace={namespace}&descriptorId=<id>'
  curl '{api}/deployments/<id>/logs?namespace={namespace}'
  curl -H 'Host: {sample.HOST}' {cluster.ingress}/
"""


def _kill(state: Path) -> None:
    """Its pods end with it."""
    cluster = Sandbox.attach(state)
    if cluster is not None:
        os.kill(cluster.pid, signal.SIGKILL)
