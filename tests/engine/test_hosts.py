"""Who owns a host: one app, service-wide, with its www twin and its preview host, whoever comes at the same time."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deployer.core.errors import Conflict, Invalid
from deployer.core.model.records import HostClaim, Status, StoredDescriptor
from deployer.sdk.kube import INGRESS
from support.world import World, describe

Store = Callable[..., StoredDescriptor]


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


@pytest.fixture
def store(world: World) -> Store:
    """Stores a descriptor, of another namespace perhaps."""

    def store(app: str, namespace: str = "", **fields: Any) -> StoredDescriptor:
        place = namespace or world.namespace
        return world.service.descriptors.create(place, json.dumps(describe(place, app, **fields)).encode())

    return store


def restart(world: World, **settings: Any) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, **settings)
    world.start()


def claims(world: World) -> dict[str, str]:
    return {c.host: c.app for c in world.store.find(HostClaim)}


@pytest.mark.parametrize("first", ["bare", "www"])
def test_who_redirects_www_owns_both_hosts_in_every_namespace(
    world: World, store: Store, host: str, first: str
) -> None:
    one, two = (host, f"www.{host}") if first == "bare" else (f"www.{host}", host)
    stored = store("shop", frontend=one, redirectWww=True)
    for namespace in (world.namespace, "elsewhere"):
        for fields in ({"frontend": two}, {"frontend": two, "redirectWww": True}, {"frontend": one}):
            with pytest.raises(Conflict, match="belongs to another app"):
                store("blog", namespace, **fields)
    assert set(claims(world)) == {one, two}
    # Without the redirect the twin is free again, and then it is in the way of a redirect.
    document = describe(world.namespace, "shop", frontend=one)
    world.service.descriptors.update(world.namespace, stored.id, json.dumps(document).encode())
    other = store("blog", "elsewhere", frontend=two)
    with pytest.raises(Conflict, match=f"host {two} belongs to another app; leave redirectWww out"):
        store("shop", frontend=one, redirectWww=True)
    assert claims(world) == {one: "shop", two: "blog"}
    world.service.descriptors.delete(world.namespace, stored.id)
    world.service.descriptors.delete("elsewhere", other.id)
    assert claims(world) == {}


def test_two_at_the_same_moment_have_one_winner(world: World, store: Store, host: str) -> None:
    """Eight apps want the host or its twin; whoever loses has stored nothing."""
    scope = threading.Barrier(8)

    def want(number: int) -> str:
        scope.wait(10)
        try:
            twin = number % 2 == 1
            store(f"app-{number}", f"ns-{number}", frontend=f"www.{host}" if twin else host, redirectWww=True)
        except Conflict:
            return ""
        return f"app-{number}"

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [app for app in pool.map(want, range(8)) if app]
    assert claims(world) == {host: winner, f"www.{host}": winner}
    assert [d.app for d in world.store.find(StoredDescriptor)] == [winner]


def test_a_deployment_claims_its_hosts_again(world: World, store: Store, host: str) -> None:
    """The copy of an old deployment may want a host that is another app's by now."""
    first = store("shop", frontend=host)
    old = world.ended(world.service.deploy(world.namespace, first.id), Status.DEPLOYED)
    world.service.undeploy(world.namespace, old.id)
    world.quiet()
    world.service.descriptors.delete(world.namespace, first.id)
    assert claims(world) == {}
    store("blog", frontend=host)
    again = world.ended(world.service.redeploy(world.namespace, old.id), Status.FAILURE)
    assert again.failure and again.failure["reason"] == "HostTaken"
    assert f"host {host} belongs to app blog in namespace {world.namespace}; " in again.failure["message"]
    assert world.names() == {}


def test_a_preview_host_is_owned_like_any_other(world: World, store: Store, host: str) -> None:
    restart(world, preview_host="{app}-preview.example.com")
    app = world.namespace
    preview = f"{app}-preview.example.com"
    stored = store(app, frontend=host)
    assert set(claims(world)) == {host, preview}
    for thief in (preview, "not-yet-there-preview.example.com"):
        with pytest.raises(Invalid, match=f"{thief} is reserved for previews of apps"):
            store("thief", frontend=thief)
    with pytest.raises(Invalid, match=r"redirectWww: blog-preview[.]example[.]com is reserved"):
        store("thief", frontend="www.blog-preview.example.com", redirectWww=True)
    with pytest.raises(Conflict, match=f"the preview host {preview} belongs to another app"):
        store(app, "elsewhere", frontend=f"other-{host}")
    with pytest.raises(Invalid, match="too long for a preview host"):
        store("a" * 60, newVersion="1", frontend=f"long-{host}")
    second = store(app, frontend=f"second-{host}")
    world.service.descriptors.delete(world.namespace, stored.id)
    assert set(claims(world)) == {f"second-{host}", preview}
    world.service.descriptors.delete(world.namespace, second.id)
    assert claims(world) == {}


def test_a_preview_host_that_was_another_apps_before_the_setting_is_done_without(
    world: World, store: Store, host: str
) -> None:
    mine = store("shop", frontend=host)
    store("thief", frontend=f"shop-{world.namespace}.preview.example")
    restart(world, preview_host="{app}-{namespace}.preview.example")
    made = world.ended(world.service.deploy(world.namespace, mine.id), Status.DEPLOYED)
    assert f"no preview host: shop-{world.namespace}.preview.example belongs to another app" in world.log(made.id)


def test_a_twin_that_the_namespace_may_not_use_is_not_redirected(world: World, store: Store, host: str) -> None:
    restart(world, namespace_hosts={world.namespace: (f"*.{host}",)})
    store("shop", frontend=f"www.{host}")
    with pytest.raises(Invalid, match=f"redirectWww: {host} is not among the hosts that namespace"):
        store("shop", frontend=f"www.{host}", redirectWww=True)


def body(world: World, app: str, **fields: Any) -> bytes:
    return json.dumps(describe(fields.pop("namespace", world.namespace), app, **fields)).encode()


@pytest.mark.parametrize("reason", ["listed", "preview", "none"])
def test_a_host_of_others_is_refused_wherever_it_is_asked_for(
    world: World, store: Store, host: str, reason: str
) -> None:
    """Also for what was stored, deployed or queued before the setting."""
    stored = store("shop", frontend=host)
    fine = store("shop", frontend=f"free.{host}")
    old = world.ended(world.service.deploy(world.namespace, stored.id), Status.DEPLOYED)
    settings: dict[str, dict[str, Any]] = {
        "listed": {"namespace_hosts": {"team-a": (f"{host.upper()}.",)}},
        "none": {"namespace_hosts": {world.namespace: ()}},
        "preview": {"preview_host": f"{{app}}.{host.partition('.')[2]}"},
    }
    restart(world, **settings[reason])
    service = world.service
    says = {"preview": "is reserved for previews", "listed": "belongs to another namespace", "none": "allowed: none"}
    for ask in (
        lambda: service.descriptors.create(world.namespace, body(world, "shop", frontend=host)),
        lambda: service.descriptors.create(world.namespace, body(world, "shop", frontend=host.upper())),
        lambda: service.descriptors.update(world.namespace, fine.id, body(world, "shop", frontend=host)),
        lambda: service.descriptors.validate(world.namespace, body(world, "shop", frontend=host)),
        lambda: service.deploy(world.namespace, stored.id),
        lambda: service.redeploy(world.namespace, old.id),
    ):
        with pytest.raises(Invalid, match=says[reason]) as caught:
            ask()
        assert [problem.path for problem in caught.value.problems] == ["frontend"]
        assert "team-a" not in str(caught.value)
    # What serves goes on serving.
    assert world.live_version() == "1"
    assert world.objects(INGRESS)["shop"]["spec"]["rules"][0]["host"] == host


def test_what_waited_in_the_queue_when_the_setting_changed_is_refused(world: World, store: Store, host: str) -> None:
    stored = store("shop", frontend=host)
    world.engine.stop()  # nobody takes it up
    waiting = world.service.deploy(world.namespace, stored.id)
    restart(world, namespace_hosts={"team-a": (host,)})
    failed = world.ended(waiting, Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "NotAllowed"
    assert f"frontend: {host} may not be used by namespace {world.namespace}" in failed.failure["message"]
    assert world.names() == {}


def test_whoever_a_host_is_listed_for_gets_it_from_those_who_stored_it_before(
    world: World, store: Store, host: str
) -> None:
    evil = store("evil", frontend=host)
    live = world.ended(world.service.deploy(world.namespace, evil.id), Status.DEPLOYED)
    restart(world, namespace_hosts={"team-a": (host, f"www.{host}")})
    # Not while users of that app are there.
    with pytest.raises(Conflict, match=f"host {host} belongs to another app"):
        store("shop", "team-a", frontend=host)
    world.service.undeploy(world.namespace, live.id)
    world.quiet()
    with pytest.raises(Invalid, match="belongs to another namespace"):
        world.service.deploy(world.namespace, evil.id)
    store("shop", "team-a", frontend=host, redirectWww=True)
    assert claims(world) == {host: "shop", f"www.{host}": "shop"}
    # What the other one still has stored takes nothing away.
    world.service.descriptors.delete(world.namespace, evil.id)
    assert claims(world) == {host: "shop", f"www.{host}": "shop"}
    # Among those for whom it is listed, the first one owns it as ever.
    with pytest.raises(Conflict, match="belongs to another app"):
        store("blog", "team-a", frontend=host)


def test_an_ingress_that_nobody_claimed_stops_the_deployment_before_the_switch(world: World, host: str) -> None:
    backend = {"service": {"name": "theirs", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    theirs = {"metadata": {"name": "theirs"}, "spec": {"ingressClassName": "nginx", "rules": [rule]}}
    world.eyes.create(INGRESS, theirs, world.namespace)
    failed = world.ended(world.deploy(frontend=host), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "HostTaken"
    assert f"Ingress theirs in namespace {world.namespace}" in failed.failure["message"]
    world.quiet()
    assert world.names() == {"ingresses": {"theirs"}}
