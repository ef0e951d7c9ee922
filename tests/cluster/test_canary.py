"""Secrets stay secret on a real cluster, whose Events and nodes' messages repeat what containers are started with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.conftest import IMAGE, RealWorld
from support.canary import NEVER, Canary, install, judge, make_secret, play
from support.command import of_a_new_user, running


@pytest.mark.timeout(300)
def test_no_secret_is_ever_said(real: RealWorld, tmp_path: Path) -> None:
    """`real` is here for its namespace and its eyes; its own engine sleeps."""
    real.stop()
    install(tmp_path / "plugins")
    make_secret(real.eyes, real.namespace)
    environment = of_a_new_user(tmp_path) | {
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "PYTHONPATH": str(tmp_path / "plugins"),
    }
    data = tmp_path / "canary"
    arguments = ["serve", "--data-dir", str(data), "--ingress=none", "--health-via=direct", "--timeout=2"]
    arguments += ["--proxysleep=0", "--max-restarts=1", "--image-pull-attempts=1", "--min-ready=0"]
    with running(environment, tmp_path) as deployer:
        config = tmp_path / "deployer.toml"
        config.write_text(f'[plugins.canary]\npassword = "{NEVER["kubernetes password"]}"\n')
        flags = (f"--config={config}",)
        fields = {"image": IMAGE, "pull": "IfNotPresent"}
        canary = Canary(deployer, real.eyes, real.namespace, arguments, fields, flags)
        unstartable = canary.descriptor("unstartable", {})
        unstartable["podspec"]["containers"][0]["command"] = ["/nowhere/$(TOKEN)/$(OWN)"]
        play(canary, unstartable)
    judge(canary, data / "deployer.db")
    assert "no such file or directory" in "\n".join(canary.said.values())
