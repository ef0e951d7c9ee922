"""What a call of a gate gets, without a service: objects and memory that stay, and a clock that a test moves."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any, cast

from deployer.core.model.records import Json, Plan
from deployer.sdk.gate import GateContext, Point, VersionAccess
from deployer.sdk.plugin import CancelScope
from deployer.testing.fakes import FakeKube


class FakeGate:
    """`gate.check(fake.context)`, again and again, as after a crash. What is remembered passes through JSON."""

    def __init__(
        self, plan: Plan, options: Mapping[str, Any], *, name: str = "migrate", point: Point = Point.BEFORE_START
    ) -> None:
        self.plan = plan
        self.options = dict(options)
        self.name = name
        self.point = point
        self.log: list[str] = []
        self.memory: dict[str, Json] = {}
        self.now = self.began = 1_800_000_000.0
        self.seconds = 600.0
        self.kube = FakeKube(CancelScope(), plan.deployment, plan.namespace, plan.app)

    @property
    def context(self) -> GateContext:
        """A fresh one, with a scope of its own."""
        self.kube.scope = CancelScope(time.monotonic() + 20.0)

        def remember(key: str, value: Json) -> None:
            with self.kube.scope.writing():
                self.memory[key] = copy.deepcopy(value)

        return GateContext(
            name=self.name,
            point=self.point,
            plan=self.plan,
            options=copy.deepcopy(self.options),
            kube=self.kube,
            version=cast(VersionAccess, None),
            log=self.log.append,
            remember=remember,
            recall=lambda key, default: copy.deepcopy(self.memory.get(key, default)),
            scope=self.kube.scope,
            now=lambda: self.now,
            began=self.began,
            deadline=self.began + self.seconds,
        )
