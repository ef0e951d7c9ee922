"""What operations are made of: parameters and answers that several have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployer.api.http import IDEMPOTENCY_KEY_PATTERN
from deployer.api.openapi.shapes import REF
from deployer.core.model.records import Document
from deployer.descriptor import SCHEMA
from deployer.settings.freeze_windows import REASON_MOST

JSON, TEXT, HTML, PROBLEM = "application/json", "text/plain", "text/html", "application/problem+json"

EXAMPLE_ID = "3f2b8c1e-6d0a-4c57-9b43-5f1f0c9a7e21"
LARGEST = 10**18 - 1
"""The largest number that a parameter may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter: of the query, but for `where` = `path` or `header`."""

    name: str
    description: str
    schema: Mapping[str, Any]
    required: bool = False
    where: str = "query"
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One successful answer. `schema` by media type: the name of a component, or a schema; none for no body.

    reduced   the component in the place of records that the caller may not read, or not wholly; empty for none
    """

    description: str
    content: Mapping[str, str | Mapping[str, Any]]
    headers: tuple[str, ...] = ()
    reduced: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one route.

    id         `operationId`
    body       the component that is sent; empty for none
    problems   the statuses of errors, beside those that every route has
    links      name -> operation id and its parameters, by status (OpenAPI's links)
    """

    id: str
    summary: str
    description: str = ""
    tag: str
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    replies: Mapping[int, Reply]
    problems: tuple[int, ...] = ()
    links: Mapping[int, Document] | None = None

    @property
    def query(self) -> frozenset[str]:
        """The names of the query's parameters."""
        return frozenset(p.name for p in self.parameters if p.where == "query")


# --- parameters -------------------------------------------------------------------------------------------------------

NAMESPACE = Parameter(
    name="namespace",
    description="The Kubernetes namespace of the app.",
    schema={"type": "string", "pattern": SCHEMA["properties"]["namespace"]["pattern"]},
    required=True,
    example="default",
)
STATED_NAMESPACE = dataclasses.replace(
    NAMESPACE,
    required=False,
    description="The Kubernetes namespace of the app; without it, or empty: the descriptor's own.",
)
ID = Parameter(
    name="id",
    description="The id that the service gave. An unknown one, and one of another namespace, is a 404.",
    schema={"type": "string", "format": "uuid"},
    required=True,
    where="path",
    example=EXAMPLE_ID,
)
NAMESPACE_OR_ALL = {"type": "string", "pattern": rf"^\*$|{NAMESPACE.schema['pattern']}"}
FROZEN_NAMESPACE = Parameter(
    name="namespace",
    description="The namespace that is frozen; `*` stands for all.",
    schema=NAMESPACE_OR_ALL,
    required=True,
    where="path",
    example="default",
)
SAME_NAMESPACE = Parameter(
    name="namespace",
    description="May repeat the namespace of the path, since other routes need it; another one is a 400.",
    schema=NAMESPACE_OR_ALL,
)
OVERRIDE = Parameter(
    name="override",
    description="Deploy although the namespace is frozen, and why, in a single line: it is kept in the deployment, its "
    "log and the audit log. Needs a permission of its own. Without a freeze it has no effect.",
    schema={"type": "string", "maxLength": REASON_MOST},
)
IF_MATCH = Parameter(
    name="If-Match",
    description="The `ETag` that was read last: the request is refused (412) when it has changed since you read it. "
    "`*` stands for any.",
    schema={"type": "string"},
    where="header",
)
IF_NONE_MATCH = Parameter(
    name="If-None-Match",
    description="An `ETag`: while it is still the current one the answer is an empty 304.",
    schema={"type": "string"},
    where="header",
    example='"42"',
)
IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    description="A name that the client makes up for this request: sent again with the same name, by the same caller "
    "in the same namespace, it is not carried out again, and the answer is about what the first one made, as it is "
    "now. The same name with another request is a 422. Printable ASCII, in quotes or without.",
    schema={"type": "string", "pattern": f"^({IDEMPOTENCY_KEY_PATTERN})$"},
    where="header",
)
AFTER = Parameter(
    name="after",
    description="Only the lines after this many.",
    schema={"type": "integer", "minimum": 0, "maximum": LARGEST, "default": 0},
    example=0,
)
CONTINUE = Parameter(
    name="continue",
    description="Where the next page begins: what the `Link` of the page before has. It is good for that list only "
    "(400), and does not expire. Empty: the first page.",
    schema={"type": "string"},
)
_APP = "An app's name; it is normalised like `appName` in descriptors."
APPNAME = Parameter(
    name="appname", description=f"{_APP} Without it, or empty: all apps.", schema={"type": "string"}, example="my-app"
)
ONE_APPNAME = Parameter(
    name="appname", description=_APP, schema={"type": "string", "minLength": 1}, required=True, example="my-app"
)


def flag(name: str, description: str, default: bool = False) -> Parameter:
    """A parameter that is true or false."""
    return Parameter(name=name, description=description, schema={"type": "boolean", "default": default})


# --- answers ----------------------------------------------------------------------------------------------------------


def json_of(description: str, schema: str | Mapping[str, Any], *headers: str, reduced: str = "") -> Reply:
    """An answer in JSON; `schema` is the name of a component, or a schema."""
    return Reply(description=description, content={JSON: schema}, headers=headers, reduced=reduced)


def limit(description: str, default: int | None = None, example: int = 20) -> Parameter:
    """A parameter that says how many are wanted."""
    schema: Document = {"type": "integer", "minimum": 1, "maximum": LARGEST}
    schema |= {} if default is None else {"default": default}
    return Parameter(name="limit", description=description, schema=schema, example=example)


def list_of(schema: str) -> Mapping[str, Any]:
    """The schema of a list of a component."""
    return {"type": "array", "items": {"$ref": f"{REF}{schema}"}}


def empty(description: str, *headers: str) -> Reply:
    """An answer without a body."""
    return Reply(description=description, content={}, headers=headers)


UNCHANGED = empty("Unchanged: `If-None-Match` names what would be shown.", "ETag")
