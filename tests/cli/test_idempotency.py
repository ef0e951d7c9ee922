"""A service that dies between doing and answering, and a pipeline that sends its request again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployer.cli.sandbox import sample
from support.command import Rest


def send(rest: Rest) -> list[Any]:
    """A pipeline: status and id of the descriptor and of the deployment."""
    rest.headers["Idempotency-Key"] = "store"
    stored, descriptor = rest.call("POST", "/descriptors/", sample.descriptor())
    rest.headers["Idempotency-Key"] = "deploy"
    queued, deployment = rest.call("POST", "/deployments/", query=f"&descriptorId={descriptor['id']}")
    return [stored, descriptor["id"], queued, deployment["id"]]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["store.after:1", "store.after:2"])
def test_a_request_that_nobody_answered_is_carried_out_once(deployer: Any, tmp_path: Path, point: str) -> None:
    arguments = ("serve", "--kubernetes=http://127.0.0.1:1", "--ingress=none", f"--data-dir={tmp_path / 'data'}")
    process, rest = deployer.serve(*arguments, DEPLOYER_FAILPOINT=point)
    with pytest.raises(OSError):
        send(rest)
    assert process.child.wait(30) == 137
    _, rest = deployer.serve(*arguments)
    first = send(rest)
    assert send(rest) == first
    assert (first[0], first[2]) == (201, 202)
    for kind, id in (("descriptors", first[1]), ("deployments", first[3])):
        assert [one["id"] for one in rest.call("GET", f"/{kind}/")[1]] == [id]
