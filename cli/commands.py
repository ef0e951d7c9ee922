"""The commands, in click's terms. What they do is elsewhere, and imported only when it is done: `--help` is quick."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

import deployer
from deployer.cli.flags import config_flag, read_settings, settings_flags
from deployer.core.settings import is_loopback

# Where the cluster and the records are: the sandbox and the demo decide that themselves.
_DECIDED = (
    "kubernetes",
    "kubernetes_username",
    "kubernetes_password",
    "kubernetes_token_file",
    "kubernetes_ca_file",
    "kubeconfig",
    "kube_context",
    "skip_server_cert_validation",
    "ingress",
    "loopback_pods",
    "own_namespace",
)
_ONLY_HERE = (
    "without authentication it answers this machine only, which in a container is nobody: set --auth, and --deployhost "
    "to 0.0.0.0 (docs/authentication.md)"
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(context_settings=_CONTEXT)
@click.version_option(deployer.__version__, message="deployer %(version)s")
def cli() -> None:
    """Blue-green deployments for Kubernetes.

    `deployer sandbox` is the place to begin: it needs no cluster.
    """


@cli.command(short_help="Run the service.")
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
    process.log_to_stderr(settings.log_level)
    running = wiring.start(settings)
    click.echo(f"deployer {deployer.__version__} on {running.url}")
    if settings.auth == "none" and is_loopback(settings.deployhost):
        click.echo(_ONLY_HERE)
    ending.wait()
    running.stop()


@cli.command(short_help="Run the service on an embedded Kubernetes stand-in.")
@settings_flags(without=_DECIDED)
def sandbox(config: Path | None, **flags: Any) -> None:
    """Run the service on the embedded sandbox, to play with, until Ctrl-C. Needs no cluster and no root.

    Nothing real is deployed: pods are small sample programs on this machine, whatever their image says. --data-dir
    gets the directories `sandbox` and `sandbox-stores`; what is deployed ends with the sandbox.
    """
    settings = read_settings(config, flags)
    from deployer.cli import playground, process

    process.log_to_stderr(settings.log_level)
    playground.run(settings)


@cli.command(short_help="Play a blue-green deployment under load.")
@click.option("--rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True, help="Requests a second.")
def demo(rate: float) -> int:
    """Deploy three versions of a sample app on the embedded sandbox while requests keep coming, and count them.

    The third version says that it is not healthy, and is refused. Exit code 0 means that no request was lost and that
    version 2 serves in the end.
    """
    from deployer.cli import demo as play
    from deployer.cli import process

    process.log_to_stderr("error", audit=False)
    with contextlib.closing(process.Interrupts()) as interrupts:
        return play.run(rate, interrupts)


@cli.command(short_help="List the plugins that are installed.")
@config_flag
@click.option("--traceback", is_flag=True, help="Show where the quarantined ones broke.")
def plugins(config: Path | None, traceback: bool) -> None:
    """List the plugins that are installed, what they provide, and why one cannot be used."""
    settings = read_settings(config, {})
    from deployer.cli import listing, process
    from deployer.core.plugins import load
    from deployer.core.redaction import redactor_for

    process.log_nowhere()
    listing.show(redactor_for(settings).clean_document(load(settings).describe()), tracebacks=traceback)
