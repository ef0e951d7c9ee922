"""Descriptors: reading them strictly, checking every rule at once, and bringing them into one normal form.

`descriptor.schema.json` is the one definition of their shape. What a schema cannot say (names that go together, what
is installed, Pod Security) follows here. A normalised descriptor is a plain dict, and normalising it again changes
nothing.
"""

from deployer.core.descriptor.checks import MAX_NAME, GateType, Rules, gate_problems
from deployer.core.descriptor.fields import (
    AUTOINCREMENT,
    frontend_port,
    health_port,
    http_ports,
    named_port,
    ports,
    start_timeout,
    version_of,
)
from deployer.core.descriptor.normal_form import (
    BOOLEANS,
    EMPTY_IS_ABSENT,
    NEVER_STORED,
    bounded,
    broken_fields,
    examine,
    fold,
    normalise,
    repaired,
)
from deployer.core.descriptor.reading import MAX_BODY, MAX_NESTING, parse
from deployer.core.descriptor.schema import SCHEMA

__all__ = [
    "AUTOINCREMENT",
    "BOOLEANS",
    "EMPTY_IS_ABSENT",
    "MAX_BODY",
    "MAX_NAME",
    "MAX_NESTING",
    "NEVER_STORED",
    "SCHEMA",
    "GateType",
    "Rules",
    "bounded",
    "broken_fields",
    "examine",
    "fold",
    "frontend_port",
    "gate_problems",
    "health_port",
    "http_ports",
    "named_port",
    "normalise",
    "parse",
    "ports",
    "repaired",
    "start_timeout",
    "version_of",
]
