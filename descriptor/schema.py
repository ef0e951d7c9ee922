"""The JSON Schema of descriptors: the one definition of their shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

SCHEMA: Mapping[str, Any] = json.loads(
    resources.files(__package__).joinpath("descriptor.schema.json").read_text("utf-8")
)
"""JSON Schema (2020-12) of a descriptor as users send it."""
