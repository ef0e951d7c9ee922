"""Takes operations in their order, app by app, each under its lease; resumes what a crash left."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

from deployer.core import log_context
from deployer.core.backoff import Backoff
from deployer.core.clock import bounded
from deployer.core.contract.kube import ClusterEvent
from deployer.core.errors import DeployerError, Fenced, Interrupted, Revoked, StaleRevision, StoreError, UnknownFormat
from deployer.core.model.gates import GateDecision
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation import timeline
from deployer.core.model.records import (
    Deployment,
    Event,
    Operation,
    OperationKind,
    OperationState,
    Status,
)
from deployer.core.operations.activity import Activity
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.executor import Executor
from deployer.core.operations.host_claims import ended_changes
from deployer.core.operations.machine import PARK_LEAST, SWITCHING, is_cancelled
from deployer.core.operations.queueing.lanes import WATCHING, Lane, Queue, app_of, lane_of
from deployer.core.operations.queueing.turns import Turns
from deployer.core.ports.leases import LEASE, Held
from deployer.core.ports.observers import Observers
from deployer.core.ports.store import Update

logger = logging.getLogger(__name__)

TOO_MANY_HUNG = 8
"""Threads that hang past their deadline before the service calls itself unready."""

RETRY = 1.0
"""Seconds until the store, or another process, is asked again."""

LONGEST_PAUSE = 3600.0
"""Seconds after which it is looked at again in any case: what is due later than any clock can say ends no thread."""

AFTER_FAILURE = Backoff(first=RETRY, most=60.0)
"""Pauses after an operation had to be left as it is."""


class Engine:
    """One per process. `start` resumes whatever is open; `stop` leaves the rest to the next start."""

    def __init__(self, dependencies: Dependencies, observers: Observers) -> None:
        self._dependencies = dependencies
        self._store = dependencies.store
        self._leases = dependencies.leases
        self._replicas = dependencies.replicas
        self.hung = dependencies.hung
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._changed: set[tuple[str, str]] = set()
        self._apps: dict[Lane, Queue] = defaultdict(Queue)
        self._orphaned = False
        self._fenced: dict[Lane, int] = {}
        self._woken: deque[tuple[Lane, str]] = deque()
        self._listening: dict[str, Callable[[], None]] = {}
        self._parked: dict[str, float] = {}
        """When operations parked for an event last, by `time.monotonic`."""
        self._turns = Turns(dependencies.settings.workers)
        self._threads: set[threading.Thread] = set()
        self._observers = observers
        self._service: list[threading.Thread] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with what is open. Raises StoreUnavailable."""
        self._replicas.start(self._replicas_moved, self._hand_over)
        if self._replicas.alone:
            self._bound_periods()
        self._unsubscribe = self._store.subscribe(self._on_change)
        for operation in self._store.find(Operation, tag="open"):
            self._apps[lane_of(operation)].operations[operation.id] = operation
        if self._replicas.alone:
            self._look_at_begun()
        self._leases.start()
        thread = threading.Thread(target=self._dispatch, name="engine", daemon=True)
        thread.start()
        self._service.append(thread)
        self._observers.start()

    def _look_at_begun(self) -> None:
        """Who began them is gone. What is parked or held is looked at once: what it was pinned to, or waits for, may be
        gone, or back; and the event for which it waits is heard of only by a process that has looked."""
        with self._lock:
            for queue in self._apps.values():
                queue.early |= {o.id for o in queue.operations.values() if o.begun or o.steps}
                queue.not_before = 0.0

    def _bound_periods(self) -> None:
        """Nothing waits for ever, or not at all, because the system's clock was set before this start. Not while others
        work on the store: what they carry out is theirs."""
        now = self._dependencies.clock()
        for operation in self._store.find(Operation, tag="open"):
            if not operation.due or not operation.period:
                continue
            due = bounded(operation.due, now, least=operation.least, most=operation.period)
            if due != operation.due:
                with contextlib.suppress(StaleRevision):  # another process has taken it up
                    self._store.commit(Update(dataclasses.replace(operation, due=due)))

    def stop(self, grace: float = 10.0) -> None:
        """Take up nothing more, let go of what is running within `grace` seconds; all of it is resumed later."""
        self._stopping.set()
        self._wake.set()
        observers = self._observers.stop()
        end = time.monotonic() + grace
        with self._lock:
            executors = [queue.executor for queue in self._apps.values() if queue.executor]
            threads = list(self._threads)
        for executor in executors:
            executor.stop(Revoked("the service is stopping"))
        for thread in [*threads, *self._service, *observers]:
            thread.join(max(0.1, end - time.monotonic()))
        # Leases last until they are given back, and the others step in once they are.
        for thread in [*self._leases.stop(), *self._replicas.stop()]:
            thread.join(max(0.1, end - time.monotonic()))
        for forget in list(self._listening.values()):
            forget()
        self._unsubscribe()

    @property
    def problem(self) -> str:
        """Why the service should get no more work; empty when all is well."""
        hung = self.hung.count()
        return f"{hung} steps hang past their deadline; restart the service" if hung >= TOO_MANY_HUNG else ""

    @property
    def running(self) -> int:
        """How many operations are being worked on now."""
        with self._lock:
            return sum(queue.busy for queue in self._apps.values())

    def idle(self) -> bool:
        """True when nothing is open; for tests and for a quiet shutdown."""
        return not self._store.find(Operation, tag="open") and not self._store.count(Event)

    # --- other replicas ------------------------------------------------------------------------------------------

    def _replicas_moved(self, gone: bool) -> None:
        self._orphaned |= gone
        self._wake.set()
        self._observers.wake()

    def _hand_over(self, why: str) -> None:
        """Let others carry out what this process does."""
        with self._lock:
            executors = [queue.executor for queue in self._apps.values() if queue.executor]
        for executor in executors:
            executor.stop(Revoked(why))

    # --- dispatching ---------------------------------------------------------------------------------------------

    def _on_change(self, kind: str, key: str) -> None:
        if kind in (Operation.KIND, Deployment.KIND, GateDecision.KIND, ""):
            with self._lock:
                self._changed.add((kind, key))
            self._wake.set()
        if kind in (Event.KIND, ""):
            self._observers.wake()

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._take_in()
                pause = self._start_due()
            except StoreError as error:
                logger.error("the store cannot be read: %s", error)
                pause = RETRY
            except Exception:
                logger.exception("dispatching failed; trying again")
                pause = RETRY
            self._wake.wait(None if pause is None else min(pause, LONGEST_PAUSE))

    def _take_in(self) -> None:
        """Look at what changed: operations that came or moved, deployments that somebody cancelled."""
        if self._orphaned:
            if self._replicas.alone:
                self._bound_periods()
            self._orphaned = False
            self._look_at_begun()
        with self._lock:
            changed, self._changed = self._changed, set()
            while self._woken:
                app, id = self._woken.popleft()
                if app in self._apps:
                    self._apps[app].early.add(id)
        try:
            for change in list(changed):
                self._take_in_one(*change)
                changed.discard(change)
        finally:  # what could not be read is looked at again
            with self._lock:
                self._changed |= changed

    def _take_in_one(self, kind: str, key: str) -> None:
        if not kind:  # nobody can say what changed
            with self._lock:
                known = [operation for queue in self._apps.values() for operation in queue.operations.values()]
            for each in {o.id: o for o in [*known, *self._store.find(Operation, tag="open")]}.values():
                self._take_in_one(Operation.KIND, each.id)
                self._take_in_one(Deployment.KIND, each.deployment)
            return
        if kind == Deployment.KIND:
            deployment = self._store.get(Deployment, key)
            if deployment is not None and deployment.status is Status.UNDEPLOYING:
                self._cancel(deployment)
            return
        if kind == GateDecision.KIND:
            self._signal(self._store.get(GateDecision, key))
            return
        operation = self._store.get(Operation, key)
        if operation is not None and operation.least and operation.due:  # perhaps by a clock that is ahead of this one
            least = self._dependencies.clock() + operation.least
            operation = dataclasses.replace(operation, due=max(operation.due, least))
        with self._lock:
            if operation is None or operation.state is OperationState.DONE:
                for queue in self._apps.values():
                    queue.operations.pop(key, None)
                self._forget(key)
            else:
                self._apps[lane_of(operation)].operations[key] = operation
        if operation is not None and operation.begun and "deployment_changed" in self._observers.wanted:
            self._tell_progress(operation)

    def _signal(self, decision: GateDecision | None) -> None:
        """Have the gate that somebody decided about look at that: at once when it is parked, else once it is."""
        queue = self._apps.get((decision.namespace, decision.app)) if decision else None
        if decision is not None and queue is not None:
            with self._lock:
                queue.early |= {o.id for o in queue.operations.values() if o.deployment == decision.deployment}

    def _tell_progress(self, operation: Operation) -> None:
        deployment = self._store.get(Deployment, operation.deployment)
        if deployment is not None:
            self._observers.changed({**deployment.public(), "operation": operation.progress()})

    def _cancel(self, deployment: Deployment) -> None:
        """Somebody wants to be rid of a deployment that may be under way, waiting in the queue, or parked."""
        with self._lock:
            queue = self._apps.get((deployment.namespace, deployment.app))
            executor = queue.executor if queue else None
            found = [
                o
                for o in (queue.operations.values() if queue else ())
                if o.deployment == deployment.id and is_cancelled(o, deployment)
            ]
        if executor is not None and executor.operation.deployment == deployment.id:
            if is_cancelled(executor.operation, deployment):
                executor.cancel()
            return
        for operation in found:
            if operation.state is OperationState.QUEUED and operation.kind is OperationKind.DEPLOY:
                self._end_queued(operation, deployment)
            elif queue is not None and operation.state is OperationState.RUNNING and not operation.attempts:
                # It is parked; what waits between two attempts waits for a reason.
                with self._lock:
                    queue.early.add(operation.id)

    def _end_queued(self, operation: Operation, deployment: Deployment) -> None:
        """Nothing was begun, so nothing has to wait for its turn. Whoever begins it at this moment wins."""
        ended = timeline.over(operation.timeline, Occurrence.CANCELLED, self._dependencies.clock())
        closed = dataclasses.replace(operation, state=OperationState.DONE, timeline=ended)
        said = self._dependencies.deployment_log.line(deployment.id, "UNDEPLOYED: cancelled before it began")
        try:
            self._store.commit(Update(closed), said, *ended_changes(self._store, deployment, Occurrence.CANCELLED))
        except StaleRevision:
            with self._lock:
                self._changed.add((Deployment.KIND, deployment.id))

    def _start_due(self) -> float | None:
        """Start what is due and return the seconds until something else is, None when nothing waits."""
        pause: float | None = None
        now = self._dependencies.clock()
        due: dict[str, tuple[Lane, Queue, Operation]] = {}
        with self._lock:
            for app, queue in list(self._apps.items()):
                watches = self._apps.get((app[0], app[1] + WATCHING))
                operation = queue.next(now, {o.deployment for o in watches.operations.values()} if watches else ())
                if operation is None:
                    if not queue.operations and not queue.busy:
                        del self._apps[app]
                    continue
                # Whoever hears what it waits for takes it up; else the others come first when it is their turn.
                heard = operation.id in self._listening
                patience = 0.0 if heard else self._replicas.patience(*app_of(app))
                left = queue.mine(operation, now, patience) - now
                if left > 0:
                    pause = left if pause is None else min(pause, left)
                    continue
                due[operation.id] = app, queue, operation
            for granted in self._turns.grant([operation for *_, operation in due.values()]):
                app, queue, operation = due.pop(granted.id)
                queue.busy = True
                woken = operation.id in queue.early
                queue.early.discard(operation.id)
                thread = threading.Thread(
                    target=self._work,
                    args=(app, queue, operation, woken),
                    name=f"operation-{operation.app}",
                    daemon=True,
                )
                self._threads.add(thread)
                thread.start()
        return min(pause or RETRY, RETRY) if due else pause

    # --- one operation -------------------------------------------------------------------------------------------

    def _work(self, app: Lane, queue: Queue, operation: Operation, woken: bool) -> None:
        pause = 0.0
        self._forget(operation.id)
        subject = contextlib.ExitStack()
        ids = {"deployment": operation.deployment, "operation": operation.id, "request": operation.request}
        subject.enter_context(log_context.about(namespace=operation.namespace, app=operation.app, **ids))
        try:
            # Before the first line is written, here or by a step.
            secrets = self._dependencies.deployment_log.secrets(operation.deployment) or ()
            subject.enter_context(self._dependencies.redactor.about(operation.deployment, secrets))
            pause = self._under_lease(app, queue, operation)
        except Interrupted as error:
            logger.info("operation %s of %s is left as it is: %s", operation.id, operation.app, error)
            pause = self._failed(queue)
        except Fenced as error:
            logger.warning("operation %s of %s belongs to another process now: %s", operation.id, operation.app, error)
            pause = RETRY
        except UnknownFormat as error:
            logger.error("operation %s of %s is held: %s", operation.id, operation.app, error)
            pause = self._held(queue, operation, str(error))
        except StoreError as error:
            logger.error("operation %s of %s waits for the store: %s", operation.id, operation.app, error)
            pause = self._failed(queue)
        except DeployerError as error:
            logger.error("operation %s of %s is tried again: %s", operation.id, operation.app, error)
            pause = self._failed(queue)
        except Exception:
            logger.exception(
                "operation %s of %s failed with an unexpected error; trying again", operation.id, operation.app
            )
            pause = self._failed(queue)
        finally:
            subject.close()
            self._done(app, queue, operation, pause, woken)

    def _failed(self, queue: Queue) -> float:
        queue.failures += 1
        return AFTER_FAILURE.after(queue.failures)

    def _held(self, queue: Queue, operation: Operation, why: str) -> float:
        """Say once to whoever deploys why nothing goes on; the words are the core's, so there is nothing to conceal."""
        if not queue.failures and operation.deployment:
            with contextlib.suppress(StoreError), self._dependencies.redactor.about(operation.deployment, set()):
                self._dependencies.deployment_log.append(operation.deployment, why)
        self._dependencies.activities.put(Activity(operation=operation, held=why))
        return self._failed(queue)

    def _done(self, app: Lane, queue: Queue, operation: Operation, pause: float, woken: bool) -> None:
        """The app may be taken up again; the dispatcher reads the operation anew, whatever became of it."""
        with self._lock:
            executor, queue.executor = queue.executor, None
            queue.not_before = self._dependencies.clock() + pause if pause else 0.0
            self._threads.discard(threading.current_thread())
            self._turns.give_back(operation)
        try:
            now = self._store.get(Operation, operation.id)
        except StoreError:
            now = operation  # read again under the lease anyway
        with self._lock:
            queue.busy = False
            if now is None or now.state is OperationState.DONE:
                queue.operations.pop(operation.id, None)
                self._dependencies.activities.drop(operation)
            else:
                queue.operations[now.id] = now
                if woken and pause:  # nothing came of it, and what woke it does not come again
                    queue.early.add(now.id)
                # A cancellation that came while the step was parking found neither a executor nor a parked operation.
                self._changed.add((Deployment.KIND, now.deployment))
        if executor is None or not isinstance(executor.event, ClusterEvent):
            self._parked.pop(operation.id, None)
        elif time.monotonic() - self._parked.get(operation.id, float("-inf")) >= PARK_LEAST:
            self._parked[operation.id] = time.monotonic()
            self._listen(app, operation.id, executor.event)
        else:  # of an event that has come already, a step must not make a loop
            later = threading.Timer(PARK_LEAST, self._listen, (app, operation.id, executor.event))
            later.daemon = True
            later.start()
        self._wake.set()

    def _listen(self, app: Lane, id: str, event: ClusterEvent) -> None:
        """Take the parked operation up again when that has come."""
        with self._lock:
            if app not in self._apps or id not in self._apps[app].operations:
                return

        def wake() -> None:
            self._woken.append((app, id))
            self._wake.set()

        with contextlib.suppress(Revoked):
            self._listening[id] = self._dependencies.cluster.on_event(event, wake)

    def _forget(self, id: str) -> None:
        """Listen no more to what it waited for."""
        self._listening.pop(id, lambda: None)()

    def _under_lease(self, app: Lane, queue: Queue, operation: Operation) -> float:
        """Run it and return how long the app should be left alone (0 unless another process has the lease)."""
        held = self._leases.take(*app)
        if held is None:
            return LEASE / 3
        try:
            # Read under the lease: whoever had it before may have gone on with it.
            current = self._store.get(Operation, operation.id)
            if current is None or current.state is OperationState.DONE:
                return 0.0
            self._run_under(held, app, queue, current)
            return 0.0
        finally:
            self._leases.give_back(held)

    def _run_under(self, held: Held, app: Lane, queue: Queue, operation: Operation) -> None:
        token = held.lease.token
        executor = Executor(self._dependencies, operation, held, fenced=self._fenced.get(app) == token)
        held.lost = executor.stop
        with self._lock:
            queue.executor = executor
        if self._stopping.is_set():
            return
        # A cancellation that came before the executor was known is seen by its own look at the deployment.
        self._check_cancelled(executor)
        executor.run()
        if executor.operation.state is OperationState.DONE:
            how = operation.kind, operation.deployment, operation.app, executor.operation.timeline.outcome
            logger.info("the %s of deployment %s of %s has ended: %s", *how)
        self._fenced[app] = token
        queue.failures = 0

    def _check_cancelled(self, executor: Executor) -> None:
        operation = executor.operation
        deployment = self._store.get(Deployment, operation.deployment) if operation.kind in SWITCHING else None
        if deployment is not None and is_cancelled(operation, deployment):
            executor.cancel()
