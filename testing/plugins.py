"""Plugins that are not installed, loaded as if they were: modules, or providers alone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from deployer.commands.descriptor_commands import rules
from deployer.commands.provider_calls import ProviderCalls
from deployer.core.model.records import Document
from deployer.core.registry import NO_INGRESS, Registry
from deployer.descriptor import examine
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.environment import EnvInjector
from deployer.sdk.gate import Gate
from deployer.sdk.health import HealthChecker
from deployer.sdk.ingress import IngressProvider
from deployer.sdk.observer import Observer
from deployer.sdk.plugin import Problem, Provider, hookimpl
from deployer.sdk.strategy import Strategy
from deployer.settings import Settings

DISTRIBUTION = SimpleNamespace(name="tests", version="1")
"""Where they come from, in what the service says of them."""


class Given:
    """An entry point that leads to something that is there already."""

    dist = DISTRIBUTION

    def __init__(self, name: str, plugin: object) -> None:
        self.name = name
        self._plugin = plugin

    def load(self) -> object:
        """As of `importlib.metadata.EntryPoint`."""
        return self._plugin


class _Plugin:
    """One provider, handed in by the hook of its kind."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def _if(self, base: type[Provider]) -> list[Any]:
        return [self._provider] if isinstance(self._provider, base) else []

    @hookimpl
    def register_strategies(self) -> list[Strategy]:
        return self._if(Strategy)

    @hookimpl
    def register_health_checkers(self) -> list[HealthChecker]:
        return self._if(HealthChecker)

    @hookimpl
    def register_gates(self) -> list[Gate]:
        return self._if(Gate)

    @hookimpl
    def register_ingress_providers(self) -> list[IngressProvider]:
        return self._if(IngressProvider)

    @hookimpl
    def register_env_injectors(self) -> list[EnvInjector]:
        return self._if(EnvInjector)

    @hookimpl
    def register_observers(self) -> list[Observer]:
        return self._if(Observer)


def load(
    settings: Settings,
    *,
    providers: Sequence[Provider] = (),
    modules: Mapping[str, object] | None = None,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    complete: bool = True,
) -> Registry:
    """What is installed, and these as well. Raises AssertionError when one of these would be quarantined.

    providers    each is a plugin of its own, of the provider's name; it replaces an installed one of its kind and name
    modules      with hooks, by the name that their entry point would have, and their table of settings has
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    added: Any = [Given(name, module) for name, module in (modules or {}).items()]
    registry = load_plugins(settings, entry_points=[*entry_points, *added], complete=complete)
    found: list[Registry] = []
    for provider in providers:
        assert isinstance(provider, Provider), f"providers: {provider!r} is no object of a kind of provider"
        alone: Any = Given(provider.name, _Plugin(provider))
        found.append(load_plugins(settings, entry_points=[alone], strict=False))
    names = {given.name for given in added}
    ours = [p for p in registry.plugins if p.distribution == DISTRIBUTION.name and p.name in names]
    for plugin in [*ours, *(plugin for one in found for plugin in one.plugins)]:
        assert not plugin.error, f"plugin {plugin.name} cannot be used: {plugin.error}\n{plugin.traceback}"
    kinds = ("strategies", "health_checkers", "gates", "ingress_providers", "env_injectors")
    for one in found:
        merged: Any = {kind: {**getattr(registry, kind), **getattr(one, kind)} for kind in kinds}
        merged |= {name: (*getattr(registry, name), *getattr(one, name)) for name in ("plugins", "observers")}
        registry = dataclasses.replace(registry, **merged)
    return registry


def problems_of(provider: Provider, kind: str, document: Document) -> list[Problem]:
    """What `POST /descriptors/` would say against a descriptor that chooses this provider. `kind` is `health`, `gate`
    or `env`. Raises AssertionError when the provider cannot even be loaded, and PluginError when it cannot look."""
    settings = Settings(own_namespace="", ingress=NO_INGRESS)
    registry = load(settings, providers=[provider], complete=False)
    normal, found = examine(document, namespace=None, rules=rules(registry, settings))
    return found or ProviderCalls(registry).problems([(kind, provider.name)], normal)


def require_options(
    provider: Provider,
    kind: str,
    right: Mapping[str, Any],
    wrong: Sequence[Mapping[str, Any]],
    place: Callable[[Document], Document],
) -> None:
    """A descriptor may have the right options, and neither the wrong ones nor one that nobody knows. `place` makes a
    descriptor with options. Raises AssertionError."""
    found = problems_of(provider, kind, place({**right}))
    assert not found, f"the options {dict(right)} are refused: {found}"
    for options in (*wrong, {**right, "no-such-option": 1}):
        found = problems_of(provider, kind, place({**options}))
        assert found, f"the options {dict(options)} are accepted: say in options_schema which there are"


__all__ = ["load", "problems_of", "require_options"]
