"""From entry points to a typed registry: every plugin is loaded on its own, and one that is broken harms no other."""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

import pluggy
from referencing import Registry as References
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from deployer.core import schema_errors
from deployer.core.contract.environment import EnvInjector
from deployer.core.contract.health import HealthChecker
from deployer.core.contract.ingress import Capability, IngressProvider
from deployer.core.contract.provider import PluginSettings, Provider, Schema
from deployer.core.contract.strategy import Strategy
from deployer.core.errors import Invalid, PluginError, SettingsError
from deployer.core.hookspecs import ENTRY_POINT_GROUP, INTERFACE, PROJECT, Specs
from deployer.core.model.records import Document
from deployer.core.plugin_manager.calls import Invocation
from deployer.core.settings import Settings

logger = logging.getLogger(__name__)

NO_INGRESS = "none"
"""The value of the setting `ingress` that exposes nothing."""

DEADLINE = 30.0
"""Seconds for a plugin's import, and for each of its hooks at start-up."""

SLOW = 2.0
"""Seconds of loading after which the log says whom it waits for."""

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
_OBSERVERS = ("deployment_started", "deployment_changed", "deployment_finished")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the installed plugins provide."""

    plugins: tuple[Plugin, ...]
    strategies: Mapping[str, Entry[Strategy]]
    health_checkers: Mapping[str, Entry[HealthChecker]]
    ingress_providers: Mapping[str, Entry[IngressProvider]]
    env_injectors: Mapping[str, Entry[EnvInjector]]
    ingress_name: str
    _loader: _Loader = field(repr=False)

    @property
    def injectors(self) -> tuple[EnvInjector, ...]:
        """Every injector, in the order of loading."""
        return tuple(entry.provider for entry in self.env_injectors.values())

    @property
    def extensions(self) -> dict[str, list[Schema]]:
        """The plugins that may have options in a descriptor's `extensions`, and the schemas of their injectors. What
        observers take is known to nobody but them."""
        found: dict[str, list[Schema]] = {plugin.name: [{}] for plugin in self.plugins if plugin.observes}
        for entry in self.env_injectors.values():
            schema = entry.provider.options_schema
            found.setdefault(entry.plugin, []).extend([] if schema is None else [schema])
        return found

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

    def title(self, kind: str, name: str) -> str:
        """What errors call a provider: `injector vault of acme-vault 1.2`. Raises PluginError like `entry`."""
        entry = self.entry(kind, name)
        return f"{_SORTS[kind].word} {name} of {entry.distribution} {entry.version}".rstrip()

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

    @property
    def observers(self) -> tuple[PluginObserver, ...]:
        """Every plugin that wants to be told of deployments."""
        usable = (PluginObserver(self._loader, plugin) for plugin in self.plugins if not plugin.error)
        return tuple(observer for observer in usable if observer.hooks)

    def _of(self, kind: str) -> Mapping[str, Entry[Provider]]:
        found: Mapping[str, Mapping[str, Entry[Provider]]] = {
            "strategy": self.strategies,
            "health": self.health_checkers,
            "ingress": self.ingress_providers,
            "env": self.env_injectors,
        }
        return found[kind]


@dataclass(frozen=True, slots=True)
class PluginObserver:
    """A plugin that implements hooks for observers."""

    _loader: _Loader
    _plugin: Plugin

    @property
    def key(self) -> str:
        """`distribution:plugin`."""
        return self._plugin.key

    @property
    def hooks(self) -> frozenset[str]:
        """Those for observers that it implements."""
        return frozenset(self._plugin.observes)

    def tell(self, hook: str, deployment: Document) -> None:
        """Call the hook. Raises PluginError, which says who raised what; the traceback is in the log."""
        settings = self._loader.settings_of(self._plugin)
        try:
            self._loader.call(self._plugin, hook, bounded=False, deployment=deployment, settings=settings)
        except _Broken as error:
            logger.error("plugin %s: %s\n%s", self.key, error.sentence, error.traceback)
            raise PluginError(f"observer {self._plugin.name} of {self._plugin.source}: {error.sentence}") from None


def load(
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

    def __init__(self, settings: Settings, strict: bool, complete: bool) -> None:
        self._strict = strict
        self._complete = complete
        self.plugins: list[Plugin] = []
        self.entries: dict[str, dict[str, Entry[Provider]]] = {kind: {} for kind in _SORTS}
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Specs)
        self._hooks = frozenset(name for name in vars(Specs) if not name.startswith("_"))
        self._schemas: dict[str, bool] = {}
        self._tables: dict[str, PluginSettings] = {}

    def load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Load one plugin, or quarantine it. Raises PluginError and SettingsError as `load` does."""
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
        except (_Broken, SettingsError, PluginError) as error:
            if not isinstance(error, _Broken) and self._is_fatal(plugin, error):
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
        for kind, provider in providers:
            entry = Entry(provider, plugin.distribution, plugin.version, plugin.name)
            self.entries[kind][provider.name] = entry
            plugin.provides.append(f"{_SORTS[kind].word} {provider.name}")

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
        """What the plugin's own implementations of `hook` return. Raises _Broken. When `bounded`, each has a deadline.

        pluggy's own call would lose everybody's results when one plugin raises.
        """
        results = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            if impl.plugin_name == plugin.key:
                values = [arguments[name] for name in impl.argnames]
                late = f"its {hook}" if bounded else ""
                results.append(_guarded(partial(impl.function, *values), f"its {hook} raised", late))
        return results

    def settings_of(self, plugin: Plugin) -> PluginSettings:
        """What its hooks get."""
        return self._tables[plugin.key]

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
        module = _guarded(entry_point.load, "it cannot be imported", "its import")
        written_for = getattr(module, "deployer_interface", INTERFACE)
        if written_for != INTERFACE:
            raise _Broken(
                f"it was written for version {written_for} of the plugin interface, and this Deployer has version "
                f"{INTERFACE}; install a release of it that says deployer_interface = {INTERFACE}"
            )
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
        plugin.observes = tuple(caller.name for caller in callers if caller.name in _OBSERVERS)
        plugin.provides += [f"observer {name}" for name in plugin.observes]

    def _providers(self, plugin: Plugin) -> list[tuple[str, Provider]]:
        """Everything that the plugin hands in, checked. Raises _Broken."""
        settings = self._tables[plugin.key] = PluginSettings(self._table(plugin), self._settings)
        found: list[tuple[str, Provider]] = []
        for kind, sort in _SORTS.items():
            for result in self.call(plugin, sort.hook, settings=settings):
                if result is None:
                    raise _Broken(f"its {sort.hook} returned nothing; did you forget `return`?")
                if not isinstance(result, Sequence) or isinstance(result, str | bytes):
                    raise _Broken(f"its {sort.hook} returned {type(result).__name__}, not a list")
                for provider in result:
                    _check_provider(sort, provider)
                    if any(k == kind and p.name == provider.name for k, p in found):
                        raise _Broken(f"it gives the {sort.word} {provider.name} twice")
                    found.append((kind, provider))
        return found

    def _table(self, plugin: Plugin) -> Mapping[str, Any]:
        """The plugin's table, checked against its schema. Raises _Broken and, for a wrong table, SettingsError."""
        schemas = [s for s in self.call(plugin, "settings_schema") if s is not None]
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

    def _check_unique(self, kind: str, provider: Provider, plugin: Plugin) -> None:
        """Raises PluginError when another plugin gives that name."""
        first = self.entries[kind].get(provider.name)
        if first:
            raise PluginError(
                f"two plugins give a {_SORTS[kind].word} named {provider.name!r}: {first.plugin} of "
                f"{first.distribution} {first.version} and {plugin.name} of {plugin.distribution} {plugin.version}; "
                "uninstall one of them"
            )


def _say_slow(plugin: Plugin) -> None:
    logger.warning(
        "loading plugin %s takes more than %g s; what hangs is given up after %g s", plugin.key, SLOW, DEADLINE
    )


def _guarded(action: Callable[[], Any], failed: str, late: str = "") -> Any:
    """Run a plugin's code. Raises _Broken, whose sentence begins with `failed`, or with `late` when that is given and
    the code is not back in time; then its thread is left behind.

    SettingsError passes: it is how a plugin says that its table is wrong.
    """
    try:
        if not late:
            return action()
        call = Invocation(action, "plugin")
        if not call.wait(DEADLINE):
            raise _Broken(f"{late} did not end within {DEADLINE:g} s; when that is mended, start the service again")
        return call.result()
    except (KeyboardInterrupt, SettingsError, _Broken):
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        sentence = f"{failed}: {type(error).__name__}: {error}".rstrip(": ")
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
    if isinstance(provider, IngressProvider):
        _check_capabilities(provider)
    what = f"the options_schema of {name}"
    schema = _guarded(lambda: provider.options_schema, f"{what} raised", what)
    if schema is not None:
        _check_schema(schema, what)


def _check_capabilities(provider: IngressProvider) -> None:
    what = f"the capabilities of {provider.name}"
    found = _guarded(lambda: sorted(map(str, provider.capabilities)), f"{what} raised", what)
    if unknown := [name for name in found if name not in set(Capability)]:
        raise _Broken(f"{what} include {unknown[0]!r}, which is none; there are {', '.join(Capability)}")


def _check_schema(schema: Any, what: str) -> None:
    """Raises _Broken for what is no schema, or refers to what is not in it: nothing is fetched from the network."""
    if wrong := schema_errors.check_schema(schema):
        raise _Broken(f"{what} {wrong}")
    resource = DRAFT202012.create_resource(dict(schema))
    _check_references(resource, References().with_resource("", resource).resolver(), what)
    _guarded(partial(schema_errors.schema_problems, {}, schema), f"{what} cannot be used")


def _check_references(resource: Resource[Any], resolver: Any, what: str) -> None:
    """Raises _Broken for a reference of the schema, or of one within it, that leads nowhere."""
    found = resource.contents if isinstance(resource.contents, Mapping) else {}
    for reference in (found[keyword] for keyword in ("$ref", "$dynamicRef") if keyword in found):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise _Broken(f"{what} cannot be used: {reference!r} is not in it, and nothing is fetched") from None
    for inner in resource.subresources():
        _check_references(inner, resolver.in_subresource(inner), what)
