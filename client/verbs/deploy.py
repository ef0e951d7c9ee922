"""`deployer deploy`: one command for a pipeline, from the descriptor to the exit code."""

from __future__ import annotations

import click

from deployer.client import completion
from deployer.client.errors import ExitCode
from deployer.client.following.state import Goal, Outcome
from deployer.client.output.formats import output_flag
from deployer.client.session import Session, say, session
from deployer.client.verbs import common


@click.command(short_help="Store or update a descriptor, deploy it and follow.")
@session
@click.argument("what", metavar="FILE|APP", shell_complete=completion.files_or_apps)
@common.input_flags
@common.follow_flags(default=True)
@common.key_flag
@click.option("--override", metavar="REASON", help="Deploy in spite of a freeze, and say why; needs the right to.")
@common.report_flags
@output_flag
def deploy(
    session: Session,
    *,
    what: str,
    settings: tuple[str, ...],
    env_subst: bool,
    follow: bool,
    until: str,
    timeout: float | None,
    keep_waiting: bool,
    idempotency_key: str | None,
    override: str | None,
    junit: str | None,
    report: str | None,
    output: str | None,
) -> int:
    """Deploy the descriptor in FILE (JSON or YAML, `-` for standard input), or the stored one of APP, and follow until
    it is live.

    The descriptor is stored when it is new, and updated when it changed. The exit code says how it ended: 0 live, 1
    failed or rolled back, 3 still running at --timeout, 6 waits for a person, 7 refused. In a pipeline a job that is
    tried again never deploys twice.

    \b
    deployer deploy shop.yaml --set image=registry.example.com/shop:2
    deployer deploy shop --until retired --timeout 600
    """
    from deployer.client import deploying
    from deployer.client.ci.runner import idempotency_key as key_of

    common.check_reports(junit, report)
    if common.is_file(what):
        source = common.only_one(what, settings, env_subst=env_subst, session=session)
        service = session.service.within(str(source.document["namespace"]))
        with common.annotated(source):
            checked = deploying.check(service, source)
        stored = deploying.store(service, source, checked)
        if stored.what != "unchanged":
            say(f"{stored.app}: descriptor {stored.what}")
        common.remark(source, stored.remarks)
    else:
        stored = common.stored_descriptor(session, what, settings)
        service = session.service
    key = key_of(idempotency_key, service.namespace, stored.app, stored.normal) or deploying.new_key()
    with common.may_have_begun("the deployment", service, stored.app):
        started = deploying.start(service, stored, key=key, override=override)
    id = str(started.deployment["id"])
    if started.already:
        say(f"{stored.app}: {started.already} (deployment {id})")
    else:
        say(f"{stored.app}: deployment {id} in namespace {service.namespace}")
    if not follow:
        sentence = f"{common.named(started.deployment)} is {started.deployment['status']}"
        outcome = Outcome(ExitCode.DONE, sentence, started.deployment)
    else:
        outcome = common.follow(service, id, until=Goal(until), timeout=timeout, patient=keep_waiting)
    return common.conclude(service, outcome, output=output, junit=junit, report=report, followed=follow)
