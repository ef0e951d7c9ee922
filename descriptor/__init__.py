"""Descriptors: reading them strictly, checking every rule at once, and bringing them into one normal form.

`descriptor.schema.json` is the one definition of their shape. What a schema cannot say (names that go together, what
is installed, Pod Security) follows here. A normalised descriptor is a plain dict, and normalising it again changes
nothing.
"""

from deployer.descriptor.checks import MAX_NAME, GateType, Rules, gate_problems
from deployer.descriptor.normal_form import (
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
from deployer.descriptor.reading import MAX_BODY, MAX_NESTING, parse
from deployer.descriptor.schema import SCHEMA

__all__ = [
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
    "gate_problems",
    "normalise",
    "parse",
    "repaired",
]
