"""Checks that every verb can be repeated, and that dying before any write is mended."""

from __future__ import annotations

from collections.abc import Callable

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider
from deployer.core.errors import Interrupted
from deployer.core.model.plan import Route
from deployer.core.model.records import Document
from deployer.testing.ingress.bench import APP, DEPLOYMENTS, Bench, Exhausted
from deployer.testing.ingress.situations import MOST_WRITES, difference, exposed, way_back, without_host


def every_verb_can_be_repeated(bench: Bench) -> None:
    """By another process, which knows nothing of the first: the second time changes nothing."""
    host, _ = exposed(bench)
    context = bench.context(bench.route(host, "2"))

    def twice(name: str, verb: Callable[[IngressProvider], object]) -> None:
        verb(bench.provider())
        before = bench.objects()
        verb(bench.provider())
        assert bench.objects() == before, f"{name}() again: {difference(before, bench.objects())}"

    twice("fence", lambda p: p.fence(context))
    twice("prepare", lambda p: p.prepare(context))
    twice("switch", lambda p: bench.switch(p, context))
    twice("confirm", lambda p: p.confirm(context))
    bench.require_version(host, "2")
    twice("release", lambda p: p.release(context))
    twice("remove", lambda p: p.remove(context))
    assert bench.objects() == {}


def a_crash_before_any_write_is_mended_by_going_on(bench: Bench) -> None:
    """Whatever the last write was, doing all of it again ends as if nothing had happened."""

    def wanted(host: str) -> dict[str, Document]:
        provider, context = bench.provider(), bench.context(bench.route(host, "2"))
        bench.carry_out(provider, context.route)
        provider.release(context)
        bench.require_version(host, "2")
        return bench.objects()

    _crash_everywhere(bench, wanted, wanted)


def a_crash_before_any_write_is_mended_by_going_back(bench: Bench) -> None:
    """Whatever the last write was, undoing ends with the objects of before."""

    def wanted(_: str) -> dict[str, Document]:
        return bench.objects()

    def mend(host: str) -> dict[str, Document]:
        provider, second = bench.provider(), bench.context(bench.route(host, "2"))
        back = bench.context(way_back(bench, host), deployment=DEPLOYMENTS["2"])
        if f"{APP}-2" in bench.service_of(provider, host):
            bench.switch(provider, back)
            provider.confirm(back)
        provider.release(second)
        bench.require_version(host, "1")
        return bench.objects()

    _crash_everywhere(bench, wanted, mend)


def _crash_everywhere(
    bench: Bench, wanted: Callable[[str], dict[str, Document]], mend: Callable[[str], dict[str, Document]]
) -> None:
    """Each time under a host of its own: a data plane may remember one that was removed a moment ago."""
    host, _ = exposed(bench)
    expected = without_host(host, wanted(host))
    host, provider = exposed(bench)
    counter = Exhausted(MOST_WRITES)
    _execute(bench, provider, bench.route(host, "2"), counter)
    assert counter.made, "a deployment writes nothing"
    died = 0
    for point in bench.crash_points(counter.made):
        host, provider = exposed(bench)
        scope = Exhausted(point)
        # What a provider raises then is its own affair, but it may not go on writing.
        try:
            _execute(bench, provider, bench.route(host, "2"), scope)
        except Interrupted:
            pass
        else:
            assert not scope.refused, f"the provider took no notice of dying before write {point}"
            # A write that meets a controller's is made again, so one run may need fewer than another.
            assert 0 < scope.made <= point
            continue
        assert scope.made == point
        died += 1
        found = without_host(host, mend(host))
        assert found == expected, f"after dying before write {point}: {difference(expected, found)}"
    assert died, "it never died"


def _execute(bench: Bench, provider: IngressProvider, route: Route, scope: CancelScope) -> None:
    bench.carry_out(provider, route, scope)
    provider.release(bench.context(route, scope))
