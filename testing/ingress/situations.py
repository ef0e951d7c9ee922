"""What checks begin with, and how they compare what is there at the end."""

from __future__ import annotations

import dataclasses
import json

from deployer.core.contract.ingress import IngressProvider
from deployer.core.model.plan import Backend, Route
from deployer.core.model.records import Document
from deployer.testing.ingress.bench import APP, PORT, Bench

MOST_WRITES = 60
"""More than any provider needs for a deployment."""


def exposed(bench: Bench, **changes: object) -> tuple[str, IngressProvider]:
    """Version 1 has the host of a new route; its provider."""
    bench.reset()
    host, provider = bench.fresh_host(), bench.provider()
    first = bench.route(host, "1", **changes)
    bench.carry_out(provider, first)
    provider.release(bench.context(first))
    return host, provider


def way_back(bench: Bench, host: str) -> Route:
    """The route back from version 2 to version 1, as the core makes it."""
    return dataclasses.replace(bench.route(host, "1"), previous=Backend(f"{APP}-2", PORT))


def without_host(host: str, objects: dict[str, Document]) -> dict[str, Document]:
    """The same objects as they would be for any other host."""
    text: dict[str, Document] = json.loads(json.dumps(objects).replace(host, "a.host"))
    return text


def difference(before: dict[str, Document], after: dict[str, Document]) -> str:
    """In words, for the person who reads the failure."""
    parts = [f"{name} is missing" for name in sorted(before.keys() - after.keys())]
    parts += [f"{name} is left" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        changed = [k for k in before[name].keys() | after[name].keys() if before[name].get(k) != after[name].get(k)]
        parts += [f"{name}: {k} was {before[name].get(k)}, is {after[name].get(k)}" for k in sorted(changed)]
    return "; ".join(parts) or "no difference"
