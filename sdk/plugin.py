"""What every plugin needs: the marker of hooks, settings, and what all providers have in common."""

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.provider import Provider, Schema
from deployer.core.errors import Problem
from deployer.core.model.records import Document
from deployer.plugin_manager.hookspecs import INTERFACE, PluginSettings, hookimpl
from deployer.toolkit import http_exchange

__all__ = [
    "INTERFACE",
    "CancelScope",
    "Document",
    "PluginSettings",
    "Problem",
    "Provider",
    "Schema",
    "hookimpl",
    "http_exchange",
]
