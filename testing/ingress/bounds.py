"""Checks of when a verb ends, and that `remove` leaves nothing."""

from __future__ import annotations

import contextlib
import threading
import time

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Cancelled, DeadlineExceeded, StepFailed
from deployer.core.model.plan import Preview
from deployer.testing.ingress.bench import BUDGET, DEPLOYMENTS, Bench
from deployer.testing.ingress.situations import exposed

LATE = 2.0
"""Seconds after its deadline, or after it was cancelled, in which a verb must have ended."""


def a_silent_data_plane_ends_at_the_deadline(bench: Bench) -> None:
    """`prepare` ends in time, one way or the other; `confirm` says that it was not confirmed when its time is up, and
    ends at once when it is cancelled. `ask_route` raises nothing, and says of each address that it gave no answer."""
    if bench.silent is None:
        return
    host, _ = exposed(bench)
    provider = bench.silent()
    began = time.monotonic()
    with contextlib.suppress(StepFailed, DeadlineExceeded):
        provider.prepare(bench.context(bench.route(host, "2"), CancelScope(began + 1.0)))
    assert time.monotonic() - began < 1.0 + LATE, f"prepare() took {time.monotonic() - began:.1f} s instead of 1 s"
    bench.switch(provider, bench.context(bench.route(host, "2")))
    began = time.monotonic()
    try:
        provider.confirm(bench.context(bench.route(host, "2"), CancelScope(began + 1.0)))
    except (StepFailed, DeadlineExceeded) as error:
        assert str(error), "the failure has no words"
    else:
        raise AssertionError("confirm() returned although nothing answered")
    assert time.monotonic() - began < 1.0 + LATE, f"confirm() took {time.monotonic() - began:.1f} s instead of 1 s"
    began = time.monotonic()
    found = provider.ask_route(bench.context(bench.route(host, "2"), CancelScope(began + 1.0)))
    assert time.monotonic() - began < 1.0 + LATE, f"ask_route() took {time.monotonic() - began:.1f} s instead of 1 s"
    for answer in found.addresses if found else ():
        assert not answer.status and answer.unknown, f"{answer.address} is silent, but ask_route() has {answer}"
    scope = CancelScope(time.monotonic() + BUDGET)
    timer = threading.Timer(0.5, scope.close, [Cancelled("cancelled by request")])
    timer.start()
    began = time.monotonic()
    try:
        provider.confirm(bench.context(bench.route(host, "2"), scope))
    except Cancelled:
        pass
    else:
        raise AssertionError("confirm() returned although it was cancelled")
    finally:
        timer.join()
    assert time.monotonic() - began < 0.5 + LATE, "cancelling took too long"


def remove_leaves_nothing(bench: Bench) -> None:
    """Neither of a route that is being switched, nor of one that was only prepared, nor when there is none."""
    host, provider = exposed(bench, headers=(("X-Demo", "yes"),))
    second = bench.context(bench.route(host, "2", headers=(("X-Demo", "2"),)))
    bench.carry_out(provider, second.route)
    provider.remove(second)
    assert bench.objects() == {}, f"left: {sorted(bench.objects())}"
    assert provider.state(second) is None
    bench.await_answer(host, lambda answer: answer not in DEPLOYMENTS)
    first = bench.context(bench.route(host, "1", preview=Preview(f"preview-{host}", "0123456789abcdef")))
    provider.prepare(first)
    provider.remove(first)
    provider.remove(first)
    assert bench.objects() == {}, f"left: {sorted(bench.objects())}"
