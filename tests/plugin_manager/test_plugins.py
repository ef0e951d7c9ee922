"""Tests of plugin loading: real distributions in a temporary folder, good and broken ones."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployer.core.contract.observer import Notification
from deployer.core.errors import PluginError, SettingsError
from deployer.core.registry import Registry
from deployer.plugin_manager import checks, loader
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.observer import Observer
from deployer.settings import Settings
from deployer.testing import plugins

CHECKER = """
    from deployer.sdk.health import HealthChecker, Verdict
    from deployer.sdk.plugin import hookimpl

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
        return self.load_loosely(**settings)

    def load_loosely(self, strict: bool = True, complete: bool = True, **settings: object) -> Registry:
        """The same, perhaps for somebody who can do with less."""
        found = [
            entry_point
            for distribution in sorted(importlib.metadata.distributions(path=[str(self.path)]), key=lambda d: d.name)
            for entry_point in distribution.entry_points
        ]
        given = Settings(own_namespace="", **settings)  # type: ignore[arg-type]
        return load_plugins(given, entry_points=found, strict=strict, complete=complete)


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
    registry = load_plugins(
        Settings(own_namespace=""), entry_points=[*distribution.entry_points, *distribution.entry_points]
    )
    assert len(registry.plugins) == 1


def test_one_for_another_version_of_the_interface_is_quarantined(shelf):
    shelf.install("old", CHECKER.format(name="old") + "\n    deployer_interface = 0\n", plugin="old")
    shelf.install("new", CHECKER.format(name="new") + "\n    deployer_interface = 1\n", plugin="new")
    registry = shelf.load()
    assert set(registry.health_checkers) == {"new"}
    (old,) = [found for found in registry.describe() if found["name"] == "old"]
    assert old["error"] == (
        "it was written for version 0 of the plugin interface, and this Deployer has version 1; install a release of "
        "it that says deployer_interface = 1"
    )


OBJECT = """
    from deployer.sdk.health import HealthChecker, Verdict
    from deployer.sdk.plugin import hookimpl

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
    registry = load_plugins(Settings(own_namespace=""))
    assert set(states(registry).values()) == {"ok"}
    assert set(registry.strategies) >= {"blue-green"}
    assert set(registry.health_checkers) >= {"probe", "simple"}
    assert registry.ingress() is registry.ingress_providers["nginx"].provider
    assert registry.injectors == ()
    with_etcd = load_plugins(Settings(own_namespace="", etcd="http://127.0.0.1:2379"))
    assert [injector.name for injector in with_etcd.injectors] == ["etcd"]


# --- quarantine ---------------------------------------------------------------------------------------------------

BROKEN = {
    "it cannot be imported: ModuleNotFoundError": "import no_such_module_at_all",
    "it cannot be imported: SyntaxError": "def (",
    "it cannot be imported: SystemExit: 3": "import sys; sys.exit(3)",
    "it implements no hook": "x = 1",
    "it implements register_strategy, which is no hook": """
        from deployer.sdk.plugin import hookimpl

        @hookimpl
        def register_strategy(settings):
            return []
    """,
    "it is no valid plugin: PluginValidationError": """
        from deployer.sdk.plugin import hookimpl

        @hookimpl
        def register_strategies(settings, engine):
            return []
    """,
    "it wraps a hook": """
        from deployer.sdk.plugin import hookimpl

        @hookimpl(wrapper=True)
        def register_strategies(settings):
            return (yield)
    """,
    "its register_strategies raised: ZeroDivisionError": """
        from deployer.sdk.plugin import hookimpl

        @hookimpl
        def register_strategies(settings):
            return 1 / 0
    """,
    "its register_strategies raised: SystemExit": """
        import sys
        from deployer.sdk.plugin import hookimpl

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
        from deployer.sdk.ingress import IngressProvider
        from deployer.sdk.plugin import hookimpl

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
    assert not registry.observers


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
        from deployer.sdk.errors import SettingsError
        from deployer.sdk.plugin import hookimpl

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
    from deployer.sdk.plugin import hookimpl

    seen = []

    @hookimpl
    def deployment_finished(deployment):
        seen.append(dict(deployment))
        deployment["descriptor"]["changed"] = True
        {act}
"""


HANDED_IN = """
    from deployer.sdk.errors import NotDelivered
    from deployer.sdk.observer import Observer
    from deployer.sdk.plugin import hookimpl

    seen = []

    class Target(Observer):
        options_schema = {{"type": "object", "properties": {{"room": {{"type": "string"}}}}}}

        def __init__(self, name):
            self.name = name

        def notify(self, notification):
            seen.append((self.name, notification.id))
            {act}

    @hookimpl
    def register_observers():
        return [Target("one"), Target("two")]
"""


def told(hook: str) -> Notification:
    return Notification("n", hook, "", 0.0, "", {"id": "1", "descriptor": {}})


@pytest.fixture
def seen(shelf) -> Callable[[str], list[dict[str, object]]]:
    return lambda module: sys.modules[module].seen


def test_an_observer_that_raises_is_named_with_its_distribution_and_hook(shelf, seen, caplog):
    module = shelf.install("acme-chat", OBSERVER.format(act="raise SystemExit(1)"), plugin="chat", version="1.2")
    shelf.install("other", OBSERVER.format(act="pass"))
    registry = shelf.load()
    chat, other = registry.observers
    assert (chat.key, chat.hooks) == ("acme-chat:chat", {"deployment_finished"})
    with pytest.raises(PluginError, match=r"^observer chat of acme-chat 1\.2: its deployment_finished raised: System"):
        chat.tell(told("deployment_finished"))
    other.tell(told("deployment_finished"))
    assert len(seen(module)) == 1
    assert [p["provides"] for p in registry.describe()] == [["observer deployment_finished"]] * 2


def test_each_observer_that_a_plugin_hands_in_is_one_of_its_own(shelf, seen, caplog):
    """So that each has a queue and a thread: one that is away neither delays the other nor has it told twice."""
    module = shelf.install("acme-chat", HANDED_IN.format(act="pass"), plugin="chat", version="1.2")
    registry = shelf.load()
    one, two = registry.observers
    assert (one.key, two.key) == ("acme-chat:chat/one", "acme-chat:chat/two")
    assert one.hooks == {"deployment_started", "deployment_finished"}
    two.tell(told("deployment_finished"))
    assert seen(module) == [("two", "n")]
    assert [schema["properties"] for schema in registry.extensions["chat"]] == [{"room": {"type": "string"}}] * 2
    assert [p["provides"] for p in registry.describe()] == [["observer one", "observer two"]]


@pytest.mark.parametrize(
    ("act", "said", "traceback"),
    [("raise NotDelivered('the room is full')", "the room is full", False), ("1 / 0", "its notify raised: Zero", True)],
)
def test_one_that_could_not_pass_it_on_says_so_without_a_traceback(shelf, caplog, act, said, traceback):
    shelf.install("acme-chat", HANDED_IN.format(act=act), plugin="chat", version="1.2")
    one, _ = shelf.load().observers
    with pytest.raises(PluginError, match=rf"^observer one of chat of acme-chat 1\.2: {said}"):
        one.tell(told("deployment_finished"))
    assert ("Traceback" in caplog.text) is traceback


def test_an_observer_is_told_that_only_a_test_has():
    heard = []

    class Mine(Observer):
        name = "mine"

        def notify(self, notification):
            heard.append(notification.id)

    observers = plugins.load(Settings(own_namespace=""), providers=[Mine()]).observers
    [mine] = [observer for observer in observers if observer.key.endswith("/mine")]
    mine.tell(told("deployment_finished"))
    assert heard == ["n"]


@pytest.mark.parametrize("hooks", ["{'deployment_ended'}", "set()"])
def test_one_that_wants_to_be_told_of_nothing_that_there_is_is_quarantined(shelf, hooks):
    shelf.install(
        "chat", HANDED_IN.format(act="pass").replace("options_schema =", f"hooks = {hooks}; options_schema =")
    )
    [plugin] = shelf.load().describe()
    assert plugin["state"] == "quarantined"
    assert "the hooks of one include" in plugin["error"]
    assert "deployment_changed, deployment_finished, deployment_started" in plugin["error"]


def test_an_observer_may_ask_for_its_settings(shelf, seen):
    module = shelf.install(
        "room",
        """
        from deployer.sdk.plugin import hookimpl

        seen = []

        @hookimpl
        def settings_schema():
            return {"type": "object", "properties": {"room": {"type": "string"}}}

        @hookimpl
        def deployment_changed(deployment, settings):
            seen.append((deployment["id"], settings.table["room"]))
        """,
    )
    [observer] = shelf.load(plugins={"room": {"room": "ops"}}).observers
    observer.tell(told("deployment_changed"))
    assert seen(module) == [("1", "ops")]


# --- what hangs, or is forgotten ----------------------------------------------------------------------------------

HANG = """
    import threading

    go = threading.Event()
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("    go.wait(30)", "its import did not end within 0.2 s; when that is mended, start the service again"),
        (
            """
    from deployer.sdk.plugin import hookimpl

    @hookimpl
    def register_strategies():
        go.wait(30)
        """,
            "its register_strategies did not end within 0.2 s; when that is mended, start the service again",
        ),
        (
            """
    from deployer.sdk.plugin import hookimpl

    @hookimpl
    def settings_schema():
        go.wait(30)
        """,
            "its settings_schema did not end within 0.2 s; when that is mended, start the service again",
        ),
    ],
)
def test_one_that_hangs_is_quarantined_and_the_others_are_loaded(shelf, monkeypatch, caplog, source, said):
    monkeypatch.setattr(checks, "DEADLINE", 0.2)
    monkeypatch.setattr(loader, "SLOW", 0.05)
    caplog.set_level(logging.DEBUG, "deployer")
    module = shelf.install("hanging", HANG + source)
    shelf.install("other", CHECKER.format(name="other"))
    registry = shelf.load()
    broken = next(p for p in registry.describe() if p["name"] == "hanging")
    sys.modules[module].go.set()
    assert (broken["state"], broken["error"]) == ("quarantined", said)
    assert set(registry.health_checkers) == {"other"}
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "loading plugin hanging:hanging"  # before it can hang
    assert "loading plugin hanging:hanging takes more than 0.05 s; what hangs is given up after 0.2 s" in lines
    assert "loading plugin other:other" in lines


def test_a_hook_without_a_return_is_quarantined_with_a_hint(shelf):
    shelf.install(
        "forgetful",
        """
        from deployer.sdk.plugin import hookimpl

        @hookimpl
        def register_health_checkers():
            ["forgot to return"]
        """,
    )
    [plugin] = shelf.load().describe()
    assert plugin["error"] == "its register_health_checkers returned nothing; did you forget `return`?"


def test_a_plugin_that_gives_a_name_twice_says_so(shelf):
    shelf.install("double", CHECKER.format(name="same").replace("[Checker()]", "[Checker(), Checker()]"))
    [plugin] = shelf.load().describe()
    assert plugin["error"] == "it gives the health checker same twice"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#/$defs/nothing"}, "'#/$defs/nothing' is not in it, and nothing is fetched"),
        (
            {"properties": {"a": {"items": {"$ref": "https://example.com/schema"}}}},
            "'https://example.com/schema' is not in it, and nothing is fetched",
        ),
        ({"$ref": "#"}, "RecursionError"),
    ],
)
def test_a_schema_that_cannot_be_used_is_found_when_the_plugin_is_loaded(shelf, schema, said):
    source = CHECKER.format(name="acme").replace("name = ", f"options_schema = {schema!r}\n        name = ")
    shelf.install("acme", source)
    [plugin] = shelf.load().describe()
    assert plugin["state"] == "quarantined"
    assert plugin["error"].startswith(f"the options_schema of acme cannot be used: {said}")


def test_references_within_a_schema_are_followed(shelf):
    schema = {"$defs": {"size": {"type": "integer"}}, "properties": {"size": {"$ref": "#/$defs/size"}}}
    source = CHECKER.format(name="acme").replace("name = ", f"options_schema = {schema!r}\n        name = ")
    shelf.install("acme", source)
    assert states(shelf.load()) == {"acme": "ok"}


def test_what_a_provider_says_of_itself_is_read_once_and_in_nobodys_way(shelf):
    """Descriptors of all apps are checked against it: one that raises is quarantined at once."""
    raises = "needs_path = property(lambda self: 1 // 0)\n        name = "
    shelf.install("silent", CHECKER.format(name="silent").replace("name = ", raises, 1))
    shelf.install("good", CHECKER.format(name="good"))
    registry = shelf.load()
    assert states(registry) == {"good": "ok", "silent": "quarantined"}
    error = registry.plugins[0].error if registry.plugins[0].error else registry.plugins[1].error
    assert error == "what silent says of itself raised: ZeroDivisionError: integer division or modulo by zero"
    assert registry.health_checkers["good"].declared.needs_path is True


def test_two_plugins_of_one_name_are_remarked(shelf, caplog):
    shelf.install("one", CHECKER.format(name="first"), plugin="health", version="1.0")
    shelf.install("two", CHECKER.format(name="second"), plugin="health", version="2.0")
    remarks = [plugin["remark"] for plugin in shelf.load().describe()]
    assert remarks == [
        "shares its name and the table [plugins.health] with that of two 2.0",
        "shares its name and the table [plugins.health] with that of one 1.0",
    ]
    assert "plugin two:health shares its name" in caplog.text


def test_whoever_only_looks_sees_a_clash_as_quarantine(shelf):
    shelf.install("one", CHECKER.format(name="same"))
    shelf.install("two", CHECKER.format(name="same"))
    registry = shelf.load_loosely(strict=False)
    assert states(registry) == {"one": "ok", "two": "quarantined"}
    assert registry.plugins[1].error.startswith("two plugins give a health checker named 'same': one of one")


def test_a_missing_table_may_be_borne_and_a_wrong_one_not(shelf):
    shelf.install("needy", CHECKER.format(name="needy") + SCHEMA)
    with pytest.raises(SettingsError, match="size: is required"):
        shelf.load()
    registry = shelf.load_loosely(complete=False)
    assert registry.describe()[0]["error"] == "[plugins.needy] size: is required"
    with pytest.raises(SettingsError, match="size: must be at least 1"):
        shelf.load_loosely(complete=False, plugins={"needy": {"size": 0}})


def test_a_capability_that_is_none_is_found_when_the_plugin_is_loaded(shelf):
    shelf.install(
        "edge",
        """
        from deployer.sdk.ingress import IngressProvider
        from deployer.sdk.plugin import hookimpl

        class Edge(IngressProvider):
            name = "edge"
            capabilities = {"tls", "redirectWww"}
            state = prepare = switch = confirm = release = remove = fence = lambda self, context: None

        @hookimpl
        def register_ingress_providers():
            return [Edge()]
        """,
    )
    [plugin] = shelf.load().describe()
    assert plugin["error"].startswith(
        "the capabilities of edge include 'redirectWww', which is none; there are tls, redi"
    )
