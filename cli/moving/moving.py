"""What `export`, `import` and `backup` do, and what they say of it."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

import click

from deployer.cli.moving import stores
from deployer.core.errors import SettingsError
from deployer.core.model.records import Document
from deployer.settings import Settings
from deployer.store.selection import in_etcd, name_of
from deployer.store.transfer import export_file, importing
from deployer.store.transfer.export_file import LOG, TOKEN
from deployer.store.transfer.sqlite import SqliteFile


def export(settings: Settings, file: Path) -> None:
    """Write the export. Raises DeployerError."""
    name = name_of(settings)
    with stores.source(settings) as items:
        sums = export_file.write(file, items)
    click.echo(f"exported {_counted(sums.document())} from {name} to {file}, which holds secrets: keep it to yourself")


def import_(settings: Settings, file: Path) -> None:
    """Bring it in. Raises DeployerError."""
    found = export_file.ExportFile(file)
    found.check()  # before a store is made where there was none
    name = name_of(settings)
    with contextlib.closing(stores.target(settings)) as store:
        outcome = importing.run(store, name, found)
    counted = _counted(outcome.sums)
    said = {
        "imported": f"imported {counted} into {name}",
        "resumed": f"went on with the import that was interrupted: {counted} are in {name}",
        "nothing": f"{file} was imported into {name} before: nothing to do",
    }
    click.echo(said[outcome.did])


def backup(settings: Settings, target: Path) -> None:
    """Make it. Raises DeployerError."""
    if in_etcd(settings):
        raise SettingsError(
            f"the records are in {name_of(settings)}: use `etcdctl snapshot save`, or `deployer export`; a file of the "
            "embedded store is copied with --store sqlite"
        )
    now = datetime.datetime.now(datetime.UTC)
    file = target / f"deployer-{now:%Y%m%dT%H%M%SZ}.db" if target.is_dir() else target
    source = stores.embedded(settings)
    size = SqliteFile(source).backup(file)
    click.echo(f"copied {source} to {file} ({size} bytes), which holds secrets: keep it to yourself")


def _counted(sums: Document) -> str:
    """`3 deployments, 40 log lines and 2 other records`, as far as there are any."""
    deployments = sums.get("deployment", {}).get("count", 0)
    lines = sums.get(LOG, {}).get("count", 0)
    others = sum(found["count"] for kind, found in sums.items() if kind not in ("deployment", LOG, TOKEN))
    return f"{_of(deployments, 'deployment')}, {_of(others, 'other record')} and {_of(lines, 'log line')}"


def _of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
