"""What is read from a descriptor in its normal form: its version, containers and ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Document

AUTOINCREMENT = "#"
DEFAULT_HEALTH_PORT = 9999
HEALTH_PORT_NAME = "healthcheck"


def version_of(descriptor: Mapping[str, Any]) -> str:
    """The version that was asked for; empty when the service is to count it up."""
    version: str = descriptor["newVersion"]
    return "" if version == AUTOINCREMENT else version


def containers(descriptor: Mapping[str, Any]) -> list[Document]:
    """The podspec's containers, without init containers."""
    found: list[Document] = descriptor["podspec"]["containers"]
    return found


def app_containers(podspec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The containers that run as long as the pod: the ordinary ones, then the native sidecars, which are init
    containers with `restartPolicy: Always` (KEP-753)."""
    sidecars = [c for c in podspec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [*(podspec.get("containers") or ()), *sidecars]


def ports(descriptor: Mapping[str, Any]) -> list[Document]:
    """The container ports of all containers, first container first, native sidecars last."""
    return [port for container in app_containers(descriptor["podspec"]) for port in container.get("ports") or ()]


def http_ports(descriptor: Mapping[str, Any]) -> list[int]:
    """Numbers of the ports that a route can lead to: TCP, and not the one named `healthcheck`."""
    return [
        int(port["containerPort"])
        for port in ports(descriptor)
        if is_tcp([port]) and port.get("name") != HEALTH_PORT_NAME
    ]


def frontend_port(descriptor: Mapping[str, Any]) -> int | None:
    """Number of the port that the host routes to: `frontendPort`, else the first of `http_ports`; None without one."""
    wanted = descriptor.get("frontendPort")
    if wanted is None:
        return next(iter(http_ports(descriptor)), None)
    named = [port for port in ports(descriptor) if wanted in (int(port["containerPort"]), port.get("name"))]
    return next((int(port["containerPort"]) for port in named if is_tcp([port])), None)


def named_port(descriptor: Mapping[str, Any], number: int) -> str:
    """A port for a sentence: `8080 (http)`, or only its number when it has no name."""
    names = (port.get("name") for port in ports(descriptor) if int(port["containerPort"]) == number)
    name = next(filter(None, names), "")
    return f"{number} ({name})" if name else str(number)


def is_tcp(found: Sequence[Mapping[str, Any]]) -> bool:
    return any((port.get("protocol") or "TCP") == "TCP" for port in found)


def health_port(descriptor: Mapping[str, Any]) -> int:
    """The port of the health check: `healthCheckPort`, else what the original took, all in the first container.

    That is its only port, else the one named `healthcheck`, else 9999 when it has none. Raises Invalid when it has
    several and none has that name.
    """
    if (given := descriptor.get("healthCheckPort")) is not None:
        return int(given)
    found = containers(descriptor)[0].get("ports") or []
    if not found:
        return DEFAULT_HEALTH_PORT
    named = [port for port in found if port.get("name") == HEALTH_PORT_NAME]
    if len(found) > 1 and not named:
        message = f"is required: the first container has several ports and none is named {HEALTH_PORT_NAME}"
        raise Invalid([Problem("healthCheckPort", message)])
    return int((found if len(found) == 1 else named)[0]["containerPort"])
