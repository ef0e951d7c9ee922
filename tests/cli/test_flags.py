"""Flags come from the table of settings, and settings from the flags."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from deployer.cli.commands import cli, serve
from deployer.cli.flags import read_settings, settings_flags
from deployer.core.errors import SettingsError
from deployer.settings import OPTIONS, Settings


def parsed(arguments: list[str], environ: dict[str, str] | None = None) -> Settings:
    """What a command with all flags makes of its arguments."""
    found: list[Settings] = []

    @click.command()
    @settings_flags()
    def command(config: Path | None, **flags: object) -> None:
        found.append(read_settings(config, flags, environ or {"HOME": "/home/nobody"}))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_every_setting_that_has_a_flag_is_a_flag_of_serve() -> None:
    names = {name for parameter in serve.params for name in (*parameter.opts, *parameter.secondary_opts)}
    flags = {option.flag for option in OPTIONS if option.flag}
    switches = {o.flag.replace("--", "--no-", 1) for o in OPTIONS if o.kind == "switch"}
    assert flags | switches | {"--config"} == names


def test_help_names_default_and_variable_of_every_flag() -> None:
    text = CliRunner().invoke(serve, ["--help"], terminal_width=400).output
    for option in OPTIONS:
        if option.flag:
            assert option.env in text
            assert option.kind == "switch" or not option.shown or f"default: {option.shown}" in text


def test_nothing_given_means_the_defaults() -> None:
    defaults = Settings(own_namespace="", data_dir=Path("/home/nobody/.local/state/kube-deployer"))
    assert parsed([]) == defaults


def test_flags_of_every_kind(tmp_path: Path) -> None:
    flags = ["--kubernetes=http://k8s", "--deployport", "0", "--timeout", "2.5", "--data-dir", str(tmp_path)]
    flags += ["--protected-namespaces=a,b", "--protected-namespaces", "c-*"]
    settings = parsed([*flags, "--loopback-pods", "--no-insecure-no-auth"])
    assert (settings.kubernetes, settings.deployport, settings.timeout) == ("http://k8s", 0, 2.5)
    assert (settings.data_dir, settings.protected_namespaces) == (tmp_path, ("a", "b", "c-*"))
    assert (settings.loopback_pods, settings.insecure_no_auth) == (True, False)


def test_names_can_be_cleared() -> None:
    assert parsed(["--protected-namespaces", ""]).protected_namespaces == ()


@pytest.mark.parametrize(("flag", "off"), [([], True), (["--no-loopback-pods"], False)])
def test_a_flag_wins_over_variable_and_file(tmp_path: Path, flag: list[str], off: bool) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text('timeout = 7\nproxysleep = 8\n[plugins.x]\nkey = "value"\n')
    environ = {"HOME": "/", "DEPLOYER_TIMEOUT": "6", "DEPLOYER_LOOPBACK_PODS": "true"}
    settings = parsed(["--config", str(file), "--timeout=5", *flag], environ)
    assert (settings.timeout, settings.proxysleep, settings.loopback_pods) == (5.0, 8.0, off)
    assert settings.plugins["x"] == {"key": "value"}


def test_the_help_has_every_setting_once_under_its_heading() -> None:
    text = CliRunner().invoke(cli, ["serve", "--help"], terminal_width=120).output
    flags = re.findall(r"^  (--[a-z0-9-]+)", text, re.MULTILINE)
    assert sorted(flag for flag in flags if flag != "--help") == sorted(
        ["--config", *(option.flag for option in OPTIONS if option.flag)]
    )
    sections = dict(re.findall(r"^([A-Z].*):\n((?:  .*\n?)+)", text, re.MULTILINE))
    for option in OPTIONS:
        if option.flag:
            assert re.search(rf"^  {option.flag}\b", sections[option.subject], re.MULTILINE), option.name
    assert [name for name in sections if name not in ("Options", "Usage")] == list(
        dict.fromkeys(option.subject for option in OPTIONS if option.flag)
    )


def completions(*words: str) -> list[tuple[str, str]]:
    """Type and value of what a shell offers for the last word."""
    found = ShellComplete(cli, {}, "deployer", "_DEPLOYER_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


def test_a_shell_completes_commands_flags_and_the_choices_of_settings() -> None:
    assert ("plain", "serve") in completions("se")
    assert completions("get", "de") == [("plain", "deployments"), ("plain", "descriptors")]
    assert completions("serve", "--au") == [
        ("plain", "--auth"),
        ("plain", "--auth-cache"),
        ("plain", "--auto-rollback"),
    ]
    assert completions("serve", "--auth", "j") == [("plain", "jwt")]
    assert completions("serve", "--health-via", "") == [("plain", c) for c in ("auto", "direct", "apiserver")]
    assert completions("serve", "--data-dir", "x") == [("dir", "x")]
    assert completions("serve", "--jwt-key-file", "x") == [("file", "x")]


def test_the_help_of_the_sandbox_is_short_and_takes_the_rest_too() -> None:
    text = CliRunner().invoke(cli, ["sandbox", "--help"]).output
    assert "--ingress " in text and "--jwt-issuer" not in text and "--kubeconfig" not in text
    wrong = CliRunner().invoke(cli, ["sandbox", "--workers", "many"])
    assert isinstance(wrong.exception, SettingsError) and "--workers" in str(wrong.exception)
