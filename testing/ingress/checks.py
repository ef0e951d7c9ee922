"""The checks, one for each promise of an ingress provider. Each begins without a route and leaves none."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RequestMatch, RouteContext, Share
from deployer.core.errors import Cancelled, DeadlineExceeded, Fenced, ForeignObject, Interrupted, StepFailed
from deployer.core.model.plan import Backend, Preview, Route
from deployer.core.model.records import Document
from deployer.kube.ownership import (
    ANNOTATION_APP,
    ANNOTATION_DEPLOYMENT,
    ANNOTATION_INSTANCE,
    ANNOTATION_ROLE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
)
from deployer.testing.ingress.bench import APP, BUDGET, DEPLOYMENTS, PORT, Bench, Exhausted

Check = Callable[[Bench], None]

LATE = 2.0
"""Seconds after its deadline, or after it was cancelled, in which a verb must have ended."""

_MOST_WRITES = 60


def _exposed(bench: Bench, **changes: object) -> tuple[str, IngressProvider]:
    """Version 1 has the host of a new route; its provider."""
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    first = bench.route(host, "1", **changes)
    bench.carry_out(provider, first)
    provider.release(bench.context(first))
    return host, provider


def _back(bench: Bench, host: str) -> Route:
    """The route back from version 2 to version 1, as the core makes it."""
    return dataclasses.replace(bench.route(host, "1"), previous=Backend(f"{APP}-2", PORT))


# --- leading ------------------------------------------------------------------------------------------------------


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
    """And not before: what is asked right after it gets no old answer. `prepare` alone moves nothing."""
    host, provider = _exposed(bench)
    bench.require_version(host, "1")
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    bench.require_version(host, "1")
    bench.switch(provider, context)
    provider.confirm(context)
    bench.require_version(host, "2", times=20)
    provider.release(context)
    bench.require_version(host, "2")


def switching_back_restores_everything(bench: Bench) -> None:
    """The same objects as before, and the old version answers."""
    host, provider = _exposed(bench)
    before = bench.objects()
    second = bench.context(bench.route(host, "2"))
    bench.carry_out(provider, second.route)
    # As in an operation: the handle stays that of the deployment that is being taken back.
    back = bench.context(_back(bench, host), deployment=DEPLOYMENTS["2"])
    bench.switch(provider, back)
    provider.confirm(back)
    provider.release(second)
    bench.require_version(host, "1")
    assert bench.objects() == before, _difference(before, bench.objects())


def a_preview_shows_the_new_version_only_until_it_is_released(bench: Bench) -> None:
    """For providers with the capability `preview`; under a host of its own."""
    if "preview" not in bench.provider().capabilities:
        return
    host, provider = _exposed(bench)
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

    counter = Exhausted(_MOST_WRITES)
    goes_over(counter)
    some = min(bench.crashes or counter.made, counter.made)
    for number in range(some):
        goes_over(Exhausted((2 * number + 1) * counter.made // (2 * some)))


# --- splitting ----------------------------------------------------------------------------------------------------


def _shares(weight: int, match: RequestMatch | None = None) -> tuple[Share, Share]:
    return Share(f"{APP}-1", PORT, 100 - weight), Share(f"{APP}-2", PORT, weight, match)


def _split(provider: IngressProvider, context: RouteContext, weight: int, match: RequestMatch | None = None) -> None:
    provider.split(context, _shares(weight, match))
    provider.confirm_split(context, _shares(weight, match))


def _divides(bench: Bench) -> bool:
    return "weights" in bench.provider().capabilities


def a_split_divides_the_traffic_until_it_is_taken_back(bench: Bench) -> None:
    """For providers with the capability `weights`, as the other checks about splits: both versions answer at half and
    half, `state` says so, and back at 100 everything is as it was before."""
    if not _divides(bench):
        return
    host, provider = _exposed(bench)
    before = bench.objects()
    context = bench.context(bench.route(host, "2"))
    provider.prepare(context)
    _split(provider, context, 50)
    answers = Counter(bench.version(host) for _ in range(60))
    assert set(answers) == {"1", "2"}, f"at 50 % {host} answers {dict(answers)}"
    state = provider.state(context)
    assert state is not None
    weights = {backend.service: backend.weight for backend in state.backends if backend.weight}
    assert weights == {f"{APP}-1": 50, f"{APP}-2": 50}, f"state() says {weights}"
    assert state.deployment == DEPLOYMENTS["1"], "a route that is divided is the old version's still"
    _split(provider, context, 0)
    bench.require_version(host, "1", times=30)
    provider.release(context)
    assert bench.objects() == before, _difference(before, bench.objects())


def a_switch_ends_a_split(bench: Bench) -> None:
    """Everybody gets the new version after `switch`, and what `release` leaves is as after a switch without a split."""
    if not _divides(bench):
        return

    def switched(weights: Sequence[int]) -> dict[str, Document]:
        host, provider = _exposed(bench)
        context = bench.context(bench.route(host, "2"))
        provider.prepare(context)
        for weight in weights:
            _split(provider, context, weight)
        bench.switch(provider, context)
        provider.confirm(context)
        bench.require_version(host, "2", times=30)
        provider.release(context)
        bench.require_version(host, "2", times=30)
        return _without(host, bench.objects())

    plain, after = switched(()), switched((10, 60))
    assert after == plain, _difference(plain, after)


def a_match_leads_only_those_requests_to_the_new_version(bench: Bench) -> None:
    """For providers with the capability `match`: by a header or a cookie, at weight 0."""
    if not _divides(bench) or "match" not in bench.provider().capabilities:
        return
    for match, other in (
        (RequestMatch(header="X-Try", value="new"), {"X-Try": "other"}),
        (RequestMatch(cookie="try"), {"Cookie": "try=other; xtry=always"}),
    ):
        wanted = match.as_headers()
        host, provider = _exposed(bench)
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
        assert bench.objects() == before, _difference(before, bench.objects())
        assert state is not None and state.host == host


def a_split_can_be_made_again_and_cleared(bench: Bench) -> None:
    """By another process; and `remove` leaves nothing of one."""
    if not _divides(bench):
        return
    host, _ = _exposed(bench)
    context = bench.context(bench.route(host, "2"))
    bench.provider().prepare(context)
    for weight in (20, 70):
        _split(bench.provider(), context, weight)
        before = bench.objects()
        _split(bench.provider(), context, weight)
        assert bench.objects() == before, f"split() again: {_difference(before, bench.objects())}"
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
        return _without(host, bench.objects())

    def back(host: str) -> dict[str, Document]:
        provider, context = bench.provider(), bench.context(bench.route(host, "2"))
        _split(provider, context, 0)
        provider.release(context)
        bench.require_version(host, "1", times=20)
        return _without(host, bench.objects())

    host, _ = _exposed(bench)
    counter = Exhausted(_MOST_WRITES)
    divide(host, counter)
    some = min(bench.crashes or counter.made, counter.made)
    points = [(2 * number + 1) * counter.made // (2 * some) for number in range(some)]
    for turn, mend in enumerate((forward, back)):
        host, _ = _exposed(bench)
        expected = mend(host)
        for point in points[turn::2]:
            host, _ = _exposed(bench)
            with contextlib.suppress(Interrupted):
                divide(host, Exhausted(point))
            found = mend(host)
            assert found == expected, f"{mend.__name__} before write {point}: {_difference(expected, found)}"


def an_earlier_holder_splits_nothing(bench: Bench) -> None:
    """After `fence` with a higher epoch, `split` with a lower one raises Fenced, and the traffic stays divided."""
    if not _divides(bench):
        return
    host, provider = _exposed(bench)
    stale = bench.context(bench.route(host, "2"))
    provider.prepare(stale)
    _split(provider, stale, 50)
    provider.fence(bench.context(bench.route(host, "1"), fencing_token=bench.next_epoch()))
    before = bench.objects()
    try:
        provider.split(stale, _shares(90))
    except Fenced:
        assert bench.objects() == before, _difference(before, bench.objects())
        return
    raise AssertionError("split() goes on although another process took over")


# --- repeating and dying ------------------------------------------------------------------------------------------


def every_verb_can_be_repeated(bench: Bench) -> None:
    """By another process, which knows nothing of the first: the second time changes nothing."""
    host, _ = _exposed(bench)
    context = bench.context(bench.route(host, "2"))

    def twice(name: str, verb: Callable[[IngressProvider], object]) -> None:
        verb(bench.provider())
        before = bench.objects()
        verb(bench.provider())
        assert bench.objects() == before, f"{name}() again: {_difference(before, bench.objects())}"

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
        back = bench.context(_back(bench, host), deployment=DEPLOYMENTS["2"])
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
    host, _ = _exposed(bench)
    expected = _without(host, wanted(host))
    host, provider = _exposed(bench)
    counter = Exhausted(_MOST_WRITES)
    _execute(bench, provider, bench.route(host, "2"), counter)
    assert counter.made, "a deployment writes nothing"
    some = min(bench.crashes or counter.made, counter.made)
    died = 0
    for point in [(2 * number + 1) * counter.made // (2 * some) for number in range(some)]:
        host, provider = _exposed(bench)
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
        found = _without(host, mend(host))
        assert found == expected, f"after dying before write {point}: {_difference(expected, found)}"
    assert died, "it never died"


def _without(host: str, objects: dict[str, Document]) -> dict[str, Document]:
    """The same objects as they would be for any other host."""
    text: dict[str, Document] = json.loads(json.dumps(objects).replace(host, "a.host"))
    return text


def _execute(bench: Bench, provider: IngressProvider, route: Route, scope: CancelScope) -> None:
    bench.carry_out(provider, route, scope)
    provider.release(bench.context(route, scope))


# --- whose it is --------------------------------------------------------------------------------------------------


def everything_is_marked_as_ours(bench: Bench) -> None:
    """Instance, app, deployment and role in annotations, and the label by which tools know."""
    host, provider = _exposed(bench)
    context = bench.context(bench.route(host, "2", headers=(("X-Demo", "yes"),)))
    provider.prepare(context)
    bench.switch(provider, context)
    for kind, found in bench.raw():
        about, metadata = f"{kind.kind} {found['metadata']['name']}", found["metadata"]
        notes = metadata.get("annotations") or {}
        assert notes.get(ANNOTATION_INSTANCE) == "conformance", f"{about}: {notes}"
        assert notes.get(ANNOTATION_APP) == APP, f"{about}: {notes}"
        assert notes.get(ANNOTATION_DEPLOYMENT) in DEPLOYMENTS.values(), f"{about}: {notes}"
        assert notes.get(ANNOTATION_ROLE), f"{about} has no role"
        assert (metadata.get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGED_BY, about


def a_foreign_route_is_never_touched(bench: Bench) -> None:
    """Objects of the route's name that nobody marked: `state` and `switch` refuse, the rest leaves them alone."""
    host, provider = _exposed(bench)
    for kind, found in bench.raw():
        bench.edit(kind, found["metadata"]["name"], lambda o: o["metadata"].update(annotations={}, labels={}))
    before = bench.objects()
    context = bench.context(bench.route(host, "2"))
    for verb in (provider.state, provider.switch):
        try:
            verb(context)
        except ForeignObject as error:
            assert APP in str(error), f"the refusal does not name the object: {error}"
        else:
            raise AssertionError(f"{verb.__name__}() takes a foreign route for its own")
    for verb in (provider.fence, provider.release, provider.remove):
        verb(context)
    after = bench.objects()
    assert before.items() <= after.items(), _difference(before, after)
    for kind, found in bench.raw():
        bench.delete(kind, found["metadata"]["name"])


def another_apps_objects_are_never_touched(bench: Bench) -> None:
    """Not even those of an app whose name begins with this one's and has a hyphen next."""
    host, provider = _exposed(bench)
    other, theirs = f"{APP}-other", f"other-{host}"
    route = bench.route(theirs, "1", app=other)
    bench.lead_service(other, "1")
    bench.carry_out(provider, route)
    held = bench.context(bench.route(theirs, "2", app=other))
    provider.prepare(held)
    before = {name: o for name, o in bench.objects().items() if o["annotations"].get(ANNOTATION_APP) == other}
    assert before, "the other app's route consists of nothing"
    second = bench.context(bench.route(host, "2"))
    bench.carry_out(provider, second.route)
    provider.release(second)
    provider.remove(second)
    assert bench.objects() == before, _difference(before, bench.objects())
    bench.require_version(theirs, "1")
    provider.remove(held)
    assert bench.objects() == {}


def an_earlier_holder_writes_nothing_more(bench: Bench) -> None:
    """After `fence` with a higher epoch, `switch` and `remove` with a lower one raise Fenced."""
    host, provider = _exposed(bench)
    stale = bench.context(bench.route(host, "2"))
    provider.fence(bench.context(bench.route(host, "1"), fencing_token=bench.next_epoch()))
    before = bench.objects()
    for verb in (provider.switch, provider.remove):
        try:
            verb(stale)
        except Fenced:
            continue
        raise AssertionError(f"{verb.__name__}() goes on although another process took over")
    names = {f"{kind.kind} {o['metadata']['name']}" for kind, o in bench.raw() if o["metadata"]["name"] == APP}
    assert {name: bench.objects()[name] for name in names} == {name: before[name] for name in names}
    bench.require_version(host, "1")


def what_others_add_at_the_same_time_is_kept(bench: Bench) -> None:
    """Annotations and labels of others, written before a verb, and between its reading and its writing."""
    host, provider = _exposed(bench)
    numbers = itertools.count()
    names = [(kind, o["metadata"]["name"]) for kind, o in bench.raw() if o["metadata"]["name"] == APP]
    added: set[str] = set()

    def add(_: int) -> None:
        key = f"conformance.example/{next(numbers)}"
        for kind, name in names:
            note = {"metadata": {"annotations": {key: "theirs"}, "labels": {key: "theirs"}}}
            bench.client.patch(kind, name, note, bench.namespace)
        added.add(key)

    add(0)
    # Not before every write: somebody who never stops makes any provider give up, and rightly so.
    scope = Exhausted(_MOST_WRITES, lambda number: add(number) if number < 6 and number % 2 == 0 else None)
    bench.carry_out(provider, bench.route(host, "2"), scope)
    for kind, name in names:
        metadata = bench.client.get(kind, name, bench.namespace)["metadata"]
        kept = added & metadata["annotations"].keys() & metadata["labels"].keys()
        assert kept == added, f"{kind.kind} {name} lost {sorted(added - kept)}"
    bench.require_version(host, "2")


# --- bounds and ends ----------------------------------------------------------------------------------------------


def a_silent_data_plane_ends_at_the_deadline(bench: Bench) -> None:
    """`prepare` ends in time, one way or the other; `confirm` says that it was not confirmed when its time is up, and
    ends at once when it is cancelled."""
    if bench.silent is None:
        return
    host, _ = _exposed(bench)
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
    host, provider = _exposed(bench, headers=(("X-Demo", "yes"),))
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


def _difference(before: dict[str, Document], after: dict[str, Document]) -> str:
    """In words, for the person who reads the failure."""
    parts = [f"{name} is missing" for name in sorted(before.keys() - after.keys())]
    parts += [f"{name} is left" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        changed = [k for k in before[name].keys() | after[name].keys() if before[name].get(k) != after[name].get(k)]
        parts += [f"{name}: {k} was {before[name].get(k)}, is {after[name].get(k)}" for k in sorted(changed)]
    return "; ".join(parts) or "no difference"


SPLIT_CHECKS: Sequence[Check] = (
    a_split_divides_the_traffic_until_it_is_taken_back,
    a_switch_ends_a_split,
    a_match_leads_only_those_requests_to_the_new_version,
    a_split_can_be_made_again_and_cleared,
    a_crash_in_a_split_is_mended_either_way,
    an_earlier_holder_splits_nothing,
)
"""Those about splits."""

CHECKS: Sequence[Check] = (
    state_tells_where_the_route_leads,
    confirm_returns_when_the_new_version_answers,
    switching_back_restores_everything,
    a_preview_shows_the_new_version_only_until_it_is_released,
    a_preview_host_goes_over_to_the_newer_version,
    *SPLIT_CHECKS,
    every_verb_can_be_repeated,
    a_crash_before_any_write_is_mended_by_going_on,
    a_crash_before_any_write_is_mended_by_going_back,
    everything_is_marked_as_ours,
    a_foreign_route_is_never_touched,
    another_apps_objects_are_never_touched,
    an_earlier_holder_writes_nothing_more,
    what_others_add_at_the_same_time_is_kept,
    a_silent_data_plane_ends_at_the_deadline,
    remove_leaves_nothing,
)
