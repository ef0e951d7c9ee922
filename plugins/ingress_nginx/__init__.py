"""Ingress provider `nginx`: one Ingress per app for the ingress-nginx controller, switched so that nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.plugins.ingress_nginx.provider import Nginx, SwitchConfig
from deployer.plugins.ingress_nginx.render import RenderConfig
from deployer.sdk.ingress import IngressProvider, data_plane, data_plane_schema
from deployer.sdk.plugin import PluginSettings, hookimpl


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.ingress_nginx]`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **data_plane_schema(),
            "ingress_class": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"},
            "allowed_headers": {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}},
            "ssl_redirect": {"type": "boolean"},
            "mode": {"enum": ["versioned", "stable-service"]},
            "version_header": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"},
            "use_gzip": {"type": "boolean"},
            "minimum_hold": {"type": "number", "minimum": 0, "maximum": 3600},
        },
    }


@hookimpl
def register_ingress_providers(settings: PluginSettings) -> Sequence[IngressProvider]:
    """The one provider. Raises SettingsError."""
    table = settings.table
    allowed = table.get("allowed_headers")
    plane = data_plane(table, "ingress_nginx")
    config = RenderConfig(
        ingress_class=table.get("ingress_class", "nginx"),
        ssl_redirect=table.get("ssl_redirect", True),
        allowed_headers=None if allowed is None else tuple(allowed),
        revision_header=plane.revision_header,
        gzip=table.get("use_gzip", False),
    )
    # As the controller's list spells it, too.
    config = dataclasses.replace(
        config, revision_header=config.spelled(config.revision_header) or config.revision_header
    )
    switching = SwitchConfig(
        minimum_hold=float(table.get("minimum_hold", 10.0)),
        stable=table.get("mode") == "stable-service",
        version_header=table.get("version_header", ""),
    )
    return [Nginx(config, plane, switching)]
