"""The schemas of what is shown of apps, and of how far deployments are."""

from __future__ import annotations

from typing import Any

from deployer.api.openapi.shapes import COUNT, ID, REF, TEXT, TIME, object_of
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation.timeline import StepState
from deployer.core.model.records import Document

_HOW_FAR: Document = {
    "phase": {
        "type": "string",
        "description": "`QUEUED`, `DECIDE`, the phase of the step (`START`, `VERIFY`, `EXPOSE`, `CONFIRM`, `RETIRE`), "
        "`UNDO`; `WATCH`: live, and looked after while the version before is warm; `DRAIN`: replaced, and still warm.",
        "example": "START",
    },
    "step": {"type": "string", "description": "The id of the step that is run, undone or waited with."},
    "deadline": {**TIME, "description": "When that ends, or is given up, at the latest, as far as it is known."},
    "waitingFor": {"type": "string", "description": "In words.", "example": "2 more of 3 pods to be ready"},
    "held": {"type": "string", "description": "Why nobody can go on: a person has to look."},
}
"""As far as there is something to say: what is not there is left out."""

PROGRESS: Document = {
    **_HOW_FAR,
    "since": {**TIME, "description": "When that step, or wait, began."},
    "steps": {
        "type": "array",
        "description": "Those of all its operations, in order; of many the newest.",
        "items": object_of(
            "One step.",
            ("id", "phase", "state"),
            id=TEXT,
            phase=TEXT,
            state={"type": "string", "enum": [state.value for state in StepState]},
            began=TIME,
            ended=TIME,
            requests=object_of(
                "Of a step that confirms a switch: the requests for the public host that the service sent to the "
                "addresses of the data plane while traffic moved. Missing where they could not be counted.",
                ("asked", "lost", "addresses", "seconds"),
                asked={**COUNT, "description": "How many requests.", "example": 12},
                lost={**COUNT, "description": "Those without an answer, or with a 502 to 504 that is not the app's."},
                addresses={**COUNT, "description": "How many addresses were asked.", "example": 3},
                seconds={
                    "type": ["number", "null"],
                    "description": "From the first of them until the last address came to answer with the new version; "
                    "null: one never did.",
                    "example": 0.21,
                },
            ),
        ),
    },
}

_PODS: Document = {"type": "object", "properties": {"wanted": COUNT, "ready": COUNT, "unknown": TEXT}}

_MEMBER = object_of(
    "A version of an app, and how far it is.",
    ("deployment", "version"),
    deployment=ID,
    version={"type": "string", "description": "Empty until `#` has become a number."},
    since={**TIME, "description": "When it went live, was replaced, or was asked for."},
    by={"type": "string", "description": "Who asked for it, when that is known."},
    waitsForApproval={"type": "string", "description": "The gate that waits for a person to decide."},
    replicas={**_PODS, "description": "Pods of a version that is not live; missing while it has no controller."},
    **_HOW_FAR,
)

_APP: Document = {
    "namespace": TEXT,
    "appName": TEXT,
    "live": {"description": "Missing when nothing is live.", "$ref": f"{REF}AppVersion"},
    "warm": {"description": "The version before, while its pods run.", "$ref": f"{REF}AppVersion"},
    "upcoming": {"description": "What is deployed, or rolled back to, first.", "$ref": f"{REF}AppVersion"},
    "replicas": {
        **_PODS,
        "description": "Pods of the live version; `unknown` says why nobody can count them.",
    },
    "hosts": {
        "description": "Those that belong to the app; for callers who may list descriptors.",
        "type": "array",
        "items": TEXT,
    },
    "lastFailure": object_of(
        "The newest deployment that failed.",
        ("deployment", "version", "reason", "message", "at"),
        deployment=ID,
        version=TEXT,
        reason=TEXT,
        message=TEXT,
        at=TIME,
    ),
    "freezes": {
        "description": "What keeps the namespace from new deployments; for callers who may list freezes. Missing when "
        "nothing does.",
        "type": "array",
        "items": {"$ref": f"{REF}Freeze"},
    },
}

APPS: dict[str, Any] = {
    "AppVersion": _MEMBER,
    "App": object_of("An app.", ("namespace", "appName"), **_APP),
    "AppDetails": object_of(
        "An app with more.",
        ("namespace", "appName", "queue"),
        **_APP,
        queue={
            "description": "Everything that is to be live, in the order in which it is tried.",
            "type": "array",
            "items": {"$ref": f"{REF}AppVersion"},
        },
        highestVersion={"type": "integer", "description": "The highest number that a version ever had."},
        previewHosts={"type": "array", "items": TEXT},
        descriptors={
            "description": "For callers who may list descriptors.",
            "type": "array",
            "items": object_of("One of them.", ("id", "lastModified"), id=ID, lastModified=TIME),
        },
    ),
    "DataPlane": object_of(
        "What the data plane answers for an app.",
        ("addresses",),
        addresses={
            "type": "array",
            "items": object_of(
                "One of them.",
                ("address", "tls", "milliseconds"),
                address={"type": "string", "example": "10.0.0.7:443"},
                tls={"type": "boolean", "description": "It was asked over TLS."},
                milliseconds={"type": "number", "minimum": 0, "description": "Until it answered, or was given up."},
                status={"type": "integer", "description": "Of HTTP; missing without an answer.", "example": 200},
                deployment={**ID, "description": "Whose answer it is, when that is known."},
                version={"type": "string", "description": "Its version.", "example": "42"},
                live={"type": "boolean", "description": "False: it is not the live version that answers."},
                unknown={
                    "type": "string",
                    "description": "Why it is not known which version answers: there was no answer, or it names none.",
                    "example": "gave no answer in time",
                },
            ),
        },
        leftOut={"type": "integer", "minimum": 1, "description": "Addresses that were not asked: there are so many."},
        askedAt=TIME,
        provider={"type": "string", "description": "The ingress provider of the live version.", "example": "nginx"},
        host={"type": "string", "description": "What was asked for; for callers who may list descriptors."},
        path={"type": "string", "description": "The path of that host.", "example": "/"},
        unknown={"type": "string", "description": "Why there are no addresses."},
    ),
    "HistoryEntry": object_of(
        "What was done.",
        ("what", "deployment", "version", "asked"),
        what={"type": "string", "enum": ["deployment", "rollback", "undeployment"]},
        deployment=ID,
        version={"type": "string", "description": "Empty when it was never decided."},
        by={"type": "string", "description": "Who asked for it, when that is known."},
        cause={"type": "string", "description": "Why it was done when nobody asked for it."},
        asked=TIME,
        began={**TIME, "description": "When its first step began."},
        ended={**TIME, "description": "Missing while it is under way."},
        seconds={"type": "number", "minimum": 0, "description": "From the first step to the end."},
        outcome={
            "type": "string",
            "enum": [each.value for each in Occurrence if each not in (Occurrence.STARTED, Occurrence.HELD)],
            "description": "How it ended; missing while it is under way.",
        },
        failure={"$ref": f"{REF}Failure"},
    ),
}
