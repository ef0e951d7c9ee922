"""The one tree of errors. A message is a sentence for a person: what, where, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class DeployerError(Exception):
    """Anything that the Deployer reports. `str(error)` is one clear sentence and never holds a secret."""


class SettingsError(DeployerError):
    """A flag, variable, file or plugin table is wrong; the service does not start."""


class PluginError(DeployerError):
    """A plugin is missing, quarantined, or broke its contract."""


class NotDelivered(DeployerError):
    """What an observer passes on was not taken; it is to be told again later."""


class PluginBusy(PluginError):
    """A plugin does not answer in time while a client waits; try again later."""


# --- what a request can run into ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document. `path` reads like `podspec.containers[0].image`; empty for the whole."""

    path: str
    message: str


class Invalid(DeployerError):
    """A document breaks its rules; `problems` names every one of them.

    validation   what was checked and what was not, when that was asked for
    """

    def __init__(self, problems: Sequence[Problem], validation: Mapping[str, Any] | None = None) -> None:
        self.problems = tuple(problems)
        self.validation = validation
        super().__init__("; ".join(f"{p.path}: {p.message}" if p.path else p.message for p in self.problems))


class NotFound(DeployerError):
    """There is no such record in this namespace."""


class Conflict(DeployerError):
    """The request contradicts what is there, such as a host that another app owns."""


class HostTaken(Conflict):
    """A host is another app's. `str(error)` does not say whose, `told` does: for those who may know it.

    namespace, app   whose it is
    """

    def __init__(self, what: str, advice: str, namespace: str, app: str) -> None:
        super().__init__(f"{what} belongs to another app; {advice}")
        self.namespace = namespace
        self.app = app
        self.told = f"{what} belongs to app {app} in namespace {namespace}; {advice}"


@dataclass(frozen=True, slots=True)
class HostProblem(Problem):
    """The same as one thing wrong with a descriptor."""

    taken: HostTaken


class NotPermitted(DeployerError):
    """The caller has the right to do such a thing, but may not do this one."""


class PreconditionFailed(DeployerError):
    """`If-Match` named a revision that is no longer current."""


class Frozen(DeployerError):
    """Nothing new may be deployed in this namespace now. `freezes` has what keeps it from that, as REST shows it."""

    def __init__(self, message: str, freezes: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.freezes = tuple(freezes)


class QueueFull(DeployerError):
    """Too much is waiting; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


# --- the store ----------------------------------------------------------------------------------------------------


class StoreError(DeployerError):
    """Base of what a store raises."""


class StaleRevision(StoreError):
    """A record changed, appeared or went since it was read: read again, then decide again."""


class Fenced(StoreError):
    """The lease under which this was written belongs to somebody else now: step back, write nothing more.

    token   the higher one that was found on an object in the cluster; 0 when the store said it
    """

    def __init__(self, message: str, token: int = 0) -> None:
        super().__init__(message)
        self.token = token


class StoreUnavailable(StoreError):
    """The store cannot record anything now (disk full, no quorum, closed). Nothing was written, or it is unknown."""


class UnknownFormat(StoreError):
    """A newer release wrote this record: nothing is done about it, as anything might be wrong."""


# --- inside an operation ------------------------------------------------------------------------------------------


class StepFailed(DeployerError):
    """A step cannot reach its goal and the deployment fails. `reason` is one CamelCase word, `hint` what to do."""

    def __init__(self, message: str, *, reason: str = "StepFailed", pod: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.pod = pod
        self.hint = hint


class ForeignObject(StepFailed):
    """An object of our name belongs to somebody else. It is never changed or deleted."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message, reason="ForeignObject", hint="rename the app or version, or remove that object by hand"
        )


OPERATOR_NEEDED = "OperatorNeeded"
"""The reason of what is held for another reason than these."""

NO_WAY_BACK = "NoWayBack"
"""The reason of what is held because the version before is not ready to take over."""

ROLLBACK_FAILED = "RollbackFailed"
"""The reason of what is held because the live version fails, and so did the rollback to the one before."""

PLUGIN_MISSING = "PluginMissing"
"""The reason of what is held until a plugin is back."""


class OperatorNeeded(DeployerError):
    """Going on and going back are both unsafe: keep everything as it is, say so, and look again later. `reason` is one
    CamelCase word, by which what is held is counted."""

    def __init__(self, message: str, *, reason: str = OPERATOR_NEEDED) -> None:
        super().__init__(message)
        self.reason = reason


class Interrupted(DeployerError):
    """Base of what ends a step from outside. A step lets it pass."""


class Cancelled(Interrupted):
    """Somebody asked to stop this deployment."""


class DeadlineExceeded(Interrupted):
    """The budget of the step's phase is used up."""


class Revoked(Interrupted):
    """This handle was taken away; nothing was sent. A step that hung past its deadline meets it here."""


# --- Kubernetes ---------------------------------------------------------------------------------------------------


class KubeError(DeployerError):
    """The API server refused or could not be asked. `status` is the HTTP status, 0 when there was no answer.

    said     the API server's own words, when it has answered as one does
    causes   what it says of single fields: (`spec.replicas`, "Invalid value: ...")
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        said: str = "",
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.said = said
        self.causes = tuple(causes)


class KubeNotFound(KubeError):
    """404: no such object, or no such namespace."""


class KubeAlreadyExists(KubeError):
    """409 on a POST: the name is taken."""


class KubeConflict(KubeError):
    """409 on a PUT, PATCH or DELETE: the object is not the one that was read."""


class KubeForbidden(KubeError):
    """401 or 403: a right is missing; the message names verb, resource and namespace."""


class KubeRejected(KubeError):
    """400 or 422: the API server will never accept this object; the message is its own words."""


class KubeExpired(KubeError):
    """410: the resourceVersion is older than the server's history; list again."""


class KubeUnavailable(KubeError):
    """No answer, a time-out, 429 or 5xx: the same request may succeed later, and may have had its effect."""


def unanswered(over: BaseException) -> StepFailed | None:
    """The failure (`ApiServerUnavailable`), when time ran out because the API server did not answer: what was seen of
    the cluster before that is old, and explains nothing."""
    if not isinstance(over, DeadlineExceeded) or not isinstance(over.__cause__, KubeUnavailable):
        return None
    text = f"the API server was unavailable until the time was up: {over.__cause__}"
    return StepFailed(text, reason="ApiServerUnavailable", hint=CHECK_API_SERVER)


def require_answers(over: DeadlineExceeded) -> None:
    """Raise that failure, when it is one."""
    if (failure := unanswered(over)) is not None:
        raise failure from over


CHECK_API_SERVER = "check that the API server can be reached; then deploy again"
