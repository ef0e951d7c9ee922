"""The operations about the service itself: what it is, how it is, and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deployer.api.openapi.parts import HTML, IF_NONE_MATCH, NAMESPACE, TEXT, UNCHANGED, Operation, Parameter, Reply
from deployer.api.openapi.parts import empty as _empty
from deployer.api.openapi.parts import json_of as _json
from deployer.api.openapi.parts import list_of as _list

SERVICE: Mapping[tuple[str, str], Operation] = {
    ("/", "GET"): Operation(
        id="start",
        tag="Service",
        summary="What this is, and where to go from here",
        description="Links are templates (RFC 6570). A browser, which asks for `text/html`, is sent to the page.",
        replies={
            200: _json("Name, version and links.", "Start"),
            302: _empty("A browser goes on to the page.", "Location"),
        },
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
        replies={200: _json("Ready; for callers with credentials, where there are several: the replicas.", "State")},
        problems=(503,),
    ),
    ("/plugins", "GET"): Operation(
        id="listPlugins",
        tag="Service",
        summary="What is installed, quarantined plugins with the reason",
        replies={200: _json("In the order of loading.", _list("Plugin"))},
    ),
    ("/whoami", "GET"): Operation(
        id="whoami",
        tag="Service",
        summary="Who the caller is, where they may look, and what they may do",
        description="For clients that show only what can be used. It allows nothing by itself.",
        parameters=(
            dataclasses.replace(
                NAMESPACE, required=False, description="The answer also has what the caller may do in this namespace."
            ),
            IF_NONE_MATCH,
        ),
        replies={200: _json("The caller.", "Whoami", "ETag"), 304: UNCHANGED},
        problems=(400, 503),
    ),
    ("/ui", "GET"): Operation(
        id="page",
        tag="Service",
        summary="The page that shows what is live and what is happening",
        parameters=(IF_NONE_MATCH,),
        replies={
            200: Reply(description="The page.", content={HTML: {"type": "string"}}, headers=("ETag",)),
            304: UNCHANGED,
            308: _empty("The same with a slash at the end.", "Location"),
        },
    ),
    ("/ui/{file}", "GET"): Operation(
        id="pageFile",
        tag="Service",
        summary="A file that the page loads",
        parameters=(
            Parameter(
                name="file",
                where="path",
                required=True,
                schema={"type": "string", "pattern": "^[a-zA-Z0-9.-]+$"},
                description="Its name has a hash of its content: browsers keep it.",
            ),
            IF_NONE_MATCH,
        ),
        replies={
            200: Reply(
                description="The file.",
                content={"text/javascript": {"type": "string"}, "text/css": {"type": "string"}},
                headers=("ETag",),
            ),
            304: UNCHANGED,
        },
        problems=(404,),
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
}
