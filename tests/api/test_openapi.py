"""The OpenAPI document: it is one, it says what the routes are, and its schemas are those that the service keeps."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.inspect
import jsonschema
import pytest
import referencing
import referencing.jsonschema
from schemathesis.specs.openapi import definitions

from deployer.api import routes
from deployer.api.openapi import document as openapi
from deployer.api.openapi import operations, parts, schemas
from deployer.api.stream import feed
from deployer.commands.descriptor_commands import rules
from deployer.core.model.records import Deployment, Failure
from deployer.core.registry import Registry
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings

Q = "?namespace=shop-ns"


@pytest.fixture
def settings() -> Settings:
    return Settings(own_namespace="deployer", ingress="nginx")


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return load_plugins(settings)


@pytest.fixture
def document(served: Any) -> Any:
    return served.call("GET", "/openapi.json").json


def operations_of(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def validator(document: Any, name: str) -> jsonschema.Draft202012Validator:
    resource = referencing.Resource.from_contents(document, referencing.jsonschema.DRAFT202012)
    registry = referencing.Registry().with_resource("urn:openapi", resource)
    return jsonschema.Draft202012Validator({"$ref": f"urn:openapi#/components/schemas/{name}"}, registry=registry)


def references(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        if isinstance(thing.get("$ref"), str):
            yield thing["$ref"]
        for value in thing.values():
            yield from references(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from references(value)


# --- the document itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
def test_it_is_openapi_3_1(settings: Settings, registry: Registry, secured: bool) -> None:
    """By the meta-schema of the OpenAPI Initiative, which Schemathesis brings."""
    document = json.loads(json.dumps(openapi.build(rules(registry, settings), secured=secured)))
    assert document["openapi"] == "3.1.0"
    definitions.OPENAPI_31_VALIDATOR.validate(document)
    with pytest.raises(Exception, match="openapi"):
        definitions.OPENAPI_31_VALIDATOR.validate({"info": document["info"]})
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(document: Any) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    for _, _, operation in operations_of(document):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                assert link["operationId"] in {o["operationId"] for _, _, o in operations_of(document)}


def test_it_has_the_routes_of_the_table_and_of_the_router(served: Any, document: Any) -> None:
    documented = {(path, method) for path, method, _ in operations_of(document)}
    assert documented == {(route.path, method) for route in routes.ROUTES for method in route.methods}
    router = {
        (route.path, method.method)
        for route in falcon.inspect.inspect_app(served.server._app).routes
        for method in route.methods
        if not method.internal and method.method != "HEAD"
    }
    assert documented == router


def test_a_route_that_nobody_describes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    new = routes.Route(path="/new", methods={"GET": routes.Anybody.EVERYBODY})
    monkeypatch.setattr(openapi, "ROUTES", (*routes.ROUTES, new))
    with pytest.raises(LookupError, match="/new"):
        openapi.check()


def test_every_operation_says_what_it_needs_and_gives(document: Any) -> None:
    ids = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations_of(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert set(re.findall(r"{(\w+)}", path)) == named, where
        if path.startswith(("/descriptors", "/deployments", "/stream")):
            (namespace,) = [p for p in operation["parameters"] if p["name"] == "namespace"]
            assert namespace.get("required", False) is not path.endswith("/validate"), where
        for status, given in operation["responses"].items():
            response = document["components"]["responses"].get(given.get("$ref", "").rpartition("/")[2], given)
            assert response["description"], where
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], where
            for media in response.get("content", {}).values():
                assert media["schema"], where


def test_who_may_is_said_when_callers_must_say_who_they_are(settings: Settings, registry: Registry) -> None:
    installed = rules(registry, settings)
    document = openapi.build(installed, secured=True)
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for route in routes.ROUTES:
        for method, access in route.methods.items():
            operation = document["paths"][route.path][method.lower()]
            public = access is routes.Anybody.EVERYBODY
            assert operation["security"] == ([] if public else [{"bearer": []}])
            assert ("401" in operation["responses"]) is not public
            if isinstance(access, routes.Permission):
                assert operation["x-permission"] == {"resource": access.resource, "verb": access.verb}
    open_to_all = openapi.build(installed, secured=False)
    assert "securitySchemes" not in open_to_all["components"]
    assert not any("security" in o or "401" in o["responses"] for _, _, o in operations_of(open_to_all))


# --- its schemas ------------------------------------------------------------------------------------------------------


def test_the_example_is_a_descriptor_that_is_taken(served: Any, document: Any) -> None:
    (example,) = document["components"]["schemas"]["Descriptor"]["examples"]
    validator(document, "Descriptor").validate(example)
    assert served.call("POST", "/descriptors/?namespace=default", example).status == 201


def test_what_is_installed_is_what_can_be_named(document: Any) -> None:
    fields = document["components"]["schemas"]["Descriptor"]["properties"]
    assert fields["healthCheckType"]["anyOf"] == [{"type": "string", "enum": ["probe", "simple"]}, {"enum": ["", None]}]
    assert fields["deploymentType"]["anyOf"][0]["enum"] == ["blue-green", "canary", "recreate"]
    check = validator(document, "Descriptor")
    assert check.is_valid(schemas.EXAMPLE | {"strategyOptions": {}})
    assert not check.is_valid(schemas.EXAMPLE | {"strategyOptions": {"x": 1}})


def test_the_options_of_providers_have_their_schemas(settings: Settings, registry: Registry) -> None:
    speed = {
        "type": "object",
        "properties": {"speed": {"$ref": "#/$defs/speed"}},
        "$defs": {"speed": {"type": "integer"}},
    }
    installed = dataclasses.replace(
        rules(registry, settings), ingress=("edge", speed), strategies={"blue-green": None, "canary": speed}
    )
    check = validator(json.loads(json.dumps(openapi.build(installed, secured=False))), "Descriptor")
    for field in ("ingressOptions", "strategyOptions"):
        assert check.is_valid(schemas.EXAMPLE | {field: {"speed": 1}})
        assert not check.is_valid(schemas.EXAMPLE | {field: {"speed": "fast"}})


@pytest.mark.parametrize(
    "more",
    [
        {"replicas": None},
        {"replicas": 0},
        {"replicas": -1},
        {"replicas": "1"},
        {"redirectWww": "true"},
        {"redirectWww": None},
        {"redirectWww": "yes"},
        {"deploymentType": ""},
        {"deploymentType": "canary"},
        {"frontend": ""},
        {"frontend": "*.de"},
        {"healthCheckPort": 0, "useHealthCheck": False},
        {"webhooks": [{"key": "k", "description": None}]},
        {"webhooks": [{"description": "k"}]},
        {"email": {"any": ["thing"]}},
        {"password": "x"},
        {"id": 5, "created": "whenever"},
        {"appName": None},
        {"appName": ""},
        {"podspec": {"containers": [{"name": "a", "image": "b", "ports": None}]}, "frontend": None},
        {"podspec": {"containers": [{"name": "a"}]}, "frontend": None},
        {"podspec": {"containers": None}},
        {"unknown": 1},
    ],
)
def test_the_schema_takes_what_the_service_takes(served: Any, document: Any, more: Any) -> None:
    body = schemas.EXAMPLE | more
    taken = served.call("POST", "/descriptors/validate?namespace=default", body).status == 200
    assert validator(document, "Descriptor").is_valid(body) is taken


def test_answers_keep_to_their_schemas_in_every_status(served: Any, document: Any, make_document: Any) -> None:
    check = validator(document, "Deployment")
    record = served.deployment()
    check.validate(served.call("GET", f"/deployments/{record.id}{Q}").json)
    failed = Failure(reason="CrashLoop", message="it ends", pod="shop-1-x", hint="read its log").to_document()
    shown = Deployment(
        namespace="a", app="b", id=record.id, descriptor=record.descriptor, created=record.created,
        last_modified=record.created, failure=failed, created_by="jane",
    ).public()  # fmt: skip
    check.validate(shown)
    validator(document, "Failure").validate(shown["failure"])
    validator(document, "Plugin").validate(served.call("GET", "/plugins").json[0])
    assert not check.is_valid(shown | {"status": "SOMETHING"})


def test_parameters_have_the_values_that_are_taken(served: Any, document: Any) -> None:
    statuses = {p.name: p for p in operations.OPERATIONS["/deployments", "GET"].parameters}["status"].schema["enum"]
    for status in statuses:
        assert served.call("GET", f"/deployments/{Q}&status={status}").status == 200
    assert served.call("GET", f"/deployments/{Q}&limit={parts.LARGEST}").status == 200
    assert served.call("GET", f"/deployments/{Q}&limit={parts.LARGEST + 1}").status == 400


def test_limits_are_those_of_the_code(document: Any) -> None:
    """Also on the page about logs."""
    followed = document["paths"]["/stream/deployments/{id}/logs"]["get"]["description"]
    assert f"takes nothing for {feed.SEND_TIMEOUT:g} s" in followed
    logs = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text()
    assert f"within {feed.SEND_TIMEOUT:g} s is dropped" in " ".join(logs.split())
