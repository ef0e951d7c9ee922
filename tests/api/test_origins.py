"""Pages of other origins, which a browser on the same machine may be looking at."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from .conftest import NS, Served

ELSEWHERE = ["http://evil.example", "null", "http://[", "http://127.0.0.1:1"]


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_another_origins_page_sends_is_refused_and_does_nothing(served: Served, method: str, origin: str) -> None:
    deployment = served.deployment()
    path = (
        f"/deployments/{deployment.id}/?namespace={NS}&deleteDeployment=true" if method != "POST" else "/descriptors/"
    )
    answer = served.call(method, path, b"{}", headers={"Origin": origin})
    assert answer.status == 403
    assert "another origin" in answer.problem["detail"]
    assert served.service.deployment(NS, deployment.id).status is deployment.status


def test_a_page_of_this_service_may_ask(served: Served) -> None:
    assert served.call("GET", "/", headers={"Origin": f"http://127.0.0.1:{served.port}"}).status == 200


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_another_origins_page_sees_no_log(served: Served, origin: str) -> None:
    deployment = served.deployment()
    with pytest.raises(InvalidStatus) as refused, served.watch(deployment.id, origin=origin):
        pass
    assert refused.value.response.status_code == 403
