"""`deployer descriptors`: those that the service has."""

from __future__ import annotations

import click

from deployer.client import completion
from deployer.client.errors import ClientError, ExitCode, InvalidInput, Refused
from deployer.client.output.formats import emit, output_flag, table
from deployer.client.session import Session, say, session, show


@click.group(short_help="List, show, edit or delete stored descriptors.")
def descriptors() -> None:
    """List, show, edit or delete the descriptors that the service has."""


@descriptors.command("list")
@session
@click.argument("app", required=False, shell_complete=completion.apps)
@output_flag
def list_(session: Session, app: str | None, output: str | None) -> int:
    """List the descriptors of a namespace, or of an app."""
    from deployer.client.verbs.look import descriptor_row, of
    from deployer.core.clock import wall_clock

    found = session.service.descriptors(app)
    if output is not None:
        emit(output, found, (f"descriptor/{d['id']}" for d in found))
        return ExitCode.DONE
    head = ("ID", "APP", "VERSION", "STRATEGY", "MODIFIED", "IMAGES")
    empty = f"there are no descriptors{of(app)} in namespace {session.service.namespace}"
    table(head, (descriptor_row(d, wall_clock()) for d in found), empty=empty, expendable=(3, 2))
    return ExitCode.DONE


@descriptors.command("get")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
@output_flag
def get(session: Session, which: str, output: str | None) -> int:
    """Show one, or the one of an app that was modified last; as YAML unless -o says otherwise."""
    id = _id(session, which)
    emit(output or "yaml", session.service.descriptor(id)[0], [f"descriptor/{id}"])
    return ExitCode.DONE


@descriptors.command("edit")
@session
@click.argument("which", metavar="ID|APP", shell_complete=completion.apps)
def edit(session: Session, which: str) -> int:
    """Change one in an editor (VISUAL or EDITOR). What is wrong is said, and the editor opens again."""
    from deployer.client.deploying import check
    from deployer.client.descriptors.source import parse
    from deployer.client.output.formats import to_yaml
    from deployer.client.service import bare

    service, id = session.service, _id(session, which)
    found, etag = service.descriptor(id)
    before = text = to_yaml(bare(found))
    while True:
        try:
            edited = click.edit(text, extension=".yaml", require_save=False)
        except click.ClickException:
            if text != before:
                say(f"what you wrote is in {_keep(text)}")
            raise
        if edited is None or edited.strip() in ("", before.strip()):
            say("nothing changed")
            return ExitCode.DONE
        try:
            sources = parse(edited, "the descriptor")
            if len(sources) != 1:
                raise InvalidInput("the descriptor: there must be one, and no more")
            check(service, sources[0])
            service.replace_descriptor(id, sources[0].document, etag)
        except Refused as error:  # InvalidInput is one
            say(str(error))
            text = edited
            # What another client wrote meanwhile must not be overwritten unseen.
            if error.status == 412 or not _again():
                say(f"what you wrote is in {_keep(edited)}")
                return ExitCode.REFUSED
            continue
        except (ClientError, KeyboardInterrupt):
            say(f"what you wrote is in {_keep(edited)}")
            raise
        show(f"descriptor {id} of {found['appName']} is updated; `deployer deploy {found['appName']}` deploys it")
        return ExitCode.DONE


@descriptors.command("delete")
@session
@click.argument("id")
def delete(session: Session, id: str) -> int:
    """Delete one by its id. What was deployed from it stays."""
    session.service.delete_descriptor(id)
    show(f"descriptor {id} is deleted")
    return ExitCode.DONE


def _again() -> bool:
    """Does somebody want to edit it once more? Ctrl-C is a no, and so is the end of a standard input that is no
    terminal."""
    try:
        return click.confirm("Edit it again?", default=True, err=True)
    except click.Abort:
        say("")
        return False


def _keep(text: str) -> str:
    """Write it where it can be found again."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="descriptor-", delete=False, encoding="utf-8") as file:
        file.write(text)
    return file.name


def _id(session: Session, which: str) -> str:
    from deployer.client.verbs.watch import looks_like_id

    if looks_like_id(which):
        return which
    latest = session.service.latest_descriptor(which)
    if latest is None:
        raise Refused(f"there is no descriptor of {which} in namespace {session.service.namespace}")
    return str(latest["id"])
