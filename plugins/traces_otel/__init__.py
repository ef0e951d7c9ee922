"""Observers `traces_otel`: each deployment is an OpenTelemetry trace, each operation and each of its steps a span.

Nothing of OpenTelemetry is imported before the settings name an endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.sdk.errors import SettingsError
from deployer.sdk.observer import Observer
from deployer.sdk.plugin import PluginSettings, Schema, hookimpl

TIMEOUT_MOST = 25.0
"""Seconds; less than the 30 that an observer has."""


@hookimpl
def settings_schema() -> Schema:
    """The table `[plugins.traces_otel]`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "dependentRequired": {"service_name": ["endpoint"], "timeout": ["endpoint"]},
        "properties": {
            "endpoint": {"type": "string", "pattern": r"^https?://[^\s@?#]+$"},
            "service_name": {"type": "string", "minLength": 1},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MOST},
        },
    }


@hookimpl
def register_observers(settings: PluginSettings) -> Sequence[Observer]:
    """One, with an endpoint; none without. Raises SettingsError when the extra is not installed."""
    table: Mapping[str, Any] = settings.table
    if "endpoint" not in table:
        return []
    try:
        from deployer.plugins.traces_otel.export import Traces
    except ImportError as error:
        raise SettingsError(
            f"[plugins.traces_otel]: {error.name} is not installed: pip install 'kube-deployer[otel]', or remove the "
            "table"
        ) from None
    return [Traces(table["endpoint"], table.get("service_name", settings.core.instance), table.get("timeout", 10.0))]
