"""What each route takes and answers, in words: the other half of the route table, for `openapi.py` and the page.

A path and method that `routes.py` has and this table has not, or the other way round, stops the service at its start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deployer.api.lists.answers import UNPAGED
from deployer.api.lists.continuation import PAGE
from deployer.api.openapi.parts import (
    AFTER,
    APPNAME,
    CONTINUE,
    EXAMPLE_ID,
    FROZEN_NAMESPACE,
    ID,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    NAMESPACE,
    NAMESPACE_OR_ALL,
    ONE_APPNAME,
    OVERRIDE,
    SAME_NAMESPACE,
    STATED_NAMESPACE,
    TEXT,
    UNCHANGED,
    Operation,
    Parameter,
    Reply,
)
from deployer.api.openapi.parts import empty as _empty
from deployer.api.openapi.parts import flag as _flag
from deployer.api.openapi.parts import json_of as _json
from deployer.api.openapi.parts import limit as _limit
from deployer.api.openapi.parts import list_of as _list
from deployer.api.openapi.service import SERVICE
from deployer.api.stream.feed import SEND_TIMEOUT
from deployer.commands.apps import HISTORY, LONGEST_HISTORY
from deployer.core.model.records import Document, Status

PATH_APPNAME = dataclasses.replace(
    ONE_APPNAME,
    where="path",
    description="An app's name, normalised like `appName`; an unknown one is a 404.",
)


_PAGE = f"{PAGE} at most, and fewer when they are large"
_ALL = f"Without {{}} the answer has everything, up to {UNPAGED:,}; a `Link` leads to what is missing."
_QUEUED = _json("Queued.", "Deployment", "Location", "ETag", "Idempotent-Replayed", reduced="DeploymentSummary")
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
    **SERVICE,
    ("/descriptors", "GET"): Operation(
        id="listDescriptors",
        tag="Descriptors",
        summary="All descriptors of a namespace, or of one app, newest first",
        description="With `limit` or `continue` a page, and a `Link` to the next one as long as there is one. "
        + _ALL.format("them"),
        parameters=(NAMESPACE, APPNAME, _limit(f"The size of a page: {_PAGE}."), CONTINUE, IF_NONE_MATCH),
        replies={200: _json("`[]` when there are none.", _list("StoredDescriptor"), "ETag", "Link"), 304: UNCHANGED},
        problems=(400, 429, 503),
    ),
    ("/descriptors", "POST"): Operation(
        id="createDescriptor",
        tag="Descriptors",
        summary="Store a new descriptor",
        description="Nothing is deployed by it. `validation.remarks` in the answer has what means something else than "
        "it seems, or has no effect.",
        parameters=(NAMESPACE, IDEMPOTENCY_KEY),
        body="Descriptor",
        replies={
            201: _json(
                "Stored, in its normal form.",
                "CreatedDescriptor",
                *("Location", "ETag", "Idempotent-Replayed"),
                reduced="DescriptorSummary",
            )
        },
        problems=(400, 404, 409, 413, 422, 503),
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
        replies={200: _json("The descriptor.", "StoredDescriptor", "ETag"), 304: UNCHANGED},
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
        description="With `continue`, even an empty one, a page, and a `Link` to the next one while there is one. "
        + _ALL.format("it"),
        parameters=(
            NAMESPACE,
            APPNAME,
            _limit(f"Maximum number per app; with `continue` the size of a page: {_PAGE}.", example=5),
            CONTINUE,
            Parameter(
                name="status",
                description="Only those in this status.",
                schema={"type": "string", "enum": [status.value for status in Status]},
                example="DEPLOYED",
            ),
            IF_NONE_MATCH,
        ),
        replies={
            200: _json("`[]` when there are none.", _list("Deployment"), "ETag", "Link", reduced="DeploymentSummary"),
            304: UNCHANGED,
        },
        problems=(400, 429, 503),
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
            OVERRIDE,
            IDEMPOTENCY_KEY,
        ),
        replies={202: _QUEUED},
        problems=(400, 404, 409, 422, 423, 429, 503),
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
        replies={200: _json("The deployment.", "Deployment", "ETag", reduced="DeploymentSummary"), 304: UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/deployments/{id}", "PUT"): Operation(
        id="redeploy",
        tag="Deployments",
        summary="Deploy once more what this deployment deployed",
        description="A new deployment of its copy of the descriptor; of a version that is still warm: a rollback to "
        "it, whose `Location` is its own. A body is not needed and not read.",
        parameters=(ID, NAMESPACE, OVERRIDE, IF_MATCH, IDEMPOTENCY_KEY),
        replies={202: _QUEUED},
        problems=(400, 404, 409, 412, 422, 423, 429, 503),
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
    ("/deployments/{id}/approval", "POST"): Operation(
        id="approve",
        tag="Deployments",
        summary="Say whether a gate that waits for that may be passed",
        description="A gate of type `approval`, or one that is inconclusive. The deployment goes on, or is taken back, "
        "right after. The same once more answers what was recorded; somebody else, or another word, is a 409, as when "
        "nothing waits. Needs a permission of its own; a gate may want another person than the one who asked for the "
        "deployment (403).",
        parameters=(ID, NAMESPACE),
        body="NewDecision",
        replies={200: _json("What was recorded.", "GateDecision")},
        problems=(400, 403, 404, 409, 413, 503),
    ),
    ("/rollbacks", "POST"): Operation(
        id="rollBack",
        tag="Deployments",
        summary="Go back to an earlier version",
        description="To `to`, or to the version that was live before. One that is still warm is switched to at once, "
        "with the pods that run; one that is gone is deployed once more, as it was. A deployment that is under way is "
        "cancelled first; without `to`, that is all. The stored descriptor does not change. Needs the permission "
        "`rollback`, which whoever may deploy has as well unless the settings say otherwise.",
        parameters=(
            NAMESPACE,
            ONE_APPNAME,
            Parameter(
                name="to",
                description="The id of the deployment to go back to.",
                schema={"type": "string", "format": "uuid"},
                example=EXAMPLE_ID,
            ),
            IDEMPOTENCY_KEY,
        ),
        replies={
            202: _json(
                "Queued; the deployment is the one that will be live.",
                "RollbackDeployment",
                *("Location", "ETag", "Idempotent-Replayed"),
                reduced="DeploymentSummary",
            )
        },
        problems=(400, 404, 409, 422, 429, 503),
    ),
    ("/apps", "GET"): Operation(
        id="listApps",
        tag="Apps",
        summary="What is live, warm and to come of the apps of a namespace, by name",
        description="An app is there once it has a descriptor or a deployment. With `limit` or `continue` the answer "
        "has a `Link` to the next ones, as long as there are some. " + _ALL.format("them"),
        parameters=(
            NAMESPACE,
            _limit("Maximum number of apps."),
            Parameter(
                name="after",
                description="Only apps whose names come after this one.",
                schema={"type": "string"},
                example="my-app",
            ),
            CONTINUE,
            IF_NONE_MATCH,
        ),
        replies={200: _json("`[]` when there are none.", _list("App"), "ETag", "Link"), 304: UNCHANGED},
        problems=(400, 503),
    ),
    ("/apps/{appname}", "GET"): Operation(
        id="readApp",
        tag="Apps",
        summary="One app, with all that is queued",
        parameters=(PATH_APPNAME, NAMESPACE, IF_NONE_MATCH),
        replies={200: _json("The app.", "AppDetails", "ETag"), 304: UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/apps/{appname}/history", "GET"): Operation(
        id="readHistory",
        tag="Apps",
        summary="What was done to an app, newest first",
        description="Deployments, rollbacks and undeployments, those under way included. What was done to a deployment "
        "whose record is deleted is not in it. A `Link` leads to the entries before, as long as there are some.",
        parameters=(
            PATH_APPNAME,
            NAMESPACE,
            _limit(f"Maximum number of entries; {LONGEST_HISTORY} at most.", HISTORY),
            CONTINUE,
            IF_NONE_MATCH,
        ),
        replies={200: _json("The entries.", _list("HistoryEntry"), "ETag", "Link"), 304: UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/apps/{appname}/dataplane", "GET"): Operation(
        id="readDataPlane",
        tag="Apps",
        summary="Which address of the data plane answers with which version of an app",
        description="Every address of the ingress controller is asked once for the host of the live version, on a "
        "fresh connection, and has 2 s to answer. While a deployment switches, some answer with the new version and "
        "some with the old one. Whoever asks within a second gets the same answers; `askedAt` says how old they are. "
        "It is 503 when Kubernetes does not say which addresses there are.",
        parameters=(PATH_APPNAME, NAMESPACE),
        replies={200: _json("The addresses; none, and `unknown`, when there is nothing to ask.", "DataPlane")},
        problems=(400, 404, 503),
    ),
    ("/freezes", "GET"): Operation(
        id="listFreezes",
        tag="Freezes",
        summary="What keeps a namespace from new deployments now",
        description="The freeze of the namespace, that of all namespaces, and windows of the settings. With "
        "`namespace=*`: everything that freezes anything.",
        parameters=(
            dataclasses.replace(
                NAMESPACE, schema=NAMESPACE_OR_ALL, description="The namespace; `*` for all that is frozen anywhere."
            ),
            IF_NONE_MATCH,
        ),
        replies={200: _json("`[]` when it is not frozen.", _list("Freeze"), "ETag"), 304: UNCHANGED},
        problems=(400, 503),
    ),
    ("/freezes/{namespace}", "GET"): Operation(
        id="readFreeze",
        tag="Freezes",
        summary="The freeze that somebody put on a namespace, or on all",
        parameters=(FROZEN_NAMESPACE, SAME_NAMESPACE, IF_NONE_MATCH),
        replies={200: _json("The freeze.", "Freeze", "ETag"), 304: UNCHANGED},
        problems=(400, 404, 503),
    ),
    ("/freezes/{namespace}", "PUT"): Operation(
        id="freeze",
        tag="Freezes",
        summary="Freeze a namespace, or all",
        description="New deployments are refused with 423. What is queued or under way goes on; rollbacks and "
        "undeployments go through. A freeze that is there is replaced.",
        parameters=(FROZEN_NAMESPACE, SAME_NAMESPACE, IF_MATCH),
        body="NewFreeze",
        replies={
            200: _json("Replaced.", "Freeze", "Location", "ETag"),
            201: _json("Put.", "Freeze", "Location", "ETag"),
        },
        problems=(400, 409, 412, 413, 503),
    ),
    ("/freezes/{namespace}", "DELETE"): Operation(
        id="liftFreeze",
        tag="Freezes",
        summary="Lift the freeze of a namespace, or of all",
        description="What else freezes the namespace stays: see the list.",
        parameters=(FROZEN_NAMESPACE, SAME_NAMESPACE, IF_MATCH),
        replies={200: _empty("Lifted.")},
        problems=(400, 404, 409, 412, 503),
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
        problems=(400, 404, 429, 503),
    ),
    ("/deployments/{id}/healthcheckdata", "GET"): Operation(
        id="readHealthCheckData",
        tag="Deployments",
        summary="What the pods answered to their health checks",
        parameters=(ID, NAMESPACE, IF_NONE_MATCH),
        replies={
            200: _json("One entry for each pod; `[]` before the checks have ended.", _list("HealthCheckData"), "ETag"),
            304: UNCHANGED,
        },
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
