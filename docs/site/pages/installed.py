"""What ships with the Deployer, as the service would have it with default settings."""

from __future__ import annotations

from deployer.commands.descriptor_commands import rules
from deployer.descriptor import Rules
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings

NOTE = "<!-- Made by `make docs-pages`; do not edit. -->\n"


def shipped() -> Rules:
    """What descriptors are checked against there."""
    settings = Settings(own_namespace="deployer")
    return rules(load_plugins(settings), settings)
