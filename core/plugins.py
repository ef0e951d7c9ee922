"""From entry points to a typed registry: every plugin is loaded on its own, and one that is broken harms no other."""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

import pluggy

from deployer.core import schema_errors
from deployer.core.errors import Invalid, PluginError, SettingsError
from deployer.core.hookspecs import ENTRY_POINT_GROUP, PROJECT, Specs
from deployer.core.providers import EnvInjector, HealthChecker, IngressProvider, PluginSettings, Provider, Strategy
from deployer.core.records import Document
from deployer.core.settings import Settings

logger = logging.getLogger(__name__)

NO_INGRESS = "none"
"""The value of the setting `ingress` that exposes nothing."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

P_co = TypeVar("P_co", bound=Provider, covariant=True)


@dataclass(frozen=True, slots=True)
class _Sort:
    """One kind of provider: what messages call it, the hook that hands it in, and its class."""

    word: str
    hook: str
    base: type[Provider]


_SORTS: Mapping[str, _Sort] = {
    "strategy": _Sort("strategy", "register_strategies", Strategy),
    "health": _Sort("health checker", "register_health_checkers", HealthChecker),
    "ingress": _Sort("ingress provider", "register_ingress_providers", IngressProvider),
    "env": _Sort("environment injector", "register_env_injectors", EnvInjector),
}
_OBSERVERS = ("deployment_started", "deployment_finished")


# --- the result ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry(Generic[P_co]):
    """A provider and where it comes from: distribution and its version, and the entry point's name."""

    provider: P_co
    distribution: str
    version: str
    plugin: str


@dataclass(slots=True)
class Plugin:
    """One entry point and what became of it. `error` is a sentence and empty when all is well."""

    name: str
    distribution: str
    version: str
    provides: list[str] = field(default_factory=list)
    error: str = ""
    traceback: str = ""

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
        return out | {"error": self.error, "traceback": self.traceback} if self.error else out


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the installed plugins provide. `observer_errors` counts by plugin what `notify` had to catch."""

    plugins: tuple[Plugin, ...]
    strategies: Mapping[str, Entry[Strategy]]
    health_checkers: Mapping[str, Entry[HealthChecker]]
    ingress_providers: Mapping[str, Entry[IngressProvider]]
    env_injectors: Mapping[str, Entry[EnvInjector]]
    ingress_name: str
    observer_errors: Counter[str] = field(default_factory=Counter)
    _loader: _Loader = field(repr=False)

    @property
    def injectors(self) -> tuple[EnvInjector, ...]:
        """Every injector, in the order of loading."""
        return tuple(entry.provider for entry in self.env_injectors.values())

    def strategy(self, name: str) -> Strategy:
        """Raises PluginError that lists the known ones; so do the next two."""
        return cast(Strategy, self.entry("strategy", name).provider)

    def health_checker(self, name: str) -> HealthChecker:
        """The health checker of that name."""
        return cast(HealthChecker, self.entry("health", name).provider)

    def ingress(self) -> IngressProvider | None:
        """The provider that the setting `ingress` names; None for `none`."""
        if self.ingress_name == NO_INGRESS:
            return None
        return cast(IngressProvider, self.entry("ingress", self.ingress_name).provider)

    def entry(self, kind: str, name: str) -> Entry[Provider]:
        """By kind (`strategy`, `health`, `ingress`, `env`) and name. Raises PluginError that lists the known names,
        and the quarantined plugins, one of which may be the one that is missed."""
        entries = self._of(kind)
        if name in entries:
            return entries[name]
        known = ", ".join(sorted(entries)) or "none"
        message = f"there is no {_SORTS[kind].word} {name!r}; installed: {known}"
        broken = [f"{plugin.name} ({plugin.error})" for plugin in self.plugins if plugin.error]
        if broken:
            message += f"; quarantined, so that what they provide is missing: {', '.join(broken)}"
        raise PluginError(message)

    def ref(self, kind: str, name: str) -> Document:
        """`{"name", "source", "version"}`: what a plan pins. The source is `distribution:plugin`."""
        if not name:
            return {"name": "", "source": "", "version": ""}
        entry = self.entry(kind, name)
        return {"name": name, "source": f"{entry.distribution}:{entry.plugin}", "version": entry.version}

    def check_tables(self) -> None:
        """Raises SettingsError for a `[plugins.<name>]` table that nobody reads, as `load` does when it is strict."""
        self._loader.check_tables()

    def describe(self) -> list[Document]:
        """Every plugin, as `GET /plugins` and `deployer plugins` show it."""
        return [p.describe() for p in sorted(self.plugins, key=lambda p: (p.name, p.distribution))]

    def notify(self, hook: str, deployment: Document) -> None:
        """Tell every observer; one that raises is logged and counted, and the next one is told all the same."""
        for plugin in self.plugins:
            if plugin.error:
                continue
            try:
                self._loader.call(plugin, hook, deployment=copy.deepcopy(deployment))
            except _Broken as error:
                self.observer_errors[plugin.key] += 1
                logger.error("plugin %s: %s failed: %s\n%s", plugin.key, hook, error.sentence, error.traceback)

    def _of(self, kind: str) -> Mapping[str, Entry[Provider]]:
        found: Mapping[str, Mapping[str, Entry[Provider]]] = {
            "strategy": self.strategies,
            "health": self.health_checkers,
            "ingress": self.ingress_providers,
            "env": self.env_injectors,
        }
        return found[kind]


def load(
    settings: Settings,
    *,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    strict: bool = True,
) -> Registry:
    """Load the plugins of the group `deployer.plugins`, or those given, with a plugin manager of their own.

    Raises PluginError when two plugins give the same name, and SettingsError for a `[plugins.<name>]` table that is
    wrong. A plugin that cannot be used is quarantined: the service runs without it. When not `strict`, so is one whose
    table is wrong or missing, and tables that nobody reads are left to `check_tables`: for those who only want to look.
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    loader = _Loader(settings, strict)
    for entry_point in entry_points:
        loader.load(entry_point)
    if strict:
        loader.check_tables()
    found = {kind: MappingProxyType(entries) for kind, entries in loader.entries.items()}
    return Registry(
        plugins=tuple(loader.plugins),
        strategies=cast(Mapping[str, Entry[Strategy]], found["strategy"]),
        health_checkers=cast(Mapping[str, Entry[HealthChecker]], found["health"]),
        ingress_providers=cast(Mapping[str, Entry[IngressProvider]], found["ingress"]),
        env_injectors=cast(Mapping[str, Entry[EnvInjector]], found["env"]),
        ingress_name=settings.ingress,
        _loader=loader,
    )


# --- loading ------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """Why a plugin is quarantined."""

    def __init__(self, sentence: str, traceback: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.traceback = traceback


class _Loader:
    """Registers plugins one by one. Every hook is called for one plugin at a time, so that it is known who raised."""

    def __init__(self, settings: Settings, strict: bool) -> None:
        self._strict = strict
        self.plugins: list[Plugin] = []
        self.entries: dict[str, dict[str, Entry[Provider]]] = {kind: {} for kind in _SORTS}
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Specs)
        self._hooks = frozenset(name for name in vars(Specs) if not name.startswith("_"))
        self._schemas: dict[str, bool] = {}

    def load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Load one plugin, or quarantine it. Raises PluginError and SettingsError as `load` does."""
        dist = entry_point.dist
        plugin = Plugin(entry_point.name, dist.name if dist else "unknown", dist.version if dist else "")
        if any(other.key == plugin.key for other in self.plugins):
            logger.debug("plugin %s is installed twice; the first one counts", plugin.key)
            return
        self.plugins.append(plugin)
        try:
            self._register(plugin, entry_point)
            providers = self._providers(plugin)
        except (_Broken, SettingsError) as error:
            if self._strict and isinstance(error, SettingsError):
                raise
            plugin.error, plugin.traceback = str(error), getattr(error, "traceback", "")
            plugin.provides.clear()
            if self._manager.has_plugin(plugin.key):
                self._manager.unregister(name=plugin.key)
            logger.error("plugin %s is quarantined: %s\n%s", plugin.key, plugin.error, plugin.traceback)
            return
        for kind, provider in providers:
            self._add(kind, provider, plugin)

    def call(self, plugin: Plugin, hook: str, **arguments: object) -> list[Any]:
        """Call the plugin's own implementations of `hook`; None as a result is left out. Raises _Broken.

        pluggy's own call would lose everybody's results when one plugin raises.
        """
        results = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin_name == plugin.key:
                values = [arguments[name] for name in impl.argnames]
                results.append(_guarded(partial(impl.function, *values), f"its {hook} raised"))
        return [result for result in results if result is not None]

    def check_tables(self) -> None:
        """Raises SettingsError for a `[plugins.<name>]` table that nobody reads."""
        usable = {plugin.name for plugin in self.plugins if not plugin.error}
        for name in self._settings.plugins:
            if any(plugin.name == name and plugin.error for plugin in self.plugins) and name not in usable:
                logger.warning("[plugins.%s] is ignored: the plugin is quarantined", name)
            elif name not in usable:
                known = ", ".join(sorted(name for name, takes in self._schemas.items() if takes)) or "none"
                raise SettingsError(f"[plugins.{name}]: there is no plugin of that name; with settings: {known}")
            elif not self._schemas.get(name):
                raise SettingsError(f"[plugins.{name}]: that plugin takes no settings; remove the table")

    def _register(self, plugin: Plugin, entry_point: importlib.metadata.EntryPoint) -> None:
        module = _guarded(entry_point.load, "it cannot be imported")
        _guarded(lambda: self._manager.register(module, plugin.key), "it is no valid plugin")
        callers = self._manager.get_hookcallers(module) or []
        unknown = sorted(caller.name for caller in callers if caller.name not in self._hooks)
        if unknown:
            raise _Broken(
                f"it implements {', '.join(unknown)}, which is no hook; hooks: {', '.join(sorted(self._hooks))}"
            )
        if any(
            impl.plugin is module and (impl.wrapper or impl.hookwrapper) for c in callers for impl in c.get_hookimpls()
        ):
            raise _Broken("it wraps a hook; wrappers are never called, because every plugin is called on its own")
        if not callers:
            raise _Broken("it implements no hook; mark functions with @hookimpl")
        plugin.provides += [f"observer {caller.name}" for caller in callers if caller.name in _OBSERVERS]

    def _providers(self, plugin: Plugin) -> list[tuple[str, Provider]]:
        """Everything that the plugin hands in, checked. Raises _Broken."""
        settings = PluginSettings(self._table(plugin), self._settings)
        found: list[tuple[str, Provider]] = []
        for kind, sort in _SORTS.items():
            for result in self.call(plugin, sort.hook, settings=settings):
                if not isinstance(result, Sequence) or isinstance(result, str | bytes):
                    raise _Broken(f"its {sort.hook} returned {type(result).__name__}, not a list")
                for provider in result:
                    _check_provider(sort, provider)
                    found.append((kind, provider))
        return found

    def _table(self, plugin: Plugin) -> Mapping[str, Any]:
        """The plugin's table, checked against its schema. Raises _Broken and, for a wrong table, SettingsError."""
        schemas = self.call(plugin, "settings_schema")
        self._schemas[plugin.name] = self._schemas.get(plugin.name, False) or bool(schemas)
        if not schemas:
            return MappingProxyType({})
        table = copy.deepcopy(dict(self._settings.plugins.get(plugin.name, {})))
        for schema in schemas:
            _check_schema(schema, "its settings_schema")
            check = partial(schema_errors.schema_problems, table, schema, secret=True)
            if found := _guarded(check, "its settings_schema cannot be used"):
                raise SettingsError(f"[plugins.{plugin.name}] {Invalid(found)}")
        return MappingProxyType(table)

    def _add(self, kind: str, provider: Provider, plugin: Plugin) -> None:
        first = self.entries[kind].get(provider.name)
        if first:
            raise PluginError(
                f"two plugins give a {_SORTS[kind].word} named {provider.name!r}: {first.plugin} of "
                f"{first.distribution} {first.version} and {plugin.name} of {plugin.distribution} {plugin.version}; "
                "uninstall one of them"
            )
        self.entries[kind][provider.name] = Entry(provider, plugin.distribution, plugin.version, plugin.name)
        plugin.provides.append(f"{_SORTS[kind].word} {provider.name}")


def _guarded(action: Any, what: str) -> Any:
    """Run a plugin's code. SettingsError passes: it is how a plugin says that its table is wrong. Raises _Broken."""
    try:
        return action()
    except (KeyboardInterrupt, SettingsError):
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        sentence = f"{what}: {type(error).__name__}: {error}".rstrip(": ")
        raise _Broken(sentence, "".join(traceback.format_exception(error))) from error


def _check_provider(sort: _Sort, provider: Any) -> None:
    if not isinstance(provider, sort.base):
        what = f"the class {provider.__name__}" if isinstance(provider, type) else f"a {type(provider).__name__}"
        raise _Broken(f"its {sort.hook} returned {what}, which is no {sort.base.__name__} object")
    name = getattr(provider, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Broken(
            f"its {type(provider).__name__} has the name {name!r}: use 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-'"
        )
    if sort.base is IngressProvider and name == NO_INGRESS:
        raise _Broken(f"its {type(provider).__name__} is named {name!r}, which means that there is no ingress")
    schema = _guarded(lambda: provider.options_schema, f"the options_schema of {name} raised")
    if schema is not None:
        _check_schema(schema, f"the options_schema of {name}")


def _check_schema(schema: Any, what: str) -> None:
    """Raise _Broken for what is no schema."""
    if wrong := schema_errors.check_schema(schema):
        raise _Broken(f"{what} {wrong}")
