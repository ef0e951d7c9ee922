"""Descriptors: every rule, good and bad; strict reading; and whatever comes in is refused or has a normal form."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import Invalid
from deployer.core.model.descriptors import frontend_port, health_port, version_of
from deployer.descriptor import SCHEMA, Rules, normalise, parse, schema_errors
from deployer.descriptor.schema_errors import MAX_PROBLEMS, MAX_UNKNOWN
from deployer.settings import Settings
from deployer.toolkit import manifests

SETTINGS = Settings(
    own_namespace="tools",
    namespace_hosts={"team": ("*.team.example", "team.example")},
)
OPTIONS = {
    "type": "object",
    "properties": {"steps": {"type": "integer", "minimum": 1, "maximum": 9}, "name": {"type": "string"}},
    "additionalProperties": False,
}
RULES = Rules(
    settings=SETTINGS,
    strategies={"blue-green": None, "canary": OPTIONS},
    health_checkers={"probe", "simple"},
    ingress=("nginx", OPTIONS),
    health_options={"probe": None, "simple": {**OPTIONS, "required": ["steps"]}},
    without_path={"simple"},
    extensions={"vault": [OPTIONS], "chat": [{}], "silent": []},
)
PORTS = [{"containerPort": 8080}, {"containerPort": 9999, "name": "healthcheck"}]
GOOD: dict[str, Any] = {
    "namespace": "default",
    "appName": "shop",
    "newVersion": "1",
    "podspec": {"containers": [{"name": "shop", "image": "shop:1", "ports": PORTS}]},
}
HEALTH = {"useHealthCheck": True, "healthCheckPort": 1, "healthCheckPath": "/", "healthCheckType": "probe"}
ABSENT = object()
DNS = {"containerPort": 53, "name": "dns", "protocol": "UDP"}


def with_(
    *, container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document["podspec"] |= pod or {}
    document["podspec"]["containers"][0] |= container or {}
    for name, value in fields.items():
        if value is ABSENT:
            del document[name]
        else:
            document[name] = value
    return document


def normal(document: dict[str, Any], namespace: str | None = None, rules: Rules = RULES, **more: Any) -> dict[str, Any]:
    out = normalise(document, namespace=namespace, rules=rules, **more)
    assert normalise(out, namespace=namespace, rules=rules, **more) == out
    return out


def problems(
    document: dict[str, Any], namespace: str | None = None, rules: Rules = RULES, **more: Any
) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        normalise(document, namespace=namespace, rules=rules, **more)
    return {problem.path: problem.message for problem in caught.value.problems}


# --- the normal form ----------------------------------------------------------------------------------------------


def test_defaults():
    assert normal(with_()) == GOOD | {
        "deploymentType": "blue-green",
        "replicas": 1,
        "redirectWww": False,
        "useCompression": False,
        "useStickySessions": False,
        "useHealthCheck": False,
        "ignoreHealthCheck": False,
    }


def test_the_descriptor_of_the_original_documentation_is_accepted():
    body = b"""{
        "id": "x", "namespace": "default", "appName": "my-app", "newVersion": "#",
        "created": "2017-01-15T02:02:14Z", "lastModified": "2017-02-08T08:54:01Z",
        "webhooks": [{"key": "k", "description": "..."}],
        "deploymentType": "blue-green", "replicas": 2, "frontend": "example.com",
        "redirectWww": "true", "useCompression": "false",
        "additionHttpHeaders": [{"Header": "X-TEST", "Value": "some http header test"}],
        "useHealthCheck": true, "healthCheckPort": 9999, "healthCheckPath": "health", "healthCheckType": "probe",
        "ignoreHealthCheck": true, "imagePullSecrets": [{"name": "secret-name"}],
        "podspec": {"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}]}]},
        "email": "a@b", "password": "hunter2", "environment": {"A": "b"}, "deployedVersion": "3",
        "deploymentTs": "x", "useExternalHealthCheck": true, "externalHealthCheckPath": "y", "readinessPort": 1
    }"""
    out = normal(parse(body), "default")
    assert not {"id", "created", "lastModified", "password", "environment"} & set(out)
    assert "hunter2" not in json.dumps(out)
    assert (out["redirectWww"], out["useCompression"]) == (True, False)
    assert version_of(out) == "" and out["newVersion"] == "#"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"appName": "My_App.X"}, {"appName": "my-app-x"}),
        ({"newVersion": "V1.2_RC"}, {"newVersion": "v1-2-rc"}),
        ({"newVersion": "0"}, {"newVersion": "0"}),
        ({"frontend": "Shop.Example.com"}, {"frontend": "shop.example.com"}),
        ({"frontend": ""}, {"frontend": ABSENT}),
        ({"frontendPort": "", "frontendPath": ""}, {"frontendPort": ABSENT, "frontendPath": ABSENT}),
        ({"frontendPort": "healthcheck"}, {"frontendPort": "healthcheck"}),
        ({"frontendPort": 8080.0}, {"frontendPort": 8080}),
        ({"frontendPort": "8080"}, {"frontendPort": 8080}),
        ({"frontendPath": "status?full=1"}, {"frontendPath": "/status?full=1"}),
        ({"frontendPath": "/status"}, {"frontendPath": "/status"}),
        ({"replicas": 0}, {"replicas": 1}),
        ({"replicas": 1000}, {"replicas": 1000}),
        ({"replicas": 2.0}, {"replicas": 2}),
        ({"replicas": None, "deploymentType": None, "redirectWww": None}, {"replicas": 1, "redirectWww": False}),
        ({"deploymentType": ""}, {"deploymentType": "blue-green"}),
        (
            {"deploymentType": "canary", "strategyOptions": {"steps": 3, "name": None}},
            {"strategyOptions": {"steps": 3}},
        ),
        ({"strategyOptions": {}}, {"strategyOptions": {}}),
        ({"ingressOptions": {"steps": 1}}, {"ingressOptions": {"steps": 1}}),
        ({"healthCheckType": "simple"}, {"healthCheckType": "simple"}),
        (
            {**HEALTH, "healthCheckType": "simple", "healthCheckPath": None, "healthCheckOptions": {"steps": 1}},
            {"healthCheckOptions": {"steps": 1}, "healthCheckPath": ABSENT},
        ),
        (
            {"extensions": {"vault": {"steps": 1}, "chat": {"any": [1]}}},
            {"extensions": {"vault": {"steps": 1}, "chat": {"any": [1]}}},
        ),
        ({"healthCheckPort": 0, "healthCheckPath": ""}, {"healthCheckPort": ABSENT, "healthCheckPath": ABSENT}),
        ({"healthCheckPath": "health/ready?full=1"}, {"healthCheckPath": "health/ready?full=1"}),
        ({"timeoutSeconds": 3600}, {"timeoutSeconds": 3600}),
        ({"tlsSecretName": "example.com"}, {"tlsSecretName": "example.com"}),
        ({"webhooks": [{"key": "k", "description": None}]}, {"webhooks": [{"key": "k"}]}),
        ({"additionHttpHeaders": []}, {"additionHttpHeaders": []}),
        ({"namespace": "team", "frontend": "a.team.example"}, {"frontend": "a.team.example"}),
    ],
)
def test_good(given, expected):
    out = normal(with_(**given))
    for name, value in expected.items():
        assert out.get(name, ABSENT) == value
        assert type(out.get(name, ABSENT)) is type(value)


def test_the_podspec_is_passed_through_untouched():
    pod = {"priority": None, "volumes": [{"name": "x", "emptyDir": {}}], "x-unknown": [{"a": None}]}
    document = with_(pod=pod, container={"env": [{"name": "A", "value": None}], "ports": None})
    before = copy.deepcopy(document)
    assert normal(document)["podspec"] == before["podspec"]
    assert document == before


# --- every rule, broken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"namespace": ABSENT}, "namespace", "is required"),
        ({"namespace": None}, "namespace", "is required"),
        ({"namespace": "Default"}, "namespace", 'with a letter or digit, not "Default"'),
        ({"namespace": "a\n"}, "namespace", "must be a Kubernetes namespace"),
        ({"namespace": "kube-system"}, "namespace", "protected"),
        ({"namespace": "tools"}, "namespace", "protected"),
        ({"appName": ABSENT}, "appName", "is required"),
        ({"appName": ""}, "appName", "must be at most 63"),
        ({"appName": "1shop"}, "appName", "begin with a letter"),
        ({"appName": "shop-"}, "appName", "end with a letter or digit"),
        ({"appName": "sh op"}, "appName", "must be"),
        ({"appName": "a" * 64}, "appName", "at most 63"),
        ({"appName": "a" * 62, "newVersion": "#"}, "appName", "more than 63 characters"),
        ({"appName": "a" * 60, "newVersion": "123"}, "newVersion", "more than 63 characters"),
        ({"appName": 7}, "appName", "must be text"),
        ({"newVersion": ABSENT}, "newVersion", "is required"),
        ({"newVersion": ""}, "newVersion", "must be '#' or"),
        ({"newVersion": "-rc1"}, "newVersion", "beginning and ending with a letter or digit"),
        ({"newVersion": "1#"}, "newVersion", "must be '#' or"),
        ({"newVersion": 1}, "newVersion", "must be text"),
        ({"newVersion": "1\n"}, "newVersion", "must be '#' or"),
        ({"deploymentType": "rolling"}, "deploymentType", '"rolling" is not installed; available: blue-green, canary'),
        ({"strategyOptions": {"steps": 1}}, "strategyOptions", "the strategy blue-green takes no options"),
        ({"strategyOptions": []}, "strategyOptions", "must be an object"),
        ({"deploymentType": "canary", "strategyOptions": {"steps": 0}}, "strategyOptions.steps", "between 1 and 9"),
        ({"ingressOptions": {"stepps": 1}}, "ingressOptions.stepps", "did you mean steps?"),
        ({**HEALTH, "healthCheckType": "simple"}, "healthCheckOptions.steps", "required"),
        ({**HEALTH, "healthCheckOptions": {"a": 1}}, "healthCheckOptions", "the health checker probe takes no options"),
        ({"healthCheckOptions": {"steps": 1}}, "healthCheckOptions", "needs healthCheckType"),
        (
            {"healthCheckType": "simple", "healthCheckOptions": {"steps": 0}},
            "healthCheckOptions.steps",
            "between 1 and",
        ),
        ({"extensions": {"vault": {"steps": 0}}}, "extensions.vault.steps", "between 1 and 9"),
        ({"extensions": {"silent": {"a": 1}}}, "extensions.silent", "takes no options"),
        ({"extensions": {"vaultt": {}}}, "extensions.vaultt", "takes options; did you mean vault?"),
        ({"extensions": {"vault": 1}}, "extensions.vault", "must be an object"),
        ({"replicas": -1}, "replicas", "between 0 and 1000"),
        ({"replicas": 1001}, "replicas", "between 0 and 1000"),
        ({"replicas": True}, "replicas", "must be a whole number"),
        ({"replicas": "2"}, "replicas", "must be a whole number"),
        ({"replicas": 1.5}, "replicas", "must be a whole number"),
        ({"frontend": "http://shop.example"}, "frontend", "without scheme, port, path or wildcard"),
        ({"frontend": "shop.example:80"}, "frontend", "without scheme"),
        ({"frontend": "shop.example/x"}, "frontend", "without scheme"),
        ({"frontend": "*.example"}, "frontend", "without scheme"),
        ({"frontend": "shop.example."}, "frontend", "must be a host name"),
        ({"frontend": "shop.example\n"}, "frontend", "must be a host name"),
        ({"frontend": "sh;op}.example"}, "frontend", "must be a host name"),
        ({"frontend": ".".join(["a" * 60] * 5)}, "frontend", "more than 253 characters"),
        ({"frontend": "10.1.2.3"}, "frontend", "not an IP address"),
        (
            {"frontendPort": "admin"},
            "frontendPort",
            'no container has a port "admin"; there is 8080, 9999 (healthcheck)',
        ),
        ({"frontendPort": 81}, "frontendPort", "no container has a port 81; there is 8080, 9999 (healthcheck)"),
        ({"frontendPort": 53, "container": {"ports": [DNS]}}, "frontendPort", "must be a TCP port: 53 is UDP"),
        ({"frontendPort": "dns", "container": {"ports": [DNS]}}, "frontendPort", 'must be a TCP port: "dns" is UDP'),
        ({"frontendPort": 80, "container": {"ports": None}}, "frontendPort", "no container has a port 80; none has"),
        ({"frontendPort": 0}, "frontendPort", "must be the name or number of a container port"),
        ({"frontendPort": True}, "frontendPort", "must be a whole number or text"),
        ({"frontendPort": "Web_UI"}, "frontendPort", "must be the name or number of a container port"),
        ({"frontendPath": "http://x/"}, "frontendPath", "must be a path"),
        ({"frontendPath": "/a b"}, "frontendPath", "must be a path"),
        ({"frontendPath": "/../x"}, "frontendPath", "must be a path"),
        ({"frontend": "a.example", "namespace": "team"}, "frontend", "not among the hosts"),
        ({"frontend": "a.team.example"}, "frontend", "may not be used by namespace default: it belongs to another"),
        ({"frontend": "A.TEAM.example"}, "frontend", "belongs to another"),
        ({"frontend": "www.team.example"}, "frontend", "belongs to another"),
        ({"frontend": "team.example."}, "frontend", "must be a host name such as"),
        ({"frontend": "notteam.example", "namespace": "team"}, "frontend", "not among the hosts"),
        ({"frontend": "a.example", "container": {"ports": PORTS[1:]}}, "frontend", "needs a TCP container port"),
        ({"frontend": "a.example", "container": {"ports": None}}, "frontend", "needs a TCP container port"),
        ({"redirectWww": "yes"}, "redirectWww", "must be true or false"),
        ({"useCompression": 1}, "useCompression", "must be true or false"),
        ({"useStickySessions": "True"}, "useStickySessions", "must be true or false"),
        ({"ignoreHealthCheck": {}}, "ignoreHealthCheck", "must be true or false"),
        ({"additionHttpHeaders": {}}, "additionHttpHeaders", "must be a list"),
        ({"additionHttpHeaders": [{"Header": "A"}]}, "additionHttpHeaders[0].Value", "is required"),
        ({"additionHttpHeaders": [{"Header": "A", "value": "b"}]}, "additionHttpHeaders[0].value", "mean Value?"),
        ({"additionHttpHeaders": [{"Header": "A b", "Value": "c"}]}, "additionHttpHeaders[0].Header", "HTTP header"),
        ({"additionHttpHeaders": [{"Header": "A:", "Value": "c"}]}, "additionHttpHeaders[0].Header", "HTTP header"),
        ({"additionHttpHeaders": [{"Header": "A", "Value": "c\r\nX: y"}]}, "additionHttpHeaders[0].Value", "ASCII"),
        ({"additionHttpHeaders": [{"Header": "A", "Value": "c\n"}]}, "additionHttpHeaders[0].Value", "printable ASCII"),
        ({"additionHttpHeaders": [{"Header": "A", "Value": "é"}]}, "additionHttpHeaders[0].Value", "printable ASCII"),
        (
            {"additionHttpHeaders": [{"Header": "X-A", "Value": "1"}, {"Header": "x-a", "Value": "1"}]},
            "additionHttpHeaders[1].Header",
            '"x-a" appears twice',
        ),
        ({"tlsSecretName": "My Secret"}, "tlsSecretName", "name of a Kubernetes object"),
        ({"useHealthCheck": True}, "healthCheckPort", "is required with useHealthCheck"),
        ({"useHealthCheck": "true"}, "healthCheckPath", "is required with useHealthCheck"),
        ({**HEALTH, "healthCheckType": ""}, "healthCheckType", "is required with useHealthCheck"),
        ({**HEALTH, "healthCheckPort": 0}, "healthCheckPort", "is required with useHealthCheck"),
        ({"healthCheckPort": 65536}, "healthCheckPort", "between 1 and 65535"),
        ({"healthCheckPort": False}, "healthCheckPort", "must be a whole number"),
        ({"healthCheckPort": "80"}, "healthCheckPort", "must be a whole number"),
        ({"healthCheckPath": "http://169.254.169.254/"}, "healthCheckPath", "must be a path such as /health"),
        ({"healthCheckPath": "//evil.example/x"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "/a/../b"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "@evil.example"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "/a\r\nHost: x"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "/a\n"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "/a b"}, "healthCheckPath", "must be a path"),
        ({"healthCheckPath": "\\\\host"}, "healthCheckPath", "must be a path"),
        ({"healthCheckType": "ping"}, "healthCheckType", '"ping" is not installed; available: probe, simple'),
        ({"timeoutSeconds": 0}, "timeoutSeconds", "between 1 and 3600"),
        ({"timeoutSeconds": 3601}, "timeoutSeconds", "between 1 and 3600"),
        ({"imagePullSecrets": [{}]}, "imagePullSecrets[0].name", "is required"),
        ({"imagePullSecrets": ["registry"]}, "imagePullSecrets[0]", "must be an object"),
        ({"imagePullSecrets": [{"name": "A"}]}, "imagePullSecrets[0].name", "name of a Kubernetes object"),
        ({"webhooks": [{"description": "x"}]}, "webhooks[0].key", "is required"),
        ({"webhooks": [{"key": ""}]}, "webhooks[0].key", "must not be empty"),
        ({"podspec": ABSENT}, "podspec", "is required"),
        ({"podspec": []}, "podspec", "must be an object"),
        ({"podspec": {}}, "podspec.containers", "is required"),
        ({"podspec": {"containers": []}}, "podspec.containers", "must not be empty"),
        ({"podspec": {"containers": None}}, "podspec.containers", "must be a list"),
        ({"podspec": {"containers": [None]}}, "podspec.containers[0]", "must be an object"),
        ({"podspec": {"containers": [{"image": "x"}]}}, "podspec.containers[0].name", "is required"),
        ({"podspec": {"containers": [{"name": "x"}]}}, "podspec.containers[0].image", "is required"),
        ({"container": {"name": "X"}}, "podspec.containers[0].name", "container name"),
        ({"container": {"ports": {}}}, "podspec.containers[0].ports", "must be a list"),
        ({"container": {"ports": [{}]}}, "podspec.containers[0].ports[0].containerPort", "is required"),
        ({"container": {"ports": [{"containerPort": "80"}]}}, "podspec.containers[0].ports[0].containerPort", "whole"),
        ({"container": {"ports": [{"containerPort": 0}]}}, "podspec.containers[0].ports[0].containerPort", "65535"),
        (
            {"container": {"ports": [{"containerPort": 1, "protocol": "tcp"}]}},
            "podspec.containers[0].ports[0].protocol",
            "must be TCP, UDP or SCTP",
        ),
        (
            {"container": {"ports": [{"containerPort": 1, "name": "Web_Port"}]}},
            "podspec.containers[0].ports[0].name",
            "must be a port name",
        ),
        ({"container": {"env": {"A": "b"}}}, "podspec.containers[0].env", "must be a list"),
        ({"container": {"env": [{"value": "b"}]}}, "podspec.containers[0].env[0].name", "is required"),
        ({"pod": {"initContainers": [{"name": "a"}]}}, "podspec.initContainers[0].image", "is required"),
        ({"pod": {"metadata": {"labels": {"app": "x"}}}}, "podspec.metadata", "labels and annotations of pods are the"),
        ({"pod": {"imagePullSecrets": [1]}}, "podspec.imagePullSecrets[0]", "must be an object"),
        (
            {
                "pod": {
                    "volumes": [
                        {
                            "name": "x",
                            "ephemeral": {
                                "volumeClaimTemplate": {"metadata": {"annotations": {"kube-deployer/app": "other"}}}
                            },
                        }
                    ]
                }
            },
            "podspec.volumes[0].ephemeral.volumeClaimTemplate.metadata.annotations",
            '"kube-deployer/app" is reserved',
        ),
        ({"pod": {"restartPolicy": "Never"}}, "podspec.restartPolicy", "must be Always"),
        (
            {"pod": {"volumes": [{"name": "a"}, {"name": "a"}]}},
            "podspec.volumes[1].name",
            "same as that of another volume",
        ),
        ({"pod": {"volumes": [{"name": "A b"}]}}, "podspec.volumes[0].name", "must be at most 63"),
        ({"pod": {"volumes": [{}]}}, "podspec.volumes[0].name", "is required"),
        ({"pod": {"initContainers": [GOOD["podspec"]["containers"][0]]}}, "podspec.initContainers[0].name", "another"),
        ({"container": {"image": " x"}}, "podspec.containers[0].image", "white space"),
        ({"container": {"imagePullPolicy": "always"}}, "podspec.containers[0].imagePullPolicy", "must be Always or"),
        (
            {"container": {"ports": [{"containerPort": 1, "name": "80"}]}},
            "podspec.containers[0].ports[0].name",
            "letter",
        ),
        (
            {"container": {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}},
            "podspec.containers[0].ports[1].name",
            "same as that of another port",
        ),
        ({"container": {"env": [{"name": "A=B"}]}}, "podspec.containers[0].env[0].name", "without '='"),
        ({"container": {"env": [{"name": "A\n"}]}}, "podspec.containers[0].env[0].name", "printable ASCII"),
        (
            {"container": {"env": [{"name": "A", "value": "x", "valueFrom": {}}]}},
            "podspec.containers[0].env[0].valueFrom",
            "together with value",
        ),
        (
            {"container": {"volumeMounts": [{"name": "v"}]}},
            "podspec.containers[0].volumeMounts[0].name",
            "not the name",
        ),
        (
            {
                "pod": {"volumes": [{"name": "v", "emptyDir": {}}]},
                "container": {"volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]},
            },
            "podspec.containers[0].volumeMounts[1].mountPath",
            "same as that of another mount",
        ),
        *(({"healthCheckPath": f"/a{c}b"}, "healthCheckPath", "must be a path") for c in "\"';{}$<>|^`\\"),
        # One wrong shape in a podspec hides nothing else in it.
        ({"pod": {"containers": [{"name": "x"}], "hostNetwork": True}}, "podspec.hostNetwork", "must not be true"),
        ({"appname": "x"}, "appname", "is not a known field; did you mean appName?"),
        ({"labels": {"app": "x"}}, "labels", "is not a known field"),
        ({"podSpec": {}}, "podSpec", "did you mean podspec?"),
        ({"additionalHttpHeaders": []}, "additionalHttpHeaders", "did you mean additionHttpHeaders?"),
    ],
)
def test_bad(fields, path, says):
    found = problems(with_(**fields))
    assert path in found
    assert says in found[path]
    assert all(message.isprintable() for message in found.values())


HOST = ".".join(["a" * 63] * 3 + ["a" * 61])
LONGEST = {
    "frontend": ({"frontend": HOST}, {"frontend": f"{HOST}a"}),
    "frontendPath": ({"frontendPath": f"/{'a' * 2047}"}, {"frontendPath": f"/{'a' * 2048}"}),
    "additionHttpHeaders[0].Header": tuple(
        {"additionHttpHeaders": [{"Header": f"X-{'a' * length}", "Value": "v"}]} for length in (254, 255)
    ),
    "additionHttpHeaders[0].Value": tuple(
        {"additionHttpHeaders": [{"Header": "X-A", "Value": "a" * length}]} for length in (4096, 4097)
    ),
    "healthCheckPath": tuple(HEALTH | {"healthCheckPath": f"/{'a' * length}"} for length in (2047, 2048)),
    "healthCheckHost": tuple(HEALTH | {"healthCheckHost": f"{HOST}{more}"} for more in (":65535", "a:65535")),
    "tlsSecretName": ({"tlsSecretName": HOST}, {"tlsSecretName": f"{HOST}a"}),
    "imagePullSecrets[0].name": tuple({"imagePullSecrets": [{"name": f"{HOST}{more}"}]} for more in ("", "a")),
}
"""Where a string has both a form and a greatest length: fields as long as they may be, and one character longer."""


@pytest.mark.parametrize("path", LONGEST)
def test_a_string_may_be_as_long_as_the_schema_says_and_no_longer(path):
    longest, longer = LONGEST[path]
    normal(with_(**{"frontend": "shop.example", **longest}))
    assert "must not have more than" in problems(with_(**{"frontend": "shop.example", **longer}))[path]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "where a response ends") for name in ("Content-Length", "transfer-encoding", "Trailer")),
        *((name, "about a single connection") for name in ("Connection", "KEEP-ALIVE", "TE", "Upgrade", "Close")),
        *((name, "about a single connection") for name in ("Proxy-Connection", "proxy-authenticate", "HTTP2-Settings")),
        ("Content-Encoding", "how the body is encoded"),
        ("Content-Range", "which part"),
        ("Sec-WebSocket-Accept", "handshake"),
        ("Host", "belongs to requests"),
        ("Date", "when the response was made"),
        ("Set-Cookie", "cookies"),
    ],
)
@pytest.mark.parametrize("ingress", ["nginx", "someone-elses"])
def test_headers_that_a_fixed_value_would_break(name: str, why: str, ingress: str) -> None:
    """Whoever provides the ingress: it need not know."""
    rules = dataclasses.replace(RULES, ingress=(ingress, None))
    for spelling in (name, name.lower(), name.upper()):
        headers = [{"Header": "X-A", "Value": "1"}, {"Header": spelling, "Value": "1"}]
        for stored in (False, True):
            with pytest.raises(Invalid) as caught:
                normal(with_(additionHttpHeaders=headers), rules=rules, stored=stored)
            (problem,) = caught.value.problems
            assert problem.path == "additionHttpHeaders[1].Header"
            assert problem.message.startswith(f'"{spelling}" cannot be set here: ') and why in problem.message


@pytest.mark.parametrize(
    "name",
    [
        *("X-Frame-Options", "Strict-Transport-Security", "Content-Security-Policy", "Cache-Control", "Server"),
        *("Content-Type", "Access-Control-Allow-Origin", "X-Connection", "Hosts", "Proxied", "Tea", "Updated"),
    ],
)
def test_headers_that_a_descriptor_may_set(name: str) -> None:
    assert normal(with_(additionHttpHeaders=[{"Header": name, "Value": "1"}]))


def test_the_namespace_must_be_that_of_the_request():
    assert problems(with_(), "other") == {"namespace": 'must be "other", the namespace of the request'}
    normal(with_(), "default")


def test_every_problem_is_named_at_once():
    found = problems(
        with_(
            appName="1",
            replicas=-1,
            frontend="http://x",
            healthCheckType="ping",
            deploymentType="rolling",
            nonsense=1,
            namespace="kube-system",
            pod={"hostNetwork": True},
        ),
        "default",
    )
    assert set(found) == {
        "appName",
        "replicas",
        "frontend",
        "healthCheckType",
        "deploymentType",
        "nonsense",
        "namespace",
        "podspec.hostNetwork",
    }


def test_an_answer_is_bounded():
    found = problems(with_(podspec={"containers": [{}] * 5000}))
    assert len(found) == MAX_PROBLEMS + 1
    found = problems(with_(**{f"field{n}": n for n in range(5000)}))
    assert len(found) == MAX_UNKNOWN


def test_a_stored_descriptor_may_lack_the_port():
    document = with_(**{k: v for k, v in HEALTH.items() if k != "healthCheckPort"})
    assert "healthCheckPort" in problems(document)
    assert health_port(normal(document, stored=True)) == 9999
    document["podspec"]["containers"][0]["ports"] = [{"containerPort": 1}, {"containerPort": 2}]
    assert "several ports" in problems(document, stored=True)["healthCheckPort"]


@pytest.mark.parametrize(
    ("port", "ports", "expected"),
    [
        (81, PORTS, 81),
        (None, PORTS, 9999),
        (None, [{"containerPort": 80}], 80),
        (None, [{"containerPort": 80}, {"containerPort": 82, "name": "healthcheck"}], 82),
        (None, [], 9999),
        (None, None, 9999),
    ],
)
def test_health_port(port, ports, expected):
    document = normal(with_(container={"ports": ports}))
    document["podspec"]["containers"].append({"name": "b", "image": "b", "ports": [{"containerPort": 4}]})
    assert health_port(document | ({"healthCheckPort": port} if port else {})) == expected


def test_the_schema_is_a_valid_schema_and_agrees_with_good_documents():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(with_(**HEALTH, redirectWww="true", frontend="A.example", appName="My_App"), SCHEMA)


def test_references_of_a_providers_schema_are_never_fetched():
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    with pytest.raises(Exception, match="Unresolvable"):
        schema_errors.schema_problems({}, schema)


# --- Pod Security -------------------------------------------------------------------------------------------------


def level(name: str) -> Rules:
    return Rules(
        settings=Settings(pod_security=name), strategies={"blue-green": None}, health_checkers=(), ingress=("", None)
    )


BASELINE = [
    ({"hostNetwork": True}, {}, "hostNetwork"),
    ({"hostPID": True}, {}, "hostPID"),
    ({"hostIPC": True}, {}, "hostIPC"),
    ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, {}, "volumes[0].hostPath"),
    ({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, {}, "securityContext.sysctls[0].name"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {}, "securityContext.seccompProfile.type"),
    ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, {}, "securityContext.windowsOptions.hostProcess"),
    ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, {}, "securityContext.seLinuxOptions.type"),
    ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, {}, "securityContext.appArmorProfile.type"),
    ({}, {"securityContext": {"privileged": True}}, "containers[0].securityContext.privileged"),
    ({}, {"securityContext": {"procMount": "Unmasked"}}, "containers[0].securityContext.procMount"),
    ({}, {"securityContext": {"seLinuxOptions": {"role": "r"}}}, "containers[0].securityContext.seLinuxOptions.role"),
    (
        {},
        {"securityContext": {"capabilities": {"add": ["CHOWN", "SYS_ADMIN"]}}},
        "containers[0].securityContext.capabilities.add[1]",
    ),
    ({}, {"ports": [{"containerPort": 80, "hostPort": 80}]}, "containers[0].ports[0].hostPort"),
    (
        {},
        {"livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80}}},
        "containers[0].livenessProbe.httpGet.host",
    ),
    (
        {},
        {"lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}},
        "containers[0].lifecycle.preStop.tcpSocket.host",
    ),
    (
        {"initContainers": [{"name": "i", "image": "i", "securityContext": {"privileged": True}}]},
        {},
        "initContainers[0].securityContext.privileged",
    ),
    (
        {"ephemeralContainers": [{"name": "e", "securityContext": {"privileged": True}}]},
        {},
        "ephemeralContainers[0].securityContext.privileged",
    ),
]


@pytest.mark.parametrize(("pod", "container", "path"), BASELINE)
def test_baseline(pod, container, path):
    document = with_(pod=pod, container=container)
    assert list(problems(document, rules=level("baseline"))) == [f"podspec.{path}"]
    assert f"podspec.{path}" in problems(document, rules=level("restricted"))
    normal(document, rules=level("privileged"))


def test_baseline_lets_ordinary_pods_through():
    document = with_(
        pod={
            "hostNetwork": False,
            "securityContext": {
                "sysctls": [{"name": "net.ipv4.tcp_syncookies"}],
                "runAsUser": 0,
                "seLinuxOptions": None,
            },
            "volumes": [{"name": "x", "nfs": {}}],
        },
        container={
            "securityContext": {"privileged": False, "capabilities": {"add": ["NET_BIND_SERVICE"]}, "procMount": None},
            "readinessProbe": {"httpGet": {"host": "", "path": "/", "port": 80}},
        },
    )
    normal(document, rules=level("baseline"))


HARDENED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
HARDENED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("pod", "context", "path"),
    [
        ({}, {"allowPrivilegeEscalation": None}, "containers[0].securityContext.allowPrivilegeEscalation"),
        ({}, {"runAsNonRoot": False}, "containers[0].securityContext.runAsNonRoot"),
        ({}, {"runAsUser": 0}, "containers[0].securityContext.runAsUser"),
        ({}, {"capabilities": {"drop": ["KILL"]}}, "containers[0].securityContext.capabilities.drop"),
        (
            {},
            {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
            "containers[0].securityContext.capabilities.add[0]",
        ),
        (
            {"securityContext": {"runAsNonRoot": True}},
            {},
            "containers[0].securityContext.seccompProfile.type",
        ),
        ({"volumes": [{"name": "x", "nfs": {"path": "/"}}]}, {}, "volumes[0]"),
        ({"securityContext": HARDENED_POD | {"runAsUser": 0}}, {}, "securityContext.runAsUser"),
    ],
)
def test_restricted(pod, context, path):
    pod = {"securityContext": HARDENED_POD} | pod
    container = {"securityContext": HARDENED_CONTAINER | context}
    assert list(problems(with_(pod=pod, container=container), rules=level("restricted"))) == [f"podspec.{path}"]


def test_restricted_lets_hardened_pods_through():
    hardened = {"securityContext": HARDENED_CONTAINER}
    volumes = [{"name": "x", "emptyDir": {}}, {"name": "y", "image": {"reference": "z"}}]
    normal(
        with_(pod={"securityContext": HARDENED_POD, "volumes": volumes}, container=hardened), rules=level("restricted")
    )
    windows = {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}}
    normal(with_(pod=windows), rules=level("restricted"))


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON: line 1 column 1"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1} {}', "not JSON"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": [-Infinity]}', "-Infinity is not a JSON value"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"a": -9223372036854775809}', "too large"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "more than 64 levels"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "more than 64 levels"),
        (b"[" * 500_000, "more than 64 levels"),
        (b'{"a":' * 100_000 + b"1", "more than 64 levels"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "larger than 1048576 bytes"),
    ],
)
def test_what_is_no_strict_json_is_one_problem(body, says):
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert [says in p.message and p.path == "" for p in caught.value.problems] == [True]
    assert len(str(caught.value)) < 200


def test_keys_that_appear_twice_are_all_named_with_their_paths():
    body = b'{"a": 1, "p": {"c": [{"n": 1}, {"n": 1, "n": 2, "m": 3, "m": 3, "m": 3}]}, "a": {"x y": 1, "x y": 2}}'
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert [(p.path, p.message) for p in caught.value.problems] == [
        ("a", "appears twice in one object"),
        ('a."x y"', "appears twice in one object"),
        ("p.c[1].n", "appears twice in one object"),
        ("p.c[1].m", "appears twice in one object"),
    ]


def test_strict_json_is_read():
    assert parse(b'\xef\xbb\xbf {"a": "\\ud83d\\ude00", "b": [1, -9223372036854775808, 1.5e3]}') == {
        "a": "😀",
        "b": [1, -(2**63), 1500.0],
    }
    deep = b'{"a":' * 64 + b"1" + b"}" * 64
    assert json.dumps(parse(deep)).count("{") == 64


# --- whatever comes in --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["a", "a-1", "A.b", "x" * 60, "#", "true", "probe", "/", "h.example", "kube-x", "healthcheck", ""]
)
PORT = st.fixed_dictionaries(
    {"containerPort": st.integers(1, 4)},
    optional={
        "name": st.sampled_from(["port-1", "port-1-udp", "port-1-tcp", "healthcheck", "web", "", None]),
        "protocol": st.sampled_from(["TCP", "UDP", "SCTP", "", None]),
        "hostPort": JSON,
    },
)
CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"]), "image": st.just("i")},
    optional={
        "ports": st.none() | st.lists(PORT, max_size=6) | JSON,
        "env": st.none() | st.lists(st.fixed_dictionaries({"name": WORDS}), max_size=3) | JSON,
        "securityContext": JSON
        | st.dictionaries(st.sampled_from(["privileged", "capabilities", "seccompProfile"]), JSON),
        "imagePullPolicy": WORDS | JSON,
        "livenessProbe": JSON,
    },
)
PODSPEC = st.fixed_dictionaries(
    {"containers": st.lists(CONTAINER, min_size=1, max_size=3)},
    optional={
        "initContainers": st.lists(CONTAINER, max_size=1) | JSON,
        "volumes": JSON | st.lists(st.dictionaries(st.sampled_from(["name", "ephemeral", "hostPath"]), JSON)),
        "securityContext": JSON,
        "hostNetwork": JSON,
        "imagePullSecrets": JSON | st.lists(st.fixed_dictionaries({"name": WORDS})),
    },
)
DOCUMENT = st.fixed_dictionaries(
    {
        "namespace": st.just("default") | WORDS,
        "appName": WORDS,
        "newVersion": WORDS | st.integers(0, 20).map(str),
        "podspec": PODSPEC,
    },
    optional={name: WORDS | JSON for name in SCHEMA["properties"] if name not in GOOD}
    | {"replicas": st.integers(-1, 3) | JSON, "healthCheckPort": st.integers(-1, 9), "useHealthCheck": st.booleans()},
)


def outcome(document: Any, stored: bool, pod_security: str) -> str:
    rules = Rules(
        settings=Settings(pod_security=pod_security),
        strategies={"blue-green": None, "a": OPTIONS},
        health_checkers={"probe"},
        ingress=("nginx", OPTIONS),
    )
    try:
        read = parse(json.dumps(document).encode())
        out = normalise(read, namespace=None, rules=rules, stored=stored)
    except Invalid as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
        str(error).encode()
        return "refused"
    assert normalise(out, namespace=out["namespace"], rules=rules, stored=stored) == out
    objects = manifests.render(
        WorkloadContext(
            descriptor=out,
            version=version_of(out) or "1",
            deployment="d",
            created="t",
            instance="i",
            replicas=out["replicas"],
            environment=[{"name": "a", "value": "x"}],
            image_pull_policy="Always",
            fencing_token=1,
        )
    )
    json.dumps(dataclasses.asdict(objects), allow_nan=False)
    manifests.check_name(out["appName"], version_of(out) or "1")
    manifests.overridden_names(out, [])
    for service in (objects.versioned_service, objects.service):
        if service is not None:
            ports = service["spec"]["ports"]
            assert len({p["name"] for p in ports}) == len({(p["port"], p["protocol"]) for p in ports}) == len(ports)
    if "frontend" in out:
        assert frontend_port(out) is not None
    return "accepted"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_any_json_is_refused_or_normal(document):
    assert outcome(document, False, "baseline") == "refused"


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENT, st.booleans(), st.sampled_from(["privileged", "baseline", "restricted"]))
def test_any_near_descriptor_is_refused_or_normal_and_renders(document, stored, pod_security):
    outcome(document, stored, pod_security)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.lists(PORT.map(lambda p: {k: v for k, v in p.items() if k != "hostPort"}), max_size=6),
        min_size=1,
        max_size=3,
    )
)
def test_any_ports_render(ports):
    containers = [{"name": f"c{n}", "image": "i", "ports": some} for n, some in enumerate(ports)]
    names = [[port["name"] for port in some if port.get("name")] for some in ports]
    good = all(len(set(some)) == len(some) for some in names)
    expected = "accepted" if good else "refused"
    assert outcome(with_(podspec={"containers": containers}), False, "baseline") == expected


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ud8001eN ', max_size=40).map(str.encode))
def test_any_bytes_are_refused_or_an_object(body):
    try:
        assert isinstance(parse(body), dict)
    except Invalid as error:
        assert len(error.problems) == 1


def places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a document."""
    inner = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    return [path, *(place for step, part in inner for place in places(part, (*path, step)))]


EVERYTHING = with_(
    frontend="shop.team.example",
    frontendPort="http",
    frontendPath="/",
    redirectWww=True,
    tlsSecretName="tls",
    strategyOptions={"steps": 1},
    deploymentType="canary",
    ingressOptions={"name": "x"},
    healthCheckOptions={"steps": 1},
    healthCheckHost="shop",
    extensions={"vault": {"name": "x"}},
    additionHttpHeaders=[{"Header": "X-A", "Value": "b"}],
    imagePullSecrets=[{"name": "pull"}],
    webhooks=[{"key": "a", "description": "b"}],
    email="a@b",
    namespace="team",
    pod={
        "volumes": [{"name": "v", "emptyDir": {"medium": ""}}],
        "serviceAccountName": "a",
        "priorityClassName": "b",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a"}],
        "securityContext": {"sysctls": [{"name": "a", "value": "1"}], "seccompProfile": {"type": "Unconfined"}},
    },
    container={
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}, "procMount": "Unmasked"},
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
    },
    **{k: v for k, v in HEALTH.items() if k != "healthCheckType"},
    healthCheckType="simple",
)
STRICT = dataclasses.replace(
    RULES,
    settings=dataclasses.replace(
        SETTINGS,
        allowed_secrets={"*": ("own-*",)},
        allowed_service_accounts={"*": ("own-*",)},
        allowed_priority_classes={"*": ("own-*",)},
        allowed_tolerations={"*": ("own-*",)},
        allowed_volume_types=("configMap",),
    ),
)


@pytest.mark.parametrize("place", places(EVERYTHING), ids=lambda place: ".".join(map(str, place)) or "all")
def test_what_is_said_of_it_stays_short_however_much_is_sent(place: tuple[Any, ...]) -> None:
    """Whatever is 200 kB long: a value, or a key beside the others."""
    for long in ("x" * 200_000, "x." * 100_000, "\u00e9/" * 100_000):
        document = copy.deepcopy(EVERYTHING)
        outer: Any = {"": document}
        for step in ("", *place[:-1]) if place else ():
            outer = outer[step]
        last = place[-1] if place else ""
        before = outer[last]
        more = [{**before, long: value} for value in ("y", {})] if isinstance(before, dict) else []
        for new in (long, [long], {long: {}}, *more):
            outer[last] = new
            document = document if place else outer[""]
            if not isinstance(document, dict):
                continue
            try:
                normalise(document, namespace=None, rules=STRICT)
            except Invalid as error:
                wrong = [p for p in error.problems if max(len(p.path), len(p.message)) > 1000]
                assert not wrong, (wrong[0].path[:80], wrong[0].message[:80])
