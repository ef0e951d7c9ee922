"""`[[gates]]` of the settings: what they may be, and on which namespaces they are forced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer.core.contract.gate import LONGEST, Point
from deployer.core.errors import SettingsError
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings, gates, load

GATE = {"point": "beforeStart", "type": "approval", "name": "ask"}


def test_the_file_has_them_in_order(tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text(
        """
        [[gates]]
        namespaces = ["*-prod"]
        point = "beforeSwitch"
        type = "approval"
        name = "four-eyes"
        timeoutSeconds = 3600
        [gates.options]
        notByRequester = true

        [[gates]]
        point = "afterSwitch"
        type = "approval"
        name = "sign-off"
        dryRun = true
        onMissing = "inconclusive"
        """
    )
    settings = load({}, {}, file)
    four, sign = settings.forced_gates("shop-prod")
    assert four == {
        "point": "beforeSwitch",
        "type": "approval",
        "name": "four-eyes",
        "timeoutSeconds": 3600,
        "onMissing": "fail",
        "dryRun": False,
        "options": {"notByRequester": True},
    }
    assert (sign["dryRun"], sign["onMissing"], "timeoutSeconds" in sign) == (True, "inconclusive", False)
    assert [gate["name"] for gate in settings.forced_gates("shop-test")] == ["sign-off"]
    load_plugins(settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"point": "afterLunch"}, "gate 1: point must be one of beforeStart, beforeSwitch, afterSwitch"),
        ({"name": "Ask"}, "gate 1: name: 'Ask' cannot be one"),
        ({"name": "a:b"}, "gate 1: name"),
        ({"type": ""}, "gate 1: type"),
        ({"timeoutSeconds": 0}, "timeoutSeconds must be a whole number between 1 and 604800"),
        ({"timeoutSeconds": True}, "timeoutSeconds must be"),
        ({"timeoutSeconds": 1.5}, "timeoutSeconds must be"),
        ({"onMissing": "pass"}, "onMissing must be one of fail, inconclusive"),
        ({"dryRun": "yes"}, "dryRun must be true or false"),
        ({"options": []}, "options must be a table"),
        ({"namespaces": []}, "namespaces must be a list"),
        ({"namespaces": ["A b"]}, "is not a namespace or a pattern"),
        ({"timeout": 5}, "unknown key timeout"),
    ],
)
def test_what_cannot_be_stops_the_service(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = tmp_path / "deployer.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**GATE, **changes}.items()]
    file.write_text("\n".join(["[[gates]]", *lines]))
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        load({}, {}, file)


def test_two_of_a_name_at_one_point(tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    text = '[[gates]]\npoint = "beforeStart"\ntype = "approval"\nname = "ask"\n'
    file.write_text(text * 2)
    with pytest.raises(SettingsError, match="ask is there twice at beforeStart"):
        load({}, {}, file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "nobodys"}, r"\[\[gates\]\] ask: type .* is not installed; available: .*approval"),
        ({"options": {"who": 1}}, r"\[\[gates\]\] ask: options.who is not a known field"),
    ],
)
def test_what_is_not_installed_stops_the_service(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_plugins(Settings(gates=({**GATE, **changes},)))


def test_their_words_are_those_of_the_contract() -> None:
    assert tuple(map(str, Point)) == gates.POINTS
    assert gates._LONGEST == LONGEST
