"""What every strategy must do, as checks on a Deployer that runs on a sandbox: ours, and a stranger's.

No test framework is needed: `CHECKS` are functions that take a `StrategyBench` and raise AssertionError. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_strategy(check, cluster, tmp_path):
        check(StrategyBench(cluster, tmp_path, "mine", providers=[Mine()]))
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.model.records import Deployment, Operation, Plan, Status
from deployer.sdk.errors import DeployerError
from deployer.sdk.plugin import Provider
from deployer.testing.descriptors import HEALTHY, describe
from deployer.testing.service import SandboxedService

logger = logging.getLogger(__name__)

UNHEALTHY = {"env": {"FAIL": "1"}}
"""Fields of a descriptor whose version starts, becomes ready, and never becomes healthy."""

ANSWERS = 5
"""How often the data plane is asked who serves."""

LIVES = 100
"""Services, one after the other, that a cancellation may take when each dies one write later."""

LONG = 60.0
"""Seconds for a deployment that starts its pods twice and may have to come back."""


@dataclass
class StrategyBench:
    """Where one strategy is tried.

    strategy   its name; it must be installed, or be among `providers`
    options    the descriptor's `strategyOptions`
    providers  as for `SandboxedService`
    points     how many of the writes a crash is tried before, drawn by `seed`; 0: all of them
    """

    cluster: sandbox.Sandbox
    path: Path
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    providers: Sequence[Provider] = ()
    points: int = 3
    seed: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def service(self) -> Iterator[SandboxedService]:
        """One in an empty namespace, whose first version is live, in two pods."""
        path = self.path / f"{self.strategy}-{next(self._numbers)}"
        path.mkdir()
        made = SandboxedService(self.cluster, path, providers=self.providers, timeout=2.0, undo_timeout=20.0)
        with made:
            first = self.deploy(made)
            made.until(lambda: made.engine.idle() or None, "the first version")
            assert made.await_status(first).status is Status.DEPLOYED, made.log(first)
            self.require(made, "1")
            yield made

    def deploy(self, service: SandboxedService, **fields: Any) -> str:
        """Queue the next version. Returns the deployment's id."""
        options = {"strategyOptions": dict(self.options)} if self.options else {}
        fields = {"deploymentType": self.strategy, "frontend": host(service), **HEALTHY, **options, **fields}
        return service.deploy_descriptor(describe(service.namespace, replicas=2, **fields))

    def require(self, service: SandboxedService, version: str) -> None:
        """Only that version is there, in two pods, and everybody gets it. Raises AssertionError."""
        self.quiet(service)
        everybody_gets(service, version, *(d.id for d in service.store.find(Deployment)))
        story = "\n".join(service.log(d.id) for d in service.store.find(Deployment))
        name = f"shop-{version}"
        found = service.names()
        assert found["replicationcontrollers"] == {name}, (found, story)
        assert found["services"] == {"shop", name}, (found, story)
        assert service.live_version() == version, story
        pods = service.pods()
        assert len(pods) == 2 and all(pod.startswith(f"{name}-") for pod in pods), (sorted(pods), story)
        plans = [plan.version for plan in service.store.find(Plan)]
        assert plans == [version], (plans, story)

    def quiet(self, service: SandboxedService) -> None:
        """Wait until nothing is left to do."""
        service.until(lambda: service.engine.idle() or None, "everything to be done", LONG)

    def end(self, service: SandboxedService, id: str, *statuses: Status) -> None:
        """Wait for one of these ends. Raises AssertionError with the log for another one."""

        def moving() -> Deployment | None:
            found = service.store.get(Deployment, id)
            return found if found and not found.status.moving else None

        status = service.until(moving, f"deployment {id} to end", LONG).status
        assert status in statuses, f"{status} instead of {' or '.join(statuses)}\n{service.log(id)}"

    def leave_nothing(self, service: SandboxedService) -> None:
        """Undeploy what is live. Raises AssertionError when anything stays."""
        for deployment in service.store.find(Deployment):
            if deployment.status is Status.DEPLOYED:
                service.undeploy(deployment.id)
        self.quiet(service)
        assert (service.names(), service.pods()) == ({}, {}), (service.names(), sorted(service.pods()))

    def writes(self, *, fails: bool = False) -> int:
        """How many a second version takes until it is live, or has failed. Counted once for all benches of a strategy:
        it costs a deployment."""
        key = (self.strategy, str(self.options), fails)
        if key not in _writes:
            with self.service() as service:
                before = service.writes
                fields, status = (UNHEALTHY, Status.FAILURE) if fails else ({}, Status.DEPLOYED)
                self.end(service, self.deploy(service, **fields), status)
                _writes[key] = service.writes - before
        return _writes[key]

    def drawn(self, writes: int) -> list[int]:
        """The writes, counted from 1, that a crash is tried before."""
        every = range(1, writes + 1)
        chosen = list(every)
        if self.points and self.points < writes:
            chosen = sorted(random.Random(f"{self.seed} {self.strategy}").sample(every, self.points))
        logger.info("%s: %d of %d writes are tried", self.strategy, len(chosen), writes)
        return chosen


_writes: dict[tuple[str, str, bool], int] = {}

Check = Callable[[StrategyBench], None]


def host(service: SandboxedService) -> str:
    """The frontend of a service's app."""
    return f"{service.namespace}.example.com"


def everybody_gets(service: SandboxedService, version: str, *ids: str) -> None:
    """Only that version answers. Raises AssertionError with the logs of these deployments."""
    for _ in range(ANSWERS):
        found = service.answer(host(service))
        assert found[1].startswith(f"version {version} "), f"{found} instead of version {version}\n" + "\n".join(
            map(service.log, ids)
        )


@contextlib.contextmanager
def watched(service: SandboxedService) -> Iterator[list[str]]:
    """Ask who serves all the time. Of version 2's deployment each answer must be version 1's until a step has started
    that `exposes`, or `disturbs` where nobody answers: the list has what speaks against it."""
    stop = threading.Event()
    wrong: list[str] = []

    def look() -> None:
        while not stop.wait(0.01):
            body = ""
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = service.answer(host(service))[1]
            # Whatever led to that answer was in the journal before it was done.
            operations = {operation.deployment: operation for operation in service.store.find(Operation)}
            moving = [d for d in service.store.find(Deployment) if d.status is Status.DEPLOYING]
            plan = service.store.get(Plan, moving[0].id) if moving else None
            if body.startswith("version 1 ") or plan is None:
                continue
            started = [step for step in plan.steps if step.id in operations[plan.deployment].steps]
            says = "exposes" if body.startswith("version 2 ") else "disturbs"
            if not any(getattr(step, says) for step in started):
                ids = ", ".join(step.id for step in started)
                wrong.append(f"{body.strip() or 'nobody'} answers after the steps {ids}, none of which {says}")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()


# --- the checks ---------------------------------------------------------------------------------------------------


def a_second_version_replaces_the_first(bench: StrategyBench) -> None:
    """It has all traffic in the end, and nothing is left of the first one, nor of anything once it is undeployed. Until
    a step has started which says that it `exposes` or `disturbs`, everybody gets the first one."""
    with bench.service() as service:
        with watched(service) as wrong:
            second = bench.deploy(service)
            bench.end(service, second, Status.DEPLOYED)
        assert not wrong, wrong[0]
        everybody_gets(service, "2", second)
        bench.require(service, "2")
        bench.leave_nothing(service)


def a_failure_ends_when_the_old_version_serves(bench: StrategyBench) -> None:
    """At the very moment of FAILURE, and nothing of the new one stays. What steps do to traffic they say."""
    with bench.service() as service:
        with watched(service) as wrong:
            failed = bench.deploy(service, **UNHEALTHY)
            bench.end(service, failed, Status.FAILURE)
        assert not wrong, wrong[0]
        everybody_gets(service, "1", failed)
        bench.require(service, "1")
        bench.end(service, bench.deploy(service), Status.DEPLOYED)
        bench.require(service, "3")


def a_cancellation_ends_with_the_old_version(bench: StrategyBench) -> None:
    """In every step: before each of the drawn writes a deployment is cancelled."""
    for point in bench.drawn(bench.writes()):
        with bench.service() as service:
            service.kill(at=point)
            second = bench.deploy(service)
            if not died(service, second):
                continue
            service.restart()
            with contextlib.suppress(Exception):  # it has ended, or is just being committed
                service.undeploy(second)
            bench.quiet(service)
            status = service.await_status(second).status
            if status is Status.UNDEPLOYED and service.live_version() is None:
                continue  # it was live already, and was undeployed
            bench.require(service, "1" if status is Status.UNDEPLOYED else "2")


def a_cancellation_ends_however_often_it_dies(bench: StrategyBench) -> None:
    """A deployment dies, and is cancelled meanwhile. What is to take it back dies before its first write, the next one
    before its second, and so on until one is through: the old version serves, wherever it was cancelled."""
    for point in bench.drawn(bench.writes()):
        with bench.service() as service:
            service.kill(at=point)
            second = bench.deploy(service)
            if not died(service, second):
                continue
            with contextlib.suppress(DeployerError):  # it has ended
                service.undeploy(second)
            for write in range(1, LIVES):
                service.restart(kill_at=write)
                if not died(service, second):
                    break
            else:
                raise AssertionError(f"deployment {second} is not through after {LIVES} lives\n{service.log(second)}")
            if service.live_version() is not None:  # else it was live when it was undeployed
                bench.end(service, second, Status.UNDEPLOYED)
                bench.require(service, "1")


def a_crash_before_any_write_is_survived_going_on(bench: StrategyBench) -> None:
    """The service dies before a write of a deployment that succeeds; the next one brings it to its end."""
    for point in bench.drawn(bench.writes()):
        with bench.service() as service:
            service.kill(at=point)
            second = bench.deploy(service)
            if died(service, second):
                service.restart()
            bench.end(service, second, Status.DEPLOYED)
            bench.require(service, "2")
            bench.leave_nothing(service)


def a_crash_before_any_write_is_survived_going_back(bench: StrategyBench) -> None:
    """The same for a deployment that fails, and for the way back of that."""
    for point in bench.drawn(bench.writes(fails=True)):
        with bench.service() as service:
            service.kill(at=point)
            second = bench.deploy(service, **UNHEALTHY)
            if died(service, second):
                service.restart()
            bench.end(service, second, Status.FAILURE)
            bench.require(service, "1")
            bench.leave_nothing(service)


def a_plugin_that_is_gone_loses_nobody(bench: StrategyBench) -> None:
    """The service dies, and the strategy is uninstalled before the next start: what nobody can undo is kept as it is
    until it is there again, and a deployment that ends meanwhile ends with the old version."""
    for point in bench.drawn(bench.writes()):
        with bench.service() as service:
            service.kill(at=point)
            second = bench.deploy(service)
            if not died(service, second):
                continue
            service.restart(without=bench.strategy)
            service.until(lambda service=service: at_rest(service) or None, "everything to end or to be held", LONG)  # type: ignore[misc]
            if service.record(second).status is Status.DEPLOYING:
                service.restart()
                bench.end(service, second, Status.FAILURE, Status.DEPLOYED)
            bench.require(service, "2" if service.record(second).status is Status.DEPLOYED else "1")


def died(service: SandboxedService, id: str) -> bool:
    """Wait for the death that was ordered; False when the deployment came to its end, and all was done, before."""

    def over() -> bool:
        return service.died.is_set() or service.engine.idle()

    service.until(lambda: over() or None, f"the service to die, or deployment {id} to end", LONG)
    return service.died.is_set()


def at_rest(service: SandboxedService) -> bool:
    """Nothing is worked on, and whatever is open waits for its time."""
    waiting = service.store.find(Operation, tag="open")
    return service.engine.running == 0 and all(operation.period > 0 for operation in waiting)


CRASH_CHECKS: Sequence[Check] = (
    a_cancellation_ends_with_the_old_version,
    a_cancellation_ends_however_often_it_dies,
    a_crash_before_any_write_is_survived_going_on,
    a_crash_before_any_write_is_survived_going_back,
    a_plugin_that_is_gone_loses_nobody,
)
"""Those that try some of the writes."""

CHECKS: Sequence[Check] = (
    a_second_version_replaces_the_first,
    a_failure_ends_when_the_old_version_serves,
    *CRASH_CHECKS,
)


__all__ = ["CHECKS", "CRASH_CHECKS", "Check", "StrategyBench"]
