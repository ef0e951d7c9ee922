"""A client of the original, byte by byte: the requests of its documentation as curl sends them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
from typing import Any

import pytest

from deployer.core.model.records import Deployment, Failure, HealthData, Status
from deployer.core.ports.store import Create, Update

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


def curl(served: Any, method: str, target: str, data: str | None = None) -> tuple[str, dict[str, str], str]:
    """What curl 7 puts on the wire (`--data` has it say that JSON is a form); status line, headers and body."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: localhost:{served.port}", "User-Agent: curl/7.47.0", "Accept: */*"]
    if data is not None:
        lines += [f"Content-Length: {len(data.encode())}", "Content-Type: application/x-www-form-urlencoded"]
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall("\r\n".join([*lines, "", data or ""]).encode())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}, body.decode()


def test_a_descriptor_goes_in_and_comes_back(served: Any) -> None:
    first, headers, body = curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
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

    first, _, shown = curl(served, "GET", headers["location"])
    assert (first, shown) == ("HTTP/1.1 200 OK", body)
    first, _, listed = curl(served, "GET", "/descriptors/?namespace=default&appname=my-app")
    assert (first, json.loads(listed)) == ("HTTP/1.1 200 OK", [json.loads(body)])
    first, _, listed = curl(served, "GET", "/descriptors/?namespace=default&appname=nobody")
    assert (first, listed) == ("HTTP/1.1 200 OK", "[]\n")

    # What GET gave goes back with PUT, unchanged or not.
    first, _, nothing = curl(served, "PUT", headers["location"], body.replace('"replicas": 2', '"replicas": 3'))
    assert (first, nothing) == ("HTTP/1.1 204 No Content", "")
    assert '  "replicas": 3,' in curl(served, "GET", headers["location"])[2].split("\n")
    assert curl(served, "DELETE", headers["location"])[0] == "HTTP/1.1 200 OK"
    assert curl(served, "DELETE", headers["location"])[0] == "HTTP/1.1 404 Not Found"


def test_a_deployment_from_its_request_to_its_deletion(served: Any) -> None:
    _, headers, _ = curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    descriptor = headers["location"].split("/")[2]
    # Clients give an empty body, or none at all.
    first, headers, body = curl(served, "POST", f"/deployments/?namespace=default&descriptorId={descriptor}", "")
    assert first == "HTTP/1.1 202 Accepted"
    location = headers["location"]
    assert re.fullmatch(rf"/deployments/{UUID}/\?namespace=default", location)
    id = location.split("/")[2]
    assert body.startswith(f'{{\n  "id": "{id}",\n  "created": "')
    assert '  "status": "DEPLOYING",\n  "descriptor": {\n' in body
    assert json.loads(body)["descriptor"]["id"] == descriptor

    served.end(id)
    assert '  "status": "DEPLOYED",' in curl(served, "GET", location)[2].split("\n")
    _, headers, log = curl(served, "GET", f"/deployments/{id}/logs?namespace=default")
    assert headers["content-type"].startswith("text/plain")
    assert re.fullmatch(rf"{TIME[:-1]}\.\d{{3}}Z queued: .*\n", log)

    record = served.service.deployment("default", id)
    data = [{"podName": "my-app-1-x", "value": '{"healthy": true}'}]
    served.store.commit(Create(HealthData(namespace="default", app=record.app, deployment=id, entries=data)))
    assert curl(served, "GET", f"/deployments/{id}/healthcheckdata?namespace=default")[2] == (
        '[\n  {\n    "podName": "my-app-1-x",\n    "value": "{\\"healthy\\": true}"\n  }\n]\n'
    )

    first, headers, _ = curl(served, "PUT", location)
    assert first == "HTTP/1.1 202 Accepted"
    assert headers["location"] != location
    first, _, _ = curl(served, "DELETE", f"{location}&deleteDeployment=true")
    assert first == "HTTP/1.1 202 Accepted"
    assert '  "status": "UNDEPLOYING",' in curl(served, "GET", location)[2].split("\n")
    assert served.service.deployment("default", id).purge
    listed = json.loads(curl(served, "GET", "/deployments/?namespace=default&appname=my-app")[2])
    assert [d["status"] for d in listed] == [Status.DEPLOYING, Status.UNDEPLOYING]


def test_what_is_wrong_is_a_400_and_what_is_not_there_a_404(served: Any) -> None:
    assert curl(served, "POST", "/descriptors/?namespace=default", "{")[0] == "HTTP/1.1 400 Bad Request"
    assert curl(served, "GET", "/descriptors/")[0] == "HTTP/1.1 400 Bad Request"
    nobody = "11111111-1111-4111-8111-111111111111"
    for method, path in (
        ("POST", f"/deployments/?namespace=default&descriptorId={nobody}"),
        ("GET", f"/deployments/{nobody}/?namespace=default"),
        ("PUT", f"/deployments/{nobody}/?namespace=default"),
        ("DELETE", f"/deployments/{nobody}/?namespace=default"),
        ("GET", f"/deployments/{nobody}/logs?namespace=default"),
        ("GET", f"/deployments/{nobody}/healthcheckdata?namespace=default"),
    ):
        assert curl(served, method, path)[0] == "HTTP/1.1 404 Not Found"


# --- what its scripts rely on -----------------------------------------------------------------------------------------

SAID = {
    "reason": "NotReady",
    "message": 'HTTP probe failed with statuscode: 503 "status": "no" Location: /deployments/x/?y status',
    "hint": 'containers with unready status: [web], "status": 5',
}
WORDY: dict[str, Any] = {
    "namespace": "default",
    "appName": "my-app",
    "newVersion": "1",
    "useHealthCheck": True,
    "healthCheckPort": 8080,
    "healthCheckPath": "/status",
    "healthCheckType": "probe",
    "additionHttpHeaders": [{"Header": "Location", "Value": "status: /descriptors/x/?y"}],
    "podspec": {
        "containers": [
            {
                "name": "status",
                "image": "example/status:1",
                "env": [{"name": "status", "value": ' "status": "DEPLOYING", \\status \\\\status'}],
            }
        ],
        "nodeSelector": {"status": "status"},
    },
}


POLL = r"""line=`echo "$result" | grep "status"`; expr "$line" : '.*: "\(.*\)"'"""
FIND = r"""line=`echo "$result" | grep "Location"`; expr "${line:10}" : '/deployments/\(.*\)/?'"""


def bash(script: str, text: str) -> str:
    """What a script makes of an answer, which is `$result` there."""
    found = shutil.which("bash") or "bash"
    ran = subprocess.run([found, "-c", script], env={**os.environ, "result": text}, capture_output=True, check=True)
    return ran.stdout.decode().strip()


@pytest.mark.parametrize("status", [Status.DEPLOYED, Status.FAILURE])
def test_a_script_that_greps_the_status_comes_to_its_end(served: Any, status: Status) -> None:
    """The original's example polls like this, and never ends when another line has the word."""
    served.service.descriptors.rules = dataclasses.replace(served.service.descriptors.rules, health_checkers=["probe"])
    served.service.descriptors._chosen = lambda _: []
    _, headers, _ = curl(served, "POST", "/descriptors/?namespace=default", json.dumps(WORDY))
    queued = curl(served, "POST", f"/deployments/?namespace=default&descriptorId={headers['location'].split('/')[2]}")
    id = json.loads(queued[2])["id"]
    record = dataclasses.replace(
        served.store.get(Deployment, id), failure=Failure(**SAID).to_document(), created_by="status"
    )
    served.store.commit(Update(record))
    served.end(id, status)
    _, _, shown = curl(served, "GET", f"/deployments/{id}/?namespace=default")
    _, _, listed = curl(served, "GET", "/deployments/?namespace=default")
    assert [bash(POLL, text) for text in (shown, listed)] == [status, status]
    # Nothing but the spelling has changed.
    assert json.loads(shown)["failure"] == SAID
    assert {name: json.loads(shown)["descriptor"][name] for name in WORDY} == WORDY
    # It finds the way from the head and the body together, as curl prints them.
    head = f"HTTP/1.1 202 Accepted\r\nLocation: {queued[1]['location']}\r\n\r\n{queued[2]}"
    assert bash(FIND, head) == id


# --- what its clients may notice ------------------------------------------------------------------------------------


def test_the_descriptor_that_was_modified_last_is_kept(served: Any) -> None:
    """Without asking for it: `keepLatest` is the default, and the latest is not the one that was made last."""
    locations = [curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)[1]["location"] for _ in range(3)]
    body = curl(served, "GET", locations[0])[2]
    curl(served, "PUT", locations[0], body)
    assert curl(served, "DELETE", "/descriptors/?namespace=default&appname=my-app")[0] == "HTTP/1.1 200 OK"
    left = json.loads(curl(served, "GET", "/descriptors/?namespace=default")[2])
    assert [d["id"] for d in left] == [locations[0].split("/")[2]]


def test_validate_takes_the_namespace_from_the_descriptor(served: Any) -> None:
    assert curl(served, "POST", "/descriptors/validate", DESCRIPTOR)[0] == "HTTP/1.1 200 OK"
    for wrong in (DESCRIPTOR.replace('"namespace": "default",', ""), "{}", '{"namespace": 5}'):
        first, _, body = curl(served, "POST", "/descriptors/validate", wrong)
        assert (first, json.loads(body)["errors"][0]["path"]) == ("HTTP/1.1 400 Bad Request", "namespace")
    # The parameter counts more, and must be the same.
    assert curl(served, "POST", "/descriptors/validate?namespace=other", DESCRIPTOR)[0] == "HTTP/1.1 400 Bad Request"


def test_an_undeployment_says_where_it_can_be_watched(served: Any) -> None:
    _, headers, _ = curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    ids = []
    for _ in range(2):
        target = f"/deployments/?namespace=default&descriptorId={headers['location'].split('/')[2]}"
        ids.append(curl(served, "POST", target)[1]["location"].split("/")[2])
        served.end(ids[-1])
    location = f"/deployments/{ids[0]}/?namespace=default"
    assert curl(served, "DELETE", location)[1]["location"] == location
    _, headers, _ = curl(served, "DELETE", "/deployments/?namespace=default&appname=my-app&undeploy=1")
    assert headers["location"] == f"/deployments/{ids[1]}/?namespace=default"
    assert "location" not in curl(served, "DELETE", "/deployments/?namespace=default&appname=my-app")[1]


def test_the_copy_of_a_descriptor_says_when_it_was_made_and_changed(served: Any) -> None:
    _, headers, body = curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    _, headers, queued = curl(served, "POST", f"/deployments/?namespace=default&descriptorId={json.loads(body)['id']}")
    assert json.loads(queued)["descriptor"] == json.loads(body)
    curl(served, "DELETE", f"/descriptors/{json.loads(body)['id']}/?namespace=default")
    assert json.loads(curl(served, "PUT", headers["location"])[2])["descriptor"] == json.loads(body)


def test_an_answer_without_a_body_has_no_content_type(served: Any) -> None:
    _, headers, body = curl(served, "POST", "/descriptors/?namespace=default", DESCRIPTOR)
    for method, data in (("OPTIONS", None), ("PUT", body), ("DELETE", None)):
        _, headers_of_it, nothing = curl(served, method, headers["location"], data)
        assert (nothing, headers_of_it.get("content-type")) == ("", None), method


def test_a_health_checker_is_known_in_any_case(served: Any) -> None:
    served.service.descriptors.rules = dataclasses.replace(
        served.service.descriptors.rules, health_checkers=["probe", "simple"]
    )
    served.service.descriptors._chosen = lambda _: []
    health = {"useHealthCheck": True, "healthCheckPort": 1, "healthCheckPath": "x", "healthCheckType": "Simple"}
    _, _, body = curl(served, "POST", "/descriptors/?namespace=default", json.dumps(json.loads(DESCRIPTOR) | health))
    assert json.loads(body)["healthCheckType"] == "simple"
