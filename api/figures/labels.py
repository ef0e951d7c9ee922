"""Values of labels, of which there are never more than a known number."""

from __future__ import annotations

import threading

OTHER = "other"
"""What stands for all the rest."""

REASONS = frozenset(
    [
        "AlreadyLive",
        "ApiServerUnavailable",
        "BackendSpeaksTLS",
        "BadProvider",
        "BadStrategy",
        "ClaimNotBound",
        "Conflict",
        "ControllerGone",
        "CrashLoop",
        "CreateContainerConfigError",
        "CreateContainerError",
        "DeadlineExceeded",
        "EndpointsNotReady",
        "EnvironmentConflict",
        "EnvironmentFailed",
        "ErrImageNeverPull",
        "FailedMount",
        "FailedSetup",
        "Forbidden",
        "ForeignObject",
        "GateBroken",
        "GateFailed",
        "GateMissing",
        "GateTimedOut",
        "HostTaken",
        "ImageInspectError",
        "ImagePull",
        "InjectorFailed",
        "Invalid",
        "InvalidImageName",
        "InvalidName",
        "KubernetesError",
        "NameTooLong",
        "NoGatewayAPI",
        "NoHealthChecker",
        "NoPort",
        "NoPreview",
        "NotAllowed",
        "NotConfigured",
        "NotLive",
        "NotReady",
        "NotSupported",
        "NotWarm",
        "ObjectChanged",
        "ObjectGone",
        "ObjectStays",
        "OriginalEnded",
        "PluginError",
        "PodFailed",
        "PodOSNotSupported",
        "PodsLeft",
        "PodsRefused",
        "ProviderGone",
        "ResourceClaim",
        "RolledBack",
        "RollbackFailed",
        "RouteNotAccepted",
        "RouteNotConfirmed",
        "RouteRejected",
        "SchedulerSilent",
        "SchedulingGated",
        "StartError",
        "StepCrashed",
        "StepFailed",
        "StoreDisagrees",
        "SysctlForbidden",
        "Unauthorized",
        "Unhealthy",
        "Unschedulable",
        "VersionInUse",
        "VersionNotANumber",
    ]
)
"""Why deployments fail, as docs/operations.md has it. Plugins and API servers may have further words."""


def reason(word: str) -> str:
    """The label for a reason of a failure."""
    return word if word in REASONS else OTHER


class Namespaces:
    """The first `limit` namespaces that are asked for; later ones are `other`. A namespace keeps its label."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def label(self, namespace: str) -> str:
        """The label for a namespace."""
        with self._lock:
            if namespace not in self._known and len(self._known) < self._limit:
                self._known.add(namespace)
            return namespace if namespace in self._known else OTHER
