"""From entry points to the registry: every plugin is loaded on its own, and one that is broken harms no other."""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import pluggy

from deployer.core.contract.environment import EnvInjector
from deployer.core.contract.gate import Gate
from deployer.core.contract.health import HealthChecker
from deployer.core.contract.ingress import IngressProvider
from deployer.core.contract.observer import HOOKS, Notification, Observer
from deployer.core.contract.provider import Provider
from deployer.core.contract.strategy import Strategy
from deployer.core.errors import Invalid, NotDelivered, PluginError, SettingsError
from deployer.core.registry import PROVIDER_KINDS, Entry, Listener, Plugin, Registry
from deployer.descriptor import schema_errors
from deployer.plugin_manager import checks
from deployer.plugin_manager.checks import Broken, check_provider, check_schema, guarded
from deployer.plugin_manager.gates import check_forced
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP, INTERFACE, PROJECT, PluginSettings, Specs
from deployer.settings import Settings

logger = logging.getLogger(__name__)

SLOW = 2.0
"""Seconds of loading after which the log says whom it waits for."""


def load_plugins(
    settings: Settings,
    *,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    strict: bool = True,
    complete: bool = True,
) -> Registry:
    """Load the plugins of the group `deployer.plugins`, or those given, with a plugin manager of their own.

    Raises PluginError when two plugins give the same name, and SettingsError for a `[plugins.<name>]` table that is
    wrong. A plugin that cannot be used is quarantined: the service runs without it.

    strict     False: for those who only want to look. A plugin is quarantined, too, for a wrong table or for a name
               that another one gives, and tables that nobody reads are left to `check_tables`
    complete   False: a plugin without the table that it needs is quarantined as well
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    loader = _Loader(settings, strict, complete)
    for entry_point in entry_points:
        loader.load(entry_point)
    if strict:
        loader.check_tables()
    found = {kind: MappingProxyType(entries) for kind, entries in loader.entries.items()}
    return Registry(
        plugins=tuple(loader.plugins),
        strategies=cast(Mapping[str, Entry[Strategy]], found["strategy"]),
        health_checkers=cast(Mapping[str, Entry[HealthChecker]], found["health"]),
        gates=cast(Mapping[str, Entry[Gate]], found["gate"]),
        ingress_providers=cast(Mapping[str, Entry[IngressProvider]], found["ingress"]),
        env_injectors=cast(Mapping[str, Entry[EnvInjector]], found["env"]),
        ingress_name=settings.ingress,
        observers=tuple(loader.listeners()),
        check_tables=loader.check_tables,
    )


class _Loader:
    """Registers plugins one by one. Every hook is called for one plugin at a time, so that it is known who raised."""

    def __init__(self, settings: Settings, strict: bool, complete: bool) -> None:
        self._strict = strict
        self._complete = complete
        self.plugins: list[Plugin] = []
        self.entries: dict[str, dict[str, Entry[Provider]]] = {kind: {} for kind in PROVIDER_KINDS}
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Specs)
        self._hooks = frozenset(name for name in vars(Specs) if not name.startswith("_"))
        self._schemas: dict[str, bool] = {}
        self._tables: dict[str, PluginSettings] = {}
        self._handed_in: dict[str, list[Observer]] = {}

    def load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Load one plugin, or quarantine it. Raises PluginError and SettingsError as `load_plugins` does."""
        dist = entry_point.dist
        plugin = Plugin(entry_point.name, dist.name if dist else "unknown", dist.version if dist else "")
        if any(other.key == plugin.key for other in self.plugins):
            logger.debug("plugin %s is installed twice; the first one counts", plugin.key)
            return
        self._remark_twins(plugin)
        self.plugins.append(plugin)
        logger.debug("loading plugin %s", plugin.key)
        slow = threading.Timer(SLOW, _say_slow, (plugin,))
        slow.daemon = True
        slow.start()
        try:
            self._register(plugin, entry_point)
            providers = self._providers(plugin)
            for kind, provider in providers:
                self._check_unique(kind, provider, plugin)
            entries = [(kind, self._entry(provider, plugin)) for kind, provider in providers]
        except (Broken, SettingsError, PluginError) as error:
            if not isinstance(error, Broken) and self._is_fatal(plugin, error):
                raise
            plugin.error, plugin.traceback = str(error), getattr(error, "traceback", "")
            plugin.provides.clear()
            plugin.observes = ()
            if self._manager.has_plugin(plugin.key):
                self._manager.unregister(name=plugin.key)
            logger.error("plugin %s is quarantined: %s\n%s", plugin.key, plugin.error, plugin.traceback)
            return
        finally:
            slow.cancel()
        for kind, entry in entries:
            self.entries[kind][entry.provider.name] = entry
            if isinstance(entry.provider, Observer):
                self._handed_in.setdefault(plugin.key, []).append(entry.provider)
            plugin.provides.append(f"{PROVIDER_KINDS[kind].word} {entry.provider.name}")

    def _entry(self, provider: Provider, plugin: Plugin) -> Entry[Provider]:
        """Raises Broken for a provider that cannot say what it is."""
        what = f"what {provider.name} says of itself"
        make = partial(Entry, provider, plugin.distribution, plugin.version, plugin.name)
        made: Entry[Provider] = guarded(make, f"{what} raised", what)
        return made

    def _is_fatal(self, plugin: Plugin, error: SettingsError | PluginError) -> bool:
        absent = isinstance(error, SettingsError) and plugin.name not in self._settings.plugins
        return self._strict and (self._complete or not absent)

    def _remark_twins(self, plugin: Plugin) -> None:
        """Plugins of different distributions may have one name, but then they have one table as well."""
        for other in self.plugins:
            if other.name == plugin.name:
                plugin.remark = f"shares its name and the table [plugins.{plugin.name}] with that of {other.source}"
                other.remark = f"shares its name and the table [plugins.{plugin.name}] with that of {plugin.source}"
                logger.warning("plugin %s %s", plugin.key, plugin.remark)

    def call(self, plugin: Plugin, hook: str, *, bounded: bool = True, **arguments: object) -> list[Any]:
        """What the plugin's own implementations of `hook` return. Raises Broken. When `bounded`, each has a deadline.

        pluggy's own call would lose everybody's results when one plugin raises.
        """
        results = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin_name == plugin.key:
                values = [arguments[name] for name in impl.argnames]
                late = f"its {hook}" if bounded else ""
                results.append(guarded(partial(impl.function, *values), f"its {hook} raised", late))
        return results

    def listeners(self) -> Iterator[Listener]:
        """All who want to be told of deployments, in the order of loading."""
        for plugin in self.plugins:
            if plugin.observes:
                yield Listener(
                    plugin.key, frozenset(plugin.observes), partial(self._tell, plugin), plugin.name, schema={}
                )
            for observer in self._handed_in.get(plugin.key, ()):
                yield Listener(
                    f"{plugin.key}/{observer.name}",
                    frozenset(observer.hooks),
                    partial(self._notify, plugin, observer),
                    plugin.name,
                    observer.options_schema,
                )

    def _tell(self, plugin: Plugin, told: Notification) -> None:
        """Call a hook for observers. Raises PluginError."""
        settings = self._tables[plugin.key]
        try:
            self.call(plugin, told.hook, bounded=False, deployment=told.deployment, settings=settings)
        except Broken as error:
            logger.error("plugin %s: %s\n%s", plugin.key, error.sentence, error.traceback)
            raise PluginError(f"observer {plugin.name} of {plugin.source}: {error.sentence}") from None

    def _notify(self, plugin: Plugin, observer: Observer, told: Notification) -> None:
        """Tell one that the plugin handed in. Raises PluginError."""
        who = f"observer {observer.name} of {plugin.name} of {plugin.source}"

        def notify() -> None:
            try:
                observer.notify(told)
            except NotDelivered as error:
                raise Broken(str(error)) from None

        try:
            guarded(notify, "its notify raised")
        except Broken as error:
            if not error.traceback:
                raise PluginError(f"{who}: {error.sentence}") from None
            logger.error("%s: %s\n%s", who, error.sentence, error.traceback)
            raise PluginError(f"{who}: {error.sentence}") from None

    def check_tables(self) -> None:
        """Raises SettingsError for a `[plugins.<name>]` table that nobody reads, and for `[[gates]]` that cannot be."""
        usable = {plugin.name for plugin in self.plugins if not plugin.error}
        for name in self._settings.plugins:
            if any(plugin.name == name and plugin.error for plugin in self.plugins) and name not in usable:
                logger.warning("[plugins.%s] is ignored: the plugin is quarantined", name)
            elif name not in usable:
                known = ", ".join(sorted(name for name, takes in self._schemas.items() if takes)) or "none"
                raise SettingsError(f"[plugins.{name}]: there is no plugin of that name; with settings: {known}")
            elif not self._schemas.get(name):
                raise SettingsError(f"[plugins.{name}]: that plugin takes no settings; remove the table")
        check_forced(self._settings, self.entries["gate"], quarantined=any(plugin.error for plugin in self.plugins))

    def _register(self, plugin: Plugin, entry_point: importlib.metadata.EntryPoint) -> None:
        module = guarded(entry_point.load, "it cannot be imported", "its import")
        written_for = getattr(module, "deployer_interface", INTERFACE)
        if written_for != INTERFACE:
            raise Broken(
                f"it was written for version {written_for} of the plugin interface, and this Deployer has version "
                f"{INTERFACE}; install a release of it that says deployer_interface = {INTERFACE}"
            )
        guarded(lambda: self._manager.register(module, plugin.key), "it is no valid plugin")
        callers = self._manager.get_hookcallers(module) or []
        unknown = sorted(caller.name for caller in callers if caller.name not in self._hooks)
        if unknown:
            raise Broken(
                f"it implements {', '.join(unknown)}, which is no hook; hooks: {', '.join(sorted(self._hooks))}"
            )
        if any(
            impl.plugin is module and (impl.wrapper or impl.hookwrapper) for c in callers for impl in c.get_hookimpls()
        ):
            raise Broken("it wraps a hook; wrappers are never called, because every plugin is called on its own")
        if not callers:
            raise Broken("it implements no hook; mark functions with @hookimpl")
        plugin.observes = tuple(caller.name for caller in callers if caller.name in HOOKS)
        plugin.provides += [f"observer {name}" for name in plugin.observes]

    def _providers(self, plugin: Plugin) -> list[tuple[str, Provider]]:
        """Everything that the plugin hands in, checked. Raises Broken."""
        settings = self._tables[plugin.key] = PluginSettings(self._table(plugin), self._settings)
        found: list[tuple[str, Provider]] = []
        for kind, sort in PROVIDER_KINDS.items():
            for result in self.call(plugin, sort.hook, settings=settings):
                if result is None:
                    raise Broken(f"its {sort.hook} returned nothing; did you forget `return`?")
                if not isinstance(result, Sequence) or isinstance(result, str | bytes):
                    raise Broken(f"its {sort.hook} returned {type(result).__name__}, not a list")
                for provider in result:
                    check_provider(sort, provider)
                    if any(k == kind and p.name == provider.name for k, p in found):
                        raise Broken(f"it gives the {sort.word} {provider.name} twice")
                    found.append((kind, provider))
        return found

    def _table(self, plugin: Plugin) -> Mapping[str, Any]:
        """The plugin's table, checked against its schema. Raises Broken and, for a wrong table, SettingsError."""
        schemas = [s for s in self.call(plugin, "settings_schema") if s is not None]
        self._schemas[plugin.name] = self._schemas.get(plugin.name, False) or bool(schemas)
        if not schemas:
            return MappingProxyType({})
        table = copy.deepcopy(dict(self._settings.plugins.get(plugin.name, {})))
        for schema in schemas:
            check_schema(schema, "its settings_schema")
            check = partial(schema_errors.schema_problems, table, schema, secret=True)
            if found := guarded(check, "its settings_schema cannot be used"):
                raise SettingsError(f"[plugins.{plugin.name}] {Invalid(found)}")
        return MappingProxyType(table)

    def _check_unique(self, kind: str, provider: Provider, plugin: Plugin) -> None:
        """Raises PluginError when another plugin gives that name."""
        first = self.entries[kind].get(provider.name)
        if first:
            raise PluginError(
                f"two plugins give a {PROVIDER_KINDS[kind].word} named {provider.name!r}: {first.plugin} of "
                f"{first.distribution} {first.version} and {plugin.name} of {plugin.distribution} {plugin.version}; "
                "uninstall one of them"
            )


def _say_slow(plugin: Plugin) -> None:
    logger.warning(
        "loading plugin %s takes more than %g s; what hangs is given up after %g s", plugin.key, SLOW, checks.DEADLINE
    )
