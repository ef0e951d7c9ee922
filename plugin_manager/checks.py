"""What a plugin gives is run, and looked at, so that what is wrong with it is a sentence and harms nobody else."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from referencing import Registry as References
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from deployer.core.calls import Invocation
from deployer.core.contract.gate import Gate
from deployer.core.contract.ingress import Capability, IngressProvider
from deployer.core.contract.observer import HOOKS, Observer
from deployer.core.errors import SettingsError
from deployer.core.registry import NO_INGRESS, ProviderKind
from deployer.descriptor import schema_errors
from deployer.plugin_manager.gates import wrong_gate

DEADLINE = 30.0
"""Seconds for a plugin's import, and for each of its hooks at start-up."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Broken(Exception):
    """Why a plugin is quarantined."""

    def __init__(self, sentence: str, traceback: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.traceback = traceback


def guarded(action: Callable[[], Any], failed: str, late: str = "") -> Any:
    """Run a plugin's code. Raises Broken, whose sentence begins with `failed`, or with `late` when that is given and
    the code is not back in time; then its thread is left behind.

    SettingsError passes: it is how a plugin says that its table is wrong.
    """
    try:
        if not late:
            return action()
        call = Invocation(action, "plugin")
        if not call.wait(DEADLINE):
            raise Broken(f"{late} did not end within {DEADLINE:g} s; when that is mended, start the service again")
        return call.result()
    except (KeyboardInterrupt, SettingsError, Broken):
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        sentence = f"{failed}: {type(error).__name__}: {error}".rstrip(": ")
        raise Broken(sentence, "".join(traceback.format_exception(error))) from error


def check_provider(sort: ProviderKind, provider: Any) -> None:
    if not isinstance(provider, sort.base):
        what = f"the class {provider.__name__}" if isinstance(provider, type) else f"a {type(provider).__name__}"
        raise Broken(f"its {sort.hook} returned {what}, which is no {sort.base.__name__} object")
    name = getattr(provider, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Broken(
            f"its {type(provider).__name__} has the name {name!r}: use 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-'"
        )
    if sort.base is IngressProvider and name == NO_INGRESS:
        raise Broken(f"its {type(provider).__name__} is named {name!r}, which means that there is no ingress")
    if isinstance(provider, IngressProvider):
        _check_capabilities(provider)
    if isinstance(provider, Observer):
        _check_hooks(provider)
    if isinstance(provider, Gate):
        _check_gate(provider)
    what = f"the options_schema of {name}"
    schema = guarded(lambda: provider.options_schema, f"{what} raised", what)
    if schema is not None:
        check_schema(schema, what)


def _check_capabilities(provider: IngressProvider) -> None:
    what = f"the capabilities of {provider.name}"
    found = guarded(lambda: sorted(map(str, provider.capabilities)), f"{what} raised", what)
    if unknown := [name for name in found if name not in set(Capability)]:
        raise Broken(f"{what} include {unknown[0]!r}, which is none; there are {', '.join(Capability)}")


def _check_gate(gate: Gate) -> None:
    what = f"gate {gate.name}"
    if wrong := guarded(lambda: wrong_gate(gate), f"what {what} says of itself raised", what):
        raise Broken(f"{what} {wrong}")


def _check_hooks(observer: Observer) -> None:
    what = f"the hooks of {observer.name}"
    found = guarded(lambda: sorted(map(str, observer.hooks)), f"{what} raised", what)
    if wrong := [name for name in found if name not in HOOKS] or (not found and ["none"]):
        raise Broken(f"{what} include {wrong[0]!r}; there are {', '.join(sorted(HOOKS))}")


def check_schema(schema: Any, what: str) -> None:
    """Raises Broken for what is no schema, or refers to what is not in it: nothing is fetched from the network."""
    if wrong := schema_errors.check_schema(schema):
        raise Broken(f"{what} {wrong}")
    resource = DRAFT202012.create_resource(dict(schema))
    _check_references(resource, References().with_resource("", resource).resolver(), what)
    guarded(partial(schema_errors.schema_problems, {}, schema), f"{what} cannot be used")


def _check_references(resource: Resource[Any], resolver: Any, what: str) -> None:
    """Raises Broken for a reference of the schema, or of one within it, that leads nowhere."""
    found = resource.contents if isinstance(resource.contents, Mapping) else {}
    for reference in (found[keyword] for keyword in ("$ref", "$dynamicRef") if keyword in found):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise Broken(f"{what} cannot be used: {reference!r} is not in it, and nothing is fetched") from None
    for inner in resource.subresources():
        _check_references(inner, resolver.in_subresource(inner), what)
