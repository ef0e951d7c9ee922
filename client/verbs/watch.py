"""`deployer wait` and `deployer logs`."""

from __future__ import annotations

import sys
from typing import Any

import click

from deployer.client import completion
from deployer.client.errors import ExitCode, Interrupted, Refused
from deployer.client.following.state import MEANINGS, Goal, ended
from deployer.client.output.formats import output_flag
from deployer.client.output.words import no_command, printable
from deployer.client.session import Session, session
from deployer.client.verbs import common


@click.command(short_help="Wait until a deployment is live, switched or retired.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@click.option(
    "--for",
    "until",
    type=click.Choice([goal.value for goal in Goal]),
    default=Goal.LIVE.value,
    show_default=True,
    help="; ".join(f"{goal}: {text}" for goal, text in MEANINGS.items()) + ".",
)
@common.timeout_flag
@click.option("--keep-waiting", is_flag=True, help="Go on while a person has to decide, instead of ending with 6.")
@common.report_flags
@output_flag
def wait(
    session: Session,
    *,
    which: str,
    until: str,
    timeout: float | None,
    keep_waiting: bool,
    junit: str | None,
    report: str | None,
    output: str | None,
) -> int:
    """Follow a deployment, or the newest one of an app, until it is live. The exit codes are those of `deploy`."""
    common.check_reports(junit, report)
    service = session.service
    id = deployment_id(session, which)
    outcome = common.follow(service, id, until=Goal(until), timeout=timeout, patient=keep_waiting)
    return common.conclude(service, outcome, output=output, junit=junit, report=report)


@click.command(short_help="Show the log of a deployment, live with -f.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the deployment has ended.")
def logs(session: Session, which: str, follow: bool) -> int:
    """Show the log of a deployment, or of the newest one of an app. With -f the exit code says how it ended."""
    service = session.service
    id = deployment_id(session, which)
    if not follow:
        text, _ = service.log(id)
        click.echo(_shown(text), nl=False)
        return ExitCode.DONE
    from deployer.client.log_stream import LogStream

    stream = LogStream(session.connection, service.namespace, id)
    try:
        for message in stream.messages():
            click.echo(_shown(message))
    except KeyboardInterrupt:
        raise Interrupted(common.goes_on(service, id)) from None
    outcome = ended(service.deployment(id), "")
    return outcome.exit_code if outcome is not None else ExitCode.DONE


def deployment_id(session: Session, which: str) -> str:
    """Of a deployment, or of the newest one of an app. Raises Refused."""
    if looks_like_id(which):
        return which
    found: list[dict[str, Any]] = session.service.deployments(which, limit=1)
    if not found:
        where = session.service.namespace
        raise Refused(
            f"there is no deployment of an app {which} in namespace {where}; `deployer status` lists the apps"
        )
    return str(found[0]["id"])


def looks_like_id(text: str) -> bool:
    """Is it a UUID, as deployments and descriptors have them?"""
    import uuid

    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _shown(text: str) -> str:
    """To a terminal or a runner nothing that it would obey; to everything else as it is."""
    return printable(text) if sys.stdout.isatty() else no_command(text)
