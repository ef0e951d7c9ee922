"""The whole plugin contract: what pluggy calls. A plugin is a module in the entry-point group `deployer.plugins`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from deployer.core.contract.environment import EnvInjector
from deployer.core.contract.gate import Gate
from deployer.core.contract.health import HealthChecker
from deployer.core.contract.ingress import IngressProvider
from deployer.core.contract.observer import Observer
from deployer.core.contract.provider import Schema
from deployer.core.contract.strategy import Strategy
from deployer.core.model.records import Document
from deployer.settings import Settings

PROJECT = "deployer"
ENTRY_POINT_GROUP = "deployer.plugins"

INTERFACE = 1
"""The version of the plugin interface, which is what `deployer.sdk` exports. It grows when a plugin that was written
for it may not work any more; a plugin says in `deployer_interface` for which one it was written."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """What a register hook gets: the plugin's own `[plugins.<name>]` table, checked, and the service's settings."""

    table: Mapping[str, Any]
    core: Settings


class Specs:
    """Every hook, with its exact arguments. A plugin implements those that it wants, marked with `@hookimpl`."""

    @hookspec
    def settings_schema(self) -> Schema:  # type: ignore[empty-body]
        """JSON Schema (2020-12) of the plugin's table `[plugins.<entry point name>]`, asked before the others."""

    @hookspec
    def register_strategies(self, settings: PluginSettings) -> Sequence[Strategy]:  # type: ignore[empty-body]
        """Strategies that a descriptor can name in `deploymentType`."""

    @hookspec
    def register_health_checkers(self, settings: PluginSettings) -> Sequence[HealthChecker]:  # type: ignore[empty-body]
        """Health checkers that a descriptor can name in `healthCheckType`."""

    @hookspec
    def register_gates(self, settings: PluginSettings) -> Sequence[Gate]:  # type: ignore[empty-body]
        """Gates that a descriptor can name as `type` in `gates`, and the settings in `[[gates]]`."""

    @hookspec
    def register_ingress_providers(self, settings: PluginSettings) -> Sequence[IngressProvider]:  # type: ignore[empty-body]
        """Ingress providers that the setting `ingress` can name."""

    @hookspec
    def register_env_injectors(self, settings: PluginSettings) -> Sequence[EnvInjector]:  # type: ignore[empty-body]
        """Injectors, all of which are asked at every deployment."""

    @hookspec
    def register_observers(self, settings: PluginSettings) -> Sequence[Observer]:  # type: ignore[empty-body]
        """Observers, each with a queue and a thread of its own: for a plugin that tells several others."""

    @hookspec
    def deployment_started(self, deployment: Document, settings: PluginSettings) -> None:
        """A deployment was taken up. Told at least once, in order; `deployment` is what REST shows."""

    @hookspec
    def deployment_changed(self, deployment: Document, settings: PluginSettings) -> None:
        """A deployment came further, waits, or is held: `deployment["operation"]` is `{"kind", "state", "steps",
        "until"}`. Of what comes while the observer is busy only the newest is told, once; nothing after a restart. That
        it is held is told at least once, in order, with `waitingFor`."""

    @hookspec
    def deployment_finished(self, deployment: Document, settings: PluginSettings) -> None:
        """A deployment is DEPLOYED, FAILURE or UNDEPLOYED. Told at least once, in order."""
