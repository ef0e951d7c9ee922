"""Writes sandbox/objects/fields.json: names and types that strict decoding knows, from the official client's models.

Run it from the top folder after a change of the client: `python tests/sandbox/fields_generator.py`.
`test_fields.py` checks that the file is current.
"""

import json
import re
from pathlib import Path

from kubernetes import client

FILE = Path(__file__).parents[2] / "sandbox" / "objects" / "fields.json"
CLIENT = "37"
"""The major version of the client that the committed file is made from."""
ROOTS = "Event Namespace Node Pod Service ReplicationController ConfigMap Secret EndpointSlice Ingress IngressClass"
ROOTS += " Job DeleteOptions"
PLAIN = {
    "str": "string",
    "bytes": "string",
    "int": "int",
    "float": "number",
    "bool": "bool",
    "datetime": "time",
    "object": "any",
}
# Quantities are strings in the models, but the API server takes numbers too.
QUANTITIES = {
    ("ResourceRequirements", "limits"): "{quantity}",
    ("ResourceRequirements", "requests"): "{quantity}",
    ("EmptyDirVolumeSource", "sizeLimit"): "quantity",
    ("ResourceFieldSelector", "divisor"): "quantity",
}


def compact(python_type: str) -> str:
    """`list[V1Container]` -> `[Container]`, `dict(str, str)` -> `{string}`, `str` -> `string`."""
    if match := re.fullmatch(r"[lL]ist\[(.*)\]", python_type):
        return f"[{compact(match[1])}]"
    if match := re.fullmatch(r"[dD]ict[(\[]str, (.*)[)\]]", python_type):
        return "{" + compact(match[1]) + "}"
    return PLAIN.get(python_type) or model_name(python_type)


def model_name(python_type: str) -> str:
    return re.sub(r"^(Core|Discovery)?V1", "", python_type)


def generate() -> dict[str, dict[str, str]]:
    """Every kind that the sandbox decodes, with all that it contains: {kind: {JSON field: type}}."""
    todo = ROOTS.split()
    fields: dict[str, dict[str, str]] = {}
    while todo:
        name = todo.pop()
        if name in fields:
            continue
        model = next(
            getattr(client, p + name) for p in ("V1", "CoreV1", "DiscoveryV1", "") if hasattr(client, p + name)
        )
        table = {}
        for attribute, python_type in model.openapi_types.items():
            field = model.attribute_map[attribute]
            table[field] = QUANTITIES.get((name, field)) or compact(python_type)
            if (inner := table[field].strip("[]{}")) not in {*PLAIN.values(), "quantity"}:
                todo.append(inner)
        fields[name] = dict(sorted(table.items()))
    return dict(sorted(fields.items()))


def text() -> str:
    rows = (f'"{name}":{json.dumps(table, separators=(",", ":"))}' for name, table in generate().items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
