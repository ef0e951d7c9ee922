"""The import of the original's records, as the command does it: into the store of a world that is stopped."""

from __future__ import annotations

import json
from contextlib import closing

from deployer.commands.descriptor_commands import DescriptorCommands
from deployer.kube import client as kube_client
from deployer.kube.informer import Informers
from deployer.original.cluster import OriginalCluster
from deployer.original.importing import OriginalImport, Report
from deployer.original.source import read
from deployer.store.sqlite import SqliteStore
from support.original_records import Records
from support.world import World


def bring(world: World, found: Records, *, write: bool = True) -> Report:
    """Bring them over; `write` False: as a dry run does."""
    file = world.settings.data_dir / "original.json"
    file.write_text(json.dumps(found.answer()))
    client = kube_client.connect(world.settings)
    with closing(client), closing(Informers(client)) as informers, closing(store_of(world)) as store:
        registry = world.registry
        commands = DescriptorCommands(store, registry, world.settings)
        return OriginalImport(
            store,
            registry,
            OriginalCluster(client, informers, registry, world.settings.instance),
            lambda namespace, document: commands.check(namespace, document, stored=True),
            commands.rules,
            environment=None,
            write=write,
        ).run(read(str(file)))


def store_of(world: World) -> SqliteStore:
    """The store, while no service runs."""
    return SqliteStore(world.settings.data_dir / "deployer.db")
