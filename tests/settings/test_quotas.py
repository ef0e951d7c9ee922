"""`[[quotas]]` of the settings: what they may be, and which counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import SettingsError
from deployer.settings import Settings, load
from deployer.settings.namespaces import LIMITS


def test_the_first_table_that_names_a_limit_counts(tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text("""
        queue_limit = 30
        [[quotas]]
        namespaces = ["team-big"]
        stored_bytes = "2 Gi"
        [[quotas]]
        namespaces = ["team-*"]
        descriptors = 50
        stored_bytes = "512Mi"
        deployments = 5
        [[quotas]]
        viewers = 0
        log_bytes = 1000
    """)
    settings = load({}, {}, file)
    assert settings.limit("team-big", "stored_bytes") == 2 << 30
    assert settings.limit("team-big", "descriptors") == 50
    assert settings.limit("team-a", "stored_bytes") == 512 << 20
    assert settings.limit("team-a", "deployments") == 5
    assert settings.limit("shop", "deployments") == 30
    assert settings.limit("shop", "viewers") == 0
    assert settings.limit("shop", "log_bytes") == 1000
    assert settings.limit("shop", "descriptors") == LIMITS["descriptors"]
    assert {name: Settings().limit("shop", name) for name in LIMITS} == LIMITS


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"descriptor": 5}, "unknown key descriptor; there are namespaces, descriptors, deployments"),
        ({"namespaces": ["a"]}, "has no limit"),
        ({"descriptors": -1}, "descriptors must be a whole number from 0 on, not -1"),
        ({"descriptors": True}, "descriptors must be"),
        ({"descriptors": "5Mi"}, "descriptors must be"),
        ({"log_bytes": "5 MB"}, 'log_bytes must be a whole number from 0 on, or a text like "512Mi", not'),
        ({"namespaces": ["A"], "viewers": 1}, "namespaces: 'A' is not a namespace"),
        ({"namespaces": "a", "viewers": 1}, "namespaces must be a list"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    file = tmp_path / "deployer.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    file.write_text("\n".join(["[[quotas]]", "viewers = 1", "[[quotas]]", *lines]))
    with pytest.raises(SettingsError, match="quota 2: ") as error:
        load({}, {}, file)
    assert said in str(error.value)
