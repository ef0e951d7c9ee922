"""`deployer status`, `get`, `history` and `health`."""

from __future__ import annotations

from typing import Any

import click

from deployer.client import completion
from deployer.client.errors import ExitCode, Refused
from deployer.client.output.formats import emit, fields, output_flag, table
from deployer.client.output.words import age, duration, one_line, seconds_of
from deployer.client.session import Session, session
from deployer.core.clock import wall_clock

Document = dict[str, Any]


@click.command(short_help="What is live, and what is under way.")
@session
@click.argument("app", required=False, shell_complete=completion.apps)
@click.option("--addresses", is_flag=True, help="Also ask which address of the data plane answers with which version.")
@output_flag
def status(session: Session, app: str | None, addresses: bool, output: str | None) -> int:
    """Show the apps of a namespace, or one app with all that is queued, warm and frozen."""
    service = session.service
    if app is None:
        if addresses:
            raise click.UsageError("--addresses needs the name of an app")
        found = service.apps()
        if output is not None:
            emit(output, found, (str(one["appName"]) for one in found))
        else:
            head = ("APP", "LIVE", "PODS", "SINCE", "STATE")
            table(head, map(_app_row, found), empty=f"there are no apps in namespace {service.namespace}")
        return ExitCode.DONE
    one = service.app(app)
    if one is None:
        raise Refused(
            f"there is no app {app} in namespace {service.namespace}; `deployer status` lists those there are"
        )
    if addresses:
        one = {**one, "dataPlane": service.data_plane(app)}
    if output is not None:
        emit(output, one, [str(one["appName"])])
        return ExitCode.DONE
    told = one.get("dataPlane", {})
    rows = [_address_row(answer) for answer in told.get("addresses", ())]
    fields(_app_fields(one))
    if addresses:
        click.echo()
        empty = f"no address was asked: {told.get('unknown', '')}"
        table(("ADDRESS", "VERSION", "HTTP", "TOOK", "REMARK"), rows, empty=empty, expendable=(3,))
    return ExitCode.DONE


def _app_row(app: Document) -> tuple[str, ...]:
    live, comes = app.get("live"), app.get("upcoming")
    under_way = f"{_version(comes)}: {_doing(comes)}" if comes else _doing(live) if live and "phase" in live else ""
    if not under_way and not live and app.get("lastFailure"):
        under_way = f"failed: {app['lastFailure']['reason']}"
    return (str(app["appName"]), live["version"] if live else "-", _pods(app), _since(live), under_way or "-")


def _app_fields(app: Document) -> list[tuple[str, str]]:
    live, warm, failure = app.get("live"), app.get("warm"), app.get("lastFailure")
    lines = [
        ("app", f"{app['appName']} in namespace {app['namespace']}"),
        ("live", _member(live, _pods(app)) if live else "nothing"),
        ("hosts", ", ".join(app.get("hosts", ()))),
        ("previews", ", ".join(app.get("previewHosts", ()))),
        ("warm", _member(warm, "a rollback to it is one switch") if warm else ""),
    ]
    lines += [(f"queue {n}" if n > 1 else "under way", _member(one)) for n, one in enumerate(app.get("queue", ()), 1)]
    for freeze in app.get("freezes", ()):
        until = f" until {freeze['until']}" if freeze.get("until") else ""
        lines.append(("frozen", f"{freeze['namespace']}{until}: {freeze['reason']}"))
    if failure:
        said = f"version {failure['version'] or '?'} {age(failure['at'], wall_clock())} ago, {failure['reason']}: "
        lines.append(("last failure", f"{said}{failure['message']} (deployment {failure['deployment']})"))
    return lines


def _address_row(answer: Document) -> tuple[str, ...]:
    """What one address of the data plane answered."""
    address = f"{answer['address']}{' (TLS)' if answer.get('tls') else ''}"
    took = f"{round(answer.get('milliseconds', 0))} ms"
    remark = answer.get("unknown") or ("live" if answer.get("live") else "not the live version")
    return (address, str(answer.get("version", "-")), str(answer.get("status", "-")), took, str(remark))


def _member(member: Document, more: str = "") -> str:
    since = f"for {_since(member)}" if member.get("since") else ""
    parts = [f"version {_version(member)}", since, more, _doing(member)]
    return f"{', '.join(part for part in parts if part)} (deployment {member['deployment']})"


def _version(member: Document) -> str:
    return str(member.get("version") or "next")


def _since(member: Document | None) -> str:
    return age(str(member.get("since", "")), wall_clock()) if member else "-"


def _doing(member: Document | None) -> str:
    """Phase and step, and what is waited for."""
    if not member or "phase" not in member:
        return ""
    if member.get("held"):
        return f"HELD: {member['held']}"
    if kept := _KEPT.get(member["phase"]):
        return f"{kept}{_left(member)}"
    at = f"{member['phase']} {member.get('step', '')}".strip()
    return f"{at}, waiting for {member['waitingFor']}" if member.get("waitingFor") else at


_KEPT = {"WATCH": "watched", "DRAIN": "kept"}
"""What the phases mean in which a version only has to wait."""


def _left(member: Document) -> str:
    left = seconds_of(str(member.get("deadline", ""))) - wall_clock()
    return f" for {duration(left)} more" if left > 0 else ""


def _pods(app: Document) -> str:
    replicas = app.get("replicas")
    if not replicas:
        return "-"
    return "?" if "unknown" in replicas else f"{replicas['ready']}/{replicas['wanted']} ready"


# --- get --------------------------------------------------------------------------------------------------------------

KINDS = ("apps", "deployments", "descriptors", "freezes", "plugins")


@click.command(short_help="Show apps, deployments, descriptors, freezes, plugins.")
@session
@click.argument(
    "kind",
    metavar="apps|deployments|descriptors|freezes|plugins",
    shell_complete=lambda _context, _parameter, begun: [kind for kind in KINDS if kind.startswith(begun)],
)
@click.argument("which", metavar="[NAME|ID]", required=False, shell_complete=completion.apps)
@output_flag
def get(session: Session, kind: str, which: str | None, output: str | None) -> int:
    """Show what the service has: all of a namespace, those of one app, or one by its id; `plugins` are those installed
    there."""
    wanted = next((k for k in KINDS if kind.lower() in (k, k.removesuffix("s"))), "")
    if not wanted:
        raise click.UsageError(f"there is no kind {kind!r}; there are {', '.join(KINDS)}")
    found, one = _find(session, wanted, which)
    if output is not None:
        names = [f"{wanted.removesuffix('s')}/{_name(wanted, item)}" for item in found]
        emit(output, found[0] if one else found, names)
    elif one and wanted == "deployments":
        fields(_deployment_fields(found[0]))
    elif one and wanted == "descriptors":
        emit("yaml", found[0], ())
    else:
        _tables(session, wanted, found, which)
    return ExitCode.DONE


def _find(session: Session, kind: str, which: str | None) -> tuple[list[Document], bool]:
    """What there is, and whether it is the one thing that was asked for."""
    from deployer.client.verbs.watch import looks_like_id

    service = session.service
    if kind == "freezes":
        return (service.within(which) if which else service).freezes(), False
    if kind == "plugins":
        found = service.plugins()
        return [p for p in found if which is None or p["name"] == which], False
    if kind == "apps":
        if which is None:
            return service.apps(), False
        one = service.app(which)
        if one is None:
            raise Refused(f"there is no app {which} in namespace {service.namespace}")
        return [one], True
    if which is not None and looks_like_id(which):
        return [service.deployment(which) if kind == "deployments" else service.descriptor(which)[0]], True
    return (service.deployments(which) if kind == "deployments" else service.descriptors(which)), False


def _name(kind: str, item: Document) -> str:
    field = {"apps": "appName", "freezes": "namespace", "plugins": "name"}.get(kind, "id")
    return str(item.get(field))


def of(app: str | None) -> str:
    """` of shop` in a sentence about one app; empty in one about all."""
    return f" of {app}" if app else ""


def _tables(session: Session, kind: str, found: list[Document], which: str | None) -> None:
    where, now = f"in namespace {session.service.namespace}", wall_clock()
    if kind == "apps":
        table(("APP", "LIVE", "PODS", "SINCE", "STATE"), map(_app_row, found), empty=f"there are no apps {where}")
    elif kind == "deployments":
        rows = [
            (
                str(d["id"]),
                str(d.get("appName") or d.get("descriptor", {}).get("appName", "")),
                str(d.get("version") or "-"),
                str(d["status"]),
                age(str(d.get("created", "")), now),
                one_line((d.get("failure") or {}).get("reason", "") or _doing(d) or "-"),
            )
            for d in found
        ]
        head = ("ID", "APP", "VERSION", "STATUS", "AGE", "WHY")
        table(head, rows, empty=f"there are no deployments{of(which)} {where}", expendable=(4,))
    elif kind == "descriptors":
        table(
            ("ID", "APP", "VERSION", "STRATEGY", "MODIFIED", "IMAGES"),
            (descriptor_row(d, now) for d in found),
            empty=f"there are no descriptors{of(which)} {where}",
            expendable=(3, 2),
        )
    elif kind == "plugins":
        plugins = [
            (
                str(p["name"]),
                f"{p.get('distribution', '')} {p.get('version', '')}".strip(),
                str(p["state"]),
                str(p.get("error") or ", ".join(p.get("provides", ())) or "-"),
            )
            for p in found
        ]
        table(("NAME", "DISTRIBUTION", "STATE", "PROVIDES"), plugins, empty="no plugins are installed", expendable=(1,))
    else:
        freezes = [
            (str(f["namespace"]), str(f["source"]), str(f.get("until", "-")), str(f.get("by", "-")), str(f["reason"]))
            for f in found
        ]
        table(("NAMESPACE", "SOURCE", "UNTIL", "BY", "REASON"), freezes, empty="nothing is frozen")


def descriptor_row(descriptor: Document, now: float) -> tuple[str, ...]:
    """One descriptor in a table."""
    containers = descriptor.get("podspec", {}).get("containers", ())
    return (
        str(descriptor["id"]),
        str(descriptor["appName"]),
        str(descriptor.get("newVersion", "-")),
        str(descriptor.get("deploymentType", "-")),
        f"{age(str(descriptor.get('lastModified', '')), now)} ago",
        ", ".join(str(container.get("image", "?")) for container in containers),
    )


def _deployment_fields(found: Document) -> list[tuple[str, str]]:
    from deployer.client.following.state import name, needs_person

    failure = found.get("failure") or {}
    lines = [
        ("deployment", str(found["id"])),
        ("what", name(found)),
        ("status", str(found["status"])),
        ("doing", _doing(found)),
        ("person", needs_person(found)),
        ("asked", f"{found.get('created', '')}{' by ' + found['createdBy'] if found.get('createdBy') else ''}"),
        ("failure", f"{failure['reason']}: {failure['message']}" if failure else ""),
        ("hint", str(failure.get("hint", ""))),
    ]
    for step in found.get("steps", ()):
        took = _took(step)
        lines.append((f"  {step['id']}", f"{step['state']}{', ' + took if took else ''}"))
    for gate in found.get("gates", ()):
        verdict = gate["verdict"] or "not decided"
        lines.append((f"  gate {gate['name']}", f"{verdict}: {gate['reason']}" if gate["reason"] else verdict))
    return lines


def _took(step: Document) -> str:
    if not step.get("began"):
        return ""
    end = seconds_of(step["ended"]) if step.get("ended") else wall_clock()
    return duration(end - seconds_of(step["began"]))


# --- history and health -----------------------------------------------------------------------------------------------


@click.command(short_help="What was done to an app, newest first.")
@session
@click.argument("app", shell_complete=completion.apps)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Entries at most.")
@output_flag
def history(session: Session, app: str, limit: int, output: str | None) -> int:
    """Show deployments, rollbacks and undeployments of an app: who asked for them, and how they ended."""
    found = session.service.history(app, limit)
    if output is not None:
        emit(output, found, (f"deployment/{entry['deployment']}" for entry in found))
        return ExitCode.DONE
    rows = [
        (
            str(e["version"] or "-"),
            str(e["what"]),
            str(e.get("outcome", "under way")),
            age(str(e["asked"]), wall_clock()),
            duration(float(e["seconds"])) if "seconds" in e else "-",
            str(e.get("by", "-")),
            str(e["deployment"]),
        )
        for e in found
    ]
    head = ("VERSION", "WHAT", "OUTCOME", "AGE", "TOOK", "BY", "DEPLOYMENT")
    table(head, rows, empty=f"nothing was done to {app} yet", wide=5, expendable=(5, 4, 1))
    return ExitCode.DONE


@click.command(short_help="What pods answered to their health checks.")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@output_flag
def health(session: Session, which: str, output: str | None) -> int:
    """Show what the pods of a deployment, or of the newest one of an app, answered to their last health check."""
    from deployer.client.verbs.watch import deployment_id

    found = session.service.health(deployment_id(session, which))
    if output is not None:
        emit(output, found, (f"pod/{entry['podName']}" for entry in found))
        return ExitCode.DONE
    rows = [
        (
            str(e["podName"]),
            _health(e.get("healthy")),
            one_line(str(e.get("message") or e.get("value", ""))),
        )
        for e in found
    ]
    table(("POD", "HEALTH", "ANSWER"), rows, empty="no health check has ended yet, or the app has none")
    return ExitCode.DONE


def _health(healthy: object) -> str:
    return "-" if healthy is None else "healthy" if healthy else "unhealthy"
