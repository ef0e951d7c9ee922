"""What is wrong with an object, in the API server's sentences: everything at once, as one 422."""

import json
import re
from typing import Any

from deployer.sandbox import status
from deployer.sandbox.kinds import Kind, Object

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_VALUE = rf"({QUALIFIED})?"
# For each pattern: the longest text, what it must be, examples.
TEXTS: dict[str, tuple[int, str, str]] = {
    LABEL: (
        63,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character",
        "'my-name',  or '123-abc'",
    ),
    LABEL_1035: (
        63,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character",
        "'my-name',  or 'abc-123'",
    ),
    SUBDOMAIN: (
        253,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
        "and must start and end with an alphanumeric character",
        "'example.com'",
    ),
    LABEL_VALUE: (
        63,
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character",
        "'MyValue',  or 'my_value',  or '12345'",
    ),
    QUALIFIED: (
        63,
        "name part must consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character",
        "'MyName',  or 'my.name',  or '123-abc'",
    ),
}
PORT_RANGE = "must be between 1 and 65535, inclusive"


class Problems:
    """What is wrong with one object, field by field."""

    def __init__(self) -> None:
        self.causes: list[Object] = []

    def _add(self, reason: str, field: str, message: str) -> None:
        self.causes.append({"reason": f"FieldValue{reason}", "message": message, "field": field})

    def required(self, field: str, detail: str = "") -> None:
        self._add("Required", field, "Required value" + (f": {detail}" if detail else ""))

    def invalid(self, field: str, value: Any, detail: str) -> None:
        self._add("Invalid", field, f"Invalid value: {text_of(value)}: {detail}")

    def duplicate(self, field: str, value: Any) -> None:
        self._add("Duplicate", field, f"Duplicate value: {text_of(value)}")

    def unsupported(self, field: str, value: Any, known: tuple[str, ...]) -> None:
        names = ", ".join(f'"{name}"' for name in known)
        self._add("NotSupported", field, f"Unsupported value: {text_of(value)}: supported values: {names}")

    def forbidden(self, field: str, detail: str) -> None:
        self._add("Forbidden", field, f"Forbidden: {detail}")

    def name(self, field: str, value: str, pattern: str) -> None:
        """Checks a name, label value or label key against one of `TEXTS`."""
        longest, sentence, examples = TEXTS[pattern]
        if len(value) > longest:
            self.invalid(field, value, f"must be no more than {longest} characters")
        elif not re.fullmatch(pattern, value, re.ASCII):
            self.invalid(field, value, f"{sentence} (e.g. {examples}, regex used for validation is '{pattern}')")

    def port(self, field: str, value: Any) -> None:
        if not isinstance(value, int) or not 1 <= value <= 65535:
            self.invalid(field, value, PORT_RANGE)

    def raise_for(self, kind: Kind, name: str) -> None:
        """Raises the 422 if there are any."""
        if not self.causes:
            return
        lines = [f"{cause['field']}: {cause['message']}" for cause in self.causes]
        told = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
        about = {"name": name, "group": kind.group, "kind": kind.name, "causes": self.causes}
        about = {key: value for key, value in about.items() if value}
        named = f"{kind.name}.{kind.group}" if kind.group else kind.name
        raise status.ApiError(422, "Invalid", f'{named} "{name}" is invalid: {told}', about)


def text_of(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
