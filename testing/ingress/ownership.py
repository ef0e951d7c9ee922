"""Checks of whose an object is: marked as ours, nobody else's touched, fenced, and shared with others."""

from __future__ import annotations

import itertools

from deployer.core.errors import Fenced, ForeignObject, StepFailed
from deployer.kube.ownership import (
    ANNOTATION_APP,
    ANNOTATION_DEPLOYMENT,
    ANNOTATION_INSTANCE,
    ANNOTATION_ROLE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
)
from deployer.testing.ingress.bench import APP, DEPLOYMENTS, Bench, Exhausted
from deployer.testing.ingress.situations import MOST_WRITES, difference, exposed
from deployer.toolkit.host_ownership import require_free


def everything_is_marked_as_ours(bench: Bench) -> None:
    """Instance, app, deployment and role in annotations, and the label by which tools know."""
    host, provider = exposed(bench)
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
    host, provider = exposed(bench)
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
    assert before.items() <= after.items(), difference(before, after)
    for kind, found in bench.raw():
        bench.delete(kind, found["metadata"]["name"])


def another_apps_objects_are_never_touched(bench: Bench) -> None:
    """Not even those of an app whose name begins with this one's and has a hyphen next."""
    host, provider = exposed(bench)
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
    assert bench.objects() == before, difference(before, bench.objects())
    bench.require_version(theirs, "1")
    provider.remove(held)
    assert bench.objects() == {}


def another_apps_host_is_found(bench: Bench) -> None:
    """Before the switch, and named: an Ingress or HTTPRoute by the core, an object of another kind by `host_claims`.
    An app's own objects are not in its way."""
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    mine = bench.context(bench.route(host, "1"))
    theirs = bench.context(bench.route(host, "1", app=f"{APP}-other"))
    require_free(theirs, provider)
    provider.prepare(mine)
    bench.switch(provider, mine)
    names = {f"{kind.kind} {o['metadata']['name']} in namespace {bench.namespace}" for kind, o in bench.raw()}
    try:
        require_free(theirs, provider)
    except StepFailed as error:
        assert error.reason == "HostTaken", f"it fails as {error.reason}: {error}"
        assert any(name in str(error) for name in names), f"the refusal does not name the object: {error}"
    else:
        raise AssertionError(f"another app's route has {host}, and host_claims() does not tell of it")
    require_free(mine, provider)
    provider.remove(mine)
    require_free(theirs, provider)


def an_earlier_holder_writes_nothing_more(bench: Bench) -> None:
    """After `fence` with a higher epoch, `switch` and `remove` with a lower one raise Fenced."""
    host, provider = exposed(bench)
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
    host, provider = exposed(bench)
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
    scope = Exhausted(MOST_WRITES, lambda number: add(number) if number < 6 and number % 2 == 0 else None)
    bench.carry_out(provider, bench.route(host, "2"), scope)
    for kind, name in names:
        metadata = bench.client.get(kind, name, bench.namespace)["metadata"]
        kept = added & metadata["annotations"].keys() & metadata["labels"].keys()
        assert kept == added, f"{kind.kind} {name} lost {sorted(added - kept)}"
    bench.require_version(host, "2")
