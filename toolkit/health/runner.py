"""Rounds of health checks: every pod of a version at once, each with its own guarded target."""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from deployer.core.calls import Invocation
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import (
    BODY_LIMIT,
    HealthChecker,
    HealthRounds,
    HealthTarget,
    HttpAnswer,
    Verdict,
    Way,
)
from deployer.core.errors import DeployerError, Interrupted, StaleRevision
from deployer.core.model.descriptors import health_port
from deployer.core.model.records import Document, HealthData, Plan
from deployer.core.ports.store import Create, Store, Update
from deployer.kube.pods import short
from deployer.settings import Settings

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 10.0
"""Seconds for one check of one pod, connecting included. A pod that accepts and hangs costs a round no more."""

LATE = 2.0
"""Seconds more until a checker that hangs is left behind; it is called for that pod again once it is back."""

AT_ONCE = 32
"""Pods of one version that are asked at the same time."""

HEADERS_KEPT = (
    "allow",
    "content-length",
    "content-type",
    "location",
    "retry-after",
    "server",
    "via",
    "www-authenticate",
)
"""Headers of an answer that tell who answered and why (RFC 9110). Of `location` the path alone is kept, as secrets may
be in the rest; cookies are none of ours."""

HEADER_KEPT, MESSAGE_KEPT = 200, 2000
"""Characters that are kept of a header's value, and of the sentence why."""


class Rounds(HealthRounds):
    """Asks the pinned checker about pods and keeps what they answered, without the secrets that `clean` hides."""

    def __init__(
        self,
        checker: HealthChecker,
        plan: Plan,
        store: Store,
        settings: Settings,
        way: Way,
        *,
        clean: Callable[[str], str],
    ) -> None:
        self._clean = clean
        self._checker = checker
        self._way = way
        self._plan = plan
        self._store = store
        self._loopback = settings.loopback_pods
        self._hanging: dict[str, Invocation[Verdict]] = {}

    def check_all(self, pods: Sequence[Document], scope: CancelScope) -> Mapping[str, Verdict]:
        """One round: pod uid -> verdict. Raises what the scope raises."""
        scope.check()
        if len(pods) == 1:
            verdicts = {pods[0]["metadata"]["uid"]: self._check(pods[0], scope)}
        else:
            verdicts = self._together(pods, scope)
        scope.check()
        return verdicts

    def _together(self, pods: Sequence[Document], scope: CancelScope) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        waiting = iter(list(pods))
        lock = threading.Lock()

        def ask() -> None:
            while True:
                with lock:
                    pod = next(waiting, None)
                if pod is None:
                    return
                verdicts[pod["metadata"]["uid"]] = self._check(pod, scope)

        # What they log is about the same deployment (`Redactor.about`).
        runs = [contextvars.copy_context().run for _ in range(min(AT_ONCE, len(pods)))]
        threads = [threading.Thread(target=run, args=(ask,), name="health", daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return verdicts

    def _check(self, pod: Document, scope: CancelScope) -> Verdict:
        uid, target, limit = str(pod["metadata"]["uid"]), self._target(pod, scope), CHECK_TIMEOUT + LATE
        if (earlier := self._hanging.get(uid)) is not None and not earlier.done.is_set():
            return Verdict(False, f"health checker {self._checker.name} hangs in an earlier check of this pod")
        call = Invocation(lambda: self._checker.check(target), "health")
        forget = scope.on_close(call.wake)
        back = call.wait(scope.remaining(limit))
        forget()
        if not back:
            self._hanging[uid] = call
            return Verdict(False, f"health checker {self._checker.name} did not come back within {limit:g} s")
        return verdict_of(self._checker.name, call.result, target)

    def _target(self, pod: Document, scope: CancelScope) -> HealthTarget:
        descriptor = self._plan.descriptor
        return HealthTarget(
            name=pod["metadata"]["name"],
            uid=pod["metadata"]["uid"],
            namespace=pod["metadata"].get("namespace", self._plan.namespace),
            address=pod.get("status", {}).get("podIP", ""),
            port=health_port(descriptor),
            path=descriptor.get("healthCheckPath", "/"),
            options=descriptor.get("healthCheckOptions", {}),
            scope=scope,
            host=descriptor.get("healthCheckHost", ""),
            host_network=bool(pod.get("spec", {}).get("hostNetwork")),
            timeout=CHECK_TIMEOUT,
            allow_loopback=self._loopback,
            way=self._way,
        )

    def keep(self, pods: Sequence[Document], verdicts: Mapping[str, Verdict]) -> None:
        """Make the answers of the last round the deployment's health check data."""
        entries = [
            kept_answer(pod["metadata"]["name"], verdicts[pod["metadata"]["uid"]], self._clean)
            for pod in pods
            if pod["metadata"]["uid"] in verdicts
        ]
        for _ in range(5):
            found = self._store.get(HealthData, self._plan.deployment)
            record = HealthData(
                namespace=self._plan.namespace,
                app=self._plan.app,
                deployment=self._plan.deployment,
                entries=entries,
                revision=found.revision if found else 0,
                sequence=found.sequence if found else 0,
            )
            try:
                self._store.commit(Update(record) if found else Create(record))
            except StaleRevision:
                continue
            return


def verdict_of(checker: str, check: Callable[[], object], target: HealthTarget) -> Verdict:
    """What came of a check, whatever it raises, with the HTTP answer behind it."""
    answer: HttpAnswer | None = None
    try:
        verdict = check()
        if isinstance(verdict, Verdict) and isinstance(verdict.message, str):
            return dataclasses.replace(verdict, answer=target.answer or verdict.answer)
        said = f"health checker {checker} gave no verdict"
    except Interrupted:
        said = "was not asked to the end"
    except DeployerError as error:
        said, answer = str(error), target.answer  # of which only the head may be complete
    except BaseException as error:
        # sys.exit in a checker must not end this thread: a pod without a verdict would not be asked at all.
        logger.exception("health checker %s failed", checker)
        said, answer = f"the health checker failed with {type(error).__name__}", target.answer
    return Verdict(False, said, answer.text if answer else "", answer)


def kept_answer(pod: str, verdict: Verdict, clean: Callable[[str], str]) -> Document:
    """What is kept of one pod: `podName` and `value`, the raw answer, as the original had them; besides `healthy`, why
    (`message`) and, for an answer in HTTP, its `status` and `headers`. All in all no more text than BODY_LIMIT bytes.
    """
    answer = verdict.answer
    kept: Document = {"podName": pod, "value": "", "healthy": verdict.healthy}
    kept["message"] = clean(short(verdict.message, MESSAGE_KEPT))
    if answer is not None:
        kept["status"] = answer.status
        kept["headers"] = {name: clean(value) for name, value in _headers(answer)}
    rest = sum(len(text.encode("utf-8", "replace")) for text in (kept["message"], *kept.get("headers", {}).values()))
    raw = clean(verdict.body).encode("utf-8", "replace")
    kept["value"] = raw[: BODY_LIMIT - rest].decode("utf-8", "ignore")
    return kept


def _headers(answer: HttpAnswer) -> Iterator[tuple[str, str]]:
    for name in HEADERS_KEPT:
        if name == "location" and answer.location:
            yield name, answer.location
        elif name != "location" and (value := answer.headers.get(name)) is not None:
            yield name, short(value, HEADER_KEPT)
