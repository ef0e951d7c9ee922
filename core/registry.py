"""What the installed plugins provide, by kind and name, and what became of each plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from deployer.core.contract.environment import EnvInjector
from deployer.core.contract.gate import CHECK_SECONDS, Gate
from deployer.core.contract.health import HealthChecker
from deployer.core.contract.ingress import IngressProvider
from deployer.core.contract.observer import Notification, Observer
from deployer.core.contract.provider import Provider, Schema
from deployer.core.contract.strategy import Strategy
from deployer.core.errors import PluginError
from deployer.core.model.records import Document

NO_INGRESS = "none"
"""The value of the setting `ingress` that exposes nothing."""

P_co = TypeVar("P_co", bound=Provider, covariant=True)


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """One kind of provider: what messages call it, the hook that hands it in, and its class."""

    word: str
    hook: str
    base: type[Provider]


PROVIDER_KINDS: Mapping[str, ProviderKind] = {
    "strategy": ProviderKind("strategy", "register_strategies", Strategy),
    "health": ProviderKind("health checker", "register_health_checkers", HealthChecker),
    "gate": ProviderKind("gate", "register_gates", Gate),
    "ingress": ProviderKind("ingress provider", "register_ingress_providers", IngressProvider),
    "env": ProviderKind("environment injector", "register_env_injectors", EnvInjector),
    "observer": ProviderKind("observer", "register_observers", Observer),
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What a provider says of itself, read once: each descriptor is checked against what all of them say, and one that
    raises later must not stand in the way of others."""

    options_schema: Schema | None
    capabilities: frozenset[str] = frozenset()
    needs: Mapping[str, str] = field(default_factory=dict)
    needs_path: bool = True
    points: tuple[str, ...] = ()
    check_seconds: float = CHECK_SECONDS
    default_timeout: float = 0.0

    @classmethod
    def of(cls, provider: Provider) -> Declared:
        """Read it. Raises what the provider raises, and TypeError and ValueError for what makes no sense."""
        return cls(
            provider.options_schema,
            frozenset(map(str, getattr(provider, "capabilities", ()))),
            {str(path): str(capability) for path, capability in dict(getattr(provider, "needs", {})).items()},
            bool(getattr(provider, "needs_path", True)),
            tuple(map(str, getattr(provider, "points", ()))),
            float(getattr(provider, "check_seconds", CHECK_SECONDS)),
            float(getattr(provider, "default_timeout", 0.0)),
        )


@dataclass(frozen=True, slots=True)
class Entry(Generic[P_co]):
    """A provider and where it comes from: distribution and its version, and the entry point's name."""

    provider: P_co
    distribution: str
    version: str
    plugin: str
    declared: Declared = field(init=False)

    def __post_init__(self) -> None:
        """Raises what the provider raises when it is asked what it is."""
        object.__setattr__(self, "declared", Declared.of(self.provider))


@dataclass(slots=True)
class Plugin:
    """One entry point and what became of it. `error` is a sentence and empty when all is well; so is `remark`, about
    what is no error."""

    name: str
    distribution: str
    version: str
    provides: list[str] = field(default_factory=list)
    error: str = ""
    traceback: str = ""
    remark: str = ""
    observes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".rstrip()

    @property
    def key(self) -> str:
        """`distribution:name`, the name under which it is registered."""
        return f"{self.distribution}:{self.name}"

    def describe(self) -> Document:
        """As `GET /plugins` shows it."""
        out: Document = {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "state": "quarantined" if self.error else "ok",
            "provides": list(self.provides),
        }
        out |= {"remark": self.remark} if self.remark else {}
        return out | {"error": self.error, "traceback": self.traceback} if self.error else out


@dataclass(frozen=True, slots=True)
class Listener:
    """Whoever is told of deployments: a plugin by its own hooks, or one of the observers that it handed in.

    key     `distribution:plugin`, and `/name` for an observer that was handed in
    hooks   what it wants to be told of
    tell    tells it. Raises PluginError, which says who raised what; the traceback is in the log
    plugin  the entry point's name
    schema  of what a descriptor may have for it in `extensions`; None: nothing
    """

    key: str
    hooks: frozenset[str]
    tell: Callable[[Notification], None]
    plugin: str
    schema: Schema | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the installed plugins provide."""

    plugins: tuple[Plugin, ...]
    strategies: Mapping[str, Entry[Strategy]]
    health_checkers: Mapping[str, Entry[HealthChecker]]
    gates: Mapping[str, Entry[Gate]]
    ingress_providers: Mapping[str, Entry[IngressProvider]]
    env_injectors: Mapping[str, Entry[EnvInjector]]
    ingress_name: str
    observers: tuple[Listener, ...]
    """All who want to be told of deployments."""
    check_tables: Callable[[], None] = field(repr=False)
    """Raises SettingsError for a `[plugins.<name>]` table that nobody reads, as loading does when it is strict."""

    @property
    def injectors(self) -> tuple[EnvInjector, ...]:
        """Every injector, in the order of loading."""
        return tuple(entry.provider for entry in self.env_injectors.values())

    @property
    def extensions(self) -> dict[str, list[Schema]]:
        """The plugins that may have options in a descriptor's `extensions`, and the schemas of what they handed in.
        What a plugin with hooks for observers takes is known to nobody but itself."""
        found: dict[str, list[Schema]] = {}
        for listener in self.observers:
            if listener.schema is not None:
                found.setdefault(listener.plugin, []).append(listener.schema)
        for entry in self.env_injectors.values():
            schema = entry.declared.options_schema
            found.setdefault(entry.plugin, []).extend([] if schema is None else [schema])
        return found

    def strategy(self, name: str) -> Strategy:
        """Raises PluginError that lists the known ones; so do the next three."""
        return cast(Strategy, self.entry("strategy", name).provider)

    def health_checker(self, name: str) -> HealthChecker:
        """The health checker of that name."""
        return cast(HealthChecker, self.entry("health", name).provider)

    def gate(self, name: str) -> Gate:
        """The gate of that type."""
        return cast(Gate, self.entry("gate", name).provider)

    def ingress(self) -> IngressProvider | None:
        """The provider that the setting `ingress` names; None for `none`."""
        found = self.ingress_entry()
        return found.provider if found else None

    def ingress_entry(self) -> Entry[IngressProvider] | None:
        """The same with where it comes from and what it says of itself."""
        if self.ingress_name == NO_INGRESS:
            return None
        return cast(Entry[IngressProvider], self.entry("ingress", self.ingress_name))

    def entry(self, kind: str, name: str) -> Entry[Provider]:
        """By kind (`strategy`, `health`, `gate`, `ingress`, `env`) and name. Raises PluginError that lists the known
        names, and the quarantined plugins, one of which may be the one that is missed."""
        entries = self._of(kind)
        if name in entries:
            return entries[name]
        known = ", ".join(sorted(entries)) or "none"
        message = f"there is no {PROVIDER_KINDS[kind].word} {name!r}; installed: {known}"
        broken = [f"{plugin.name} ({plugin.error})" for plugin in self.plugins if plugin.error]
        if broken:
            message += f"; quarantined, so that what they provide is missing: {', '.join(broken)}"
        raise PluginError(message)

    def title(self, kind: str, name: str) -> str:
        """What errors call a provider: `injector vault of acme-vault 1.2`. Raises PluginError like `entry`."""
        entry = self.entry(kind, name)
        return f"{PROVIDER_KINDS[kind].word} {name} of {entry.distribution} {entry.version}".rstrip()

    def ref(self, kind: str, name: str) -> Document:
        """`{"name", "source", "version"}`: what a plan pins. The source is `distribution:plugin`."""
        if not name:
            return {"name": "", "source": "", "version": ""}
        entry = self.entry(kind, name)
        return {"name": name, "source": f"{entry.distribution}:{entry.plugin}", "version": entry.version}

    def describe(self) -> list[Document]:
        """Every plugin, as `GET /plugins` and `deployer plugins` show it."""
        return [p.describe() for p in sorted(self.plugins, key=lambda p: (p.name, p.distribution))]

    def _of(self, kind: str) -> Mapping[str, Entry[Provider]]:
        found: Mapping[str, Mapping[str, Entry[Provider]]] = {
            "strategy": self.strategies,
            "health": self.health_checkers,
            "gate": self.gates,
            "ingress": self.ingress_providers,
            "env": self.env_injectors,
        }
        return found[kind]
