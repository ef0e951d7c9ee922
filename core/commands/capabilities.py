"""What a descriptor asks of the ingress provider that this one does not list among its capabilities: never ignored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from deployer.core.contract.providers import Capability
from deployer.core.errors import Problem
from deployer.core.model.records import Document

_ASKED: Mapping[Capability, tuple[str, Callable[[Document], Any]]] = {
    Capability.REDIRECT_WWW: ("redirectWww", lambda d: d.get("redirectWww")),
    Capability.COMPRESSION: ("useCompression", lambda d: d.get("useCompression")),
    Capability.STICKY: ("useStickySessions", lambda d: d.get("useStickySessions")),
    Capability.HEADERS: ("additionHttpHeaders", lambda d: d.get("additionHttpHeaders")),
    Capability.PREVIEW: ("ingressOptions.previewCheck", lambda d: d.get("ingressOptions", {}).get("previewCheck")),
}


def problems(
    descriptor: Document, provider: str, capabilities: Collection[str], said: Sequence[Problem]
) -> list[Problem]:
    """What cannot be done, but for the fields about which the provider `said` something better itself."""
    known = {problem.path for problem in said}
    return [
        Problem(field, f"ingress provider {provider} cannot do this (capability {capability}); leave it out")
        for capability, (field, asked) in _ASKED.items()
        if capability not in capabilities and field not in known and asked(descriptor)
    ]


def remarks(
    descriptor: Document, provider: str, capabilities: Collection[str], said: Sequence[Problem]
) -> list[Problem]:
    """What has no effect: TLS is left to others where a provider does not do it, so that nothing is lost."""
    field = "tlsSecretName"
    known = {remark.path for remark in said}
    if Capability.TLS in capabilities or field in known or not descriptor.get(field):
        return []
    return [Problem(field, f"has no effect: ingress provider {provider} leaves TLS to the data plane")]
