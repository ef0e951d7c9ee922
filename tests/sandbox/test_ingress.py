"""The ingress: real requests, late to follow, and what it costs to remove the old version too early."""

import concurrent.futures
import time

import pytest
import urllib3

from deployer.sandbox import Load

RC, SLICE = "replication_controller", "endpoint_slice"


@pytest.fixture
def host(cluster):
    return f"{cluster.namespace}.test"


@pytest.fixture
def shop(cluster, objects, host):
    """Starts versions and leads the ingress to them."""

    class Shop:
        def deploy(self, version, **more):
            name = f"shop-{version}"
            cluster.create(RC, objects.rc(name, 2, env={"APP_VERSION": version}, **more))
            cluster.create("service", objects.service(name))
            cluster.ready(name, 2)
            return name

        def route(self, version, annotations=None):
            ingress = objects.ingress("shop", host, f"shop-{version}", annotations)
            exists = any(item["metadata"]["name"] == "shop" for item in cluster.items("ingress"))
            return (cluster.replace if exists else cluster.create)("ingress", ingress)

        def remove(self, version):
            cluster.delete(RC, f"shop-{version}", propagation_policy="Background")

    return Shop()


@pytest.fixture
def ask(sandbox, host):
    pool = urllib3.PoolManager(retries=False)

    def request(path="/", name=host, **more):
        return pool.request(
            "GET", f"{sandbox.ingress}{path}", headers={"Host": name, **more}, redirect=False, timeout=10
        )

    yield request
    pool.clear()


def until(ask, wanted, **options):
    """Asks until the answer is as wanted; the ingress says nothing by itself, so this is how a client finds out."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        answer = ask(**options)
        if wanted(answer):
            return answer
    raise AssertionError(f"the ingress did not get there: {answer.status} {answer.data!r}")


def test_it_leads_a_host_to_ready_pods(cluster, shop, ask):
    shop.deploy("1")
    shop.route("1")
    answer = until(ask, lambda a: a.status == 200)
    assert answer.headers["X-Version"] == "1"
    pods = {pod["metadata"]["name"] for pod in cluster.items("pod")}
    assert {ask().data.decode().split()[-1] for _ in range(4)} == pods
    assert ask(name="elsewhere.test").status == 404
    ready = lambda found: found[0]["status"]["loadBalancer"].get("ingress")  # noqa: E731
    assert cluster.wait("ingress", ready)[0]["status"]["loadBalancer"]["ingress"] == [{"ip": "127.0.0.1"}]


def test_it_follows_late(shop, ask, sandbox):
    shop.deploy("1")
    shop.deploy("2")
    shop.route("1")
    until(ask, lambda a: a.status == 200)
    shop.route("2")
    began = time.monotonic()
    assert ask().headers["X-Version"] == "1"
    until(ask, lambda a: a.headers["X-Version"] == "2")
    assert time.monotonic() - began > 0.3  # of a delay of 0.4 s


def test_a_removed_version_that_still_gets_traffic_loses_requests(shop, ask, sandbox, host):
    """Without this nobody could trust a zero."""
    shop.deploy("1")
    shop.deploy("2")
    shop.route("1")
    until(ask, lambda a: a.status == 200)
    load = Load(sandbox.ingress, host, rate=200).start()
    load.wait_for(lambda report: report.answered > 20, 10)
    shop.remove("1")
    shop.route("2")
    load.wait_for(lambda report: report.by_version.get("2", 0) > 20, 10)
    report = load.stop()
    assert report.failed > 0
    assert set(report.failures) <= {"HTTP 502", "HTTP 503"}
    assert report.sent == report.answered + report.failed


def test_a_switch_before_the_removal_loses_nothing(shop, ask, sandbox, host):
    shop.deploy("1")
    shop.deploy("2")
    shop.route("1")
    until(ask, lambda a: a.status == 200)
    load = Load(sandbox.ingress, host, rate=200).start()
    load.wait_for(lambda report: report.answered > 20, 10)
    shop.route("2")
    load.wait_for(lambda report: report.by_version.get("2", 0) > 40, 10)
    shop.remove("1")
    count = load.snapshot().sent
    load.wait_for(lambda report: report.sent > count + 100, 10)
    report = load.stop()
    assert (report.failed, report.failures) == (0, {})
    assert set(report.by_version) == {"1", "2"}
    assert report.first_seen["1"] < report.first_seen["2"] <= report.last_seen["2"]


def test_a_request_under_way_ends_on_the_old_configuration(shop, ask):
    shop.deploy("1")
    shop.deploy("2")
    shop.route("1")
    until(ask, lambda a: a.status == 200)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(ask, "/slow")
        shop.route("2")
        until(ask, lambda a: a.headers["X-Version"] == "2")
        assert slow.result().data == b"slow\n"


def test_a_service_without_endpoints_is_503(cluster, objects, ask, host):
    cluster.create("service", objects.service("empty"))
    cluster.create("ingress", objects.ingress("empty", host, "empty"))
    assert until(ask, lambda a: a.status != 404).status == 503


def test_the_longest_path_wins(cluster, objects, shop, ask, host):
    shop.deploy("1")
    shop.deploy("2")
    ingress = objects.ingress("shop", host, "shop-1")
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    backend = {"service": {"name": "shop-2", "port": {"name": "http"}}}
    paths += [
        {"path": "/new", "pathType": "Prefix", "backend": backend},
        {"path": "/only", "pathType": "Exact", "backend": backend},
    ]
    cluster.create("ingress", ingress)
    until(ask, lambda a: a.status == 200)
    found = {path: ask(path).headers["X-Version"] for path in ("/", "/new", "/new/x", "/newer", "/only", "/only/x")}
    assert found == {"/": "1", "/new": "2", "/new/x": "2", "/newer": "1", "/only": "2", "/only/x": "1"}


def test_the_oldest_ingress_of_a_host_wins(cluster, objects, shop, ask, host):
    shop.deploy("1")
    shop.deploy("2")
    cluster.create("ingress", objects.ingress("z-old", host, "shop-1"))
    cluster.create("ingress", objects.ingress("a-young", host, "shop-2"))
    cluster.wait("ingress", lambda found: all(i["status"]["loadBalancer"] for i in found))
    assert {ask().headers["X-Version"] for _ in range(4)} == {"1"}
    cluster.delete("ingress", "z-old")
    until(ask, lambda a: a.headers.get("X-Version") == "2")


def test_another_class_is_not_ours(cluster, objects, shop, ask, host):
    shop.deploy("1")
    other = objects.ingress("other", f"other.{host}", "shop-1")
    other["spec"]["ingressClassName"] = "traefik"
    cluster.create("ingress", other)
    shop.route("1")
    until(ask, lambda a: a.status == 200)
    assert ask(name=f"other.{host}").status == 404


def test_custom_headers_come_from_a_config_map_read_once(cluster, shop, ask):
    shop.deploy("1")
    place = f"{cluster.namespace}/headers"
    annotation = {"nginx.ingress.kubernetes.io/custom-headers": place}
    shop.route("1", annotation)
    assert until(ask, lambda a: a.status != 404).status == 503
    assert f'could not find ConfigMap "{place}"' in cluster.event("AnnotationParsingFailed")["message"]
    # As in the real controller, creating it afterwards heals nothing; another edit of the Ingress does.
    cluster.create("config_map", {"metadata": {"name": "headers"}, "data": {"X-Deployer-Revision": "abc"}})
    shop.route("1", {**annotation, "example.com/turn": "2"})
    assert until(ask, lambda a: a.status == 200).headers["X-Deployer-Revision"] == "abc"


def test_www_redirect(shop, ask, host, sandbox):
    shop.deploy("1")
    shop.route("1", {"nginx.ingress.kubernetes.io/from-to-www-redirect": "true"})
    answer = until(ask, lambda a: a.status != 404, name=f"www.{host}", path="/a?b=c")
    assert (answer.status, answer.headers["Location"]) == (308, f"http://{host}/a?b=c")


def test_sticky_sessions(shop, ask):
    prefix = "nginx.ingress.kubernetes.io/"
    shop.deploy("1")
    shop.route("1", {f"{prefix}affinity": "cookie", f"{prefix}session-cookie-name": "lane"})
    first = until(ask, lambda a: a.status == 200)
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    assert cookie.startswith("lane=")
    again = [ask(Cookie=cookie) for _ in range(4)]
    assert {answer.data for answer in again} == {first.data}
    assert not any("Set-Cookie" in answer.headers for answer in again)


def test_what_it_cannot_do_is_said(cluster, objects, shop, host):
    shop.deploy("1")
    ingress = objects.ingress("shop", host, "shop-1", {"nginx.ingress.kubernetes.io/auth-url": "http://127.0.0.1/"})
    ingress["spec"]["tls"] = [{"hosts": [host]}]
    cluster.create("ingress", ingress)
    assert cluster.event("NotSupported", "annotation")["message"].endswith("auth-url is not supported by the sandbox")
    assert "spec.tls" in cluster.event("NotSupported", "tls")["message"]


def test_the_controllers_addresses_can_be_asked(cluster, sandbox):
    other = type(cluster)(cluster.api, "ingress-nginx")
    selector = "kubernetes.io/service-name=ingress-nginx-controller"
    part = other.items(SLICE, label_selector=selector)[0]
    port = next(port["port"] for port in part["ports"] if port["name"] == "http")
    assert f"http://{part['endpoints'][0]['addresses'][0]}:{port}" == sandbox.ingress


CANARY = "nginx.ingress.kubernetes.io/canary"


@pytest.fixture
def divided(cluster, objects, shop, host, ask):
    """Version 1 has the host; returns what puts a canary for version 2 beside it, by its annotations."""
    shop.deploy("1")
    shop.deploy("2")
    shop.route("1")
    until(ask, lambda a: a.status == 200)

    def divide(annotations, *, helper=False):
        if helper:
            cluster.create("ingress", objects.ingress("helper", f"helper.{host}", "shop-2"))
        notes = {CANARY: "true"} | {f"{CANARY}-{name}": value for name, value in annotations.items()}
        cluster.create("ingress", objects.ingress("shop-canary", host, "shop-2", notes))
        cluster.wait("ingress", lambda found: all(item["status"]["loadBalancer"].get("ingress") for item in found))

    return divide


def test_a_canary_gets_its_weight(divided, ask):
    divided({"weight": "10"})
    until(ask, lambda a: a.headers["X-Version"] == "2")
    asked = 2500  # three points are five standard deviations then
    got = sum(ask().headers["X-Version"] == "2" for _ in range(asked))
    assert abs(100 * got / asked - 10) < 3, f"{got} of {asked}"


def test_a_canary_gets_requests_with_a_header_or_a_cookie_whatever_its_weight(divided, ask):
    divided({"by-header": "X-Try", "by-header-value": "new", "by-cookie": "try"})
    versions = lambda **headers: {ask(**headers).headers["X-Version"] for _ in range(10)}  # noqa: E731
    assert versions(**{"X-Try": "new"}) == {"2"}
    assert versions(**{"X-Try": "always"}) == {"1"}
    assert versions(Cookie="try=always") == {"2"}
    assert versions(Cookie="try=never") == versions(Cookie="try=yes") == versions() == {"1"}


def test_a_canary_gets_nothing_when_an_older_ingress_named_its_service_first(divided, ask):
    """As `createUpstreams` of ingress-nginx, which asks the first one that names a Service whether it is a canary's."""
    divided({"weight": "100"}, helper=True)
    assert {ask().headers["X-Version"] for _ in range(20)} == {"1"}
