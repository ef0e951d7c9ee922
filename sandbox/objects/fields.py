"""Strict decoding: which fields each kind has and of what type, from fields.json.

The real server drops fields that it does not know, or refuses them with `fieldValidation=Strict`. fields.json is
generated from the official client's models by tests/sandbox/fields_generator.py; fields_gateway.json has what the
sandbox takes of the Gateway API's standard channel.
"""

import json
import re
from pathlib import Path
from typing import Any

from deployer.sandbox.kinds import CRD, Kind, Object
from deployer.sandbox.status import bad_request

TYPES: dict[str, dict[str, str]] = {
    name: table
    for file in ("fields_gateway.json", "fields.json")
    for name, table in json.loads((Path(__file__).parent / file).read_text()).items()
}
PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "time": str,
    "bool": bool,
    "int": int,
    "number": (int, float),
    "quantity": (str, int, float),
}
JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
QUANTITY = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
GO_NAMES = {"int": "int32", "number": "float64", "time": "v1.Time", "quantity": "resource.Quantity"}


class Fields(dict[str, Any]):
    """A JSON object that remembers the keys that were given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = (
            {key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1} if len(self) < len(pairs) else ()
        )


def parse(body: bytes) -> Any:
    """JSON -> values whose objects are `Fields`; raises a 400."""
    try:
        return json.loads(body, object_pairs_hook=Fields)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid JSON: {error}") from None


class Decoder:
    """Decodes one object of a kind; `complaints` is what Strict refuses and everything else drops."""

    def __init__(self, kind: str, api_version: str = "v1") -> None:
        self.kind, self.version = kind, api_version.rpartition("/")[2]
        self.complaints: list[str] = []

    def decode(self, raw: Any) -> Object:
        if not isinstance(raw, dict):
            raise self._refusal("json: cannot unmarshal a value that is not an object")
        return self._struct(self.kind, raw, "")

    def keep(self, raw: Any) -> Object:
        """The object of a kind whose fields nobody knows; only its metadata are decoded."""
        if not isinstance(raw, dict):
            raise self._refusal("json: cannot unmarshal a value that is not an object")
        return {**raw, "metadata": self._value("ObjectMeta", raw.get("metadata") or {}, "metadata", self.kind)}

    def check_strict(self) -> None:
        if self.complaints:
            raise self._refusal("strict decoding error: " + ", ".join(self.complaints))

    def _refusal(self, why: str) -> Exception:
        return bad_request(f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: {why}')

    def _struct(self, name: str, raw: Any, path: str) -> Object:
        types, found = TYPES[name], {}
        self.complaints += [f'duplicate field "{_join(path, key)}"' for key in sorted(getattr(raw, "twice", ()))]
        for key, value in raw.items():
            if key not in types:
                self.complaints.append(f'unknown field "{_join(path, key)}"')
            elif value is not None:  # null is the same as absent
                found[key] = self._value(types[key], value, _join(path, key), name)
        return found

    def _value(self, kind: str, value: Any, path: str, owner: str) -> Any:
        if kind == "any":
            return value
        if kind[0] == "[" and isinstance(value, list):
            return [self._value(kind[1:-1], item, f"{path}[{i}]", owner) for i, item in enumerate(value)]
        if kind[0] == "{" and isinstance(value, dict):
            return {key: self._value(kind[1:-1], item, f"{path}.{key}", owner) for key, item in value.items()}
        if kind in TYPES and isinstance(value, dict):
            return self._struct(kind, value, path)
        wanted = PYTHON.get(kind, ())
        if isinstance(value, wanted) and (kind == "bool") == isinstance(value, bool):
            return self._quantity(str(value)) if kind == "quantity" else value
        got, go_type = JSON_NAMES.get(type(value), "object"), GO_NAMES.get(kind, kind)
        if isinstance(value, float) and kind == "int":
            got = f"number {value}"
        if kind in TYPES:
            go_type = f"v1.{kind}"
        if kind[0] == "[":
            item = kind[1:-1]
            go_type = f"[]v1.{item}" if item in TYPES else f"[]{GO_NAMES.get(item, item)}"
        # The real one tells no indices.
        where = re.sub(r"\[\d+\]", "", path)
        raise self._refusal(f"json: cannot unmarshal {got} into Go struct field {owner}.{where} of type {go_type}")

    def _quantity(self, text: str) -> str:
        if not re.fullmatch(QUANTITY, text):
            raise self._refusal(f"quantities must match the regular expression '{QUANTITY}'")
        return text


def decode(kind: Kind, raw: Any) -> tuple[Object, Decoder]:
    """The object without unknown fields, and the decoder that knows what was dropped; raises a 400 for a wrong type."""
    decoder = Decoder(kind.name, kind.api_version)
    obj = decoder.keep(raw) if kind.custom or kind is CRD else decoder.decode(raw)
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        given = obj.get(field, expected)
        if given != expected:
            names = (
                ("API version", f"API version ({expected})")
                if field == "apiVersion"
                else ("kind", f"kind ({expected})")
            )
            raise bad_request(f"the {names[0]} in the data ({given}) does not match the expected {names[1]}")
    if not isinstance(obj.setdefault("metadata", {}), dict):
        raise bad_request("metadata is not an object")
    return obj, decoder


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
