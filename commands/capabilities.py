"""What a descriptor asks of the ingress provider that this one does not list among its capabilities: never ignored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from deployer.core.contract.ingress import Capability, IngressProvider
from deployer.core.errors import Problem
from deployer.core.model.records import Document
from deployer.core.registry import Entry

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


def missing(
    needs: Mapping[str, str],
    descriptor: Document,
    ingress: Entry[IngressProvider] | None,
    installed: Iterable[Entry[IngressProvider]],
) -> list[Problem]:
    """What a strategy needs for fields that the descriptor has, and `ingress` does not list among its capabilities."""
    found = []
    for path, capability in needs.items():
        value: Any = descriptor
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or (ingress is not None and capability in ingress.declared.capabilities):
            continue
        able = sorted(entry.provider.name for entry in installed if capability in entry.declared.capabilities)
        lacks = (
            f"ingress provider {ingress.provider.name} does not have it"
            if ingress
            else "no ingress provider is configured"
        )
        others = f"; available: {', '.join(able)}" if able else ""
        found.append(Problem(path, f"needs an ingress provider with the capability {capability}: {lacks}{others}"))
    return found
