"""Checks of providers that divide a host's traffic between two versions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RequestMatch, RouteContext, Share
from deployer.core.errors import Fenced, Interrupted
from deployer.core.model.plan import Backend
from deployer.core.model.records import Document
from deployer.testing.ingress.bench import APP, DEPLOYMENTS, PORT, Bench, Exhausted
from deployer.testing.ingress.situations import MOST_WRITES, difference, exposed, without_host


def _shares(weight: int, match: RequestMatch | None = None) -> tuple[Share, Share]:
    return Share(f"{APP}-1", PORT, 100 - weight), Share(f"{APP}-2", PORT, weight, match)


def _split(provider: IngressProvider, context: RouteContext, weight: int, match: RequestMatch | None = None) -> None:
    provider.split(context, _shares(weight, match))
    provider.confirm_split(context, _shares(weight, match))


def _divides(bench: Bench) -> bool:
    return "weights" in bench.provider().capabilities


def a_split_divides_the_traffic_until_it_is_taken_back(bench: Bench) -> None:
    """For providers with the capability `weights`, as the other checks about splits: both versions answer at half and
    half, `state` says so, `ask_route` does not name the same one each time, and back at 100 everything is as before."""
    if not _divides(bench):
        return
    host, provider = exposed(bench)
    before = bench.objects()
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    _split(provider, context, 50)
    answers = Counter(bench.version(host) for _ in range(60))
    assert set(answers) == {"1", "2"}, f"at 50 % {host} answers {dict(answers)}"
    live, named = bench.context(bench.route(host, "1")), set()
    for _ in range(40):
        told = provider.ask_route(live)
        named |= {answer.deployment or answer.version for answer in (told.addresses if told else ())} - {""}
    assert len(named) != 1, f"at 50 % ask_route() always names {named}, whichever version answers"
    state = provider.state(context)
    assert state is not None
    weights = {backend.service: backend.weight for backend in state.backends if backend.weight}
    assert weights == {f"{APP}-1": 50, f"{APP}-2": 50}, f"state() says {weights}"
    assert state.deployment == DEPLOYMENTS["1"], "a route that is divided is the old version's still"
    _split(provider, context, 0)
    bench.require_version(host, "1", times=30)
    provider.release(context)
    assert bench.objects() == before, difference(before, bench.objects())


def a_switch_ends_a_split(bench: Bench) -> None:
    """Everybody gets the new version after `switch`, and what `release` leaves is as after a switch without a split."""
    if not _divides(bench):
        return

    def switched(weights: Sequence[int]) -> dict[str, Document]:
        host, provider = exposed(bench)
        context = bench.context(bench.route(host, "2"))
        provider.prepare(context)
        for weight in weights:
            _split(provider, context, weight)
        bench.switch(provider, context)
        provider.confirm(context)
        bench.require_version(host, "2", times=30)
        provider.release(context)
        bench.require_version(host, "2", times=30)
        return without_host(host, bench.objects())

    plain, after = switched(()), switched((10, 60))
    assert after == plain, difference(plain, after)


def the_way_back_ends_a_split_that_went_live(bench: Bench) -> None:
    """`release` clears what a split left, once the old version has drained. A rollback comes before that."""
    if not _divides(bench):
        return
    host, provider = exposed(bench)
    match = RequestMatch(header="X-Try", value="new") if "match" in provider.capabilities else None
    new = bench.context(bench.route(host, "2"))
    provider.prepare(new)
    _split(provider, new, 40, match)
    bench.switch(provider, new)
    provider.confirm(new)
    back = bench.context(bench.route(host, "1", previous=Backend(f"{APP}-2", PORT)))
    provider.prepare(back)
    bench.switch(provider, back)
    provider.confirm(back)
    bench.require_version(host, "1", times=30)
    if match:
        answers = {bench.version(host, match.as_headers()) for _ in range(10)}
        assert answers == {"1"}, f"with {match.as_headers()} {host} answers {answers} after the way back"
    told = provider.ask_route(back)
    unknown = [answer.unknown for answer in (told.addresses if told else ()) if answer.unknown]
    assert not unknown, f"ask_route() does not know who answers: {unknown}"


def a_match_leads_only_those_requests_to_the_new_version(bench: Bench) -> None:
    """For providers with the capability `match`: by a header or a cookie, at weight 0."""
    if not _divides(bench) or "match" not in bench.provider().capabilities:
        return
    for match, other in (
        (RequestMatch(header="X-Try", value="new"), {"X-Try": "other"}),
        (RequestMatch(cookie="try"), {"Cookie": "try=other; xtry=always"}),
    ):
        wanted = match.as_headers()
        host, provider = exposed(bench)
        before = bench.objects()
        context = bench.context(bench.route(host, "2"))
        provider.prepare(context)
        _split(provider, context, 0, match)
        for headers, version in ((wanted, "2"), (other, "1"), ({}, "1")):
            answers = {bench.version(host, headers) for _ in range(10)}
            assert answers == {version}, f"with {headers} {host} answers {answers}, not version {version}"
        state = provider.state(context)
        _split(provider, context, 0)
        assert {bench.version(host, wanted) for _ in range(10)} == {"1"}
        provider.release(context)
        assert bench.objects() == before, difference(before, bench.objects())
        assert state is not None and state.host == host


def a_split_can_be_made_again_and_cleared(bench: Bench) -> None:
    """By another process; and `remove` leaves nothing of one."""
    if not _divides(bench):
        return
    host, _ = exposed(bench)
    context = bench.context(bench.route(host, "2"))
    bench.provider().prepare(context)
    for weight in (20, 70):
        _split(bench.provider(), context, weight)
        before = bench.objects()
        _split(bench.provider(), context, weight)
        assert bench.objects() == before, f"split() again: {difference(before, bench.objects())}"
    bench.provider().remove(context)
    assert bench.objects() == {}, f"left: {sorted(bench.objects())}"


def a_crash_in_a_split_is_mended_either_way(bench: Bench) -> None:
    """Before any write: by going on to the switch, or by taking the split back, by turns."""
    if not _divides(bench):
        return

    def divide(host: str, scope: CancelScope) -> None:
        provider, context = bench.provider(), bench.context(bench.route(host, "2"), scope)
        provider.prepare(context)
        for weight in (10, 60):
            provider.split(context, _shares(weight))

    def forward(host: str) -> dict[str, Document]:
        provider, context = bench.provider(), bench.context(bench.route(host, "2"))
        provider.prepare(context)
        provider.split(context, _shares(60))
        bench.switch(provider, context)
        provider.confirm(context)
        provider.release(context)
        return without_host(host, bench.objects())

    def back(host: str) -> dict[str, Document]:
        provider, context = bench.provider(), bench.context(bench.route(host, "2"))
        _split(provider, context, 0)
        provider.release(context)
        bench.require_version(host, "1", times=20)
        return without_host(host, bench.objects())

    host, _ = exposed(bench)
    counter = Exhausted(MOST_WRITES)
    divide(host, counter)
    points = bench.crash_points(counter.made)
    for turn, mend in enumerate((forward, back)):
        host, _ = exposed(bench)
        expected = mend(host)
        for point in points[turn::2]:
            host, _ = exposed(bench)
            with contextlib.suppress(Interrupted):
                divide(host, Exhausted(point))
            found = mend(host)
            assert found == expected, f"{mend.__name__} before write {point}: {difference(expected, found)}"


def an_earlier_holder_splits_nothing(bench: Bench) -> None:
    """After `fence` with a higher epoch, `split` with a lower one raises Fenced, and the traffic stays divided."""
    if not _divides(bench):
        return
    host, provider = exposed(bench)
    stale = bench.context(bench.route(host, "2"))
    provider.prepare(stale)
    _split(provider, stale, 50)
    provider.fence(bench.context(bench.route(host, "1"), fencing_token=bench.next_epoch()))
    before = bench.objects()
    try:
        provider.split(stale, _shares(90))
    except Fenced:
        assert bench.objects() == before, difference(before, bench.objects())
        return
    raise AssertionError("split() goes on although another process took over")
