"""docs/descriptor.md: every field, from the JSON Schema that descriptors are checked with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.descriptor import SCHEMA
from pages.examples import GROUPS, SEE, SMALLEST
from pages.installed import NOTE

_HEAD = f"""\
# Descriptor

{NOTE}
A descriptor says what to deploy and how. It is JSON, or YAML where the [command line](cli.md) reads it. Unknown fields
are refused, and the answer names the field that was probably meant; an explicit `null` is the same as an absent field.
This is the smallest one:

```json
{json.dumps(SMALLEST, indent=2)}
```

`deployer init shop` writes one with comments, `deployer lint FILE` checks one without a service. The JSON Schema, which
an editor can use, is [descriptor.schema.json](../descriptor/descriptor.schema.json); what it cannot express is in
[Validation](validation.md). Examples below show the field and what it needs, not a whole descriptor.
"""


def descriptor_page() -> str:
    """The whole page."""
    return "".join([_HEAD, *_groups(), *_rest()])


def fields() -> Mapping[str, Any]:
    """The fields that people write, with their schemas."""
    return {
        name: schema
        for name, schema in SCHEMA["properties"].items()
        if not schema.get("readOnly") and not schema.get("deprecated")
    }


def _groups() -> Iterator[str]:
    known = fields()
    for heading, examples in GROUPS.items():
        yield f"\n## {heading}\n"
        for name, example in examples.items():
            yield from _field(name, known[name], example)


def _field(name: str, schema: Mapping[str, Any], example: Mapping[str, Any]) -> Iterator[str]:
    required = "**Required.** " if name in SCHEMA["required"] else ""
    yield f"\n### `{name}`\n\n{required}{_text(schema['description'])}"
    yield f" {SEE[name]}\n" if name in SEE else "\n"
    yield f"\n{'; '.join(_facts(_whole(schema)))}.\n"
    yield f"\n```json\n{json.dumps(example, indent=2)}\n```\n"
    if name == "gates":
        yield from _parts("gate", SCHEMA["$defs"]["gate"])


def _facts(schema: Mapping[str, Any]) -> Iterator[str]:
    """Type, bounds, rule and default, in words."""
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else [kind for kind in kinds if kind != "null"]
    names = {"string": "text", "array": "list"}
    if kinds:
        yield "Type: " + " or ".join(names.get(kind, kind) for kind in kinds)
    elif schema.get("enum") == [True, False, "true", "false"]:
        yield 'Type: boolean; the texts `"true"` and `"false"` are taken too'
    elif "enum" in schema:
        yield "One of " + ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "minimum" in schema and "maximum" in schema:
        yield f"{schema['minimum']:,} to {schema['maximum']:,}"
    if "maxItems" in schema:
        yield f"at most {schema['maxItems']} items"
    if "maxLength" in schema:
        yield f"at most {schema['maxLength']:,} characters"
    if "x-rule" in schema and "enum" not in schema:
        yield _text(schema["x-rule"])
    if "default" in schema:
        yield f"default: `{json.dumps(schema['default'])}`"


def _parts(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n| field of a {name} | |\n|---|---|\n"
    for part, its in schema["properties"].items():
        required = "Required. " if part in schema["required"] else ""
        yield f"| `{part}` | {required}{_text(its.get('description', ''))} {'; '.join(_facts(its))} |\n"


def _whole(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what it refers to."""
    reference = schema.get("$ref", "")
    return {**SCHEMA["$defs"].get(reference.rpartition("/")[2], {}), **schema}


def _rest() -> Iterator[str]:
    given = {name: schema for name, schema in SCHEMA["properties"].items() if schema.get("readOnly")}
    yield "\n## Set by the service\n\n| field | |\n|---|---|\n"
    yield from (f"| `{name}` | {_text(schema['description'])} |\n" for name, schema in given.items())
    former = {name: schema for name, schema in SCHEMA["properties"].items() if schema.get("deprecated")}
    yield "\n## Of the original\n\nStored descriptors of the original Deployer have these, so they are accepted. "
    yield "[Moving from the original](migration.md) says more.\n\n| field | |\n|---|---|\n"
    yield from (f"| `{name}` | {_text(schema['description'])} |\n" for name, schema in former.items())


def _text(text: str) -> str:
    """Without what Markdown would read as a tag, as a cell, or as emphasis."""
    out = text.replace("<", "&lt;").replace("|", "\\|")
    return out if "`" in out else out.replace("*", "\\*").replace("_", "\\_")
