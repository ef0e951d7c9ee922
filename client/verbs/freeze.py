"""`deployer freeze` and `unfreeze`."""

from __future__ import annotations

import click

from deployer.client.errors import ExitCode
from deployer.client.output.formats import emit, output_flag
from deployer.client.session import Session, say, session, show


def _where(session: Session, everywhere: bool) -> str:
    if everywhere and session.namespace is not None:
        raise click.UsageError("--all-namespaces and --namespace cannot be given together")
    return "*" if everywhere else session.service.namespace


@click.command(short_help="Keep a namespace from new deployments.")
@session
@click.option("--reason", required=True, help="Why; everybody who is refused is told.")
@click.option("--until", metavar="TIME", help="When it ends by itself, such as 2026-12-24T18:00:00Z.  [default: never]")
@click.option("--all-namespaces", "everywhere", is_flag=True, help="Freeze every namespace.")
@output_flag
def freeze(session: Session, reason: str, until: str | None, everywhere: bool, output: str | None) -> int:
    """Keep a namespace from new deployments. What is under way goes on; rollbacks and undeployments go through."""
    where = _where(session, everywhere)
    found = session.service.within(where).freeze({"reason": reason} | ({"until": until} if until else {}))
    if output is not None:
        emit(output, found, [f"freeze/{where}"])
    else:
        ends = f" until {found['until']}" if found.get("until") else ""
        show(f"{'every namespace' if where == '*' else where} is frozen{ends}: {found['reason']}")
    return ExitCode.DONE


@click.command(short_help="Lift the freeze of a namespace.")
@session
@click.option("--all-namespaces", "everywhere", is_flag=True, help="Lift the freeze of every namespace.")
def unfreeze(session: Session, everywhere: bool) -> int:
    """Lift the freeze that somebody put on a namespace. Windows of the service's settings stay."""
    where = _where(session, everywhere)
    service = session.service.within(where)
    service.unfreeze()
    show(f"the freeze of {'every namespace' if where == '*' else where} is lifted")
    for left in service.freezes():
        say(f"still frozen: {left['namespace']}: {left['reason']}")
    return ExitCode.DONE
