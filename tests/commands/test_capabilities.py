"""What a descriptor asks of an ingress provider that lists fewer capabilities: a 400 or a remark, never silence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.contract.ingress import Capability, IngressProvider
from deployer.core.contract.strategy import Step, Strategy
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Document
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore

ASKED: dict[Capability, dict[str, Any]] = {
    Capability.REDIRECT_WWW: {"redirectWww": True},
    Capability.COMPRESSION: {"useCompression": "true"},
    Capability.STICKY: {"useStickySessions": True},
    Capability.HEADERS: {"additionHttpHeaders": [{"Header": "X-Team", "Value": "shop"}]},
    Capability.PREVIEW: {"ingressOptions": {"previewCheck": "/health"}},
}


class BlueGreen(Strategy):
    """Carries out nothing."""

    name = "blue-green"

    def deploy_steps(self, plan: Any) -> Sequence[Step]:
        return []


class Plain(IngressProvider):
    """Does nothing, and says that it can do what a test wants."""

    name = "plain"
    options_schema = {"type": "object"}  # noqa: RUF012
    own: Sequence[Problem] = ()

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        return self.own

    state = prepare = switch = confirm = release = remove = fence = lambda self, context: None  # type: ignore[assignment]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[[Plain], DeploymentCommands]]:
    store = SqliteStore(tmp_path / "deployer.db")
    log = DeploymentLog(store, Redactor())

    def make(provider: Plain) -> DeploymentCommands:
        settings = Settings(own_namespace="", ingress="plain")
        registry = dataclasses.replace(
            load_plugins(settings, entry_points=[]),
            strategies={"blue-green": Entry(BlueGreen(), "tests", "1", "tests")},
            ingress_providers={"plain": Entry(provider, "tests", "1", "tests")},
        )
        return DeploymentCommands(store, log, registry, settings)

    yield make
    log.close()
    store.close()


def body(**fields: Any) -> bytes:
    container = {"name": "web", "image": "shop:1", "ports": [{"containerPort": 8080}]}
    document = {"namespace": "ns", "appName": "shop", "newVersion": "1", "podspec": {"containers": [container]}}
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize("capability", ASKED)
def test_what_a_provider_does_not_list_is_refused_with_field_and_provider(service, capability) -> None:
    fields = {"frontend": "shop.example.com", **ASKED[capability]}
    plain = Plain()
    plain.capabilities = frozenset(set(Capability) - {capability})
    with pytest.raises(Invalid) as refused:
        service(plain).descriptors.create("ns", body(**fields))
    [problem] = refused.value.problems
    assert problem.path.partition(".")[0] in fields
    said = f"ingress provider plain cannot do this (capability {capability}); leave it out"
    assert problem.message == said
    # As a plain name it counts as well; and without a host nothing of it is asked for.
    plain.capabilities = frozenset({str(capability)})
    assert service(plain).descriptors.create("ns", body(**fields))
    plain.capabilities = frozenset()
    assert service(plain).descriptors.create("ns", body(**ASKED[capability]))


def test_what_the_provider_says_itself_is_enough(service) -> None:
    plain = Plain()
    plain.own = [Problem("useCompression", "buy a faster line")]
    with pytest.raises(Invalid) as refused:
        service(plain).descriptors.create("ns", body(frontend="shop.example.com", useCompression=True))
    assert [problem.message for problem in refused.value.problems] == ["buy a faster line"]


def test_tls_that_others_do_is_a_remark(service) -> None:
    asked = body(frontend="shop.example.com", tlsSecretName="mine")
    remarks = service(Plain()).descriptors.validate("ns", asked)["validation"]["remarks"]
    assert {
        "path": "tlsSecretName",
        "message": "has no effect: ingress provider plain leaves TLS to the data plane",
    } in remarks
