"""What each route takes and answers, in words: the other half of the route table, for `openapi.py` and the page.

A path and method that `routes.py` has and this table has not, or the other way round, stops the service at its start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployer.api.stream.feed import SEND_TIMEOUT
from deployer.core.model.records import Document, Status
from deployer.descriptor import SCHEMA

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
AFTER = Parameter(
    name="after",
    description="Only the lines after this many.",
    schema={"type": "integer", "minimum": 0, "maximum": LARGEST, "default": 0},
    example=0,
)
_APP = "An app's name; it is normalised like `appName` in descriptors."
APPNAME = Parameter(
    name="appname", description=f"{_APP} Without it, or empty: all apps.", schema={"type": "string"}, example="my-app"
)
ONE_APPNAME = Parameter(
    name="appname", description=_APP, schema={"type": "string", "minLength": 1}, required=True, example="my-app"
)


def _flag(name: str, description: str, default: bool = False) -> Parameter:
    return Parameter(name=name, description=description, schema={"type": "boolean", "default": default})


# --- answers ----------------------------------------------------------------------------------------------------------


def _json(description: str, schema: str | Mapping[str, Any], *headers: str, reduced: str = "") -> Reply:
    return Reply(description=description, content={JSON: schema}, headers=headers, reduced=reduced)


def _list(schema: str) -> Mapping[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}


def _empty(description: str, *headers: str) -> Reply:
    return Reply(description=description, content={}, headers=headers)


_UNCHANGED = _empty("Unchanged: `If-None-Match` names the current revision.", "ETag")
_QUEUED = _json("Queued.", "Deployment", "Location", "ETag", reduced="DeploymentSummary")
_DEPLOYMENT_LINKS: Mapping[int, Document] = {
    202: {
        "read": ("readDeployment", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
        "log": ("readLog", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
        "undeploy": ("undeploy", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
    }
}
_DESCRIPTOR_LINKS: Mapping[int, Document] = {
    201: {
        "read": ("readDescriptor", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
        "replace": ("replaceDescriptor", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
        "delete": ("deleteDescriptor", {"id": "$response.body#/id", "namespace": "$request.query.namespace"}),
        "deploy": ("deploy", {"descriptorId": "$response.body#/id", "namespace": "$request.query.namespace"}),
    }
}

_STREAM = f"""\
A WebSocket (RFC 6455). Each message is one message of the log as text, `RFC3339 message` and a line feed; further \
lines of a message are indented. First comes the log so far, then every new line as it is written. What a viewer sends \
is ignored.

It is closed with 1000 and the deployment's status as reason when the deployment has ended, 1001 when the service \
stops, 1008 for a request that is refused, 1013 when the log cannot be read now, 4401, 4403 and 4404 for what REST \
answers with 401, 403 and 404. Before 4404 comes the text `!!error` with the reason. A viewer that takes nothing for \
{SEND_TIMEOUT:g} s is dropped."""

# --- the table --------------------------------------------------------------------------------------------------------

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("/", "GET"): Operation(
        id="start",
        tag="Service",
        summary="What this is, and where to go from here",
        description="Links are templates (RFC 6570). A browser, which asks for `text/html`, gets a page.",
        replies={200: Reply(description="Name, version and links.", content={JSON: "Start", HTML: {"type": "string"}})},
    ),
    ("/healthz", "GET"): Operation(
        id="healthz",
        tag="Service",
        summary="Liveness: the process answers",
        replies={200: _json("Always.", "State")},
    ),
    ("/readyz", "GET"): Operation(
        id="readyz",
        tag="Service",
        summary="Readiness: deployments can be taken and carried out",
        replies={200: _json("Ready.", "State")},
        problems=(503,),
    ),
    ("/plugins", "GET"): Operation(
        id="listPlugins",
        tag="Service",
        summary="What is installed, quarantined plugins with the reason",
        replies={200: _json("In the order of loading.", _list("Plugin"))},
    ),
    ("/metrics", "GET"): Operation(
        id="metrics",
        tag="Service",
        summary="Figures for Prometheus",
        replies={200: Reply(description="In the text format 0.0.4.", content={TEXT: {"type": "string"}})},
    ),
    ("/openapi.json", "GET"): Operation(
        id="openapi",
        tag="Service",
        summary="This API as an OpenAPI 3.1 document",
        replies={200: _json("The document.", {"type": "object", "required": ["openapi", "info", "paths"]})},
    ),
    ("/docs", "GET"): Operation(
        id="docs",
        tag="Service",
        summary="This API as a page for people",
        replies={200: Reply(description="The page.", content={HTML: {"type": "string"}})},
    ),
    ("/descriptors", "GET"): Operation(
        id="listDescriptors",
        tag="Descriptors",
        summary="All descriptors of a namespace, or of one app",
        parameters=(NAMESPACE, APPNAME),
        replies={200: _json("In order of arrival; `[]` when there are none.", _list("StoredDescriptor"))},
        problems=(400, 503),
    ),
    ("/descriptors", "POST"): Operation(
        id="createDescriptor",
        tag="Descriptors",
        summary="Store a new descriptor",
        description="Nothing is deployed by it. `validation.remarks` in the answer has what means something else than "
        "it seems, or has no effect.",
        parameters=(NAMESPACE,),
        body="Descriptor",
        replies={
            201: _json(
                "Stored, in its normal form.", "CreatedDescriptor", "Location", "ETag", reduced="DescriptorSummary"
            )
        },
        problems=(400, 409, 413, 503),
        links=_DESCRIPTOR_LINKS,
    ),
    ("/descriptors", "DELETE"): Operation(
        id="deleteDescriptors",
        tag="Descriptors",
        summary="Delete the descriptors of one app",
        description="What was deployed from them stays.",
        parameters=(NAMESPACE, ONE_APPNAME, _flag("keepLatest", "Keep the one that was modified last.", default=True)),
        replies={200: _json("How many were deleted.", "Deleted")},
        problems=(400, 409, 503),
    ),
    ("/descriptors/validate", "POST"): Operation(
        id="validateDescriptor",
        tag="Descriptors",
        summary="Check a descriptor and store nothing",
        description="The API server is asked too, by a dry run. `validation` says what was checked; a 400 has it too.",
        parameters=(STATED_NAMESPACE,),
        body="Descriptor",
        replies={200: _json("It would be stored like this.", "ValidatedDescriptor")},
        problems=(400, 413, 503),
    ),
    ("/descriptors/{id}", "GET"): Operation(
        id="readDescriptor",
        tag="Descriptors",
        summary="One descriptor",
        parameters=(ID, NAMESPACE, IF_NONE_MATCH),
        replies={200: _json("The descriptor.", "StoredDescriptor", "ETag"), 304: _UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/descriptors/{id}", "PUT"): Operation(
        id="replaceDescriptor",
        tag="Descriptors",
        summary="Replace a descriptor",
        description="Nothing is deployed by it. `appName` and `namespace` cannot change.",
        parameters=(ID, NAMESPACE, IF_MATCH),
        body="Descriptor",
        replies={204: _empty("Replaced.", "ETag")},
        problems=(400, 404, 409, 412, 413, 503),
    ),
    ("/descriptors/{id}", "DELETE"): Operation(
        id="deleteDescriptor",
        tag="Descriptors",
        summary="Delete a descriptor",
        description="What was deployed from it stays.",
        parameters=(ID, NAMESPACE, IF_MATCH),
        replies={200: _empty("Deleted.")},
        problems=(400, 404, 409, 412, 503),
    ),
    ("/deployments", "GET"): Operation(
        id="listDeployments",
        tag="Deployments",
        summary="All deployments of a namespace, or of one app, newest first",
        parameters=(
            NAMESPACE,
            APPNAME,
            Parameter(
                name="limit",
                description="Maximum number per app.",
                schema={"type": "integer", "minimum": 1, "maximum": LARGEST},
                example=5,
            ),
            Parameter(
                name="status",
                description="Only those in this status.",
                schema={"type": "string", "enum": [status.value for status in Status]},
                example="DEPLOYED",
            ),
        ),
        replies={200: _json("`[]` when there are none.", _list("Deployment"), reduced="DeploymentSummary")},
        problems=(400, 503),
    ),
    ("/deployments", "POST"): Operation(
        id="deploy",
        tag="Deployments",
        summary="Deploy a descriptor",
        description="It is queued behind others of the same app, in order of arrival. Poll the deployment, or follow "
        "its log, to see what becomes of it.",
        parameters=(
            NAMESPACE,
            Parameter(
                name="descriptorId",
                description="What to deploy.",
                schema={"type": "string", "format": "uuid"},
                required=True,
                example=EXAMPLE_ID,
            ),
        ),
        replies={202: _QUEUED},
        problems=(400, 404, 429, 503),
        links=_DEPLOYMENT_LINKS,
    ),
    ("/deployments", "DELETE"): Operation(
        id="deleteDeployments",
        tag="Deployments",
        summary="Delete the deployments of one app",
        description="The records of those that have ended; with `undeploy` the others are undeployed or cancelled "
        "first.",
        parameters=(
            NAMESPACE,
            ONE_APPNAME,
            _flag("undeploy", "Also end and delete what is live or under way."),
        ),
        replies={202: _json("How many are or will be deleted.", "Deleted")},
        problems=(400, 409, 503),
    ),
    ("/deployments/{id}", "GET"): Operation(
        id="readDeployment",
        tag="Deployments",
        summary="One deployment",
        parameters=(ID, NAMESPACE, IF_NONE_MATCH),
        replies={200: _json("The deployment.", "Deployment", "ETag", reduced="DeploymentSummary"), 304: _UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/deployments/{id}", "PUT"): Operation(
        id="redeploy",
        tag="Deployments",
        summary="Deploy once more what this deployment deployed",
        description="A new deployment of its copy of the descriptor; of a version that is still warm: a rollback to "
        "it, whose `Location` is its own. A body is not needed and not read.",
        parameters=(ID, NAMESPACE, IF_MATCH),
        replies={202: _QUEUED},
        problems=(400, 404, 409, 412, 429, 503),
    ),
    ("/deployments/{id}", "DELETE"): Operation(
        id="undeploy",
        tag="Deployments",
        summary="Undeploy or cancel a deployment",
        description="A live one is undeployed, one under way is cancelled and undone. Of one that has ended only its "
        "own objects are removed, of which there are usually none. Poll it until it is `UNDEPLOYED`.",
        parameters=(
            ID,
            NAMESPACE,
            _flag("deleteDeployment", "Delete the record afterwards: then polling ends with a 404."),
            IF_MATCH,
        ),
        replies={202: _json("Started.", "Deployment", "Location", "ETag", reduced="DeploymentSummary")},
        problems=(400, 404, 409, 412, 503),
    ),
    ("/rollbacks", "POST"): Operation(
        id="rollBack",
        tag="Deployments",
        summary="Go back to an earlier version",
        description="To `to`, or to the version that was live before. One that is still warm is switched to at once, "
        "with the pods that run; one that is gone is deployed once more, as it was. A deployment that is under way is "
        "cancelled first; without `to`, that is all. The stored descriptor does not change.",
        parameters=(
            NAMESPACE,
            ONE_APPNAME,
            Parameter(
                name="to",
                description="The id of the deployment to go back to.",
                schema={"type": "string", "format": "uuid"},
                example=EXAMPLE_ID,
            ),
        ),
        replies={
            202: _json(
                "Queued; the deployment is the one that will be live.",
                "RollbackDeployment",
                "Location",
                "ETag",
                reduced="DeploymentSummary",
            )
        },
        problems=(400, 404, 409, 429, 503),
    ),
    ("/deployments/{id}/logs", "GET"): Operation(
        id="readLog",
        tag="Deployments",
        summary="The log of a deployment so far",
        parameters=(ID, NAMESPACE, AFTER),
        replies={
            200: Reply(
                description="Lines `RFC3339 message`; a message's further lines are indented.",
                content={TEXT: {"type": "string"}},
                headers=("X-Next-After",),
            )
        },
        problems=(400, 404, 503),
    ),
    ("/deployments/{id}/healthcheckdata", "GET"): Operation(
        id="readHealthCheckData",
        tag="Deployments",
        summary="What the pods answered to their health checks",
        parameters=(ID, NAMESPACE),
        replies={200: _json("One entry for each pod; `[]` before the checks have ended.", _list("HealthCheckData"))},
        problems=(400, 404, 503),
    ),
    ("/stream/deployments/{id}/logs", "GET"): Operation(
        id="followLog",
        tag="Deployments",
        summary="Follow the log of a deployment",
        description=_STREAM,
        parameters=(ID, NAMESPACE, AFTER),
        replies={101: _empty("The stream begins.")},
        problems=(400, 404, 426, 503),
    ),
}
