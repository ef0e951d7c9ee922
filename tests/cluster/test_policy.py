"""What a podspec means to the real API server is what the rules about accounts, Secrets and nodes take it to mean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.conftest import RealWorld
from deployer.core.errors import KubeError, KubeRejected
from deployer.core.model.kind import POD
from deployer.descriptor import policy
from deployer.settings import Settings
from support.rights import SERVICE_ACCOUNT

ACCOUNTS = ("default", "one", "two")
CONTAINER = {"name": "a", "image": "lab/true:1"}


@pytest.fixture
def accounts(real: RealWorld) -> Iterator[RealWorld]:
    for name in ACCOUNTS[1:]:
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        real.eyes.create(SERVICE_ACCOUNT, body, real.namespace)
    deadline = time.monotonic() + 30
    while True:  # the namespace's own account comes a little later
        try:
            admitted(real, {})
            break
        except KubeError:
            assert time.monotonic() < deadline
    yield real


def admitted(real: RealWorld, spec: dict[str, Any]) -> Any:
    """The pod that would come of it, by a dry run."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [CONTAINER], **spec}}
    return real.eyes.create(POD, body, real.namespace, dry_run=True)["spec"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"serviceAccountName": "one"},
        {"serviceAccount": "one"},
        {"serviceAccountName": "one", "serviceAccount": "two"},
        {"serviceAccountName": "", "serviceAccount": "two"},
        {"serviceAccountName": None, "serviceAccount": "two"},
        {"automountServiceAccountToken": False},
    ],
)
def test_the_account_is_the_one_that_the_rules_see(accounts: RealWorld, spec: dict[str, Any]) -> None:
    has = admitted(accounts, spec)["serviceAccountName"]
    for allowed in ACCOUNTS:
        settings = Settings(own_namespace="", allowed_service_accounts={"*": (allowed,)})
        refused = policy.problems({"namespace": accounts.namespace, "podspec": spec}, settings)
        assert bool(refused) == (allowed != has), (allowed, has)


def test_the_token_of_a_projected_volume_is_the_pods_own_account(accounts: RealWorld) -> None:
    """There is no field by which it could be another's, so the account's rule covers it."""
    token = {"audience": "elsewhere", "path": "token"}
    for field in ("serviceAccountName", "name", "serviceAccount"):
        source = {"serviceAccountToken": {**token, field: "two"}}
        with pytest.raises(KubeRejected, match="unknown field"):
            admitted(accounts, {"volumes": [{"name": "v", "projected": {"sources": [source]}}]})


def test_other_ways_that_the_api_server_closes_itself(accounts: RealWorld) -> None:
    for spec in (
        {"ephemeralContainers": [CONTAINER | {"name": "b"}]},
        {"serviceaccountname": "two"},
        {"ServiceAccountName": "two"},
        {"priority": 2_000_000_000},
    ):
        with pytest.raises(KubeError):
            admitted(accounts, spec)
    # A volume that says nothing is an emptyDir, as the rule about types has it.
    (volume, _token) = admitted(accounts, {"volumes": [{"name": "v"}]})["volumes"]
    assert set(volume) == {"name", "emptyDir"}
