"""The commands, in click's terms. What they do is elsewhere, and imported only when it is done: `--help` is quick."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import deployer
from deployer.cli.flags import SettingsCommand, config_flag, read_settings, settings_flags
from deployer.cli.guide import guide
from deployer.cli.moving import commands as moving
from deployer.cli.sandbox.sample import DECIDED
from deployer.cli.verbs import Verbs
from deployer.core.errors import DeployerError
from deployer.core.model.hosts import is_loopback

# What is worth turning while one plays.
_PLAYED_WITH = (
    *("deployport", "ingress", "data_dir", "timeout", "start_timeout", "proxysleep", "preview_host", "pod_security"),
    *("enable_service_links", "etcd", "auth", "log_level"),
)
_ONLY_HERE = (
    "without authentication it answers this machine only, which in a container is nobody: set --auth, and --deployhost "
    "to 0.0.0.0 (docs/authentication.md)"
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(cls=Verbs, context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(deployer.__version__, message="deployer %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Blue-green deployments for Kubernetes.

    Begin with `deployer demo`, which shows what it does in half a minute, or with `deployer sandbox`, to play with it.
    Neither needs a cluster.
    """
    if context.invoked_subcommand is None:
        click.echo(guide(cli.list_commands(context)))


@cli.command(cls=SettingsCommand, short_help="Run the service on a cluster.")
@settings_flags()
def serve(config: Path | None, **flags: Any) -> None:
    """Run the service: REST, log stream and deployments, until SIGTERM or Ctrl-C.

    Settings come from flags, then DEPLOYER_* variables, then the file, then the defaults. The flags of the original
    work too, with one dash or two: -kubernetes -etcd -deployport -kubernetesusername -kubernetespassword -timeout
    -proxysleep -skipServerCertValidation.
    """
    settings = read_settings(config, flags)
    from deployer.cli import process, wiring

    ending = process.Ending()
    process.log_to_stderr(settings.log_level, settings.log_format)
    running = wiring.start(settings, loading=ending.at_once())
    with contextlib.suppress(OSError):  # nobody can read it, as on a full disk; the service is there all the same
        click.echo(f"deployer {deployer.__version__} on {running.url}")
        if settings.auth == "none" and is_loopback(settings.deployhost):
            click.echo(_ONLY_HERE)
    ending.wait()
    running.stop()


@cli.command(cls=SettingsCommand, short_help="Run the service on an embedded Kubernetes stand-in, to play with.")
@click.option(
    "--ingress-port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    show_default="8081",
    help="Port of the sandbox's ingress; 0 takes any free one.",
)
@settings_flags(
    refused=(*DECIDED, "loopback_pods"),
    why="has no place here: the sandbox is the cluster; `deployer serve` runs on a real one",
    shown=_PLAYED_WITH,
)
def sandbox(config: Path | None, ingress_port: int | None, **flags: Any) -> None:
    """Run the service on the embedded sandbox, to play with, until Ctrl-C. Needs no cluster and no root.

    Nothing real is deployed: pods are small sample programs on this machine, whatever their image says. --data-dir
    gets the audit log, an example descriptor, and the directories `sandbox` and `sandbox-stores`; what is deployed ends
    with the sandbox. A default port that is taken gives way to a free one.

    The other settings of `deployer serve` work too, but for those that say where the cluster is.
    """
    settings = read_settings(config, flags)
    from deployer.cli.sandbox import playground

    with _errors_of_the_sandbox():
        playground.run(settings, ingress_port)


@cli.command(short_help="Play a blue-green deployment under load.")
@click.option("--rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True, help="Requests a second.")
def demo(rate: float) -> int:
    """Deploy three versions of a sample app on the embedded sandbox while requests keep coming, and count them.

    The third version says that it is not healthy, and is refused. Exit code 0 means that no request was lost and that
    version 2 serves in the end.
    """
    from deployer.cli import process
    from deployer.cli.sandbox import demo as play

    process.log_to_stderr("error", audit=False)
    with contextlib.closing(process.Interrupts()) as interrupts, _errors_of_the_sandbox():
        return play.run(rate, interrupts)


@cli.command(short_help="List the plugins that are installed.")
@config_flag
@click.option("--traceback", is_flag=True, help="Show where the quarantined ones broke.")
def plugins(config: Path | None, traceback: bool) -> None:
    """List the plugins that are installed, what they provide, and why one cannot be used."""
    settings = read_settings(config, {}, whole=False)
    from deployer.cli import listing, process
    from deployer.plugin_manager.loader import load_plugins
    from deployer.redaction.redactor import redactor_for

    process.log_nowhere()
    registry = load_plugins(settings, strict=False)
    listing.show(redactor_for(settings).clean_document(registry.describe()), tracebacks=traceback)
    registry.check_tables()


for moves in (moving.export, moving.import_, moving.backup):
    cli.add_command(moves)


@contextlib.contextmanager
def _errors_of_the_sandbox() -> Iterator[None]:
    """The sandbox imports nothing of ours, so that its errors are none of ours either; here they become one."""
    from deployer.sandbox import SandboxError

    try:
        yield
    except SandboxError as error:
        raise DeployerError(str(error)) from error
