"""What `import --from-original` does, and what it says of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click

from deployer.cli import wiring
from deployer.cli.moving import stores
from deployer.commands.descriptor_commands import DescriptorCommands
from deployer.core.errors import DeployerError
from deployer.core.ports.store import Store
from deployer.core.registry import Registry
from deployer.kube import client as kube_client
from deployer.kube.informer import Informers
from deployer.original.cluster import OriginalCluster
from deployer.original.importing import OriginalImport, Report, TakesEnvironment
from deployer.original.source import read
from deployer.settings import Settings
from deployer.store.selection import name_of
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer.state import require_whole

ENVIRONMENT = "env_etcd"
"""The plugin that injects what the original injected."""


def import_original(settings: Settings, where: str, *, dry_run: bool) -> None:
    """Bring it over. Raises DeployerError."""
    source = read(where)
    registry = wiring.checked(settings, complete=True)
    with contextlib.ExitStack() as opened:
        client = kube_client.connect(settings)
        opened.callback(client.close)
        if problem := wiring.ask(client):
            raise DeployerError(problem)  # before a store is made where there was none
        informers = Informers(client)
        opened.callback(informers.close)
        store = opened.enter_context(_copied(settings) if dry_run else _opened(settings))
        commands = DescriptorCommands(store, registry, settings)
        report = OriginalImport(
            store,
            registry,
            OriginalCluster(client, informers, registry, settings.instance),
            lambda namespace, document: commands.check(namespace, document, stored=True),
            commands.rules,
            environment=_injector(registry),
            write=not dry_run,
        ).run(source)
    _say(report, name_of(settings), dry_run)


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    with contextlib.closing(stores.target(settings)) as store:
        require_whole(store, name_of(settings))
        yield store


@contextlib.contextmanager
def _copied(settings: Settings) -> Iterator[Store]:
    """A copy of the store, which may be in use, or not be there yet: so a dry run does all that the other one does."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as opened:
        copy = opened.enter_context(contextlib.closing(SqliteStore(Path(directory) / "deployer.db")))
        for item in opened.enter_context(stores.content(settings)):
            copy.load([item])
        yield copy


def _injector(registry: Registry) -> TakesEnvironment | None:
    found = [entry.provider for entry in registry.env_injectors.values() if entry.plugin == ENVIRONMENT]
    return cast(TakesEnvironment, found[0]) if found else None


def _say(report: Report, name: str, dry_run: bool) -> None:
    for line in report.lines:
        click.echo(line)
    counted = ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in report.new.items())
    if dry_run:
        click.echo(f"would bring {counted or 'nothing'} into {name}; nothing was written")
    else:
        click.echo(f"brought {counted or 'nothing new'} into {name}")
