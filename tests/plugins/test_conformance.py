"""The conformance suite itself: the documentation's provider passes, and each kind of mistake is found."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.sdk.errors import StepFailed
from deployer.sdk.ingress import IngressProvider, RouteAnswers, RouteClaim, RouteContext, RouteReader, data_plane
from deployer.sdk.kube import INGRESS
from deployer.testing.ingress import CHECKS, Bench, checks, open_bench, ownership
from support.ingressroutes import IngressRoutes, defined

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
BY_NAME = {check.__name__: check for check in CHECKS}


def example() -> dict[str, Any]:
    """What the documentation's plugin defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "class Plain" in block]
    names: dict[str, Any] = {"__name__": "plain"}
    exec(block, names)
    return names


Plain: Any = example()["Plain"]


@pytest.fixture(scope="module")
def bench(cluster: sandbox.Sandbox) -> Iterator[Bench]:
    ingress = cluster.ingress.removeprefix("http://")
    plane = data_plane({"addresses": [ingress], "propagation_seconds": 0.6}, "plain")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = [f"127.0.0.1:{mute.getsockname()[1]}"]
        silent = data_plane({"addresses": where, "propagation_seconds": 0}, "plain")
        with open_bench(
            f"t-{uuid.uuid4().hex[:12]}",
            provider=lambda: Plain(plane),
            silent=lambda: Plain(silent),
            ingress=ingress,
            image="sample/web:1",
            kubernetes=cluster.api,
        ) as made:
            made.plain = made.provider  # type: ignore[attr-defined]
            made.mute = made.silent  # type: ignore[attr-defined]
            yield made


def use(bench: Bench, faulty: Callable[[Any], IngressProvider] | None = None) -> Bench:
    """The bench with the documentation's provider, or with a faulty one of the same data planes."""
    plain, mute = bench.plain, bench.mute  # type: ignore[attr-defined]
    bench.provider = plain if faulty is None else lambda: faulty(plain()._plane)
    bench.silent = mute if faulty is None else lambda: faulty(mute()._plane)
    return bench


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_provider_of_the_documentation_conforms(bench: Bench, check: checks.Check) -> None:
    check(use(bench))


@pytest.mark.slow
def test_an_author_runs_it_as_the_documentation_says(tmp_path: Path) -> None:
    """In a folder with nothing but the two blocks of the page; some of the checks will do."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    plugin, tests = (next(b for b in blocks if word in b) for word in ("class Plain", "open_bench"))
    (tmp_path / "test_plain.py").write_text(f"{plugin}\n\n{tests}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "repeated or silent or remove"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr


# --- mistakes -----------------------------------------------------------------------------------------------------


class NeverConfirms(Plain):  # type: ignore[misc]
    def confirm(self, context: RouteContext) -> None:
        """Believes the API server."""


class WaitsForEver(Plain):  # type: ignore[misc]
    def confirm(self, context: RouteContext) -> None:
        try:
            super().confirm(context)
        except StepFailed:
            return


class Guesses(Plain):  # type: ignore[misc]
    def ask_route(self, context: RouteContext) -> RouteAnswers:
        """Believes the plan."""
        found = super().ask_route(context)
        told = [dataclasses.replace(answer, deployment=context.route.deployment) for answer in found.addresses]
        return RouteAnswers(told)


class TellsNoReason(Plain):  # type: ignore[misc]
    def ask_route(self, context: RouteContext) -> RouteAnswers:
        found = super().ask_route(context)
        return RouteAnswers([dataclasses.replace(answer, unknown="") for answer in found.addresses])


class WritesToTell(Plain):  # type: ignore[misc]
    def ask_route(self, context: RouteContext) -> RouteAnswers:
        self.switch(context)
        return super().ask_route(context)


class Overwrites(Plain):  # type: ignore[misc]
    def switch(self, context: RouteContext) -> None:
        """Writes what it would write if it were alone."""
        kube = context.kube.for_deployment(context.route.deployment)

        def change(found: Any) -> Any:
            if found is not None:
                found["metadata"] |= {"annotations": kube.annotations("route"), "labels": {}}
            return found

        super().switch(context)
        kube.put_shared(INGRESS, context.route.app, change, role="route")


class TakesAnything(Plain):  # type: ignore[misc]
    def state(self, context: RouteContext) -> Any:
        kube = context.kube
        found = kube.get(INGRESS, context.route.app)
        if found is not None and not kube.is_ours(found):
            notes = {"metadata": {"annotations": kube.annotations("route")}}
            kube._client.patch(INGRESS, context.route.app, notes, kube.owner.namespace, scope=kube.scope)
        return super().state(context)


class SwitchesEarly(Plain):  # type: ignore[misc]
    def prepare(self, context: RouteContext) -> None:
        self.switch(context)


class Forgets(Plain):  # type: ignore[misc]
    def prepare(self, context: RouteContext) -> None:
        """Makes something that nobody ever removes, and another one each time."""
        spec = {"ingressClassName": "nginx", "defaultBackend": {"service": {"name": "x", "port": {"number": 1}}}}
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": spec}
        body["metadata"] = {"name": f"left-{uuid.uuid4().hex[:8]}"}
        context.kube.create(INGRESS, body)


class NoFence(Plain):  # type: ignore[misc]
    def fence(self, context: RouteContext) -> None:
        """Leaves the fencing token as it is."""


class RemovesNeighbours(Plain):  # type: ignore[misc]
    def remove(self, context: RouteContext) -> None:
        super().remove(context)
        kube = context.kube
        for found in kube.list(INGRESS):
            if found["metadata"]["name"].startswith(context.route.app):
                uid = found["metadata"]["uid"]
                kube._client.delete(INGRESS, found["metadata"]["name"], kube.owner.namespace, uid=uid, scope=kube.scope)


class HandleOfTheOperation(Plain):  # type: ignore[misc]
    def switch(self, context: RouteContext) -> None:
        """Marks the route as the failed deployment's on the way back."""
        kube, deployment = context.kube, context.kube.owner.deployment
        super().switch(context)
        note = {"metadata": {"annotations": {"kube-deployer/deployment": deployment}}}
        kube._client.patch(INGRESS, context.route.app, note, kube.owner.namespace, scope=kube.scope)


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (NeverConfirms, "confirm_returns_when_the_new_version_answers"),
        (NeverConfirms, "a_silent_data_plane_ends_at_the_deadline"),
        (WaitsForEver, "a_silent_data_plane_ends_at_the_deadline"),
        (Guesses, "confirm_returns_when_the_new_version_answers"),
        (TellsNoReason, "confirm_returns_when_the_new_version_answers"),
        (WritesToTell, "confirm_returns_when_the_new_version_answers"),
        (TellsNoReason, "a_silent_data_plane_ends_at_the_deadline"),
        (Overwrites, "what_others_add_at_the_same_time_is_kept"),
        (TakesAnything, "a_foreign_route_is_never_touched"),
        (SwitchesEarly, "state_tells_where_the_route_leads"),
        (Forgets, "every_verb_can_be_repeated"),
        (Forgets, "everything_is_marked_as_ours"),
        (Forgets, "remove_leaves_nothing"),
        (Forgets, "a_crash_before_any_write_is_mended_by_going_on"),
        (NoFence, "an_earlier_holder_writes_nothing_more"),
        (RemovesNeighbours, "another_apps_objects_are_never_touched"),
        (HandleOfTheOperation, "switching_back_restores_everything"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_mistake_is_found(bench: Bench, faulty: Any, check: str) -> None:
    with pytest.raises(AssertionError):
        BY_NAME[check](use(bench, faulty))
    use(bench).reset()


class SaysNothing(IngressRoutes):
    host_claims = IngressProvider.host_claims


class SaysAnotherHost(IngressRoutes):
    def host_claims(self, kube: RouteReader) -> list[RouteClaim]:
        return [RouteClaim(found, ["other.example.com"]) for found in kube.visible(self.kind)]


def test_a_provider_of_a_kind_of_its_own_must_tell_who_has_a_host(bench: Bench) -> None:
    """On a sandbox that learns of the kind by its definition; no data plane follows that."""
    with defined(bench.client, f"{bench.namespace}.example") as kind:
        bench = dataclasses.replace(bench, kinds=[kind])
        for provider in (IngressRoutes, SaysNothing, SaysAnotherHost):
            bench.provider = lambda provider=provider: provider(kind)  # type: ignore[misc]
            wrong = (
                contextlib.nullcontext()
                if provider is IngressRoutes
                else pytest.raises(AssertionError, match="host_claims")
            )
            with wrong:
                ownership.another_apps_host_is_found(bench)
            bench.reset()
