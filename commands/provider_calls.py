"""What providers say of descriptors, asked while a client waits: with a deadline, never by all of REST's threads."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deployer.core.calls import Invocation, no_list
from deployer.core.contract.provider import Provider
from deployer.core.errors import PluginBusy, PluginError, Problem
from deployer.core.model.records import Document
from deployer.core.registry import Registry
from deployer.redaction.redactor import about_descriptor

logger = logging.getLogger(__name__)

DEADLINE = 5.0
"""Seconds that the providers of a descriptor have to look at it."""

SOON = 0.05
"""Seconds for which any number of requests wait for providers; after that `PATIENT` of them do."""

PATIENT = 8
"""Requests that wait longer at once: half of REST's threads, so that the others answer."""

INSIDE = 16
"""Calls under way in one provider, left behind or not, above which it is not called."""

Question = Callable[[Provider], Callable[[Document], Sequence[Problem]]]
"""Which method of a provider is asked."""


LONGEST = 2_000
"""Characters of a problem's message."""

MOST = 200
"""Problems that one provider may have with a descriptor; what it says beyond them is left out."""


class ProviderCalls:
    """Asks providers about descriptors, one after the other in a thread that can be left behind."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._patient = threading.Semaphore(PATIENT)
        self._lock = threading.Lock()
        self._inside: Counter[str] = Counter()

    def problems(self, chosen: Sequence[tuple[str, str]], document: Document) -> list[Problem]:
        """What the providers, by kind and name, cannot do. Raises PluginError when one of them cannot even look,
        whatever it raises, and PluginBusy when it takes too long."""
        return self._ask(chosen, lambda provider: provider.check_descriptor, document)

    def remarks(self, chosen: Sequence[tuple[str, str]], document: Document) -> list[Problem]:
        """What will have no effect. Raises the same."""
        return self._ask(chosen, lambda provider: provider.remarks, document)

    def _ask(self, chosen: Sequence[tuple[str, str]], question: Question, document: Document) -> list[Problem]:
        entries = [(self._registry.title(kind, name), self._registry.entry(kind, name)) for kind, name in chosen]
        asked = [(title, entry) for title, entry in entries if _has_its_own(question(entry.provider))]
        if not asked:
            return []
        for title, _ in asked:
            if self._inside[title] >= INSIDE:
                raise PluginBusy(f"{title} does not answer: {INSIDE} calls hang in it; restart the service without it")
        at = [""]

        def run() -> list[Problem]:
            found: list[Problem] = []
            for title, entry in asked:
                at[0] = title
                with self._counted(title):
                    found += _asked(title, question(entry.provider), document)
            return found

        call = Invocation(run, "descriptor")
        if not call.wait(SOON) and not self._wait_on(call):
            raise PluginBusy(f"{at[0]} did not look at the descriptor within {DEADLINE:g} s; try again later")
        return call.result()

    @contextlib.contextmanager
    def _counted(self, title: str) -> Iterator[None]:
        with self._lock:
            self._inside[title] += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[title] -= 1

    def _wait_on(self, call: Invocation[Any]) -> bool:
        if not self._patient.acquire(blocking=False):
            raise PluginBusy("too many requests wait for plugins that are slow; try again later")
        try:
            return call.wait(DEADLINE - SOON)
        finally:
            self._patient.release()


def _has_its_own(method: Callable[[Document], Sequence[Problem]]) -> bool:
    """False for the default, which has nothing to say and need not be asked in a thread of its own."""
    return getattr(method, "__func__", None) is not getattr(Provider, method.__name__, None)


def _asked(title: str, question: Callable[[Document], Sequence[Problem]], document: Document) -> list[Problem]:
    try:
        answer = question(copy.deepcopy(document))
        if wrong := no_list(answer):
            raise PluginError(f"{question.__name__}() of {title} {wrong}")
        found = list(itertools.islice(answer, MOST))
        if not all(isinstance(problem, Problem) and isinstance(problem.message, str) for problem in found):
            raise PluginError(f"{question.__name__}() of {title} gave something that is no Problem")
        return [Problem(str(problem.path)[:LONGEST], problem.message[:LONGEST]) for problem in found]
    except PluginError:
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        with about_descriptor(document):  # which the traceback may quote
            logger.exception("%s of %s failed", question.__name__, title)
        raise PluginError(
            f"{title} raised {type(error).__name__} in {question.__name__}(); the service's log has the details"
        ) from None  # who logs this knows nothing of the descriptor
