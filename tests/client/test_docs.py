"""What the documentation says of the command line is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployer.cli.commands import cli
from deployer.cli.verbs import load
from deployer.client.configuration import CONFIG_VARIABLE, PROFILE_VARIABLE, VARIABLES
from deployer.client.errors import MEANINGS, ExitCode
from deployer.client.reference import page
from deployer.client.verbs import VERBS, Verb
from deployer.settings import OPTIONS
from deployer.settings.sources import CLIENT_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
ALL = {name: verb for verbs in VERBS.values() for name, verb in verbs.items()}


def test_the_page_has_every_verb_and_flag_as_they_are() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert page(text) == text
    assert all(f"\n#### `deployer {name}" in text for name in ALL)


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(("name", "verb"), ALL.items())
def test_the_list_of_verbs_says_what_their_own_help_says(name: str, verb: Verb) -> None:
    command = load(verb)
    assert (command.name, command.short_help) == (name, verb.summary)
    assert name not in cli.commands


def test_the_service_knows_the_variables_of_the_client_and_has_none_of_them() -> None:
    assert {*VARIABLES.values(), CONFIG_VARIABLE, PROFILE_VARIABLE} == CLIENT_VARIABLES
    assert not CLIENT_VARIABLES & {option.env for option in OPTIONS}


def test_examples_for_pipelines_use_flags_that_exist() -> None:
    flags = {flag for command in map(load, ALL.values()) for p in command.params for flag in p.opts}
    for example in (ROOT / "examples" / "ci").iterdir():
        commands = [line for line in example.read_text().splitlines() if "deployer deploy " in line]
        assert commands, example
        assert {flag for line in commands for flag in re.findall(r" (--[a-z-]+)", line)} <= flags
