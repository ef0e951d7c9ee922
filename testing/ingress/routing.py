"""Checks of where a route leads: the state, the switch, the way back, previews."""

from __future__ import annotations

import contextlib

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider
from deployer.core.errors import Interrupted, Revoked
from deployer.core.model.plan import Preview, Route
from deployer.testing.ingress.bench import APP, DEPLOYMENTS, Bench, Exhausted
from deployer.testing.ingress.situations import MOST_WRITES, difference, exposed, way_back


def state_tells_where_the_route_leads(bench: Bench) -> None:
    """None without a route; then the versioned Service, also while the new version is only being prepared."""
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    assert provider.state(bench.context(bench.route(host, "1"))) is None, "there is no route, but state() has one"
    bench.carry_out(provider, bench.route(host, "1"))
    state = provider.state(bench.context(bench.route(host, "2")))
    assert state is not None and state.host == host, f"state() is {state} for host {host}"
    assert state.deployment == DEPLOYMENTS["1"], f"state() says deployment {state.deployment!r}"
    assert bench.service_of(provider, host) == f"{APP}-1"
    second = bench.context(bench.route(host, "2"))
    provider.prepare(second)
    assert bench.service_of(provider, host) == f"{APP}-1", "prepare() led the public host to the new version"
    before = bench.objects()
    provider.state(second)
    assert bench.objects() == before, "state() writes"
    bench.switch(provider, second)
    assert bench.service_of(bench.provider(), host) == f"{APP}-2"


def confirm_returns_when_the_new_version_answers(bench: Bench) -> None:
    """And not before: what is asked right after it gets no old answer. `prepare` alone moves nothing. `ask_route`
    of a provider that has it only reads, and every address names the version that answers, whatever the route says, or
    says why it names none."""
    host, provider = exposed(bench)
    live = bench.route(host, "1")
    bench.require_version(host, "1")
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    bench.require_version(host, "1")
    _require_told(bench, provider, live, "1")
    bench.switch(provider, context)
    proven = provider.confirm(context)
    bench.require_version(host, "2", times=20)
    _require_told(bench, provider, live, "2", proven=bool(proven))
    provider.release(context)
    bench.require_version(host, "2")


def _require_told(bench: Bench, provider: IngressProvider, route: Route, version: str, *, proven: bool = False) -> None:
    scope = Exhausted(0)
    found = None
    with contextlib.suppress(Revoked):
        found = provider.ask_route(bench.context(route, scope))
        if found is None:
            return
    assert not scope.refused, "ask_route() writes"
    assert found is not None and found.addresses, f"ask_route() asked nobody: {found}"
    for answer in found.addresses:
        named = {answer.deployment, answer.version} - {""}
        assert answer.status, f"{answer.address} gave no answer: {answer.unknown}"
        assert named <= {DEPLOYMENTS[version], version}, f"{answer.address}: {named} instead of version {version}"
        assert named or (answer.unknown and not proven), f"{answer.address} names no version: {answer.unknown!r}"


def switching_back_restores_everything(bench: Bench) -> None:
    """The same objects as before, and the old version answers."""
    host, provider = exposed(bench)
    before = bench.objects()
    second = bench.context(bench.route(host, "2"))
    bench.carry_out(provider, second.route)
    # As in an operation: the handle stays that of the deployment that is being taken back.
    back = bench.context(way_back(bench, host), deployment=DEPLOYMENTS["2"])
    bench.switch(provider, back)
    provider.confirm(back)
    provider.release(second)
    bench.require_version(host, "1")
    assert bench.objects() == before, difference(before, bench.objects())


def a_preview_shows_the_new_version_only_until_it_is_released(bench: Bench) -> None:
    """For providers with the capability `preview`; under a host of its own."""
    if "preview" not in bench.provider().capabilities:
        return
    host, provider = exposed(bench)
    preview = Preview(f"preview-{host}", "0123456789abcdef", "/")
    context = bench.context(bench.route(host, "2", preview=preview))
    provider.prepare(context)
    provider.check_preview(context)
    bench.await_answer(preview.host, lambda answer: answer == "2")
    bench.require_version(host, "1")
    provider.release(context)
    bench.await_answer(preview.host, lambda answer: answer != "2")
    bench.require_version(host, "1")


def a_preview_host_goes_over_to_the_newer_version(bench: Bench) -> None:
    """Although the earlier one's preview is still there, as within its hold time; also after a crash in between."""
    if "preview" not in bench.provider().capabilities:
        return

    def goes_over(scope: CancelScope) -> None:
        bench.reset()
        host = bench.fresh_host()
        first, second = (
            bench.route(host, version, preview=Preview(f"preview-{host}", f"0123456789abcde{version}", "/"))
            for version in DEPLOYMENTS
        )
        bench.carry_out(bench.provider(), first)
        bench.await_answer(first.preview.host, lambda answer: answer == "1")
        with contextlib.suppress(Interrupted):
            bench.provider().prepare(bench.context(second, scope))
        provider, context = bench.provider(), bench.context(second)
        provider.prepare(context)
        provider.check_preview(context)
        bench.await_answer(second.preview.host, lambda answer: answer == "2")
        bench.require_version(host, "1")
        provider.release(bench.context(first))  # which comes late, when its hold time is over
        bench.require_version(second.preview.host, "2")
        provider.release(context)
        bench.await_answer(second.preview.host, lambda answer: answer not in DEPLOYMENTS)
        bench.require_version(host, "1")

    counter = Exhausted(MOST_WRITES)
    goes_over(counter)
    for point in bench.crash_points(counter.made):
        goes_over(Exhausted(point))
