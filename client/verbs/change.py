"""`deployer rollback`, `undeploy`, `cancel`, `approve` and `reject`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deployer.client import completion
from deployer.client.errors import ExitCode, Interrupted, Refused, Unauthorised
from deployer.client.following.state import Goal, Outcome
from deployer.client.following.state import name as named
from deployer.client.output.formats import emit, output_flag
from deployer.client.output.words import one_line
from deployer.client.session import Session, interactive, say, session, show
from deployer.client.verbs import common
from deployer.client.verbs.watch import looks_like_id

if TYPE_CHECKING:
    from deployer.client.service import Service

F = TypeVar("F", bound=Callable[..., Any])


@click.command(short_help="Go back to an earlier version.")
@session
@click.argument("app", shell_complete=completion.apps)
@click.option("--to", metavar="ID|VERSION", help="Deployment or version to go back to.  [default: the one before]")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Show what happens until it has ended.")
@common.timeout_flag
@common.report_flags
@output_flag
def rollback(
    session: Session,
    *,
    app: str,
    to: str | None,
    follow: bool,
    timeout: float | None,
    junit: str | None,
    report: str | None,
    output: str | None,
) -> int:
    """Go back to the version before, or to another one that was live. A deployment under way is cancelled first.

    The stored descriptor does not change: deploy it again and it is as before.
    """
    common.check_reports(junit, report)
    service = session.service
    if to is not None and not looks_like_id(to):
        to = _deployment_of(session, app, to)
    ends = _log_ends(service, app, to) if follow else {}
    with common.may_have_begun("the rollback", service, app):
        asked = service.roll_back(app, to)
    id, plan = str(asked["id"]), asked.get("rollback", {})
    how = "still warm: one switch" if plan.get("warm") else "deployed once more, as it was"
    say(f"{app}: back to version {plan.get('version') or asked.get('version')}, {how} (deployment {id})")
    if not follow:
        sentence = f"the rollback to {named(asked)} is queued"
        return common.conclude(service, Outcome(ExitCode.DONE, sentence, asked), output=output, followed=False)
    # It may be live already, when only a deployment under way had to be cancelled.
    outcome = common.follow(service, id, until=Goal.LIVE, timeout=timeout, patient=False, after=ends.get(id, 0))
    return common.conclude(service, outcome, output=output, junit=junit, report=report)


def _log_ends(service: Service, app: str, to: str | None) -> dict[str, int]:
    """Where the logs of deployments end that may come back: what is in them by now is not about the rollback.

    Who may roll back without being allowed to read is not stopped by it: the whole log is followed then.
    """
    try:
        found = service.app(app) or {}
        ids = [to] if to else [found[which]["deployment"] for which in ("warm", "live") if which in found]
        return {id: service.log_end(id) for id in ids}
    except (Refused, Unauthorised):
        return {}


def _deployment_of(session: Session, app: str, version: str) -> str:
    """The newest deployment of a version that was live. Raises Refused."""
    live = {"deployed", "upgraded", "rolledback", "replaced"}
    for entry in session.service.history(app, 1000):
        if entry["version"] == version and entry.get("outcome") in live:
            return str(entry["deployment"])
    raise Refused(f"no version {version} of {app} was live; `deployer history {app}` lists what was")


@click.command(short_help="Remove an app's live version.")
@session
@click.argument("app", shell_complete=completion.apps)
@click.option("-y", "--yes", is_flag=True, help="Do not ask first.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait until it is removed.")
@common.timeout_flag
@output_flag
def undeploy(session: Session, *, app: str, yes: bool, follow: bool, timeout: float | None, output: str | None) -> int:
    """Remove the live version of an app with its route and pods. Its descriptor and its history stay.

    In a terminal it asks first; in a pipeline it never does.
    """
    service = session.service
    found = service.app(app)
    if found is None:
        raise Refused(
            f"there is no app {app} in namespace {service.namespace}; `deployer status` lists those there are"
        )
    if "live" not in found:
        say(f"nothing of {app} is live in namespace {service.namespace}")
        return ExitCode.DONE
    live = found["live"]
    if interactive() and not yes:
        hosts = f", which serves {', '.join(found['hosts'])}" if found.get("hosts") else ""
        click.confirm(one_line(f"Remove version {live['version']} of {app}{hosts}?"), abort=True, err=True)
    return _end(session, app, str(live["deployment"]), follow=follow, timeout=timeout, output=output)


@click.command(short_help="Stop a deployment that is under way.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait until everything of it is removed.")
@common.timeout_flag
@output_flag
def cancel(session: Session, which: str, follow: bool, timeout: float | None, output: str | None) -> int:
    """Stop a deployment, or the one of an app that is under way, and undo what it has done. A live version stays."""
    service = session.service
    if looks_like_id(which):
        id = which
    else:
        app = service.app(which)
        queue = app.get("queue", ()) if app else ()
        if not queue:
            raise Refused(f"no deployment of {which} is under way in namespace {service.namespace}")
        id = str(queue[0]["deployment"])
    found = service.deployment(id)
    if found["status"] == "DEPLOYED":
        raise Refused(f"{named(found)} is live: there is nothing to cancel; `deployer undeploy` removes it")
    if found["status"] in ("FAILURE", "UNDEPLOYED"):
        say(f"{named(found)} has ended already: {found['status']}")
        return ExitCode.DONE
    return _end(session, common.app_name(found), id, follow=follow, timeout=timeout, output=output)


def _end(session: Session, app: str, id: str, *, follow: bool, timeout: float | None, output: str | None) -> int:
    """Ask for the end of a deployment, and wait for it."""
    from deployer.client.following.ending import await_end

    service = session.service
    with common.may_have_begun("the removal", service, app):
        found = service.undeploy(id)
    if follow:
        try:
            found = await_end(service, id, timeout=timeout)
        except KeyboardInterrupt:
            raise Interrupted(
                f"the removal of {named(found)} goes on; `deployer status {app} -n {service.namespace}` shows it"
            ) from None
    over = found["status"] in ("UNDEPLOYED", "FAILURE")
    code = ExitCode.DONE if over or not follow else ExitCode.RUNNING
    if output is not None:
        emit(output, found, [f"deployment/{id}"])
    else:
        ending = "is removed" if over else "is being removed"
        show(f"{named(found)} {ending} (deployment {id})")
    return code


@click.command(short_help="Let a deployment pass the gate that waits.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@click.option("--gate", metavar="NAME", help="Which gate, where several wait.")
@click.option("--comment", default="", help="Kept and shown with the decision.")
@output_flag
def approve(session: Session, which: str, gate: str | None, comment: str, output: str | None) -> int:
    """Say that the gate which waits may be passed. The deployment goes on right after."""
    return _decide(session, which=which, decision={"approve": True}, gate=gate, comment=comment, output=output)


@click.command(short_help="Take a deployment back at the gate that waits.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@click.option("--gate", metavar="NAME", help="Which gate, where several wait.")
@click.option("--comment", default="", help="Kept and shown with the decision.")
@output_flag
def reject(session: Session, which: str, gate: str | None, comment: str, output: str | None) -> int:
    """Say that the gate which waits may not be passed. The deployment is taken back right after."""
    return _decide(session, which=which, decision={"approve": False}, gate=gate, comment=comment, output=output)


def _waiting(service: Service, app: str) -> str:
    """The deployment of an app that waits for a decision: newer ones queue behind it. Raises Refused."""
    for summary in service.deployments(app, status="DEPLOYING"):
        found = service.deployment(str(summary["id"]))
        if any(gate.get("waitsForApproval") for gate in found.get("gates") or ()):
            return str(found["id"])
    where = f"{app} in namespace {service.namespace}"
    raise Refused(f"no deployment of {where} waits for a decision; `deployer status {app}` shows what is under way")


def _decide(
    session: Session, *, which: str, decision: dict[str, Any], gate: str | None, comment: str, output: str | None
) -> int:
    id = which if looks_like_id(which) else _waiting(session.service, which)
    decision |= ({"gate": gate} if gate else {}) | ({"comment": comment} if comment else {})
    recorded = session.service.decide(id, decision)
    if output is not None:
        emit(output, recorded, [f"deployment/{id}"])
    else:
        by = f" by {recorded['by']}" if recorded.get("by") else ""
        which_gate = f" {recorded['gate']}" if recorded.get("gate") else ""
        show(f"gate{which_gate} {'approved' if recorded['approve'] else 'rejected'}{by} (deployment {id})")
    return ExitCode.DONE
