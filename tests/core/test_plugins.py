"""Tests of plugin loading: real distributions in a temporary folder, good and broken ones."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployer.core.errors import PluginError, SettingsError
from deployer.core.plugins import Registry, load
from deployer.core.settings import Settings

CHECKER = """
    from deployer.core import HealthChecker, Verdict, hookimpl

    class Checker(HealthChecker):
        name = {name!r}

        def check(self, target):
            return Verdict(True, "fine")

    @hookimpl
    def register_health_checkers():
        return [Checker()]
"""

SCHEMA = """
    @hookimpl
    def settings_schema():
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {"size": {"type": "integer", "minimum": 1}, "password": {"type": "string"}},
            "required": ["size"],
        }

    seen = []

    @hookimpl
    def register_strategies(settings):
        seen.append((dict(settings.table), settings.core.instance))
        return []
"""


class Shelf:
    """A folder of installed distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: list[str] = []

    def install(self, distribution: str, source: str, *, plugin: str = "", version: str = "1.0", attr: str = "") -> str:
        """Install a distribution with one plugin; returns its module's name."""
        name = plugin or distribution
        module = f"installed_{distribution}_{name}".replace("-", "_")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.path / f"{distribution}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        known = info / "entry_points.txt"
        lines = known.read_text() if known.exists() else "[deployer.plugins]\n"
        known.write_text(f"{lines}{name} = {module}{attr}\n")
        self.modules.append(module)
        return module

    def load(self, **settings: object) -> Registry:
        """Load what is installed here, and nothing else."""
        found = [
            entry_point
            for distribution in sorted(importlib.metadata.distributions(path=[str(self.path)]), key=lambda d: d.name)
            for entry_point in distribution.entry_points
        ]
        return load(Settings(own_namespace="", **settings), entry_points=found)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(tmp_path))
    shelf = Shelf(tmp_path)
    yield shelf
    for module in shelf.modules:
        sys.modules.pop(module, None)


def states(registry: Registry) -> dict[str, str]:
    return {plugin["name"]: plugin["state"] for plugin in registry.describe()}


# --- what is installed --------------------------------------------------------------------------------------------


def test_a_plugin_is_found_by_its_entry_point_and_its_provider_by_name(shelf):
    shelf.install("acme-health", CHECKER.format(name="acme"), plugin="acme", version="2.3")
    registry = shelf.load()
    assert registry.health_checker("acme").name == "acme"
    assert registry.ref("health", "acme") == {"name": "acme", "source": "acme-health:acme", "version": "2.3"}
    assert registry.ref("ingress", "") == {"name": "", "source": "", "version": ""}
    entry = registry.health_checkers["acme"]
    assert (entry.distribution, entry.version, entry.plugin) == ("acme-health", "2.3", "acme")
    assert registry.describe() == [
        {
            "name": "acme",
            "distribution": "acme-health",
            "version": "2.3",
            "state": "ok",
            "provides": ["health checker acme"],
        }
    ]


def test_two_distributions_may_call_their_plugins_the_same(shelf):
    shelf.install("one", CHECKER.format(name="first"), plugin="health")
    shelf.install("two", CHECKER.format(name="second"), plugin="health")
    assert set(shelf.load().health_checkers) == {"first", "second"}


def test_a_distribution_that_is_seen_twice_counts_once(shelf):
    shelf.install("one", CHECKER.format(name="first"))
    (distribution,) = importlib.metadata.distributions(path=[str(shelf.path)])
    registry = load(Settings(own_namespace=""), entry_points=[*distribution.entry_points, *distribution.entry_points])
    assert len(registry.plugins) == 1


OBJECT = """
    from deployer.core import HealthChecker, Verdict, hookimpl

    class Checker(HealthChecker):
        name = "held"

        def check(self, target):
            return Verdict(True, "fine")

    class Plugin:
        @hookimpl
        def register_health_checkers(self, settings):
            return (Checker(),)

    plugin = Plugin()
"""


def test_an_entry_point_may_name_an_object(shelf):
    shelf.install("one", OBJECT, attr=":plugin")
    assert set(shelf.load().health_checkers) == {"held"}


def test_each_registry_has_a_manager_of_its_own(shelf):
    shelf.install("one", CHECKER.format(name="first"))
    assert set(shelf.load().health_checkers) == set(shelf.load().health_checkers) == {"first"}


def test_the_built_in_plugins_are_all_there():
    registry = load(Settings(own_namespace=""))
    assert set(states(registry).values()) == {"ok"}
    assert set(registry.strategies) >= {"blue-green"}
    assert set(registry.health_checkers) >= {"probe", "simple"}
    assert registry.ingress() is registry.ingress_providers["nginx"].provider
    assert registry.injectors == ()
    with_etcd = load(Settings(own_namespace="", etcd="http://127.0.0.1:2379"))
    assert [injector.name for injector in with_etcd.injectors] == ["etcd"]


# --- quarantine ---------------------------------------------------------------------------------------------------

BROKEN = {
    "it cannot be imported: ModuleNotFoundError": "import no_such_module_at_all",
    "it cannot be imported: SyntaxError": "def (",
    "it cannot be imported: SystemExit: 3": "import sys; sys.exit(3)",
    "it implements no hook": "x = 1",
    "it implements register_strategy, which is no hook": """
        from deployer.core import hookimpl

        @hookimpl
        def register_strategy(settings):
            return []
    """,
    "it is no valid plugin: PluginValidationError": """
        from deployer.core import hookimpl

        @hookimpl
        def register_strategies(settings, engine):
            return []
    """,
    "it wraps a hook": """
        from deployer.core import hookimpl

        @hookimpl(wrapper=True)
        def register_strategies(settings):
            return (yield)
    """,
    "its register_strategies raised: ZeroDivisionError": """
        from deployer.core import hookimpl

        @hookimpl
        def register_strategies(settings):
            return 1 / 0
    """,
    "its register_strategies raised: SystemExit": """
        import sys
        from deployer.core import hookimpl

        @hookimpl
        def register_strategies(settings):
            sys.exit()
    """,
    "its register_health_checkers returned Checker, not a list": CHECKER.format(name="x").replace(
        "[Checker()]", "Checker()"
    ),
    "its register_strategies returned a Checker, which is no Strategy object": CHECKER.format(name="x").replace(
        "register_health_checkers", "register_strategies"
    ),
    "its register_health_checkers returned the class Checker": CHECKER.format(name="x").replace(
        "[Checker()]", "[Checker]"
    ),
    "has the name ''": CHECKER.format(name=""),
    "has the name None": CHECKER.format(name=None),
    "has the name 'a b'": CHECKER.format(name="a b"),
    "its settings_schema is no JSON Schema but a list": CHECKER.format(name="x")
    + """
    @hookimpl
    def settings_schema():
        return []
""",
    "its settings_schema is no JSON Schema: 'banana'": CHECKER.format(name="x")
    + """
    @hookimpl
    def settings_schema():
        return {"type": "banana"}
""",
    "its settings_schema cannot be used": CHECKER.format(name="x")
    + """
    @hookimpl
    def settings_schema():
        return {"$ref": "http://127.0.0.1:1/schema"}
""",
    "the options_schema of x is no JSON Schema": CHECKER.format(name="x").replace(
        "name = 'x'", "name = 'x'\n        options_schema = {'type': 5}"
    ),
    "is named 'none'": """
        from deployer.core import IngressProvider, hookimpl

        class Nowhere(IngressProvider):
            name = "none"
            state = prepare = switch = confirm = release = remove = fence = lambda self, context: None

        @hookimpl
        def register_ingress_providers():
            return [Nowhere()]
    """,
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_plugin_is_quarantined_and_harms_no_other(shelf, caplog, said):
    shelf.install("a-broken", BROKEN[said], plugin="broken")
    shelf.install("b-good", CHECKER.format(name="good"), plugin="good")
    with caplog.at_level(logging.ERROR):
        registry = shelf.load()
    assert states(registry) == {"broken": "quarantined", "good": "ok"}
    assert set(registry.health_checkers) == {"good"}
    (broken,) = [plugin for plugin in registry.describe() if plugin["name"] == "broken"]
    assert said in broken["error"]
    assert broken["provides"] == []
    assert said in caplog.text


def test_the_traceback_is_kept(shelf, caplog):
    module = shelf.install("broken", "raise RuntimeError('sorry')")
    (broken,) = shelf.load().describe()
    assert f"{module}.py" in broken["traceback"]
    assert broken["traceback"].strip().endswith("RuntimeError: sorry")
    assert broken["traceback"] in caplog.text


def test_nothing_of_a_plugin_counts_when_a_part_of_it_is_broken(shelf):
    half = (
        CHECKER.format(name="half")
        + """
    @hookimpl
    def register_env_injectors():
        raise RuntimeError

    @hookimpl
    def deployment_started(deployment):
        raise AssertionError
"""
    )
    shelf.install("half", half)
    registry = shelf.load()
    assert not registry.health_checkers
    registry.notify("deployment_started", {})
    assert not registry.observer_errors


def test_ctrl_c_is_not_swallowed(shelf):
    shelf.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        shelf.load()


# --- names --------------------------------------------------------------------------------------------------------


def test_a_name_that_is_given_twice_stops_the_service(shelf):
    shelf.install("one", CHECKER.format(name="same"), version="1.1")
    shelf.install("two", CHECKER.format(name="same"), version="2.2")
    with pytest.raises(PluginError, match=r"health checker named 'same': one of one 1\.1 and two of two 2\.2"):
        shelf.load()


def test_an_unknown_name_lists_the_known_ones(shelf):
    shelf.install("one", CHECKER.format(name="first"))
    registry = shelf.load(ingress="nginx")
    with pytest.raises(PluginError, match=r"no health checker 'probe'; installed: first$"):
        registry.health_checker("probe")
    with pytest.raises(PluginError, match=r"no strategy 'blue-green'; installed: none$"):
        registry.strategy("blue-green")
    with pytest.raises(PluginError, match=r"no ingress provider 'nginx'; installed: none$"):
        registry.ingress()


def test_no_ingress_is_a_choice(shelf):
    assert shelf.load(ingress="none").ingress() is None


def test_an_unknown_name_mentions_what_is_quarantined(shelf):
    shelf.install("edge", "import no_such_module_at_all")
    with pytest.raises(PluginError, match=r"no ingress provider 'edge'.*quarantined.*edge \(it cannot be imported"):
        shelf.load(ingress="edge").ingress()


# --- settings -----------------------------------------------------------------------------------------------------


def test_a_plugin_gets_its_table_and_the_services_settings(shelf):
    module = shelf.install("one", CHECKER.format(name="x") + SCHEMA)
    shelf.load(plugins={"one": {"size": 3}}, instance="blue")
    assert sys.modules[module].seen == [({"size": 3}, "blue")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, r"\[plugins.one\] size: is required"),
        ({"size": "big"}, r"\[plugins.one\] size: must be a whole number, not text"),
        ({"size": 0}, r"\[plugins.one\] size: must be at least 1"),
        ({"size": 1, "sise": 2}, r"\[plugins.one\] sise: is not a known field; did you mean size\?"),
    ],
)
def test_a_wrong_table_stops_the_service(shelf, table, said):
    shelf.install("one", CHECKER.format(name="x") + SCHEMA)
    with pytest.raises(SettingsError, match=said):
        shelf.load(plugins={"one": table})


def test_a_wrong_value_is_not_repeated(shelf):
    shelf.install("one", CHECKER.format(name="x") + SCHEMA)
    with pytest.raises(SettingsError) as caught:
        shelf.load(plugins={"one": {"size": 1, "password": 918273}})
    assert "password" in str(caught.value)
    assert "918273" not in str(caught.value)


def test_a_plugin_may_say_itself_that_its_table_is_wrong(shelf):
    source = """
        from deployer.core import SettingsError, hookimpl

        @hookimpl
        def register_strategies():
            raise SettingsError("[plugins.one] both or none")
    """
    shelf.install("one", source)
    with pytest.raises(SettingsError, match="both or none"):
        shelf.load()


def test_a_table_for_nobody(shelf):
    shelf.install("one", CHECKER.format(name="x") + SCHEMA)
    with pytest.raises(SettingsError, match=r"\[plugins.two\]: there is no plugin of that name; with settings: one"):
        shelf.load(plugins={"one": {"size": 1}, "two": {}})


def test_a_table_for_a_plugin_without_settings(shelf):
    shelf.install("one", CHECKER.format(name="x"))
    with pytest.raises(SettingsError, match=r"\[plugins.one\]: that plugin takes no settings"):
        shelf.load(plugins={"one": {}})


def test_a_quarantined_plugins_table_is_ignored(shelf, caplog):
    shelf.install("one", "import no_such_module_at_all")
    assert states(shelf.load(plugins={"one": {"size": 1}})) == {"one": "quarantined"}
    assert "[plugins.one] is ignored" in caplog.text


# --- observers ----------------------------------------------------------------------------------------------------

OBSERVER = """
    from deployer.core import hookimpl

    seen = []

    @hookimpl
    def deployment_finished(deployment):
        seen.append(dict(deployment))
        deployment["descriptor"]["changed"] = True
        {act}
"""


@pytest.fixture
def seen(shelf) -> Callable[[str], list[dict[str, object]]]:
    return lambda module: sys.modules[module].seen


def test_every_observer_is_told_although_one_raises(shelf, seen, caplog):
    first = shelf.install("a", OBSERVER.format(act="raise SystemExit(1)"))
    second = shelf.install("b", OBSERVER.format(act="pass"))
    registry = shelf.load()
    document = {"id": "1", "descriptor": {}}
    registry.notify("deployment_started", document)
    registry.notify("deployment_finished", document)
    registry.notify("deployment_finished", document)
    assert document == {"id": "1", "descriptor": {}}
    assert len(seen(first)) == len(seen(second)) == 2
    assert registry.observer_errors == {"a:a": 2}
    assert "deployment_finished failed" in caplog.text or "its deployment_finished raised" in caplog.text
    assert [p["provides"] for p in registry.describe()] == [["observer deployment_finished"]] * 2
