"""Asks the API server what it would say to a descriptor's ReplicationController and a Pod of it; nothing is written.

The Pod is asked about as well because Pod Security, quotas and limits refuse Pods, never the controller of them.
What cannot be asked is "not checked", which is no fault of the descriptor.
"""

from __future__ import annotations

import copy
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import (
    DeadlineExceeded,
    Interrupted,
    KubeAlreadyExists,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeUnavailable,
    Problem,
)
from deployer.core.model.kind import CONTROLLER, POD, Kind
from deployer.core.model.records import Document
from deployer.core.model.secrets import environment_values
from deployer.descriptor.validation import KINDS, DescriptorDryRun, Findings
from deployer.kube import dry_run_errors
from deployer.kube.client import KubeClient
from deployer.redaction.matching import Matcher
from deployer.redaction.redactor import clean_credentials
from deployer.settings import Settings
from deployer.toolkit import manifests

PATIENCE = 5.0
"""Seconds for all questions about one descriptor. A webhook that takes longer leaves it not checked."""

AT_ONCE = 4
"""Descriptors that are asked about at the same time, so that a slow cluster takes no more threads away from REST. A
namespace may have as many as are free, which is half of them for one alone."""

QUICK_PATIENCE = 1.0
"""Seconds for the question about a descriptor that is being stored."""

QUIET = 15.0
"""Seconds for which nobody who stores a descriptor waits for an API server that did not answer the last one."""

ROUNDS = 8
"""How often one object is asked about: each round takes away what kept the API server from looking further."""

_ID = "00000000-0000-4000-8000-000000000000"
"""In the place of a deployment's id, which there is none of."""


class DryRun(DescriptorDryRun):
    """Has nothing of the client but `try_create`, which writes nothing. Thread-safe."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._try = client.try_create
        self._settings = settings
        self._slots = _Slots()
        self._quiet_until = 0.0

    def ask(self, descriptor: Mapping[str, Any], version: str) -> Findings:
        """What the API server says within `PATIENCE` seconds to what would be deployed as that version.

        `descriptor` is normalised, but for its podspec, which may be anything with a list of containers. What injectors
        add is left out: their values are for pods alone.
        """
        found = Findings()
        problem = _unusable(descriptor["podspec"])
        namespace = descriptor["namespace"]
        if problem or not self._slots.take(namespace, 0.0):
            why = problem or "other descriptors are being checked already; try again"
            found.not_checked = dict.fromkeys(KINDS, why)
            return found
        try:
            self._ask(descriptor, version, found)
        finally:
            self._slots.give_back(namespace)
        return _tidy(found, descriptor["podspec"])

    def ask_quickly(self, descriptor: Mapping[str, Any], version: str) -> Findings:
        """What the API server can never take of the podspec, within `QUICK_PATIENCE` seconds; arguments as for `ask`.

        For whoever stores a descriptor: what is right or wrong only now (a namespace, a quota, a policy) is not asked
        about. After an API server that did not answer nobody waits for it for `QUIET` seconds.
        """
        found = Findings()
        end = time.monotonic() + QUICK_PATIENCE
        why = _unusable(descriptor["podspec"])
        if time.monotonic() < self._quiet_until:
            why = "the API server did not answer a moment ago"
        namespace = descriptor["namespace"]
        if not why and not self._slots.take(namespace, QUICK_PATIENCE):
            why = "other descriptors are being checked already"
        if why:
            found.not_checked = {CONTROLLER.kind: why}
            return found
        try:
            controller = self._controller(descriptor, version)
            at = ("spec", "template", "spec")
            lenient = self._settings.lenient_podspec
            question = _Question(self._try, CONTROLLER, controller, at, found, lenient, lasting=True)
            question.ask(namespace, CancelScope(end))
        finally:
            self._slots.give_back(namespace)
        if question.unanswered:
            self._quiet_until = time.monotonic() + QUIET
        return _tidy(found, descriptor["podspec"])

    def _controller(self, descriptor: Mapping[str, Any], version: str) -> Document:
        return manifests.render_controller(
            WorkloadContext(
                descriptor=dict(descriptor),
                version=version,
                deployment=_ID,
                created="1970-01-01T00:00:00Z",
                instance=self._settings.instance,
                replicas=descriptor["replicas"],
                image_pull_policy=self._settings.image_pull_policy,
                service_links=self._settings.enable_service_links,
            )
        )

    def _ask(self, descriptor: Mapping[str, Any], version: str, found: Findings) -> None:
        controller = self._controller(descriptor, version)
        scope = CancelScope(time.monotonic() + PATIENCE)
        for kind, body, at in (
            (CONTROLLER, controller, ("spec", "template", "spec")),
            (POD, _pod_of(controller), ("spec",)),
        ):
            _Question(self._try, kind, body, at, found, self._settings.lenient_podspec).ask(
                descriptor["namespace"], scope
            )


class _Slots:
    """Who asks now. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()

    def take(self, namespace: str, patience: float) -> bool:
        """Whether it got one within so many seconds."""
        with self._changed:
            got = self._changed.wait_for(
                lambda: self._taken[namespace] < AT_ONCE - self._taken.total(), timeout=patience
            )
            if got:
                self._taken[namespace] += 1
            return got

    def give_back(self, namespace: str) -> None:
        """One that was taken."""
        with self._changed:
            self._taken[namespace] -= 1
            self._taken += Counter()  # keeps those that have some
            self._changed.notify_all()


@dataclass(slots=True)
class _Question:
    """One object, asked about until nothing hides anything any more. `lenient`: unknown fields are only warned of."""

    try_create: Any
    kind: Kind
    body: Document
    at: Sequence[str]
    found: Findings
    lenient: bool = False
    lasting: bool = False
    """Ask only about what stays as it is: not about rights, quotas, policies or a namespace that is not there."""
    unanswered: bool = False
    """True when there was no answer."""

    @property
    def podspec(self) -> Any:
        thing: Any = self.body
        for name in self.at:
            thing = thing[name]
        return thing

    def ask(self, namespace: str, scope: CancelScope) -> None:
        """Put into the findings what there is to find. Unknown fields hide what else is wrong, and values of a wrong
        type hide everything: after the strict question comes a lenient one, without those values."""
        at = ".".join(self.at)
        strict, hidden = not self.lenient, set[dry_run_errors.Path]()
        for _ in range(ROUNDS):
            try:
                error = self._once(namespace, scope, strict=strict)
            except Interrupted as over:
                self.unanswered = True
                patience = QUICK_PATIENCE if self.lasting else PATIENCE
                self._not_checked(f"the API server did not answer within {patience:g} s{_last(over)}")
                return
            if error is None:
                break
            self.unanswered = isinstance(error, KubeUnavailable)
            if self.lasting and isinstance(error, KubeForbidden | KubeNotFound):
                self._not_checked(str(error))
                return
            refusal = dry_run_errors.read(error, self.podspec, at)
            if refusal.reason:
                self._not_checked(refusal.reason)
                return
            self.found.problems += [p for p in refusal.problems if not _lies_in(p, hidden)]
            if not refusal.hiding and not refusal.strict:
                break
            strict = strict and not refusal.strict
            for path in refusal.hiding:
                dry_run_errors.remove(self.podspec, path)
                hidden.add(path)
        self.found.checked.append(self.kind.kind)

    def _once(self, namespace: str, scope: CancelScope, *, strict: bool) -> KubeError | None:
        """The error that it is refused with. What exists already has been validated before that was noticed."""
        last: KubeError | None = None
        for _ in range(2):  # an idle connection may have been closed at the other end
            try:
                self.try_create(self.kind, self.body, namespace, warned=self._warned, strict=strict, scope=scope)
            except KubeAlreadyExists:
                return None
            except KubeUnavailable as error:
                last = error
                continue
            except KubeError as error:
                return error
            return None
        return last

    def _warned(self, text: str) -> None:
        at = ".".join(self.at)
        if not self.lenient and (problems := list(dry_run_errors.strict_problems(text, at))):
            self.found.problems += problems
        else:
            self.found.warnings.append(re.sub(rf"\b{re.escape(at)}(?=[.\[])", "podspec", text))

    def _not_checked(self, why: str) -> None:
        self.found.not_checked[self.kind.kind] = why


def _last(over: Interrupted) -> str:
    cause = over.__cause__
    return f": {cause}" if isinstance(over, DeadlineExceeded) and isinstance(cause, KubeError) else ""


def _lies_in(problem: Problem, hidden: set[dry_run_errors.Path]) -> bool:
    """True for what is only wrong because a value was taken away."""
    path = dry_run_errors.steps(problem.path)[1:]
    return any(path[: len(gone)] == gone for gone in hidden)


def _pod_of(controller: Document) -> Document:
    """A Pod as the controller would make it, but with a name of its own."""
    template = copy.deepcopy(controller["spec"]["template"])
    metadata = controller["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **template["metadata"],
            "name": f"{metadata['name']}-check",
            "namespace": metadata["namespace"],
        },
        "spec": template["spec"],
    }


def _unusable(podspec: Any) -> str:
    """Why no object can be made of it; what is wrong is among the problems already."""
    containers = podspec.get("containers") if isinstance(podspec, dict) else None
    if not isinstance(containers, list) or not containers:
        return "there are no containers in podspec"
    others = podspec.get("initContainers") or []
    for container in [*containers, *(others if isinstance(others, list) else [None])]:
        env = container.get("env") or [] if isinstance(container, dict) else None
        if not isinstance(env, list) or any(not isinstance(v, dict) or not isinstance(v.get("name"), str) for v in env):
            return "correct the containers and their environment first"
    secrets = podspec.get("imagePullSecrets") or []
    if not isinstance(secrets, list) or any(
        not isinstance(s, dict) or not isinstance(s.get("name"), str | None) for s in secrets
    ):
        return "correct podspec.imagePullSecrets first"
    return ""


# --- in the terms of the descriptor -------------------------------------------------------------------------------


def _tidy(found: Findings, podspec: Document) -> Findings:
    """Paths as the descriptor has them, nothing twice, no value of the environment in any sentence."""
    own = Matcher(environment_values(podspec))

    def clean(text: str) -> str:
        return clean_credentials(own.clean(text))

    seen = dict.fromkeys((_own_path(p.path, podspec), clean(p.message)) for p in found.problems)
    found.problems = [Problem(path, message) for path, message in seen]
    found.warnings = list(dict.fromkeys(clean(_own_path(text, podspec)) for text in found.warnings))
    found.not_checked = {kind: clean(why) for kind, why in found.not_checked.items()}
    return found


_ENV = re.compile(r"podspec\.(containers|initContainers)\[(\d+)\]\.env\[(\d+)\]")


def _own_path(path: str, podspec: Document) -> str:
    """Variables that the service adds come before the descriptor's own, which are counted from 0 there."""

    def count(match: re.Match[str]) -> str:
        kind, at, index = match.group(1), int(match.group(2)), int(match.group(3))
        containers = podspec.get(kind) or []
        if at >= len(containers):
            return match.group()
        own = {variable["name"] for variable in containers[at].get("env") or ()}
        added = len(set(manifests.IDENTITY_VARIABLES) - own)
        return f"podspec.{kind}[{at}].env[{index - added}]" if index >= added else match.group()

    return _ENV.sub(count, path)
