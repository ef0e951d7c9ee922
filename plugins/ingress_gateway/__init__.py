"""Ingress provider `gateway`: one HTTPRoute per app on a Gateway that the settings name, switched by its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.plugins.ingress_gateway.provider import Gateway
from deployer.plugins.ingress_gateway.render import RenderConfig
from deployer.sdk.errors import SettingsError
from deployer.sdk.ingress import IngressProvider, data_plane, data_plane_schema
from deployer.sdk.plugin import PluginSettings, hookimpl

NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.ingress_gateway]`."""
    section = {"type": "string", "pattern": f"^{NAME}$"}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **data_plane_schema(),
            "gateway": {"type": "string", "pattern": f"^[a-z0-9-]{{1,63}}/{NAME}$"},
            "section": section,
            "https_section": section,
            "https_redirect": {"type": "boolean"},
            "minimum_hold": {"type": "number", "minimum": 0, "maximum": 3600},
        },
    }


@hookimpl
def register_ingress_providers(settings: PluginSettings) -> Sequence[IngressProvider]:
    """The one provider. Raises SettingsError."""
    table = settings.table
    if settings.core.ingress == Gateway.name and not table.get("gateway"):
        raise SettingsError('[plugins.ingress_gateway] gateway: name the Gateway, like "infra/edge"')
    plane = data_plane(table, "ingress_gateway", revision_header=True)
    config = RenderConfig(
        gateway=table.get("gateway", ""),
        section=table.get("section", ""),
        https_section=table.get("https_section", ""),
        https_redirect=table.get("https_redirect", True),
        revision_header=plane.revision_header,
    )
    if config.https and not config.section:
        raise SettingsError("[plugins.ingress_gateway] https_section: name the listener for HTTP in section as well")
    if config.redirects and plane.addresses and not any(address.tls for address in plane.addresses):
        raise SettingsError(
            "[plugins.ingress_gateway] https_addresses: give the addresses for HTTPS, as HTTP is redirected "
            "(https_redirect)"
        )
    return [Gateway(config, plane, float(table.get("minimum_hold", 10.0)))]
