"""`deployer init`, `lint` and `validate`: descriptors before they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deployer.client import completion
from deployer.client.errors import ClientError, ExitCode, InvalidInput, Misused
from deployer.client.output.formats import emit, output_flag
from deployer.client.output.words import count
from deployer.client.session import Session, say, session, show
from deployer.client.verbs import common


@click.command(short_help="Write a commented descriptor to begin with.")
@click.argument("app", default="my-app")
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True, help="Namespace.")
@click.option("--image", metavar="IMAGE", help="Image of the container.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8080, show_default=True, help="Port it listens on.")
@click.option("--host", metavar="HOST", help="Host under which it is reached from outside.")
@click.option("-o", "--output", "path", metavar="FILE", default="-", help="Where to; `-` is standard output.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(*, app: str, namespace: str, image: str | None, port: int, host: str | None, path: str, force: bool) -> int:
    """Write a descriptor in YAML that can be deployed as it is, with comments about what else there is."""
    from deployer.client.descriptors import template
    from deployer.client.descriptors.lint import lint as check

    document = template.document(app, namespace=namespace, image=image, port=port, host=host)
    if problems := check(document):
        raise Misused("; ".join(f"{p.path}: {p.message}" for p in problems))
    text = template.descriptor(app, namespace=namespace, image=image, port=port, host=host)
    if path == "-":
        click.echo(text, nl=False)
        return ExitCode.DONE
    try:
        with Path(path).open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Misused(f"{path} is there already; --force replaces it") from None
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror or error}") from None
    say(f"{path} is written; `deployer deploy {path}` deploys it")
    return ExitCode.DONE


@click.command(short_help="Check descriptors without a service.")
@click.argument("files", metavar="FILE|DIR...", nargs=-1, required=True, shell_complete=completion.files)
@common.input_flags
def lint(files: tuple[str, ...], settings: tuple[str, ...], env_subst: bool) -> int:
    """Check descriptors by their schema and by the rules that need neither a service nor a cluster.

    What is installed at a service, who has a host, and what the cluster takes, only `deployer validate` can say.
    """
    import os

    from deployer.client.descriptors import edits
    from deployer.client.descriptors.lint import lint as check
    from deployer.client.descriptors.source import located, read_all

    with common.annotated():
        sources = read_all(files)
    found = 0
    for source in sources:
        if env_subst:
            edits.substitute(source, os.environ)
        edits.apply(source, settings)
        problems = check(source.document)
        for line in located(source, problems):
            show(line)
        if problems and common.on_github():
            from deployer.client.ci import github

            github.annotate(source, problems)
        found += len(problems)
    say(f"{count(len(sources), 'descriptor')}, {count(found, 'problem') if found else 'no problems'}")
    return ExitCode.REFUSED if found else ExitCode.DONE


@click.command(short_help="Ask the service what is wrong with descriptors.")
@session
@click.argument("files", metavar="FILE|DIR...", nargs=-1, required=True, shell_complete=completion.files)
@common.input_flags
@output_flag
def validate(
    session: Session, files: tuple[str, ...], settings: tuple[str, ...], env_subst: bool, output: str | None
) -> int:
    """Ask the service, and through it the cluster, about descriptors, and store nothing."""
    from deployer.client import deploying
    from deployer.client.descriptors.source import read_all

    with common.annotated():
        sources = read_all(files)
    answers: list[dict[str, Any]] = []
    wrong: list[ClientError] = []
    for source in sources:
        default = session.profile.namespace
        where = deploying.prepare(source, settings, env_subst=env_subst, namespace=session.namespace, default=default)
        try:
            with common.annotated(source):
                answer = deploying.check(session.service.within(where), source)
        except InvalidInput as error:
            wrong.append(error)
            say(str(error))
            continue
        answers.append(answer)
        validation = answer.get("validation", {})
        common.remark(source, validation.get("remarks", ()))
        for warning in validation.get("warnings", ()):
            say(f"warning: {source.name}: {warning}")
        for missing in validation.get("notChecked", ()):
            say(f"not checked: {missing['what']}: {missing['reason']}")
        if output is None:
            show(f"{source.name}: {answer['appName']} is valid")
    if output is not None:
        emit(output, answers if len(sources) > 1 else answers[:1] and answers[0], [str(a["appName"]) for a in answers])
    return ExitCode.REFUSED if wrong else ExitCode.DONE
