"""`/whoami`: who the caller is, where they may look, and what they may do there."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Served, document


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
    with access_by(issuer, tmp_path) as made:
        yield made


def stored(served: Served, *namespaces: str) -> None:
    for namespace in namespaces:
        served.service.descriptors.create(namespace, json.dumps({**document(), "namespace": namespace}).encode())


def asked(served: Served, headers: dict[str, str], query: str = "") -> Any:
    return served.call("GET", f"/whoami{query}", headers=headers).json


@pytest.mark.parametrize("access", [None], ids=["open"])
def test_an_open_service_knows_nobody_and_allows_everything(served: Served) -> None:
    stored(served, NS)
    found = asked(served, {}, f"?namespace={NS}")
    assert "name" not in found and "expires" not in found
    assert found["namespaces"] == [NS]
    assert {"approve", "rollback", "create", "delete"} <= set(found["may"]["deployments"])
    assert {"update", "delete", "override"} <= set(found["may"]["freezes"])


def test_callers_see_who_they_are_and_the_namespaces_that_are_theirs(served: Served, issuer: Issuer) -> None:
    stored(served, NS, "other-ns")
    end = int(time.time()) + 600
    found = asked(served, bearer(issuer.token(namespaces=[NS, "empty-ns"], roles=["read"], exp=end)))
    assert found["name"] == "ann"
    # Clocks may differ by half a minute, for which it is still good.
    assert 0 <= datetime.datetime.fromisoformat(found["expires"]).timestamp() - end <= 30
    # That of the token counts although nothing is there yet; that of others does not show.
    assert found["namespaces"] == ["empty-ns", NS]
    assert "may" not in found


def test_whoever_may_look_everywhere_sees_every_namespace_that_is_used(served: Served, issuer: Issuer) -> None:
    stored(served, NS, "other-ns")
    found = asked(served, bearer(issuer.token(namespaces=["*"], roles=["read"])))
    assert found["namespaces"] == ["other-ns", NS]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("read", {"deployments": {"get", "list"}, "descriptors": {"get", "list"}, "freezes": {"get", "list"}}),
        ("approve", {"deployments": {"approve"}, "descriptors": set(), "freezes": set()}),
        ("rollback", {"deployments": {"rollback"}, "descriptors": set(), "freezes": set()}),
        ("freeze", {"deployments": set(), "descriptors": set(), "freezes": {"get", "list", "update", "delete"}}),
    ],
)
def test_it_says_what_a_role_may(served: Served, issuer: Issuer, role: str, may: dict[str, set[str]]) -> None:
    found = asked(served, bearer(issuer.token(namespaces=[NS], roles=[role])), f"?namespace={NS}")
    assert {resource: set(verbs) for resource, verbs in found["may"].items()} == may


def test_in_a_foreign_namespace_nothing_may_be_done(served: Served, issuer: Issuer) -> None:
    found = asked(served, bearer(issuer.token(namespaces=[NS], roles=["deploy"])), "?namespace=other-ns")
    assert found["may"] == {"descriptors": [], "deployments": [], "freezes": []}


def test_without_credentials_it_says_nothing(served: Served) -> None:
    assert served.call("GET", "/whoami").problem["status"] == 401


def test_it_is_cheap_to_ask_again(served: Served, issuer: Issuer) -> None:
    headers = bearer(issuer.token(namespaces=[NS], roles=["read"], exp=int(time.time()) + 600))
    tag = served.call("GET", "/whoami", headers=headers).headers["ETag"]
    assert served.call("GET", "/whoami", headers={**headers, "If-None-Match": tag}).status == 304
