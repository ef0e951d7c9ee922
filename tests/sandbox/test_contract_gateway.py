"""What the Deployer relies on in the Gateway API: the same tests for the sandbox and for a real data plane.

The real one is the cluster that KUBECONFIG names, with a Gateway `infra/edge` and image lab/demo:1.
"""

import os
import time

import pytest
import urllib3
from kubernetes import client, config

from support import gateway

RC, ROUTE = "replication_controller", "http_route"


@pytest.fixture(scope="session", params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def api(request):
    """A connection to the sandbox, then to the real cluster."""
    if request.param == "sandbox":
        kubeconfig = request.getfixturevalue("sandbox").kubeconfig
    elif not (kubeconfig := os.environ.get("KUBECONFIG")):
        pytest.skip("KUBECONFIG names no cluster")
    else:
        gateway.require()
    with config.new_client_from_config(kubeconfig) as connected:
        yield connected
        connected.rest_client.pool_manager.clear()


@pytest.fixture
def ask(cluster, request):
    """Asks the data plane until the answer is as wanted: it says nothing by itself when it has followed."""
    in_sandbox = "sandbox" in client.VersionApi(cluster.api).get_code().git_version
    place = request.getfixturevalue("sandbox").ingress if in_sandbox else f"http://{gateway.ADDRESS}"
    pool = urllib3.PoolManager(retries=False)

    def until(wanted, host, path="/", **headers):
        end = time.monotonic() + 15
        while time.monotonic() < end:
            given = {"Host": host, **headers}
            answer = pool.request("GET", f"{place}{path}", headers=given, redirect=False, timeout=10)
            if wanted(answer):
                return answer
        raise AssertionError(f"the data plane did not get there: {answer.status} {answer.headers} {answer.data!r}")

    yield until
    pool.clear()


@pytest.fixture
def host(cluster):
    return f"{cluster.namespace}.test"


def backend(name, weight=1):
    return {"name": name, "port": 80, "weight": weight}


def conditions(route):
    """(type, status, reason) of every parent, if they are about the route as it is."""
    return {
        (c["type"], c["status"], c["reason"])
        for parent in route.get("status", {}).get("parents", ())
        for c in parent["conditions"]
        if c["observedGeneration"] == route["metadata"]["generation"]
    }


GOOD = {("Accepted", "True", "Accepted"), ("ResolvedRefs", "True", "ResolvedRefs")}


def test_defaults_are_filled_in(cluster, objects, host):
    redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}
    match = {"headers": [{"name": "X-A", "value": "b"}]}
    rules = [{"backendRefs": [{"name": "web", "port": 80}], "matches": [match]}, {"filters": [redirect]}]
    spec = cluster.create(ROUTE, objects.http_route("web", host, *rules))["spec"]
    everything = {"type": "PathPrefix", "value": "/"}
    assert spec["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": "edge",
            "namespace": "infra",
            "sectionName": "http",
        }
    ]
    first, second = spec["rules"]
    assert first["matches"] == [{"path": everything, "headers": [{"type": "Exact", "name": "X-A", "value": "b"}]}]
    assert first["backendRefs"] == [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]
    assert second["matches"] == [{"path": everything}]
    assert second["filters"][0]["requestRedirect"]["statusCode"] == 302


def test_routes_are_checked(cluster, objects, host, refused):
    for weight, bound in ((-1, "greater than or equal to 0"), (1_000_001, "less than or equal to 1000000")):
        route = objects.http_route("web", host, {"backendRefs": [backend("web", weight)]})
        message = refused(422, lambda route=route: cluster.create(ROUTE, route))["message"]
        assert f"spec.rules[0].backendRefs[0].weight in body should be {bound}" in message
    route = objects.http_route("web", host, {"backendRefs": [{"name": "web"}]})
    assert "Must have port for Service reference" in refused(422, lambda: cluster.create(ROUTE, route))["message"]
    route = objects.http_route("web", host, {"backendRefs": [backend("web")], "sessionPersistence": {}})
    status = refused(400, lambda: cluster.create(ROUTE, route, field_validation="Strict"))
    assert 'strict decoding error: unknown field "spec.rules[0].sessionPersistence"' in status["message"]


def test_conditions_are_about_a_generation(cluster, objects, host):
    cluster.create("service", objects.service("web"))
    rule = {"backendRefs": [backend("web")]}
    assert cluster.create(ROUTE, objects.http_route("web", host, rule))["metadata"]["generation"] == 1
    (route,) = cluster.wait(ROUTE, lambda found: found and conditions(found[0]) == GOOD)
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 7
    assert cluster.replace(ROUTE, route)["metadata"]["generation"] == 2
    (route,) = cluster.wait(ROUTE, lambda found: conditions(found[0]) == GOOD)
    assert route["metadata"]["generation"] == 2
    assert route["status"]["parents"][0]["parentRef"]["sectionName"] == "http"


def test_refusals_have_a_reason_and_an_unknown_gateway_none(cluster, objects, host):
    cluster.create("service", objects.service("web"))
    rule = {"backendRefs": [backend("web")]}
    cluster.create(ROUTE, objects.http_route("nobody", f"a.{host}", rule, gateway="nobody"))
    cluster.create(ROUTE, objects.http_route("nowhere", f"b.{host}", rule, section="nope"))
    cluster.create(ROUTE, objects.http_route("missing", f"c.{host}", {"backendRefs": [backend("missing")]}))

    def told(found):
        return all(conditions(o) for o in found if o["metadata"]["name"] != "nobody") and len(found) == 3

    by_name = {o["metadata"]["name"]: o for o in cluster.wait(ROUTE, told)}
    assert ("Accepted", "False", "NoMatchingParent") in conditions(by_name["nowhere"])
    assert ("ResolvedRefs", "False", "BackendNotFound") in conditions(by_name["missing"])
    assert ("Accepted", "True", "Accepted") in conditions(by_name["missing"])
    assert not by_name["nobody"].get("status")


def test_listeners_refuse_hosts_and_namespaces(cluster, objects, host):
    custom = client.CustomObjectsApi(cluster.api)
    edge = custom.get_namespaced_custom_object("gateway.networking.k8s.io", "v1", "infra", "gateways", "edge")
    nobody = {"from": "Selector", "selector": {"matchLabels": {"team": "of-nobody"}}}
    listeners = [
        {"name": "elsewhere", "hostname": "*.elsewhere.example", "allowedRoutes": {"namespaces": {"from": "All"}}},
        {"name": "closed", "hostname": f"*.{host}", "allowedRoutes": {"namespaces": nobody}},
        {"name": "same", "hostname": f"*.same.{host}"},
    ]
    listeners = [{"port": 80, "protocol": "HTTP", **listener} for listener in listeners]
    spec = {"gatewayClassName": edge["spec"]["gatewayClassName"], "listeners": listeners}
    made = {"apiVersion": edge["apiVersion"], "kind": "Gateway", "metadata": {"name": "narrow"}, "spec": spec}
    cluster.create("gateway", made)
    cluster.create("service", objects.service("web"))
    rule = {"backendRefs": [backend("web")]}
    for section in ("elsewhere", "closed", "same"):
        own = {"section": section, "gateway": "narrow", "namespace": cluster.namespace}
        cluster.create(ROUTE, objects.http_route(section, f"a.same.{host}", rule, **own))
    found = cluster.wait(ROUTE, lambda found: len(found) == 3 and all(conditions(o) for o in found))
    by_name = {o["metadata"]["name"]: o for o in found}
    assert ("Accepted", "False", "NoMatchingListenerHostname") in conditions(by_name["elsewhere"])
    assert ("Accepted", "False", "NotAllowedByListeners") in conditions(by_name["closed"])
    assert ("Accepted", "True", "Accepted") in conditions(by_name["same"])


def test_weights_headers_and_redirects(cluster, objects, host, ask):
    for version in ("1", "2"):
        cluster.create(RC, objects.rc(f"web-{version}", env={"APP_VERSION": version}))
        cluster.create("service", objects.service(f"web-{version}"))
        cluster.ready(f"web-{version}")

    def modifier(value):
        return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X-R", "value": value}]}}

    seen = {"headers": [{"name": "X-Preview", "value": "secret"}]}
    preview = {"matches": [seen], "backendRefs": [backend("web-2")], "filters": [modifier("two")]}
    public = {"backendRefs": [backend("web-1"), backend("web-2", 0)], "filters": [modifier("one")]}
    route = cluster.create(ROUTE, objects.http_route("web", host, preview, public))
    redirect = {"hostname": host, "statusCode": 301}
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}
    cluster.create(ROUTE, objects.http_route("www", f"www.{host}", rule))
    assert ask(lambda a: a.status == 200, host).headers["X-R"] == "one"
    for _ in range(10):
        answer = ask(lambda a: True, host)
        assert (answer.headers["X-Version"], answer.headers["X-R"]) == ("1", "one")
        answer = ask(lambda a: True, host, **{"X-Preview": "secret"})
        assert (answer.headers["X-Version"], answer.headers["X-R"]) == ("2", "two")
    answer = ask(lambda a: a.status == 301, f"www.{host}", "/a?b=c")
    assert answer.headers["Location"] == f"http://{host}/a?b=c"
    public = {"backendRefs": [backend("web-1", 0), backend("web-2")], "filters": [modifier("two")]}
    route["spec"]["rules"][1] = public
    route = cluster.read(ROUTE, "web") | {"spec": route["spec"]}
    cluster.replace(ROUTE, route)
    ask(lambda a: a.headers.get("X-R") == "two", host)
    assert {ask(lambda a: True, host).headers["X-Version"] for _ in range(10)} == {"2"}


def test_a_share_whose_service_is_missing_is_an_error_and_one_without_pods_too(cluster, objects, host, ask):
    cluster.create("service", objects.service("empty"))
    cluster.create(ROUTE, objects.http_route("missing", host, {"backendRefs": [backend("missing")]}))
    cluster.create(ROUTE, objects.http_route("empty", f"e.{host}", {"backendRefs": [backend("empty")]}))
    ask(lambda a: a.status == 500, host)
    ask(lambda a: a.status == 503, f"e.{host}")
    cluster.wait(ROUTE, lambda found: any(conditions(o) == GOOD for o in found))


def test_an_ingress_wins_over_a_route_unless_that_has_a_much_longer_host_too(cluster, objects, host, ask):
    for version in ("1", "2"):
        cluster.create(RC, objects.rc(f"web-{version}", env={"APP_VERSION": version}))
        cluster.create("service", objects.service(f"web-{version}"))
        cluster.ready(f"web-{version}")
    cluster.create(ROUTE, objects.http_route("web", host, {"backendRefs": [backend("web-1")]}))
    ask(lambda a: a.headers.get("X-Version") == "1", host)
    cluster.create("ingress", objects.ingress("web", host, "web-2"))
    ask(lambda a: a.headers.get("X-Version") == "2", host)
    assert {ask(lambda a: True, host).headers["X-Version"] for _ in range(10)} == {"2"}
    route = cluster.read(ROUTE, "web")
    route["spec"]["hostnames"].append(f"swap-{24 * '0'}.{host}")
    cluster.replace(ROUTE, route)
    ask(lambda a: a.headers.get("X-Version") == "1", host)
    assert {ask(lambda a: True, host).headers["X-Version"] for _ in range(10)} == {"1"}
    cluster.delete("ingress", "web")
    ask(lambda a: a.headers.get("X-Version") == "1", host)
