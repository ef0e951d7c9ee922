"""What every plugin needs: the marker of hooks, settings, and what all providers have in common."""

from deployer.core import http_exchange
from deployer.core.contract.providers import PluginSettings, Provider, Schema
from deployer.core.errors import Problem
from deployer.core.gate import Gate
from deployer.core.hookspecs import hookimpl
from deployer.core.model.records import Document

__all__ = [
    "Document",
    "Gate",
    "PluginSettings",
    "Problem",
    "Provider",
    "Schema",
    "hookimpl",
    "http_exchange",
]
