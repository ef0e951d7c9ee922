"""What several verbs have in common: flags, reading input, following, and saying how it ended."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deployer.client.errors import ExitCode, Interrupted, InvalidInput, Misused, Refused, Unreachable
from deployer.client.following.state import MEANINGS, Goal, Outcome
from deployer.client.following.state import name as named
from deployer.client.session import Session, interactive, say, show

if TYPE_CHECKING:
    from deployer.client.deploying import Stored
    from deployer.client.descriptors.source import Source
    from deployer.client.service import Service

__all__ = ["named"]

F = TypeVar("F", bound=Callable[..., Any])
Document = dict[str, Any]

# --- flags ------------------------------------------------------------------------------------------------------------


def input_flags(command: F) -> F:
    """`--set` and `--env-subst`, as `settings` and `env_subst`."""
    subst = "Replace ${NAME} and ${NAME:-default} in the descriptor's texts by variables; $$ is a $."
    command = click.option("--env-subst", is_flag=True, help=subst)(command)
    text = "Change the descriptor: `image=IMAGE` for its container, or any path such as newVersion=1.4. Repeatable."
    return click.option("--set", "settings", metavar="PATH=VALUE", multiple=True, help=text)(command)


def follow_flags(*, default: bool) -> Callable[[F], F]:
    """`--follow`, `--until`, `--timeout` and `--keep-waiting`."""

    def decorate(command: F) -> F:
        waiting = "Go on while a person has to decide, instead of ending with 6. In a terminal it does anyway."
        command = click.option("--keep-waiting", is_flag=True, help=waiting)(command)
        command = timeout_flag(command)
        goals = "; ".join(f"{goal}: {text}" for goal, text in MEANINGS.items())
        command = click.option(
            "--until",
            type=click.Choice([goal.value for goal in Goal]),
            default=Goal.LIVE.value,
            show_default=True,
            help=f"{goals}.",
        )(command)
        text = "Show what happens until it has ended." if default else "Follow each deployment that is started."
        return click.option("--follow/--no-follow", default=default, show_default=True, help=text)(command)

    return decorate


def timeout_flag(command: F) -> F:
    """`--timeout` in seconds; None: as long as it takes."""
    text = "Give up following after so long, with exit code 3; the deployment goes on.  [default: as long as it takes]"
    kind = click.FloatRange(min=0, min_open=True)
    return click.option("--timeout", type=kind, metavar="SECONDS", default=None, help=text)(command)


def key_flag(command: F) -> F:
    """`--idempotency-key`."""
    text = "Names this job: the same key never deploys the same thing twice.  [default: made of the pipeline's job]"
    return click.option("--idempotency-key", metavar="KEY", default=None, help=text)(command)


def report_flags(command: F) -> F:
    """`--junit` and `--report`."""
    text = "Write a dotenv file with id, version, status and URL, as GitLab reads it."
    command = click.option("--report", metavar="FILE", default=None, help=text)(command)
    text = "Write steps and gates as JUnit XML, as Jenkins reads it."
    return click.option("--junit", metavar="FILE", default=None, help=text)(command)


# --- input ------------------------------------------------------------------------------------------------------------


def is_file(what: str) -> bool:
    """Is it a file, rather than the name of an app? What looks like one is one, so that a typing error is told."""
    return what == "-" or Path(what).is_file() or "/" in what or what.endswith((".json", ".yaml", ".yml"))


def only_one(path: str, settings: Sequence[str], *, env_subst: bool, session: Session) -> Source:
    """The only descriptor of a file, ready to be sent. Raises InvalidInput or Misused."""
    from deployer.client import deploying
    from deployer.client.descriptors.source import read

    with annotated():
        found = read(path)
    if len(found) > 1:
        advice = f"`deployer apply -f {path} --deploy` deploys several"
        raise Misused(f"{path} holds {len(found)} descriptors; {advice}")
    deploying.prepare(
        found[0], settings, env_subst=env_subst, namespace=session.namespace, default=session.profile.namespace
    )
    return found[0]


def stored_descriptor(session: Session, app: str, settings: Sequence[str]) -> Stored:
    """The descriptor of an app that is stored, with what `--set` changes. Raises Refused."""
    from deployer.client import deploying
    from deployer.client.service import bare

    latest = session.service.latest_descriptor(app)
    if latest is None:
        raise Refused(
            f"there is no descriptor of {app} in namespace {session.service.namespace}, and no file of this name; "
            "`deployer status` lists the apps"
        )
    normal = bare(latest)
    if not settings:
        return deploying.Stored(str(latest["id"]), str(latest["appName"]), "unchanged", normal, normal)
    from deployer.client.descriptors import edits, source

    text = json.dumps(normal, indent=2)
    changed = source.Source(f"descriptor of {app}", text, json.loads(text))
    edits.apply(changed, settings)
    changed.text = json.dumps(changed.document, indent=2)
    return deploying.store(session.service, changed, deploying.check(session.service, changed))


def remark(source: Source, remarks: Sequence[Document]) -> None:
    """Say what in a descriptor means something else than it seems."""
    from deployer.client.descriptors.source import located
    from deployer.core.errors import Problem

    for line in located(source, [Problem(str(r["path"]), f"{r['message']}") for r in remarks]):
        say(f"note: {line}")


@contextlib.contextmanager
def annotated(*sources: Source) -> Iterator[None]:
    """What is wrong with a descriptor stands at its line in GitHub's view of the change as well."""
    try:
        yield
    except InvalidInput as error:
        from deployer.client.ci import github

        if github.there():
            for source in sources:
                github.annotate(source, error.problems)
            if not sources:
                github.annotate_text(str(error))
        raise


# --- following --------------------------------------------------------------------------------------------------------


def follow(
    service: Service,
    id: str,
    *,
    until: Goal,
    timeout: float | None,
    patient: bool,
    prefix: str = "",
    after: int = 0,
) -> Outcome:
    """Follow a deployment, as a live picture where there is a terminal. Raises a ClientError, or Interrupted.

    prefix  in front of each line, where several are followed
    after   of an older deployment: the number of the last message of its log that is not about this
    """
    from deployer.client.following.follower import Follower, View
    from deployer.client.following.plain import PlainView

    with contextlib.ExitStack() as stack:
        view: View
        if live := interactive() and not prefix:
            from deployer.client.following.live import LiveView

            stack.enter_context(service.connection.quietly())
            view, patient = stack.enter_context(LiveView()), True
        else:
            view = PlainView(prefix)
        follower = Follower(
            service, id, view, until=until, timeout=timeout, patient=patient, with_app=live, after=after
        )
        try:
            return follower.run()
        except KeyboardInterrupt:
            raise Interrupted(goes_on(service, id)) from None
        except Unreachable as error:
            error.args = (f"{error}; deployment {id} goes on without this command: {come_back(service, id)}",)
            raise


@contextlib.contextmanager
def may_have_begun(what: str, service: Service, app: str) -> Iterator[None]:
    """Ctrl-C within the block, or no answer, does not mean that nothing was done: `what` may have been."""
    sentence = f"{what} may have begun all the same; `deployer status {app} -n {service.namespace}` shows what is so"
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(sentence) from None
    except Unreachable as error:
        if error.sent:
            error.args = (f"{error}; {sentence}",)
        raise


def goes_on(service: Service, id: str) -> str:
    """What a person is told who stops following."""
    return f"deployment {id} goes on; {come_back(service, id)} comes back to it, `deployer cancel {id}` stops it"


def come_back(service: Service, id: str) -> str:
    """The command that goes on following."""
    return f"`deployer wait {id} -n {service.namespace}`"


def conclude(
    service: Service,
    outcome: Outcome,
    *,
    output: str | None,
    junit: str | None = None,
    report: str | None = None,
    followed: bool = True,
) -> int:
    """Say how it ended, to people and to the pipeline; the exit code."""
    found = outcome.deployment
    id = str(found["id"])
    app = app_name(found)
    if outcome.exit_code in (ExitCode.RUNNING, ExitCode.WAITING):
        advice = f"{come_back(service, id)} goes on following"
        if outcome.exit_code == ExitCode.WAITING and not found.get("held"):
            advice = f"`deployer approve {id} -n {service.namespace}` lets it pass; {advice}"
        say(f"deployer: {advice}")
    if junit:
        from deployer.client.ci import junit as xml

        write(junit, xml.document(outcome, service.log(id)[0]))
    if report or on_github():
        urls = urls_of(found)
        if report:
            from deployer.client.ci import gitlab

            write(report, gitlab.dotenv(found, urls))
        if on_github():
            from deployer.client.ci import github

            github.tell(outcome, urls, error=followed and outcome.exit_code == ExitCode.FAILED)
    if output is None:
        colour = {0: "green", 1: "red"}.get(int(outcome.exit_code), "yellow")
        show(f"{outcome.sentence} (deployment {id})", fg=colour)
    else:
        from deployer.client.output.formats import emit

        emit(output, {**found, "outcome": outcome.exit_code.name.lower(), "app": app}, [f"deployment/{id}"])
    return int(outcome.exit_code)


def app_name(deployment: Document) -> str:
    """Of a deployment, whole or as a summary."""
    return str(deployment.get("appName") or deployment.get("descriptor", {}).get("appName", ""))


def urls_of(deployment: Document) -> list[str]:
    """Where the app answers: its frontend, as far as the descriptor says it."""
    descriptor = deployment.get("descriptor", {})
    host = descriptor.get("frontend")
    if not host:
        return []
    return [f"{'https' if descriptor.get('tlsSecretName') else 'http'}://{host}{descriptor.get('frontendPath', '')}"]


def check_reports(*paths: str | None) -> None:
    """Before anything is sent: can reports be written there? Raises Misused."""
    for path in filter(None, paths):
        folder = Path(path).parent
        if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            why = "it is a directory" if Path(path).is_dir() else f"{folder} is no directory that can be written to"
            raise Misused(f"the report {path} cannot be written: {why}")


def write(path: str, text: str) -> None:
    """Write a report. The exit code says how the deployment ended, even when that fails."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        say(f"deployer: the report {path} cannot be written: {error.strerror or error}")


def on_github() -> bool:
    """Is this a job of GitHub Actions?"""
    return os.environ.get("GITHUB_ACTIONS") == "true"
