"""Secrets stay secret: `deployer serve` at debug level, driven through everything, and every byte that it said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer.sandbox import Sandbox
from support.canary import INJECTED, LITERAL, NEVER, Canary, install, judge, leaks, make_secret, play
from support.world import World


@pytest.mark.timeout(180)
def test_no_secret_is_ever_said(deployer: Any, cluster: Sandbox, world: World, tmp_path: Path) -> None:
    """`world` is here for its namespace and its eyes; its own engine sleeps."""
    world.stop()
    install(tmp_path / "plugins")
    make_secret(world.eyes, world.namespace)
    deployer.environment["PYTHONPATH"] = str(tmp_path / "plugins")
    data = tmp_path / "canary"
    arguments = ["serve", "--kubernetes", cluster.api, "--loopback-pods", "--data-dir", str(data), "--ingress=none"]
    arguments += ["--timeout=2", "--proxysleep=0", "--max-restarts=1", "--image-pull-attempts=1", "--min-ready=0"]
    canary = Canary(deployer, world.eyes, world.namespace, arguments, {})
    play(canary)
    login = {"DEPLOYER_KUBERNETES_USERNAME": "canary", "DEPLOYER_KUBERNETES_PASSWORD": NEVER["kubernetes password"]}
    listed = deployer.run("plugins", "--traceback", **login)
    assert "cannot be loaded with ***" in listed.stdout
    canary.said["deployer plugins"] = listed.stdout + listed.stderr
    judge(canary, data / "deployer.db")


def test_the_search_finds_what_it_is_to_find() -> None:
    secret = INJECTED["TOKEN"]
    head = "Content-Type: application/json\n\n"
    assert leaks({"a": f"x {secret} y"})
    assert leaks({"a": head + '{"message": ' + json.dumps(secret) + "}"})
    assert leaks({"a": head + f'{{"failure": "{LITERAL}"}}'})
    assert not leaks({"a": head + f'{{"descriptor": {{"podspec": {{"env": "{LITERAL}"}}}}}}'})
