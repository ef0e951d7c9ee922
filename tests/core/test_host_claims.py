"""What an ingress provider says of others who have a host, when it is wrong, hangs, or may not look."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import KubeAccess, Owner
from deployer.core.errors import DeadlineExceeded, KubeForbidden, KubeNotFound
from deployer.core.model.kind import HTTP_ROUTE, INGRESS, Kind
from deployer.sdk.errors import StepFailed
from deployer.sdk.ingress import Backend, Route, RouteClaim, RouteContext, RouteReader
from deployer.sdk.plugin import Document
from deployer.toolkit import host_ownership
from deployer.toolkit.host_ownership import require_free
from support.ingressroutes import IngressRoutes

KIND = Kind("routes.example", "v1", "ingressroutes", "IngressRoute")
OURS = {"owner": "shop"}


class Provider(IngressRoutes):
    """Says what a test wants."""

    name = "routes"

    def __init__(self, says: Callable[[RouteReader], Any]) -> None:
        super().__init__(KIND)
        self._says = says

    def host_claims(self, kube: RouteReader) -> Any:
        return self._says(kube)


@dataclasses.dataclass
class Kube:
    """Objects of one kind, and who may see them: `all` namespaces, the own one (`here`), none."""

    objects: list[Document] = dataclasses.field(default_factory=list)
    sees: str = "all"
    missing: bool = False
    scope: CancelScope | None = None

    @property
    def owner(self) -> Owner:
        return Owner("deployer", "team", "shop", "id", 1)

    def with_scope(self, scope: CancelScope) -> Kube:
        return dataclasses.replace(self, scope=scope)

    def everywhere(self, kind: Kind) -> list[Document]:
        if kind in (INGRESS, HTTP_ROUTE):
            return []
        if self.sees != "all":
            raise KubeForbidden("not everywhere", status=403)
        if self.missing:
            raise KubeNotFound("no such kind", status=404)
        return self.objects

    def list(self, kind: Kind, labels: object = None) -> list[Document]:
        if self.sees == "none":
            raise KubeForbidden("not here", status=403)
        if self.missing:
            raise KubeNotFound("no such kind", status=404)
        return [o for o in self.objects if o["metadata"]["namespace"] == self.owner.namespace]

    def is_ours(self, found: Document) -> bool:
        return bool(found["metadata"].get("annotations") == OURS)

    def is_original(self, found: Document) -> bool:
        return True


def route(name: str, namespace: str = "team", **metadata: Any) -> Document:
    return {"kind": "IngressRoute", "metadata": {"name": name, "namespace": namespace, **metadata}}


def ask(kube: Kube, says: Callable[[RouteReader], Any], seconds: float = 20.0) -> list[str]:
    """The log, when nobody else has the host. Raises what `require_free` raises."""
    log: list[str] = []
    wanted = Route(
        namespace="team", app="shop", host="a.example", version="1", deployment="id", backend=Backend("s", 1)
    )
    scope = CancelScope(time.monotonic() + seconds)
    require_free(RouteContext(wanted, cast(KubeAccess, kube), log.append, scope), Provider(says))
    return log


def seen(reader: RouteReader) -> list[RouteClaim]:
    return [RouteClaim(found, ["a.example"]) for found in reader.visible(KIND)]


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (route("theirs", "other"), "IngressRoute theirs in namespace other"),
        (route("theirs"), "IngressRoute theirs in namespace team"),
        (route("shop", "other", annotations=OURS), "IngressRoute shop in namespace other"),
        (route("shop", annotations=OURS), ""),
        (route("theirs", "other", deletionTimestamp="2026-01-01T00:00:00Z"), ""),
    ],
)
def test_whose_an_object_is_the_core_decides(found: Document, whose: str) -> None:
    if not whose:
        assert ask(Kube([found]), seen) == []
        return
    with pytest.raises(StepFailed, match=f"a.example is already served by {whose}, which") as caught:
        ask(Kube([found]), seen)
    assert caught.value.reason == "HostTaken"


def test_what_may_not_be_read_is_a_line_in_the_log() -> None:
    foreign, near = route("theirs", "other"), route("near")
    everywhere = "IngressRoute objects of other namespaces are not checked for the host: no right to list them"
    assert ask(Kube([foreign], sees="here"), seen) == [everywhere]
    assert ask(Kube([foreign, near], sees="none"), seen) == [everywhere, "nor are those of namespace team"]
    with pytest.raises(StepFailed, match="IngressRoute near in namespace team"):
        ask(Kube([foreign, near], sees="here"), seen)
    refused = lambda reader: [RouteClaim(o, ["a.example"]) for o in reader.list(KIND)]  # noqa: E731
    assert ask(Kube([near], sees="none"), refused) == ["other routes are not checked for the host: not here"]


@pytest.mark.parametrize("sees", ["all", "here"])
def test_a_kind_that_is_not_installed_is_in_nobodys_way(sees: str) -> None:
    assert not any("nor are" in line for line in ask(Kube(missing=True, sees=sees), seen))


def exits(_: RouteReader) -> None:
    raise SystemExit(3)


BROKEN: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (lambda kube: kube.nothing, "raised AttributeError in host_claims(); the service's log has the details"),
    "exits": (exits, "raised SystemExit in host_claims()"),
    "returns nothing": (lambda _: None, "returned None, not a list; did you forget `return`?"),
    "returns words": (lambda _: ["shop.example.com"], "gave a str, which is no RouteClaim, in host_claims()"),
    "has no object": (lambda _: [RouteClaim({}, ["a"])], "gave a claim without the object as it was read"),
    "has no hosts": (
        lambda _: [RouteClaim({"kind": "A", "metadata": {"name": "a", "namespace": "b"}}, "host")],
        "gave a claim whose hosts are no list of texts",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_provider_that_is_wrong_about_hosts_is_named(how: str) -> None:
    answer, words = BROKEN[how]
    with pytest.raises(StepFailed) as caught:
        ask(Kube(), answer)
    assert f"ingress provider routes {words}" in str(caught.value)
    assert caught.value.hint == "ask the plugin's author"


def test_what_a_provider_says_itself_is_what_users_read() -> None:
    def claims(_: RouteReader) -> None:
        raise StepFailed("the routes are being migrated", reason="Migrating")

    with pytest.raises(StepFailed, match=r"^the routes are being migrated$"):
        ask(Kube(), claims)


def test_a_provider_that_hangs_is_left_behind_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(host_ownership, "DEADLINE", 0.1)
    with pytest.raises(StepFailed) as caught:
        ask(Kube(), lambda _: let_go.wait(60))
    let_go.set()
    assert str(caught.value) == "ingress provider routes did not come back from host_claims() within 0.1 s"


def test_the_time_of_the_step_counts_as_well() -> None:
    let_go = threading.Event()
    with pytest.raises(DeadlineExceeded):
        ask(Kube(), lambda _: let_go.wait(60), seconds=0.1)
    let_go.set()


def test_a_list_without_an_end_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    thread: list[threading.Thread] = []

    def claims(_: RouteReader) -> Iterator[RouteClaim]:
        thread.append(threading.current_thread())
        while True:
            yield RouteClaim(route("theirs"), ["b.example"])

    monkeypatch.setattr(host_ownership, "DEADLINE", 0.1)
    with pytest.raises(StepFailed, match="did not come back"):
        ask(Kube(), claims)
    thread[0].join(10)
    assert not thread[0].is_alive()
