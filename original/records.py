"""The original's descriptors and deployments as records of ours, with a word on everything that does not come along."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer import descriptor as descriptors
from deployer.core.deployment_log import MAX_MESSAGE, printable
from deployer.core.errors import Invalid, Problem
from deployer.core.model.plan import Backend, ProviderRef, Route
from deployer.core.model.records import (
    Deployment,
    Document,
    Failure,
    HealthData,
    Plan,
    Status,
    StoredDescriptor,
)
from deployer.core.model.secrets import public_names, secrets_of
from deployer.core.ports.store import LogLine
from deployer.core.registry import Registry
from deployer.descriptor.normal_form import DEFAULT_STRATEGY
from deployer.original.cluster import LiveVersion
from deployer.original.normalising import cleaned, injected, log_lines, utc
from deployer.original.source import Entry, Source
from deployer.redaction.redactor import Redactor

NEVER = "1970-01-01T00:00:00Z"
"""In the place of a time that is none."""
NOT_COUNTED = "000"
"""The version of a deployment of the original before it was counted."""
ENDED = Failure(reason="OriginalEnded", message="the original Deployer ended before this deployment did")

Check = Callable[[str, Document], Document]
"""A stored descriptor of a namespace in its normal form. Raises Invalid."""


@dataclass(slots=True)
class Imported:
    """A deployment with all that belongs to it. `environment` is what was injected into it, as core/v1 EnvVar."""

    deployment: Deployment
    lines: Sequence[LogLine] = ()
    health: HealthData | None = None
    environment: list[Document] = field(default_factory=list)


class Converter:
    """Makes records. What is dropped, or does not fit, goes to `remark`, with whose it is."""

    def __init__(
        self, source: Source, check: Check, rules: descriptors.Rules, remark: Callable[[str, str], None]
    ) -> None:
        self._source = source
        self._check = check
        self._rules = rules
        self._remark = remark

    def descriptor(self, entry: Entry) -> StoredDescriptor | None:
        """None for what is no JSON object."""
        whose = f"descriptor {entry.id} of {entry.namespace}/{entry.app}"
        document = self._read(entry, whose)
        if document is None:
            return None
        times = self._times(document, whose)
        normal = self._normal(entry, document, whose)
        return StoredDescriptor(
            namespace=entry.namespace,
            app=_app(normal, entry),
            id=entry.id,
            document=normal,
            created=times[0],
            last_modified=times[1],
        )

    def deployment(self, entry: Entry) -> Imported | None:
        """None for what is no deployment. A status that has not ended has by now."""
        whose = f"deployment {entry.id} of {entry.namespace}/{entry.app}"
        document = self._read(entry, whose)
        if document is None:
            return None
        found = document.get("descriptor")
        if not isinstance(found, dict):
            self._remark(whose, "has no descriptor: left out")
            return None
        created, modified = self._times(document, whose)
        variables = injected(found)
        identity = {"id": str(found["id"])} if found.get("id") else {}
        for name in ("created", "lastModified"):
            if moment := utc(found.get(name)):
                identity[name] = moment
        normal = self._normal(entry, found, whose)
        status, failure = self._status(document, whose)
        version = str(document.get("version") or "")
        deployment = Deployment(
            namespace=entry.namespace,
            app=_app(normal, entry),
            id=entry.id,
            descriptor={**identity, **normal},
            created=created,
            last_modified=modified,
            version="" if version == NOT_COUNTED else version,
            status=status,
            descriptor_id=str(found.get("id") or ""),
            failure=failure,
            went_live={Status.DEPLOYED: modified, Status.UNDEPLOYED: created}.get(status, ""),
        )
        hidden = secrets_of(normal) | (set(variables.values()) - public_names(normal, version))
        return Imported(
            deployment,
            self._lines(deployment, hidden),
            self._health(deployment, hidden),
            [{"name": name, "value": value} for name, value in sorted(variables.items())],
        )

    def _read(self, entry: Entry, whose: str) -> Document | None:
        try:
            document = json.loads(entry.value)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self._remark(whose, "is no JSON object: left out")
            return None
        return document

    def _times(self, document: Document, whose: str) -> tuple[str, str]:
        created, modified = utc(document.get("created")), utc(document.get("lastModified"))
        if not created:
            self._remark(whose, f"created: is no time, {modified or NEVER} is taken")
        return created or modified or NEVER, modified or created or NEVER

    def _normal(self, entry: Entry, document: Document, whose: str) -> Document:
        """In normal form where it is sound; else as it is, which is told."""
        out, dropped = cleaned(document)
        for sentence in dropped:
            self._remark(whose, f"dropped {sentence}")
        try:
            return self._check(entry.namespace, out)
        except Invalid as error:
            self._problems(whose, error.problems)
        except Exception as error:  # noqa: BLE001 - a provider's, or one of a shape that nobody foresaw
            self._remark(whose, f"kept as it is: it could not be checked ({type(error).__name__})")
        return descriptors.examine(out, namespace=entry.namespace, rules=self._rules, stored=True)[0]

    def _problems(self, whose: str, problems: Sequence[Problem]) -> None:
        for problem in problems:
            self._remark(whose, f"kept as it is, correct it before you deploy it: {problem.path} {problem.message}")

    def _status(self, document: Document, whose: str) -> tuple[Status, Document | None]:
        said = str(document.get("status"))
        if said in (Status.DEPLOYED, Status.UNDEPLOYED, Status.FAILURE):
            return Status(said), None
        self._remark(whose, f"{said}: becomes FAILURE, since the original has ended")
        return Status.FAILURE, ENDED.to_document()

    def _lines(self, deployment: Deployment, hidden: set[str]) -> Sequence[LogLine]:
        text = self._source.logs.get((deployment.namespace, deployment.id), "")
        clean = _cleaner(deployment, hidden)
        return [dataclasses.replace(line, text=printable(clean(line.text))) for line in log_lines(text)]

    def _health(self, deployment: Deployment, hidden: set[str]) -> HealthData | None:
        found = self._source.health.get((deployment.namespace, deployment.id))
        if not found:
            return None
        clean = _cleaner(deployment, hidden)
        entries = [
            {"podName": pod, "value": clean(value).encode("utf-8", "replace")[:MAX_MESSAGE].decode("utf-8", "ignore")}
            for pod, value in sorted(found)
        ]
        return HealthData(namespace=deployment.namespace, app=deployment.app, deployment=deployment.id, entries=entries)


def _cleaner(deployment: Deployment, hidden: set[str]) -> Callable[[str], str]:
    redactor = Redactor()
    redactor.register(deployment.id, hidden)
    return lambda text: redactor.clean_of(deployment.id, text)


def _app(normal: Document, entry: Entry) -> str:
    return str(normal["appName"]) if isinstance(normal.get("appName"), str) else descriptors.fold(entry.app)


def plan_of(imported: Imported, live: LiveVersion, registry: Registry) -> Plan:
    """The plan of a version that the original made, from its objects: as if it had been deployed here.

    It has no steps, as they are done, and nobody knows which they were.
    """
    deployment, state = imported.deployment, live.route
    descriptor = deployment.descriptor
    route = None
    if state is not None:
        route = Route(
            namespace=deployment.namespace,
            app=deployment.app,
            host=state.host,
            version=live.version,
            deployment=deployment.id,
            backend=Backend(state.backends[0].service, state.backends[0].port),
            tls_secret=state.tls_secret,
            redirect_www=state.redirect_www,
            compression=descriptor.get("useCompression") is True,
            sticky=descriptor.get("useStickySessions") is True,
            headers=tuple(_headers(descriptor.get("additionHttpHeaders"))),
        )
    return Plan(
        namespace=deployment.namespace,
        app=deployment.app,
        deployment=deployment.id,
        version=live.version,
        descriptor=descriptor,
        strategy=ProviderRef(**registry.ref("strategy", DEFAULT_STRATEGY)),
        ingress=live.ingress if route else None,
        objects=live.workload,
        route=route,
        replicas=live.replicas,
        environment=imported.environment,
    )


def _headers(found: Any) -> list[tuple[str, str]]:
    return [(h["Header"], h["Value"]) for h in found or () if isinstance(h, dict) and h.keys() >= {"Header", "Value"}]
