"""`export`, `import` and `backup`, in click's terms. What they do is imported only when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from deployer.cli.flags import SettingsCommand, read_settings, settings_flags

# Those that say where the store is.
_WHERE = (
    *("store", "data_dir", "etcd", "etcd_username", "etcd_password", "etcd_ca_file", "etcd_cert_file", "etcd_key_file"),
    *("etcd_prefix", "etcd_timeout"),
)
# ... and which cluster it is about.
_CLUSTER = (
    *("kubernetes", "kubernetes_username", "kubernetes_password", "kubernetes_token_file", "kubernetes_ca_file"),
    *("skip_server_cert_validation", "ingress"),
)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("export", cls=SettingsCommand, short_help="Write everything that a store holds to a file.")
@click.argument("file", type=_FILE)
@settings_flags(shown=_WHERE)
def export(file: Path, config: Path | None, **flags: Any) -> None:
    """Write everything that the store holds to FILE, as it is at one moment; the service may run meanwhile.

    FILE is complete or not written at all. It holds the secrets of every app, so only its owner can read it: keep it
    so. `deployer import` brings it into an empty store of any kind.
    """
    settings = read_settings(config, flags, whole=False)
    from deployer.cli.moving import moving

    with _interrupts():
        moving.export(settings, file)


@click.command("import", cls=SettingsCommand, short_help="Bring an export, or the original's records, into a store.")
@click.argument("file", type=_FILE, required=False)
@click.option(
    "--from-original",
    metavar="URL|FILE",
    help="Bring over the records of the original Deployer instead: the address of its etcd, or a file with what that "
    "answered to GET /v2/keys/deployer?recursive=true&quorum=true.",
)
@click.option("--dry-run", is_flag=True, help="With --from-original: say what would be done, and write nothing.")
@settings_flags(shown=(*_WHERE, *_CLUSTER))
def import_(file: Path | None, from_original: str | None, dry_run: bool, config: Path | None, **flags: Any) -> None:
    """Bring everything of FILE, which `deployer export` wrote, into an empty store that no service uses.

    What was interrupted goes on when the command is run again. In the end the store is compared with FILE, by count
    and checksum of each kind. The next `deployer serve` resumes the operations that were open.

    With --from-original, which needs the cluster: descriptors and deployments keep their ids, and what serves is marked
    as this Deployer's, without a restart. Everything that is dropped or changed is printed. A second run changes
    nothing.
    """
    if (file is None) == (from_original is None):
        raise click.UsageError("name either FILE or --from-original")
    if dry_run and from_original is None:
        raise click.UsageError("--dry-run goes with --from-original: an import of FILE checks it before it writes")
    settings = read_settings(config, flags, whole=False)
    if from_original is not None:
        from deployer.cli.moving import original

        with _interrupts():
            original.import_original(settings, from_original, dry_run=dry_run)
    elif file is not None:
        from deployer.cli.moving import moving

        with _interrupts():
            moving.import_(settings, file)


@click.command("backup", cls=SettingsCommand, short_help="Copy the embedded store while the service runs.")
@click.argument("target", metavar="FILE|DIR", type=click.Path(path_type=Path))
@settings_flags(shown=("data_dir",))
def backup(target: Path, config: Path | None, **flags: Any) -> None:
    """Copy the embedded store to FILE, or to a new file in DIR, as it is at one moment; the service may run meanwhile.

    The copy is checked and complete, or not written at all. It holds the secrets of every app, so only its owner can
    read it: keep it so. To restore it, put it into an empty data directory as `deployer.db`.
    """
    settings = read_settings(config, flags, whole=False)
    from deployer.cli.moving import moving

    with _interrupts():
        moving.backup(settings, target)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Whoever ends the process, nothing that is half written stays beside the file."""
    from deployer.cli import process

    with contextlib.closing(process.Interrupts()):
        yield
