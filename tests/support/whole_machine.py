"""The rules by which Hypothesis drives a whole service, and one play of them (see `tests/whole/test_whole.py`).

It stands here, not in the test's module: a process of its own imports it by name, and only what is on `sys.path` has a
name that another process knows.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from deployer import sandbox
from support.forkserver import ForkServer
from support.whole_model import DESCRIPTORS, FAULTS, STORE_FAULTS, Lab, Run

STEPS = 40
"""Of one run."""

APPS = st.integers(0, 3)
NEWEST = st.integers(0, 4)
"""Which deployment of an app is meant: 0 is the newest."""

POINTS = st.sampled_from(["kube.before", "kube.after", "store.before", "store.after"])
SOON = st.integers(1, 12)
"""How many hits of a failpoint from now the process dies."""


class Whole(RuleBasedStateMachine):
    """See above. A rule is a line in the story that a failure prints."""

    lab: ClassVar[Lab]

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.failed = False
        self.run = Run(self.lab)

    @contextmanager
    def step(self, name: str, **arguments: object) -> Iterator[Run]:
        """One step, which is told of when anything fails from there on."""
        told = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        self.run.trace.append(f"run.{name}({told})  # {time.monotonic() - self.began:.2f} s")
        self.lab.steps[name] += 1
        began = time.monotonic()
        try:
            yield self.run
        except Exception as error:
            if not self.failed:
                self.failed = True
                self.lab.failures.append(f"{type(error).__name__}: {error}\n{self.run.story()}")
            raise
        finally:
            self.lab.seconds[name] += time.monotonic() - began

    # --- users ----------------------------------------------------------------------------------------------------

    @initialize(first=st.tuples(*[st.sampled_from(["well", "warm", "recreate", "canary"])] * 4))
    def deploy_all(self, first: tuple[str, ...]) -> None:
        for app, what in enumerate(first):
            self.deploy(app, what)

    @rule(app=APPS, what=st.sampled_from(["well", "well", "canary", "recreate", "warm"]))
    def deploy(self, app: int, what: str) -> None:
        with self.step("deploy", which=app, what=what) as run:
            run.deploy(app, what)

    @rule(app=APPS, what=st.sampled_from(sorted(DESCRIPTORS)))
    def deploy_anything(self, app: int, what: str) -> None:
        with self.step("deploy", which=app, what=what) as run:
            run.deploy(app, what)

    @rule(what=st.sampled_from(sorted(DESCRIPTORS)), then=st.sampled_from(sorted(DESCRIPTORS)), app=APPS)
    def deploy_twice(self, what: str, then: str, app: int) -> None:
        self.deploy(app, what)
        self.deploy(app, then)

    @rule(app=APPS, newest=NEWEST)
    def redeploy(self, app: int, newest: int) -> None:
        with self.step("redeploy", which=app, newest=newest) as run:
            run.redeploy(app, newest)

    @rule(app=APPS)
    def roll_back(self, app: int) -> None:
        with self.step("roll_back", which=app) as run:
            run.roll_back(app)

    @rule(app=APPS, approve=st.booleans())
    def decide(self, app: int, approve: bool) -> None:
        with self.step("decide", which=app, approve=approve) as run:
            run.decide(app, approve=approve)

    @rule(app=APPS, newest=NEWEST, delete=st.booleans())
    def undeploy(self, app: int, newest: int, delete: bool) -> None:
        with self.step("undeploy", which=app, newest=newest, delete=delete) as run:
            run.undeploy(app, newest, delete=delete)

    @rule(app=APPS, freeze=st.booleans())
    def freeze(self, app: int, freeze: bool) -> None:
        with self.step("freeze", which=app, freeze=freeze) as run:
            run.freeze(app, freeze=freeze)

    @rule(app=APPS)
    def ask_around(self, app: int) -> None:
        with self.step("ask_around", which=app) as run:
            run.ask_around(app)

    # --- its machine ----------------------------------------------------------------------------------------------

    @rule(point=POINTS, number=SOON)
    def die_at(self, point: str, number: int) -> None:
        with self.step("order", what="arm", kill=f"{point}:{number}") as run:
            run.order("arm", kill=f"{point}:{number}")

    @rule(again=st.booleans(), point=POINTS, number=SOON)
    def crash(self, again: bool, point: str, number: int) -> None:
        kill = f"{point}:{number}" if again else ""
        with self.step("crash", kill=kill) as run:
            run.crash(kill)

    @rule()
    def restart(self) -> None:
        with self.step("restart") as run:
            run.restart()

    @rule(seconds=st.sampled_from([3600.0, -3600.0, 90.0, -7.0]))
    def jump(self, seconds: float) -> None:
        with self.step("jump", seconds=seconds) as run:
            run.jump(seconds)

    @rule(what=st.sampled_from(sorted(STORE_FAULTS)))
    def break_store(self, what: str) -> None:
        with self.step("break_store", what=what) as run:
            run.break_store(what)

    @rule()
    def mend_store(self) -> None:
        with self.step("order", what="mend_store") as run:
            run.order("mend_store")

    # --- the cluster ----------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(sorted(FAULTS)),
        verb=st.sampled_from(["create", "replace", "delete", "get", "list", "watch"]),
        times=st.integers(1, 6),
    )
    def break_api(self, what: str, verb: str, times: int) -> None:
        with self.step("break_api", what=what, verb=verb, times=times) as run:
            run.break_api(what, verb, times)

    @rule(what=st.sampled_from(["silence", "refuse", "accept"]))
    def cut_off(self, what: str) -> None:
        with self.step("cut_off", what=what) as run:
            run.cut_off(what)

    @rule(app=APPS, what=st.sampled_from(["selector", "controller", "up", "down", "route"]))
    def tamper(self, app: int, what: str) -> None:
        with self.step("tamper", which=app, what=what) as run:
            run.tamper(app, what)

    # --- looking --------------------------------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        with self.step("settle") as run:
            run.settle()

    def teardown(self) -> None:
        try:
            if not self.failed:
                with self.step("finish") as run:
                    run.finish()
        finally:
            self.run.close()


@dataclass
class Played:
    """What one process played, by name."""

    steps: Counter[str]
    seconds: dict[str, float]


def play(path: Path, seed: int, steps: int) -> Played:
    """Runs with at least so many steps together, on a sandbox of its own, whose watches tell often how far they are.

    Raises AssertionError with the stories of the runs in which something went wrong.
    """
    path.mkdir(parents=True)
    cluster = sandbox.start(path / "sandbox", ingress_delay=0.05, options=("--bookmark-interval", "0.2"))
    server = ForkServer("support.whole_service:run", path / "server")
    lab = Lab(cluster.api, server, path)
    try:
        run_state_machine_as_test(
            hypothesis.seed(seed)(type("state", (Whole,), {"lab": lab})),
            settings=hypothesis.settings(
                max_examples=-(-steps // STEPS),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as error:  # one that another process can read
        raise AssertionError("\n\n".join(lab.failures) or traceback.format_exc()) from error
    finally:
        server.close()
        cluster.stop()
    return Played(lab.steps, dict(lab.seconds))
