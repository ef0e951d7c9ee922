"""Observers `notify_webhook`: POST what happens to deployments to the receivers that the settings name."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.plugins.notify_webhook import formats
from deployer.plugins.notify_webhook.delivery import deliver
from deployer.plugins.notify_webhook.formats import PREDICATES, PROGRESS, Message
from deployer.sdk.errors import SettingsError
from deployer.sdk.observer import Notification, Observer, Occurrence
from deployer.sdk.plugin import PluginSettings, hookimpl
from deployer.sdk.webhook import RECEIVER_SCHEMA, Receiver, receiver_of

TIMEOUT_MOST = 25.0
"""Seconds; less than the 30 that an observer has."""

FORMATS = ("json", "slack", "cdevents")
MODES = ("binary", "structured")


class Target(Observer):
    """One receiver. What it is not to be told of counts as told."""

    def __init__(self, name: str, receiver: Receiver, table: Mapping[str, Any], source: str) -> None:
        """`table` is the target's, checked."""
        self.name = name
        self._receiver = receiver
        self._format = table.get("format", "json")
        self._structured = table.get("mode") == "structured"
        self._namespaces = table.get("namespaces", ["*"])
        self._source = source
        self._events = frozenset(table.get("events", PREDICATES if self._format == "cdevents" else Occurrence))
        self.hooks = frozenset(
            "deployment_changed" if event == PROGRESS else Occurrence(event).hook for event in self._events
        )

    def notify(self, notification: Notification) -> None:
        """Deliver it, if it is wanted. Raises NotDelivered."""
        word = formats.word(notification)
        namespace = notification.deployment["descriptor"].get("namespace", "")
        if word and word not in self._events:
            return
        if not any(fnmatch.fnmatchcase(namespace, pattern) for pattern in self._namespaces):
            return
        message = self._render(notification)
        if message is not None:
            deliver(self._receiver, notification.id, message)

    def _render(self, notification: Notification) -> Message | None:
        if self._format == "slack":
            return formats.as_slack(notification, self._source)
        if self._format == "cdevents":
            return formats.as_cdevent(notification, self._source, structured=self._structured)
        return formats.as_json(notification)


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.notify_webhook]`."""
    text = {"type": "string", "minLength": 1}
    target = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **RECEIVER_SCHEMA,
            "format": {"enum": list(FORMATS)},
            "mode": {"enum": list(MODES)},
            "events": {"type": "array", "minItems": 1, "items": {"enum": [*map(str, Occurrence), PROGRESS]}},
            "namespaces": {"type": "array", "minItems": 1, "items": text},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MOST},
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "source": {"type": "string", "pattern": r"^[A-Za-z0-9/][A-Za-z0-9/:._~\[\]-]*$"},
            "targets": {
                "type": "object",
                "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,30}$"},
                "additionalProperties": target,
            },
        },
    }


@hookimpl
def register_observers(settings: PluginSettings) -> Sequence[Observer]:
    """One for each target; none without the table. Raises SettingsError."""
    source = settings.table.get("source", f"/deployer/{settings.core.instance}")
    return [_target(name, table, source) for name, table in settings.table.get("targets", {}).items()]


def _target(name: str, table: Mapping[str, Any], source: str) -> Target:
    where = f"[plugins.notify_webhook.targets.{name}]"
    receiver = receiver_of(table, where)
    is_cdevents = table.get("format") == "cdevents"
    if "mode" in table and not is_cdevents:
        raise SettingsError(f'{where} mode: only format = "cdevents" has modes')
    if is_cdevents and (unknown := [event for event in table.get("events", ()) if event not in PREDICATES]):
        raise SettingsError(f"{where} events: CDEvents has no word for {unknown[0]}; it has {', '.join(PREDICATES)}")
    return Target(name, receiver, table, source)
