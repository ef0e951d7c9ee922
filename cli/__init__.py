"""deployer.cli: the command `deployer`. This package wires the parts together; no other part imports it."""

from deployer.cli.main import main

__all__ = ["main"]
