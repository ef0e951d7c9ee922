"""What the data plane answers for an app, asked once for all who want to know it at the same time.

Whoever may read an app may have its host asked, so it must cost the data plane and this process next to nothing however
many they are: an answer is good for a second, and threads and waiting requests are bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import NoReturn, cast

import msgspec

from deployer.core.calls import Invocation
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RouteAnswers, RouteContext
from deployer.core.contract.kube import Owner
from deployer.core.errors import DeployerError, Interrupted, KubeUnavailable, PluginBusy, PluginError, StoreError
from deployer.core.model.records import Plan
from deployer.core.registry import Registry
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.redaction.redactor import Redactor
from deployer.toolkit.dataplane.proof import MOST_ASKED

PATIENCE = 3.0
"""Seconds in which a provider finds out the addresses and gets their answers."""

LATE = 0.5
"""Seconds more that are waited for one that keeps to its scope."""

FRESH = 1.0
"""Seconds for which what came in is told to those who ask later."""

SOON = 0.05
"""Seconds for which any number of requests wait; after that `PATIENT` of them do."""

PATIENT = 8
"""Requests that wait longer at once: half of REST's threads, so that the others answer."""

AT_ONCE = 8
"""Apps that are asked about at the same time, those in which a provider hangs included. Each takes a thread, and one
for each address."""

LONGEST = 500
"""Characters of a reason."""

logger = logging.getLogger(__name__)


class Reading(CancelScope):
    """Lets nothing be written."""

    def writing(self) -> NoReturn:
        """Raises PluginError."""
        raise PluginError("the ingress provider wants to write in ask_route(), which may only read")


@dataclass(slots=True)
class _Question:
    """About one app. `asked` is in seconds since the epoch, `over` on the monotonic clock once it is."""

    asked: float
    call: Invocation[RouteAnswers] = field(init=False)
    over: float = float("inf")

    def is_good(self, now: float) -> bool:
        """May it be told to somebody who asks now?"""
        return now < self.over + FRESH


class SharedAnswers:
    """Asks the ingress provider of a plan. Thread-safe."""

    def __init__(
        self,
        client: KubeClient,
        informers: Informers,
        registry: Registry,
        redactor: Redactor,
        *,
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._client = client
        self._informers = informers
        self._registry = registry
        self._redactor = redactor
        self._instance = instance
        self._clock = clock
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}
        self._patient = threading.Semaphore(PATIENT)

    def ask(self, plan: Plan) -> tuple[float, RouteAnswers]:
        """What every address answers for the plan's route, and when they were asked, in seconds since the epoch: at
        most a second before the answers that were told last came in.

        Raises KubeUnavailable when the cluster cannot be asked, and PluginBusy when too many want to know, or the
        provider does not come back.
        """
        question = self._question(plan)
        if not question.call.wait(SOON) and not self._wait_on(question):
            name = plan.ingress.name if plan.ingress else ""
            raise PluginBusy(f"ingress provider {name} did not come back from ask_route() within {PATIENCE:g} s")
        return question.asked, question.call.result()

    def _question(self, plan: Plan) -> _Question:
        with self._lock:
            now = time.monotonic()
            self._questions = {key: asked for key, asked in self._questions.items() if asked.is_good(now)}
            if plan.deployment in self._questions:
                return self._questions[plan.deployment]
            if sum(not asked.call.done.is_set() for asked in self._questions.values()) >= AT_ONCE:
                raise PluginBusy(f"the data plane is being asked about {AT_ONCE} other apps; try again")
            question = self._questions[plan.deployment] = _Question(self._clock())
            question.call = Invocation(lambda: self._answers(plan, question), "data plane")
            return question

    def _wait_on(self, question: _Question) -> bool:
        if not self._patient.acquire(blocking=False):
            raise PluginBusy("too many requests wait for the data plane; try again")
        try:
            return question.call.wait(PATIENCE + LATE - SOON)
        finally:
            self._patient.release()

    # --- in a thread of its own ----------------------------------------------------------------------------------

    def _answers(self, plan: Plan, question: _Question) -> RouteAnswers:
        try:
            with self._redactor.about(plan.deployment, self._redactor.find(plan.deployment) or ()):
                return self._cleaned(plan, self._asked(plan))
        finally:
            question.over = time.monotonic()

    def _asked(self, plan: Plan) -> RouteAnswers:
        assert plan.route is not None and plan.ingress is not None
        name = plan.ingress.name
        no_answers = f"ask_route() of ingress provider {name} gave something that is no RouteAnswers"
        scope = Reading(time.monotonic() + PATIENCE)
        owner = Owner(self._instance, plan.namespace, plan.app, plan.deployment, fencing_token=0)
        kube = OwnedKube(self._client, self._informers, owner, scope)
        try:
            provider = cast(IngressProvider, self._registry.entry("ingress", name).provider)
            found: object = provider.ask_route(RouteContext(plan.route, kube, logger.debug, scope))
            if found is None:
                return RouteAnswers(unknown=f"ingress provider {name} does not tell which address answers with what")
            if not isinstance(found, RouteAnswers):
                return RouteAnswers(unknown=no_answers)
            return msgspec.convert(asdict(found), RouteAnswers)
        except msgspec.ValidationError:
            return RouteAnswers(unknown=no_answers)
        except (KubeUnavailable, StoreError):
            raise
        except Interrupted as error:
            why = error.__cause__ if isinstance(error.__cause__, KubeUnavailable) else "the answers took too long"
            raise KubeUnavailable(f"the data plane cannot be asked: {why}") from None
        except DeployerError as error:
            return RouteAnswers(unknown=str(error))
        except BaseException as error:  # sys.exit in a plugin must not end the thread without a word
            logger.exception("ask_route() of ingress provider %s failed", name)
            what = f"ingress provider {name} raised {type(error).__name__} in ask_route()"
            return RouteAnswers(unknown=f"{what}; the service's log has the details")

    def _cleaned(self, plan: Plan, found: RouteAnswers) -> RouteAnswers:
        """The same without secrets, and no more of it than people can look at."""

        def clean(text: str) -> str:
            return self._redactor.clean_of(plan.deployment, text)[:LONGEST]

        shown = found.addresses[:MOST_ASKED]
        left_out = found.left_out + len(found.addresses) - len(shown)
        return RouteAnswers([replace(a, unknown=clean(a.unknown)) for a in shown], left_out, clean(found.unknown))
