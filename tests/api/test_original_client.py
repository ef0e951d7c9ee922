"""A client of the original, byte by byte: the requests of its documentation as curl sends them."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from deployer.core.records import HealthData, Status
from deployer.core.store.base import Create

# As the documentation of the original has it, comments aside (and with a name that a Secret can have).
DESCRIPTOR = """{
    "id": "",
    "namespace": "default",
    "appName": "my-app",
    "newVersion": "#",
    "created": "2017-01-15T02:02:14Z",
    "lastModified": "2017-02-08T08:54:01Z",
    "webhooks": [
        {
            "key": "<unique id>",
            "description": "..."
        }
    ],
    "deploymentType": "blue-green",
    "replicas": 2,
    "frontend": "example.com",
    "redirectWww": "true",
    "useCompression": "false",
    "additionHttpHeaders": [
        {
            "Header": "X-TEST",
            "Value": "some http header test"
        }
    ],
    "useHealthCheck": false,
    "healthCheckPort": 0,
    "healthCheckPath": "",
    "healthCheckType": "",
    "ignoreHealthCheck": true,
    "imagePullSecrets" : [
        {
            "name": "secret-name"
        }
    ],
    "podspec": {
        "containers": [
            {
                "name": "web",
                "image": "example/web:1",
                "ports": [ { "name": "http", "containerPort": 8080 } ]
            }
        ]
    }
}"""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def curl(world: Any, method: str, target: str, data: str | None = None) -> tuple[str, dict[str, str], str]:
    """What curl 7 puts on the wire (`--data` has it say that JSON is a form); status line, headers and body."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: localhost:{world.port}", "User-Agent: curl/7.47.0", "Accept: */*"]
    if data is not None:
        lines += [f"Content-Length: {len(data.encode())}", "Content-Type: application/x-www-form-urlencoded"]
    with socket.create_connection(("127.0.0.1", world.port), timeout=20) as sock:
        sock.sendall("\r\n".join([*lines, "", data or ""]).encode())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}, body.decode()


def test_a_descriptor_goes_in_and_comes_back(world: Any) -> None:
    first, headers, body = curl(world, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    assert first == "HTTP/1.1 201 Created"
    assert re.fullmatch(rf"/descriptors/{UUID}/\?namespace=default", headers["location"])
    assert headers["content-type"] == "application/json"
    lines = body.split("\n")
    for pattern in (
        rf'  "id": "{UUID}",',
        rf'  "created": "{TIME}",',
        rf'  "lastModified": "{TIME}",',
        '  "namespace": "default",',
        '  "appName": "my-app",',
        '  "newVersion": "#",',
        '  "deploymentType": "blue-green",',
        '  "replicas": 2,',
        '  "frontend": "example.com",',
        '  "redirectWww": true,',
        '  "useCompression": false,',
        '      "Header": "X-TEST",',
        '      "Value": "some http header test"',
        '      "key": "<unique id>",',
        '  "ignoreHealthCheck": true,',
        '      "name": "secret-name"',
    ):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern
    assert not re.search(r'"created": "2017', body)

    first, _, shown = curl(world, "GET", headers["location"])
    assert (first, shown) == ("HTTP/1.1 200 OK", body)
    first, _, listed = curl(world, "GET", "/descriptors/?namespace=default&appname=my-app")
    assert (first, json.loads(listed)) == ("HTTP/1.1 200 OK", [json.loads(body)])
    first, _, listed = curl(world, "GET", "/descriptors/?namespace=default&appname=nobody")
    assert (first, listed) == ("HTTP/1.1 200 OK", "[]\n")

    # What GET gave goes back with PUT, unchanged or not.
    first, _, nothing = curl(world, "PUT", headers["location"], body.replace('"replicas": 2', '"replicas": 3'))
    assert (first, nothing) == ("HTTP/1.1 204 No Content", "")
    assert '  "replicas": 3,' in curl(world, "GET", headers["location"])[2].split("\n")
    assert curl(world, "DELETE", headers["location"])[0] == "HTTP/1.1 200 OK"
    assert curl(world, "DELETE", headers["location"])[0] == "HTTP/1.1 404 Not Found"


def test_a_deployment_from_its_request_to_its_deletion(world: Any) -> None:
    _, headers, _ = curl(world, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    descriptor = headers["location"].split("/")[2]
    # Clients give an empty body, or none at all.
    first, headers, body = curl(world, "POST", f"/deployments/?namespace=default&descriptorId={descriptor}", "")
    assert first == "HTTP/1.1 202 Accepted"
    location = headers["location"]
    assert re.fullmatch(rf"/deployments/{UUID}/\?namespace=default", location)
    id = location.split("/")[2]
    assert body.startswith(f'{{\n  "id": "{id}",\n  "created": "')
    assert '  "status": "DEPLOYING",\n  "descriptor": {\n' in body
    assert json.loads(body)["descriptor"]["id"] == descriptor

    world.end(id)
    assert '  "status": "DEPLOYED",' in curl(world, "GET", location)[2].split("\n")
    _, headers, log = curl(world, "GET", f"/deployments/{id}/logs?namespace=default")
    assert headers["content-type"].startswith("text/plain")
    assert re.fullmatch(rf"{TIME[:-1]}\.\d{{3}}Z queued: .*\n", log)

    record = world.service.deployment("default", id)
    data = [{"podName": "my-app-1-x", "value": '{"healthy": true}'}]
    world.store.commit(Create(HealthData(namespace="default", app=record.app, deployment=id, entries=data)))
    assert curl(world, "GET", f"/deployments/{id}/healthcheckdata?namespace=default")[2] == (
        '[\n  {\n    "podName": "my-app-1-x",\n    "value": "{\\"healthy\\": true}"\n  }\n]\n'
    )

    first, headers, _ = curl(world, "PUT", location)
    assert first == "HTTP/1.1 202 Accepted"
    assert headers["location"] != location
    first, _, _ = curl(world, "DELETE", f"{location}&deleteDeployment=true")
    assert first == "HTTP/1.1 202 Accepted"
    assert '  "status": "UNDEPLOYING",' in curl(world, "GET", location)[2].split("\n")
    assert world.service.deployment("default", id).purge
    listed = json.loads(curl(world, "GET", "/deployments/?namespace=default&appname=my-app")[2])
    assert [d["status"] for d in listed] == [Status.DEPLOYING, Status.UNDEPLOYING]


def test_what_is_wrong_is_a_400_and_what_is_not_there_a_404(world: Any) -> None:
    assert curl(world, "POST", "/descriptors/?namespace=default", "{")[0] == "HTTP/1.1 400 Bad Request"
    assert curl(world, "GET", "/descriptors/")[0] == "HTTP/1.1 400 Bad Request"
    nobody = "11111111-1111-4111-8111-111111111111"
    for method, path in (
        ("POST", f"/deployments/?namespace=default&descriptorId={nobody}"),
        ("GET", f"/deployments/{nobody}/?namespace=default"),
        ("PUT", f"/deployments/{nobody}/?namespace=default"),
        ("DELETE", f"/deployments/{nobody}/?namespace=default"),
        ("GET", f"/deployments/{nobody}/logs?namespace=default"),
        ("GET", f"/deployments/{nobody}/healthcheckdata?namespace=default"),
    ):
        assert curl(world, method, path)[0] == "HTTP/1.1 404 Not Found"
