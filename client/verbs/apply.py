"""`deployer apply`: files become stored descriptors, and with `--deploy` what is running."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from deployer.client import completion
from deployer.client.errors import ClientError, ExitCode, Interrupted, InvalidInput
from deployer.client.following.state import Goal
from deployer.client.output.formats import emit, output_flag
from deployer.client.session import Session, say, session, show
from deployer.client.verbs import common

if TYPE_CHECKING:
    from deployer.client.deploying import Stored
    from deployer.client.descriptors.source import Source
    from deployer.client.service import Service
    from deployer.core.errors import Problem

_GRAVEST = (ExitCode.FAILED, ExitCode.REFUSED, ExitCode.UNAUTHORISED, ExitCode.UNREACHABLE)
"""Of several exit codes the one that counts; after these the largest."""


@click.command(short_help="Store or update descriptors; deploy those that changed.")
@session
@click.option(
    "-f",
    "--filename",
    "files",
    metavar="FILE|DIR",
    multiple=True,
    shell_complete=completion.files,
    required=True,
    help="JSON or YAML; `-`: standard input. Repeatable.",
)
@common.input_flags
@click.option("--diff", is_flag=True, help="Show what would change in what is stored, and store nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--deploy", "deploys", is_flag=True, help="Deploy the apps whose live version is not what the file says.")
@common.follow_flags(default=True)
@common.key_flag
@output_flag
def apply(
    session: Session,
    *,
    files: tuple[str, ...],
    settings: tuple[str, ...],
    env_subst: bool,
    diff: bool,
    dry_run: bool,
    deploys: bool,
    follow: bool,
    until: str,
    timeout: float | None,
    keep_waiting: bool,
    idempotency_key: str | None,
    output: str | None,
) -> int:
    """Make the descriptors in files those that are stored. Doing it twice changes nothing.

    All files are checked before anything is stored: when one of them is wrong, nothing is done.
    """
    from deployer.client import deploying
    from deployer.client.ci.runner import idempotency_key as key_of

    sources = _read(session, files, settings, env_subst=env_subst)
    known: list[tuple[Service, Source, Stored]] = []
    for source, (service, checked) in zip(sources, _checked(session, sources), strict=True):
        known.append((service, source, deploying.store(service, source, checked, dry_run=diff or dry_run)))
    done: list[dict[str, Any]] = []
    started: list[tuple[Service, Stored, str]] = []
    for service, source, stored in known:
        common.remark(source, stored.remarks)
        entry = {"app": stored.app, "namespace": service.namespace, "descriptor": stored.id, "result": stored.what}
        if deploys and (why := _outdated(service, stored)):
            entry["deploy"] = why
            if not (diff or dry_run):
                key = key_of(idempotency_key, service.namespace, stored.app, stored.normal) or deploying.new_key()
                with common.may_have_begun("the deployment", service, stored.app):
                    begun = deploying.start(service, stored, key=key)
                entry["deployment"] = begun.deployment["id"]
                started.append((service, stored, str(begun.deployment["id"])))
        done.append(entry)
        if output is None:
            _say(entry, stored, diff=diff, would=diff or dry_run)
    if output is not None:
        emit(output, done, (f"descriptor/{entry['descriptor'] or entry['app']}" for entry in done))
    if not follow:
        return ExitCode.DONE
    return _follow(started, until=Goal(until), timeout=timeout, patient=keep_waiting)


def _read(session: Session, files: tuple[str, ...], settings: tuple[str, ...], *, env_subst: bool) -> list[Source]:
    from deployer.client import deploying
    from deployer.client.descriptors.source import read_all

    with common.annotated():
        sources = read_all(files)
    for source in sources:
        default = session.profile.namespace
        deploying.prepare(source, settings, env_subst=env_subst, namespace=session.namespace, default=default)
    return sources


def _checked(session: Session, sources: list[Source]) -> list[tuple[Service, dict[str, Any]]]:
    """The service of each and its normal form, once all are known to be right. Raises InvalidInput with what is wrong
    in any of them."""
    from deployer.client import deploying

    wrong: list[str] = []
    problems: list[Problem] = []
    found: list[tuple[Service, dict[str, Any]]] = []
    for source in sources:
        service = session.service.within(str(source.document["namespace"]))
        try:
            with common.annotated(source):
                found.append((service, deploying.check(service, source)))
        except InvalidInput as error:
            wrong.append(str(error))
            problems += error.problems
    if wrong:
        raise InvalidInput("\n".join(wrong), problems)
    return found


def _outdated(service: Service, stored: Stored) -> str:
    """Why the app is to be deployed; empty when what is live, or under way, is what the descriptor says."""
    from deployer.client.deploying import changed_fields
    from deployer.client.service import bare

    app = service.app(stored.app) if stored.what != "created" else None
    if app is None or ("live" not in app and not app.get("queue")):
        return "nothing is live"
    newest = app["queue"][-1] if app.get("queue") else app["live"]
    theirs = service.deployment(str(newest["deployment"])).get("descriptor")
    if theirs is None:
        return "the descriptor changed" if stored.what != "unchanged" else ""
    names = changed_fields(bare(theirs), stored.normal)
    return f"changed: {', '.join(names)}" if names else ""


def _say(entry: dict[str, Any], stored: Stored, *, diff: bool, would: bool) -> None:
    what = f"would be {entry['result']}" if would and entry["result"] != "unchanged" else entry["result"]
    line = f"{entry['namespace']}/{entry['app']}: descriptor {what}"
    if "deploy" in entry:
        line += f"; {'would be deployed' if would else 'is deployed'} ({entry['deploy']})"
    show(line)
    if diff and stored.what != "unchanged":
        for text in _difference(stored):
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(text[:1])
            show(text, fg=colour)


def _difference(stored: Stored) -> Iterator[str]:
    """What changes in the normal form, as a unified diff of YAML."""
    from deployer.client.output.formats import to_yaml

    before, after = ({key: d[key] for key in sorted(d)} for d in (stored.before, stored.normal))
    old, new = (to_yaml(document).splitlines() if document else [] for document in (before, after))
    return difflib.unified_diff(old, new, f"stored {stored.app}", "new", lineterm="")


def _follow(started: list[tuple[Service, Stored, str]], *, until: Goal, timeout: float | None, patient: bool) -> int:
    """One after the other; they run side by side all the while. The gravest exit code."""
    codes: set[int] = set()
    for service, stored, id in started:
        try:
            prefix = f"{stored.app}: " if len(started) > 1 else ""
            outcome = common.follow(service, id, until=until, timeout=timeout, patient=patient, prefix=prefix)
            codes.add(common.conclude(service, outcome, output=None))
        except Interrupted:
            raise
        except ClientError as error:
            say(f"deployer: {stored.app}: {error}")
            codes.add(int(error.exit_code))
    return next((int(code) for code in _GRAVEST if code in codes), max(codes, default=0))
