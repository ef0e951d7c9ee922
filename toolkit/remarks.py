"""Remarks: what in a valid descriptor means something else than it seems, or nothing. No reason to refuse it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.core.errors import Problem
from deployer.core.model.descriptors import ports
from deployer.core.model.records import Document
from deployer.settings import Settings
from deployer.toolkit import service_links

MAX_REMARKS = 100
"""As many as an answer has; a podspec of 1 MiB can give rise to thousands."""

_OF_THE_FRONTEND = (
    *("redirectWww", "useCompression", "useStickySessions"),
    *("additionHttpHeaders", "tlsSecretName", "ingressOptions"),
)
_OF_HEALTH = ("healthCheckPort", "healthCheckPath", "healthCheckType", "healthCheckOptions")

# The grammar of an image's name, as nodes read it: https://pkg.go.dev/github.com/distribution/reference
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


def remarks(sent: Mapping[str, Any], normal: Document, settings: Settings) -> list[Problem]:
    """All of them, at most `MAX_REMARKS`.

    sent     the descriptor as it came
    normal   the same, valid and in its normal form
    """
    found = [
        *_changed(sent, normal),
        *_without_effect(normal),
        *_health_port(normal),
        *_containers(normal["podspec"]),
        *service_links.remarks(normal, by_default=settings.enable_service_links),
    ]
    return found[:MAX_REMARKS]


def _changed(sent: Mapping[str, Any], normal: Document) -> Iterator[Problem]:
    """What the normal form has otherwise."""
    for name in ("appName", "newVersion"):
        if sent[name] != normal[name]:
            yield Problem(name, f"becomes {normal[name]}: Kubernetes takes a-z, 0-9 and '-' in this name")
    if sent.get("replicas") == 0 and sent["replicas"] is not False:
        yield Problem("replicas", "0 means 1; to stop the app, undeploy it")


def _without_effect(normal: Document) -> Iterator[Problem]:
    """Not of the fields that clients of the original always send: to them it would be noise."""
    if normal.get("useExternalHealthCheck") is True:
        yield Problem("useExternalHealthCheck", "has no effect; use useHealthCheck")
    if not normal.get("frontend"):
        for name in _OF_THE_FRONTEND:
            if normal.get(name):
                yield Problem(name, "has no effect without frontend")
    if not normal["useHealthCheck"]:
        for name in _OF_HEALTH:
            if normal.get(name):
                yield Problem(name, "has no effect without useHealthCheck")


def _health_port(normal: Document) -> Iterator[Problem]:
    declared = [int(port["containerPort"]) for port in ports(normal)]
    if normal["useHealthCheck"] and normal["healthCheckPort"] not in declared:
        listed = f"they name {', '.join(map(str, declared[:10]))}" if declared else "they name none"
        yield Problem(
            "healthCheckPort",
            f"no container names port {normal['healthCheckPort']} in its ports ({listed}); "
            "the check fails unless the app listens there all the same",
        )


def _containers(podspec: Document) -> Iterator[Problem]:
    for kind in ("containers", "initContainers"):
        for n, container in enumerate(podspec.get(kind) or ()):
            at = f"podspec.{kind}[{n}]"
            if not _IMAGE.fullmatch(container["image"]):
                yield Problem(
                    f"{at}.image",
                    "is no name of an image (such as registry.example.com/team/app:1.4, the path in lower case and "
                    "without spaces): every node will refuse it with InvalidImageName",
                )
            first: dict[str, int] = {}
            for m, variable in enumerate(container.get("env") or ()):
                name = variable["name"]
                if (before := first.setdefault(name, m)) != m:
                    yield Problem(f"{at}.env[{m}].name", f"is set in env[{before}] already; the last value counts")
