"""From a descriptor to a deployment: stored once, updated when it changed, and never deployed twice by one job."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.client.errors import InvalidInput, Misused, Refused
from deployer.client.following.state import ALREADY_LIVE, outcome_of
from deployer.client.output.words import count
from deployer.client.service import Service, bare

if TYPE_CHECKING:
    from deployer.client.descriptors.source import Source

Document = dict[str, Any]


def prepare(source: Source, settings: Sequence[str], *, env_subst: bool, namespace: str | None, default: str) -> str:
    """Put flags and variables into a descriptor; returns its namespace, which is its own, or the one that is given.

    Raises InvalidInput or Misused.
    """
    from deployer.client.descriptors import edits

    if env_subst:
        edits.substitute(source, os.environ)
    edits.apply(source, settings)
    own = source.document.get("namespace")
    if isinstance(own, str) and own:
        if namespace is not None and own != namespace:
            raise Misused(
                f"{source.name} is for namespace {own}, and --namespace says {namespace}; leave one of them out"
            )
        return own
    source.document["namespace"] = chosen = namespace or default
    return chosen


@dataclass(frozen=True, slots=True)
class Stored:
    """A descriptor as the service has it now. `what` happened: `created`, `updated` or `unchanged`.

    before   what was there, without what the service adds; empty for a new one
    normal   what is there now, likewise
    etag     of what was updated just now; empty otherwise
    """

    id: str
    app: str
    what: str
    normal: Document
    before: Document
    remarks: Sequence[Document] = ()
    etag: str = ""


def store(service: Service, source: Source, checked: Document, *, dry_run: bool = False) -> Stored:
    """Make it the app's stored descriptor; `checked` is what `check` gave. `dry_run` stores nothing and says what would
    be done. Raises a ClientError.
    """
    normal, app = bare(checked), str(checked["appName"])
    remarks = checked.get("validation", {}).get("remarks", ())
    latest = service.latest_descriptor(app)
    if latest is None:
        id = "" if dry_run else str(service.create_descriptor(source.document)["id"])
        return Stored(id, app, "created", normal, {}, remarks)
    id, before = str(latest["id"]), bare(latest)
    if before == normal:
        return Stored(id, app, "unchanged", normal, before, remarks)
    etag = ""
    if not dry_run:
        etag = service.replace_descriptor(id, source.document, service.descriptor(id)[1])
    return Stored(id, app, "updated", normal, before, remarks, etag)


def check(service: Service, source: Source) -> Document:
    """What the service says of it: its normal form with `validation`. Raises InvalidInput with every problem and its
    place in the file, or another ClientError."""
    try:
        return service.validate(source.document)
    except Refused as error:
        if error.status != 400 or not error.problems:
            raise
        from deployer.client.descriptors.source import located

        raise InvalidInput(
            "\n".join([*located(source, error.problems), f"{source.name}: {count(len(error.problems), 'problem')}"]),
            error.problems,
        ) from None


@dataclass(frozen=True, slots=True)
class Started:
    """A deployment that was asked for, now or before. `already` says why none was started; empty: one was."""

    deployment: Document
    already: str = ""


def start(service: Service, stored: Stored, *, key: str, override: str | None = None) -> Started:
    """Deploy a stored descriptor, unless that version is live or under way already, or this job has deployed it.

    key   the same for every try of one job. What failed or was cancelled is tried again.

    Raises Refused when the version is taken by something else.
    """
    if (known := _same_version(service, stored)) is not None:
        return known
    tried: set[str] = set()
    following = key
    while True:
        found = service.deploy(stored.id, key=following, override=override)
        if found["status"] == "DEPLOYING":
            _same_descriptor(service, found, stored)
            # One that was asked for before is simply followed.
            return Started(found)
        if not _failed(service, stored.app, found) or found["id"] in tried:
            _restore(service, stored)
            return Started(found, "this job deployed it already")
        tried.add(found["id"])
        following = f"{key}/after/{found['id']}"


def _restore(service: Service, stored: Stored) -> None:
    """An old job that is tried again changes nothing: what was stored since stays, unless somebody was quicker."""
    if stored.etag:
        with contextlib.suppress(Refused):
            service.replace_descriptor(stored.id, stored.before, stored.etag)


def new_key() -> str:
    """For one command: it makes asking again safe when there was no answer."""
    return str(uuid.uuid4())


def _same_version(service: Service, stored: Stored) -> Started | None:
    """The deployment of that version, when it is live or under way with the same descriptor. Raises Refused."""
    version = stored.normal["newVersion"]
    app = service.app(stored.app) if version != "#" else None
    if app is None:
        return None
    members = [("is live already", app["live"])] if "live" in app else []
    members += [("is being deployed already", member) for member in app.get("queue", ())]
    for said, member in members:
        if member.get("version") != version:
            continue
        found = service.deployment(str(member["deployment"]))
        theirs = found.get("descriptor")
        if theirs is None or bare(theirs) == stored.normal:
            return Started(found, f"version {version} {said}")
        names = ", ".join(changed_fields(bare(theirs), stored.normal))
        raise Refused(
            f"version {version} of {stored.app} {said}, and the descriptor differs from it in {names}; choose another "
            "newVersion, or '#' to count on"
        )
    return None


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the fields that are not the same."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _failed(service: Service, app: str, deployment: Document) -> bool:
    """Did it come to nothing, so that it may be tried once more?"""
    if deployment["status"] == "FAILURE":
        return bool((deployment.get("failure") or {}).get("reason") != ALREADY_LIVE)
    if deployment["status"] in ("UNDEPLOYING", "UNDEPLOYED"):
        return outcome_of(service.history(app, 100), str(deployment["id"])) in ("cancelled", "")
    return False


def _same_descriptor(service: Service, deployment: Document, stored: Stored) -> None:
    """Somebody else may have replaced the descriptor in between: theirs must not be deployed in our name."""
    theirs = deployment.get("descriptor")
    if theirs is None or bare(theirs) == stored.normal:
        return
    service.undeploy(str(deployment["id"]))
    raise Refused(
        f"another client changed the descriptor of {stored.app} at the same moment, so the deployment was cancelled "
        f"({', '.join(changed_fields(bare(theirs), stored.normal))}); deploy again"
    )
