"""What has no effect in a descriptor is said when it is validated, and refused by nobody."""

from __future__ import annotations

import json
from typing import Any

from falcon import testing

from deployer.api.app import create_app
from deployer.core import plugins
from deployer.core.service import Service
from deployer.core.settings import Settings


def test_compression_that_the_ingress_cannot_do(world: Any, make_document: Any) -> None:
    settings = Settings(own_namespace="deployer", ingress="nginx")
    service = Service(world.store, world.logbook, plugins.load(settings), settings)
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
    # What was validated can be sent on as it is.
    stored = post("/descriptors/", answer)
    assert "remarks" not in stored and "validation" not in stored
    for harmless in ({**wanted, "useCompression": False}, make_document(useCompression=True)):
        checked = post("/descriptors/validate", harmless)
        assert "remarks" not in checked and "remarks" not in checked["validation"]
    assert "remarks" not in post("/descriptors/", wanted)
