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
import socket
from collections.abc import Iterator
from pathlib import Path

import click

from deployer import sandbox
from deployer.cli import process, wiring
from deployer.cli.sandbox import sample
from deployer.core.errors import SettingsError
from deployer.sandbox import Sandbox
from deployer.settings import Settings, option
from deployer.store.advice import advice

INGRESS_PORT = 8081
"""Of the sandbox's ingress, when nobody else has it: what was typed yesterday works today."""

_STATE = "sandbox"
_AUDIT = "audit.log"
_STORES = "sandbox-stores"
_INSTANCE = re.compile(r"[0-9a-f]{32}")


def run(settings: Settings, ingress_port: int | None = None) -> None:
    """Serve until a signal comes; then stop both. The settings' data directory holds everything.

    ingress_port   of the sandbox's ingress; None: `INGRESS_PORT`, or a free one when that is taken. A sandbox that runs
                   already keeps its own
    """
    if settings.auth == "kubernetes":
        raise SettingsError("the sandbox has no accounts to ask about: --auth kubernetes needs a real cluster")
    base = settings.data_dir.absolute()
    settings = _with_plugins(settings)
    process.log_to_stderr(settings.log_level, settings.log_format, audit=base / _AUDIT)
    wiring.checked(settings, complete=False)
    if ignored := [name for name in sample.DECIDED if getattr(settings, name)]:
        click.echo(f"without effect, since the sandbox is the cluster: {', '.join(ignored)}", err=True)
    with _usable(base):
        base.mkdir(parents=True, exist_ok=True)
        (base / _AUDIT).touch()
        ending = process.Ending(at_once=lambda: _kill(base / _STATE))
        found = Sandbox.attach(base / _STATE)
        cluster = found or sandbox.start(base / _STATE, ingress_port=_ingress_port(ingress_port))
    try:
        running = wiring.start(fit(settings, cluster), complete=False)
    except BaseException:
        # One that was there already may be somebody's, who uses it right now.
        if found is None:
            cluster.stop()
        raise
    try:
        _forget_other_stores(base / _STORES, cluster.instance)
        click.echo(_welcome(running.url, cluster, _write_sample(base), base / _AUDIT))
        ending.wait()
        click.echo("\nstopping")
    finally:
        running.stop(5.0)
        cluster.stop()


def fit(settings: Settings, cluster: Sandbox) -> Settings:
    """The settings for that sandbox. Objects live in its memory, so each sandbox has a store of its own: records of
    what no longer exists would only be in the way."""
    fields = sample.sandbox_settings(cluster) | {"plugins": settings.plugins, "deployport": _port(settings)}
    return dataclasses.replace(settings, **fields, data_dir=settings.data_dir.absolute() / _STORES / cluster.instance)


def _with_plugins(settings: Settings) -> Settings:
    """What ingress providers must know of the sandbox, and over it what the settings say."""
    names = sample.PLUGINS.keys() | settings.plugins.keys()
    tables = {name: {**sample.PLUGINS.get(name, {}), **settings.plugins.get(name, {})} for name in names}
    return dataclasses.replace(settings, plugins=tables)


@contextlib.contextmanager
def _usable(base: Path) -> Iterator[None]:
    """Turns what is wrong with the data directory into a SettingsError."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"--data-dir {base} cannot be used ({error.strerror or error}); {advice(error)}") from None


def _port(settings: Settings) -> int:
    """Of REST: the default gives way when it is taken. What somebody asked for does not."""
    wanted = settings.deployport
    return wanted if wanted != option("deployport").default else _free(wanted, settings.deployhost)


def _ingress_port(wanted: int | None) -> int:
    return _free(INGRESS_PORT) if wanted is None else wanted


def _free(port: int, host: str = "127.0.0.1") -> int:
    """The port, or 0 for any when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        click.echo(f"port {port} is taken: another one is used", err=True)
        return 0
    return port


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


def _welcome(url: str, cluster: Sandbox, descriptor: Path, audit: Path) -> str:
    api, namespace = url.rstrip("/"), sample.NAMESPACE
    example, kubeconfig = shlex.quote(str(descriptor)), shlex.quote(cluster.kubeconfig)
    return f"""\
The Deployer runs on the embedded sandbox; Ctrl-C ends both.

  {api}/ is a page to begin with
  {audit} is the audit log

For another terminal, and for the tour in the README:

  export API={api} DEPLOYER_SERVER={api} INGRESS={cluster.ingress} EXAMPLE={example} KUBECONFIG={kubeconfig}

Deploy the example and follow it:

  deployer deploy {example} --server {api}

The same by REST: store a descriptor, deploy it with the id that it was given,
look at the log of the deployment by the id of that, and ask the app itself:

  curl -d @{example} '{api}/descriptors/?namespace={namespace}'

  curl -X POST '{api}/deployments/?namespace={namespace}&descriptorId=<id>'
  curl '{api}/deployments/<id>/logs?namespace={namespace}'
  curl -H 'Host: {sample.HOST}' {cluster.ingress}/
"""


def _kill(state: Path) -> None:
    """Its pods end with it."""
    cluster = Sandbox.attach(state)
    if cluster is not None:
        os.kill(cluster.pid, signal.SIGKILL)
