"""Writes descriptor/podspec/types.json, the types of all that is in a PodSpec, from an API server's OpenAPI document.

    kubectl get --raw /openapi/v3/api/v1 | python tests/descriptor/podspec_types_generator.py

`tests/cluster/test_cases.py` compares the file with the server that it runs on, when that has the file's version.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "descriptor" / "podspec" / "types.json"
ROOT = "io.k8s.api.core.v1.PodSpec"
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
}


def generate(document: Any) -> dict[str, Any]:
    """`{"version": "1.34", "types": {type: {field: type}}}`; `[string]` is a list, `{string}` an object of any keys."""
    schemas = document["components"]["schemas"]
    types: dict[str, dict[str, str]] = {}
    todo = [ROOT]

    def compact(schema: Any) -> str:
        reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ())), "")
        if reference:
            name = reference.rpartition("/")[2]
            if name in SCALARS:
                return SCALARS[name]
            todo.append(name)
            return str(name.rpartition(".")[2])
        kind = schema.get("type", "any")
        inner = {"array": schema.get("items"), "object": schema.get("additionalProperties", {})}.get(kind)
        if inner is not None:
            return f"[{compact(inner)}]" if kind == "array" else "{" + compact(inner) + "}"
        return {"integer": schema.get("format"), "boolean": "bool"}.get(kind, kind)

    while todo:
        name = todo.pop()
        short = name.rpartition(".")[2]
        if short not in types:
            types[short] = {}
            fields = schemas[name].get("properties", {})
            types[short].update({field: compact(schema) for field, schema in sorted(fields.items())})
    return {"version": document["info"]["version"].removeprefix("v"), "types": dict(sorted(types.items()))}


def text(document: Any) -> str:
    """The file, a type a line."""
    found = generate(document)
    rows = (f'"{name}":{json.dumps(fields, separators=(",", ":"))}' for name, fields in found["types"].items())
    return f'{{"version":"{found["version"]}","types":{{\n' + ",\n".join(rows) + "\n}}\n"


if __name__ == "__main__":
    FILE.write_text(text(json.load(sys.stdin)))
