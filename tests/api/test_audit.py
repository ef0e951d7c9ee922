"""The audit log under a flood: callers who are not known cannot make it grow, and hide nobody who is."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from deployer.api.auth import audit as audit_module
from deployer.api.auth.access import Access
from deployer.api.auth.audit import SOURCES, WRITTEN, Audit
from deployer.api.auth.jwt.issuers import GrantAuthorizer, open_issuers
from deployer.settings import Settings
from support.issuer import AUDIENCE, ISSUER, Issuer, bearer

from .conftest import NS, Served


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Access:
    file = tmp_path / "key.pem"
    file.write_bytes(issuer.pem)
    settings = Settings(
        auth="jwt", jwt_algorithm="ES256", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_key_file=str(file)
    )
    return Access(open_issuers(settings), GrantAuthorizer(settings))


@pytest.fixture
def audit() -> Iterator[Audit]:
    with contextlib.closing(Audit()) as made:
        yield made


def refuse(audit: Audit, source: str = "192.0.2.1", status: int = 401, who: str | None = None) -> None:
    audit.note(who=who, outcome="refused", status=status, source=source, path="/deployments")


def test_the_refusals_of_one_source_are_counted(audit: Audit, audited: list[Any]) -> None:
    for _ in range(18_000):
        refuse(audit)
    refuse(audit, status=421)
    refuse(audit, source="192.0.2.2")
    assert len(audited) == WRITTEN + 1
    audit.close()
    *written, one, other = audited
    assert [a["source"] for a in written] == ["192.0.2.1"] * WRITTEN + ["192.0.2.2"]
    assert all(a["path"] == "/deployments" and "count" not in a for a in written)
    since = written[0]["audit"]
    assert since <= one.pop("audit") and one.pop("since") <= since
    assert one == {"who": None, "source": "192.0.2.1", "outcome": "refused", "status": 401, "count": 18_000 - WRITTEN}
    assert (other["status"], other["count"]) == (421, 1)


def test_the_refusals_of_any_number_of_sources_are_bounded(audit: Audit, audited: list[Any]) -> None:
    for number in range(20_000):
        refuse(audit, source=f"2001:db8::{number % 3000:x}")
    audit.close()
    assert len(audited) <= (SOURCES + 1) * (WRITTEN + 1)
    whole = [a for a in audited if "count" not in a]
    assert len(whole) + sum(a["count"] for a in audited if "count" in a) == 20_000
    # Those that are not told apart are there too.
    assert max(a["count"] for a in audited if "count" in a and "source" not in a) > 19_000


def test_nobody_who_is_known_is_only_counted(audit: Audit, audited: list[Any]) -> None:
    for _ in range(100):
        refuse(audit)
        refuse(audit, status=403, who="ann")
        audit.note(who=None, outcome="ok", status=202, source="192.0.2.1", verb="create")
        audit.note(who=None, outcome="failed", status=404, source="192.0.2.1", verb="delete")
    assert len([a for a in audited if a["who"] == "ann"]) == 100
    assert len([a for a in audited if a["outcome"] in ("ok", "failed")]) == 200
    assert len(audited) == 300 + WRITTEN


def test_counts_are_written_when_the_interval_is_over_and_then_it_begins_anew() -> None:
    lines: list[Any] = []
    counted = threading.Event()

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(record.getMessage()))
            if "count" in lines[-1]:
                counted.set()

    reader = Reader()
    logging.getLogger(audit_module.LOGGER).addHandler(reader)
    try:
        with contextlib.closing(Audit(interval=0.2)) as audit:
            for _ in range(2):
                counted.clear()
                for _ in range(WRITTEN + 3):
                    refuse(audit)
                assert counted.wait(20)
    finally:
        logging.getLogger(audit_module.LOGGER).removeHandler(reader)
    assert sum(a.get("count", 1) for a in lines) == 2 * (WRITTEN + 3)
    assert len([a for a in lines if "count" in a]) >= 2


def test_a_flood_over_http_and_the_stream(served: Served, issuer: Issuer, audited: list[Any]) -> None:
    id = served.deployment().id
    with served.connection() as connection:
        for _ in range(300):
            assert served.call("GET", f"/deployments/?namespace={NS}", on=connection).status == 401
        elsewhere = bearer(issuer.token(namespaces=["other"]))
        for _ in range(10):
            assert served.call("GET", f"/deployments/?namespace={NS}", headers=elsewhere, on=connection).status == 403
    for _ in range(10):
        with served.watch(id, additional_headers=bearer("nonsense")) as viewer, pytest.raises(ConnectionClosed):
            viewer.recv(timeout=20)
    assert [a["status"] for a in audited] == [401] * WRITTEN + [403] * 10
    assert {a["who"] for a in audited[WRITTEN:]} == {"ann"}
