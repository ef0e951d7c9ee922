"""Is whatever the Deployer accepts accepted by the API server too? Properties for sandbox and real cluster."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from deployer import descriptor as descriptors
from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import Invalid, KubeAlreadyExists, KubeError
from deployer.core.model.descriptors import frontend_port, version_of
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, INGRESS, POD, SERVICE, Kind
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Backend, Route
from deployer.core.model.records import Document
from deployer.plugins.ingress_nginx import render
from deployer.toolkit import manifests
from support.descriptors import changed, good
from support.world import World

LOOK = render.RenderConfig(revision_header="X-Deployer-Revision")


def budget(examples: int, seconds: float) -> Any:
    """Hypothesis' settings, and a bound on the time: what comes later passes unseen."""
    end = [0.0]

    def within() -> bool:
        end[0] = end[0] or time.monotonic() + seconds
        return time.monotonic() < end[0]

    made = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )
    return made, within


def objects(world: World, document: Document) -> list[tuple[Kind, Document]]:
    """All that a deployment would create, as the service would."""
    version = version_of(document) or "1"
    manifests.check_name(document["appName"], version)
    made = manifests.render(
        WorkloadContext(
            descriptor=document,
            version=version,
            deployment="11111111-1111-4111-8111-111111111111",
            created="2026-01-01T00:00:00Z",
            instance=world.settings.instance,
            replicas=document["replicas"],
            environment=[{"name": "INJECTED", "value": "x"}],
            image_pull_policy=world.settings.image_pull_policy,
            fencing_token=1,
        )
    )
    template = made.controller["spec"]["template"]
    pod = {**template, "apiVersion": "v1", "kind": "Pod"}
    name = f"{made.controller['metadata']['name']}-check"
    pod["metadata"] = {**template["metadata"], "name": name, "namespace": document["namespace"]}
    found = [(CONTROLLER, made.controller), (POD, pod)]
    found += [(SERVICE, service) for service in (made.versioned_service, made.service) if service]
    if document.get("frontend"):
        route = Route(
            namespace=document["namespace"],
            app=document["appName"],
            host=document["frontend"],
            version=version,
            deployment="11111111-1111-4111-8111-111111111111",
            backend=Backend(versioned_name(document["appName"], version), frontend_port(document) or 0),
            tls_secret=document.get("tlsSecretName", ""),
            sticky=document["useStickySessions"],
            headers=tuple((h["Header"], h["Value"]) for h in document.get("additionHttpHeaders", ())),
        )
        found.append((INGRESS, render.main(None, route, LOOK, redirect_www=document["redirectWww"])))
        found.append((INGRESS, render.warm_up(route, LOOK)))
        if config_map := render.headers_config_map(route, LOOK):
            found.append((CONFIG_MAP, config_map))
    return found


def refused(world: World, document: Document) -> list[str]:
    """What the API server says against the objects; strictly, and as a dry run."""
    out = []
    for kind, body in objects(world, document):
        try:
            world.eyes.create(kind, body, world.namespace, dry_run=True)
        except KubeAlreadyExists:
            continue
        except KubeError as error:
            out.append(f"{kind.kind}: {error}")
    return out


def accepted(world: World, document: Document) -> Document | None:
    """The normal form, when it is accepted; normalising it again changes nothing."""
    body = json.dumps(document)
    try:
        normal = world.service.descriptors.check(
            world.namespace, descriptors.parse(body.encode("utf-8", "surrogatepass"))
        )
    except Invalid:
        return None
    assert world.service.descriptors.check(world.namespace, normal) == normal
    assert world.service.descriptors.check(world.namespace, normal, stored=True) == normal
    return normal


def good_ones_are_accepted(world: World, examples: int, seconds: float) -> int:
    """All of them, by us and by the API server. Returns how many were tried."""
    made, within = budget(examples, seconds)
    tried = 0

    @made
    @given(good(world.namespace))
    def check(document: Document) -> None:
        nonlocal tried
        if not within():
            return
        normal = world.service.descriptors.check(world.namespace, descriptors.parse(json.dumps(document).encode()))
        assert accepted(world, document) == normal
        assert refused(world, normal) == []
        tried += 1

    check()
    return tried


def what_we_render_ourselves_is_accepted(world: World, examples: int, seconds: float) -> tuple[int, int]:
    """Something outside of the podspec was changed. Returns how many were tried, and how many of them accepted."""
    made, within = budget(examples, seconds)
    count = [0, 0]

    @made
    @given(changed(world.namespace, below="-podspec"))
    def check(document: Document) -> None:
        if not within():
            return
        count[0] += 1
        if (normal := accepted(world, document)) is not None:
            count[1] += 1
            assert refused(world, normal) == []

    check()
    return count[0], count[1]


def what_validate_accepts_is_accepted(world: World, examples: int, seconds: float) -> tuple[int, int, int]:
    """Something in the podspec was changed, which is the API server's business: `validate` asks it.

    Returns how many were tried, how many `validate` accepted, and how many only it refused.
    """
    made, within = budget(examples, seconds)
    count = [0, 0, 0]

    @made
    @given(changed(world.namespace, below="podspec"))
    def check(document: Document) -> None:
        if not within():
            return
        count[0] += 1
        normal = accepted(world, document)
        try:
            found = world.service.descriptors.validate(world.namespace, json.dumps(document).encode())
        except Invalid as error:
            assert error.problems
            assert all(p.path and p.message for p in error.problems), error.problems
            if normal is not None:
                count[2] += 1
                assert refused(world, normal), f"refused by validate alone: {error}"
            return
        count[1] += 1
        validation = found.pop("validation")
        assert (validation["checked"], found) == (["descriptor", "ReplicationController", "Pod"], normal), validation
        assert refused(world, found) == []

    check()
    return count[0], count[1], count[2]
