"""Following a deployment: its log as it is written, and the deployment whenever that may have moved."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from deployer.client.errors import ClientError, ExitCode, Refused, Unreachable
from deployer.client.following import state
from deployer.client.following.state import Goal, Outcome
from deployer.client.log_stream import LogStream
from deployer.client.service import Service

INTERVAL = 1.0
"""Seconds between two questions when the log says nothing; a deployment that has not moved is a 304."""

AFTER_LINE = 0.1
"""Seconds in which lines of the log are gathered before the deployment is asked for again."""

PATIENCE = 60.0
"""Seconds for which a service that does not answer is asked again."""


class View(Protocol):
    """Shows what happens."""

    def log(self, line: str) -> None:
        """A message of the log, `RFC3339 text`; further lines are indented."""

    def show(self, deployment: dict[str, Any], app: dict[str, Any] | None) -> None:
        """The deployment has moved."""

    def trouble(self, sentence: str) -> None:
        """The service does not answer; it is asked again. An empty sentence: it answers again."""


class Follower:
    """Follows one deployment.

    until    what is waited for
    timeout  seconds; None: as long as it takes
    patient  go on while a person has to decide; else that ends it with `ExitCode.WAITING`
    with_app the view is shown the app too, whenever the deployment moves
    after    number of the last message of the log that is left out
    """

    def __init__(
        self,
        service: Service,
        id: str,
        view: View,
        *,
        until: Goal = Goal.LIVE,
        timeout: float | None = None,
        patient: bool = False,
        with_app: bool = False,
        after: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._id = id
        self._view = view
        self._until = until
        self._end = None if timeout is None else clock() + timeout
        self._timeout = timeout
        self._patient = patient
        self._with_app = with_app or until in (Goal.PREVIEW, Goal.RETIRED)
        self._clock = clock
        self._lines: queue.Queue[str | ClientError | None] = queue.Queue()
        self._stream = LogStream(service.connection, service.namespace, id, patience=PATIENCE)
        self._stream.after = after
        self._ended = False
        self._etag = ""
        self._deployment: dict[str, Any] = {}
        self._app: dict[str, Any] | None = None
        self._silent = 0.0  # since when nobody answers

    def run(self) -> Outcome:
        """Until the goal is reached, or cannot be any more, or time is over. Raises a ClientError."""
        threading.Thread(target=self._read_log, name="log", daemon=True).start()
        try:
            while True:
                outcome = self._look()
                if outcome is not None:
                    self._rest_of_log(outcome)
                    return outcome
                self._wait()
        finally:
            self._stream.close()

    # --- the log --------------------------------------------------------------------------------------------------

    def _read_log(self) -> None:
        try:
            for message in self._stream.messages():
                self._lines.put(message)
            self._lines.put(None)
        except ClientError as error:
            self._lines.put(error)
        except Exception as error:  # noqa: BLE001 - the one who follows is told
            self._lines.put(Unreachable(f"the log cannot be followed: {error}"))

    def _wait(self) -> None:
        """Until a line comes and those right behind it, or for a while."""
        left = INTERVAL if self._end is None else min(INTERVAL, max(0.0, self._end - self._clock()))
        try:
            self._take(self._lines.get(timeout=left))
            end = self._clock() + AFTER_LINE
            while not self._ended and (more := end - self._clock()) > 0:
                self._take(self._lines.get(timeout=more))
        except queue.Empty:
            return

    def _take(self, item: str | ClientError | None) -> None:
        if isinstance(item, str):
            self._view.log(item)
            return
        if isinstance(item, ClientError) and not isinstance(item, Unreachable):
            raise item
        self._ended = True  # what becomes of the deployment is asked for anyway

    def _rest_of_log(self, outcome: Outcome) -> None:
        """What was written before the end, as far as it comes soon: the reason of a failure stands there."""
        end = self._clock() + 2.0
        over = outcome.deployment.get("status") in ("FAILURE", "UNDEPLOYED", "DEPLOYED")
        while not self._ended and over and (left := end - self._clock()) > 0:
            try:
                self._take(self._lines.get(timeout=left))
            except queue.Empty:
                break
        while not self._lines.empty():
            item = self._lines.get()
            if isinstance(item, str):
                self._view.log(item)

    # --- the deployment -------------------------------------------------------------------------------------------

    def _look(self) -> Outcome | None:
        try:
            found, self._etag = self._service.moved(self._id, self._etag)
            if found is not None:
                self._deployment = found
                if self._with_app:
                    self._app = self._service.app(self._app_name())
                self._view.show(found, self._app)
            elif self._until is Goal.RETIRED and self._deployment.get("status") == "DEPLOYED":
                self._app = self._service.app(self._app_name())
            if self._silent:
                self._silent = 0.0
                self._view.trouble("")
            return self._outcome()
        except Unreachable as error:
            now = self._clock()
            self._silent = self._silent or now
            late = self._end is not None and now >= self._end
            if late or now - self._silent > PATIENCE:
                raise
            self._view.trouble(str(error))
            return None

    def _app_name(self) -> str:
        found = self._deployment
        return str(found.get("appName") or found.get("descriptor", {}).get("appName", ""))

    def _outcome(self) -> Outcome | None:
        found, goal = self._deployment, self._until
        if why := state.impossible(goal, found, self._app):
            raise Refused(f"{state.name(found)} {why}")
        if state.reached(goal, found, self._app):
            return Outcome(ExitCode.DONE, f"{state.name(found)} {_said(goal, found)}", found, reached=True)
        outcome = ""
        if found["status"] in ("UNDEPLOYING", "UNDEPLOYED"):
            outcome = state.outcome_of(self._service.history(self._app_name(), 100), self._id)
        if (over := state.ended(found, outcome)) is not None:
            return over
        if (waits := state.needs_person(found)) and not self._patient:
            return Outcome(ExitCode.WAITING, f"{state.name(found)} {waits}", found)
        if self._end is not None and self._clock() >= self._end:
            doing = found.get("waitingFor") or found.get("step") or found.get("phase", "")
            more = f": {doing}" if doing else ""
            code = ExitCode.WAITING if waits else ExitCode.RUNNING
            return Outcome(code, f"{state.name(found)} is still running after {self._timeout:g} s{more}", found)
        return None


def _said(goal: Goal, deployment: dict[str, Any]) -> str:
    if deployment["status"] == "DEPLOYED":
        return "is live, and what it replaced is removed" if goal is Goal.RETIRED else "is live"
    return {Goal.PREVIEW: "answers under its preview host", Goal.SWITCHED: "gets the requests"}[goal]
