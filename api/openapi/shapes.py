"""What the schemas of the OpenAPI document are put together from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deployer.core.model.records import Document

REF = "#/components/schemas/"
TEXT: Document = {"type": "string"}
ID: Document = {"type": "string", "format": "uuid"}
TIME: Document = {"type": "string", "format": "date-time"}
COUNT: Document = {"type": "integer", "minimum": 0}


def object_of(description: str, required: Collection[str], **properties: Any) -> Document:
    """An object with these properties; later versions may add some."""
    return {"description": description, "type": "object", "required": list(required), "properties": properties}
