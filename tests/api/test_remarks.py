"""What has no effect in a descriptor is said when it is sent or validated, and refused by nobody."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from falcon import testing

from deployer.api.app import create_app
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings
from deployer.toolkit.remarks import remarks


def test_compression_that_the_ingress_cannot_do(served: Any, make_document: Any) -> None:
    settings = Settings(own_namespace="deployer", ingress="nginx")
    service = DeploymentCommands(served.store, served.deployment_log, load_plugins(settings), settings, remarks=remarks)
    client = testing.TestClient(create_app(service, list, list), headers={"Host": "localhost"})
    ports = {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 8080}]}]}
    wanted = make_document(frontend="shop.example.com", podspec=ports, useCompression=True)

    def post(path: str, document: Any) -> Any:
        answer = client.simulate_post(path, params={"namespace": wanted["namespace"]}, body=json.dumps(document))
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    answer = post("/descriptors/validate", wanted)
    (remark,) = answer["validation"]["remarks"]
    assert remark["path"] == "useCompression" and "use_gzip" in remark["message"]
    assert answer["useCompression"] is True
    # What was validated can be sent on as it is, and what that answers as well.
    stored = post("/descriptors/", answer)
    assert stored["validation"]["remarks"] == [remark]
    assert post("/descriptors/", stored)["validation"] == stored["validation"]
    harmless = {**wanted, "useCompression": False}
    assert "remarks" not in post("/descriptors/validate", harmless)["validation"]
    assert "validation" not in post("/descriptors/", harmless)


def test_they_are_in_the_answer_of_post_and_nowhere_else(served: Any, make_document: Any) -> None:
    sent = make_document(version="1.0", replicas=0)
    answer = served.call("POST", "/descriptors/?namespace=shop-ns", sent)
    assert answer.status == 201
    assert [remark["path"] for remark in answer.json["validation"]["remarks"]] == ["newVersion", "replicas"]
    assert answer.json["validation"]["checked"] == ["descriptor"]
    assert [missing["what"] for missing in answer.json["validation"]["notChecked"]] == ["Pod"]
    assert (answer.json["newVersion"], answer.json["replicas"]) == ("1-0", 1)
    schema = served.call("GET", "/openapi.json").json
    assert not list(validator(schema, "CreatedDescriptor").iter_errors(answer.json))
    shown = served.call("GET", answer.headers["Location"])
    assert "validation" not in shown.json
    # What was answered means the same when it is sent again, to validate and to PUT.
    checked = served.call("POST", "/descriptors/validate?namespace=shop-ns", answer.json)
    assert "remarks" not in checked.json["validation"]
    assert served.call("PUT", answer.headers["Location"], answer.json).status == 204
    assert served.call("GET", answer.headers["Location"]).json["newVersion"] == "1-0"


def test_a_provider_that_cannot_remark_keeps_nothing_from_being_stored(
    served: Any, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: Any) -> Any:
        raise RuntimeError("not today")

    strategy = served.service.descriptors._registry.strategy("blue-green")
    monkeypatch.setattr(strategy, "remarks", fail)
    answer = served.call("POST", "/descriptors/?namespace=shop-ns", make_document())
    assert (answer.status, "validation" in answer.json) == (201, False)
    assert served.call("GET", answer.headers["Location"]).status == 200


def validator(schema: Any, name: str) -> jsonschema.Draft202012Validator:
    """Of a component of the OpenAPI document."""
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": schema["components"]})
