"""Pods as real processes: start, readiness, crashes, images, logs, environment, end."""

import base64
import json
import signal
from pathlib import Path

import pytest
import urllib3

POD, RC, SERVICE = "pod", "replication_controller", "service"


def fetch(pod, path="/", port=8080):
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request("GET", f"http://{pod['status']['podIP']}:{port}{path}", timeout=5)
        return answer.status, answer.data.decode(), answer.headers


def state(pod):
    return pod["status"]["containerStatuses"][0]["state"] if "containerStatuses" in pod["status"] else {}


def waits_for(reason):
    return lambda found: any(state(pod).get("waiting", {}).get("reason") == reason for pod in found)


def is_ready(found):
    return found and all(c["status"] == "True" for pod in found for c in pod["status"]["conditions"])


def test_a_pod_serves_on_an_address_of_its_own(cluster, objects):
    cluster.create(RC, objects.rc("web", 2, env={"APP_VERSION": "7"}))
    cluster.ready("web", 2)
    pods = cluster.items(POD)
    assert len({pod["status"]["podIP"] for pod in pods}) == 2
    for pod in pods:
        assert pod["status"]["podIP"].startswith("127.")
        code, body, headers = fetch(pod)
        assert (code, body, headers["X-Version"]) == (200, f"version 7 on {pod['metadata']['name']}\n", "7")
        assert json.loads(fetch(pod, "/healthy", 9999)[1]) == {"healthy": True, "version": "7"}


def test_a_pod_is_ready_when_its_probe_passes(cluster, objects):
    cluster.create(POD, objects.pod("web", env=[{"name": "FAIL", "value": "1"}]))
    event = cluster.event("Unhealthy")
    assert event["message"] == "Readiness probe failed: HTTP probe failed with statuscode: 503"
    pod = cluster.read(POD, "web")
    assert pod["status"]["phase"] == "Running"
    ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [web]"


def test_a_pod_without_a_probe_is_ready_at_once(cluster, objects):
    cluster.create(POD, objects.pod("web", readinessProbe=None))
    cluster.wait(POD, is_ready)


def test_a_tcp_probe_by_port_name(cluster, objects):
    cluster.create(POD, objects.pod("web", readinessProbe={"tcpSocket": {"port": "http"}, "periodSeconds": 1}))
    cluster.wait(POD, is_ready)


def test_a_probe_that_the_sandbox_cannot_do_is_said(cluster, objects):
    cluster.create(
        POD,
        objects.pod("web", readinessProbe={"exec": {"command": ["true"]}}, livenessProbe={"tcpSocket": {"port": 1}}),
    )
    assert "does not support probes of type exec" in cluster.event("Unhealthy")["message"]
    assert "livenessProbe" in cluster.event("NotSupported")["message"]


def test_an_unknown_image_is_never_pulled(cluster, objects):
    cluster.create(POD, objects.pod("web", image="example.com/shop:9"))
    cluster.wait(POD, waits_for("ErrImagePull"))
    pod = cluster.wait(POD, waits_for("ImagePullBackOff"))[0]
    assert 'Back-off pulling image "example.com/shop:9"' in state(pod)["waiting"]["message"]
    assert pod["status"]["phase"] == "Pending"
    assert 'Failed to pull image "example.com/shop:9"' in cluster.event("Failed", "Failed to pull")["message"]
    failures = cluster.wait("event", lambda found: any(e["reason"] == "Failed" and e["count"] > 1 for e in found))
    assert any(event["message"] == "Error: ErrImagePull" for event in failures)
    cluster.delete(POD, "web")
    cluster.wait(POD, lambda found: not found)


def test_a_crash_loop_backs_off_and_counts(cluster, objects, refused):
    cluster.create(POD, objects.pod("web", image="sample/web:crash"))
    pod = cluster.wait(POD, lambda found: found[0]["status"]["containerStatuses"][0]["restartCount"] >= 2)[0]
    status = pod["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["reason"] == "Error"
    pod = cluster.wait(POD, waits_for("CrashLoopBackOff"))[0]
    assert "restarting failed container=web" in state(pod)["waiting"]["message"]
    assert cluster.event("BackOff")["type"] == "Warning"
    text = cluster.core.read_namespaced_pod_log("web", cluster.namespace, previous=True)
    assert text == "cannot start: crashing on purpose\n"


def test_a_pod_that_crashes_later_is_unready_and_comes_back(cluster, objects):
    cluster.create(POD, objects.pod("web", env=[{"name": "CRASH_AFTER", "value": "0.6"}]))
    cluster.wait(POD, is_ready)
    cluster.wait(POD, lambda found: not is_ready(found))
    pod = cluster.wait(POD, is_ready)[0]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1


def test_commands_of_a_descriptor_are_never_run(cluster, objects, tmp_path):
    trace = tmp_path / "trace"
    cluster.create(POD, objects.pod("web", command=["touch", str(trace)]))
    pod = cluster.wait(POD, waits_for("CreateContainerError"))[0]
    expected = "the sandbox runs only its sample programs; command and args are not supported"
    assert state(pod)["waiting"]["message"] == expected
    assert not trace.exists()


def test_variables_do_not_reach_the_interpreter(cluster, objects, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    variables = {"PYTHONPATH": str(tmp_path), "PYTHONINSPECT": "1", "LD_PRELOAD": "/nowhere.so"}
    cluster.create(RC, objects.rc("web", env=variables))
    cluster.ready("web")
    assert f"PYTHONPATH={tmp_path}" in fetch(cluster.items(POD)[0], "/env")[1].splitlines()
    assert not (tmp_path / "trace").exists()


def test_environment(cluster, objects):
    cluster.create("config_map", {"metadata": {"name": "c"}, "data": {"COLOR": "blue", "SIZE": "7"}})
    secret = {"metadata": {"name": "s"}, "data": {"key": base64.b64encode(b"hidden").decode()}}
    cluster.create("secret", secret)
    field = lambda path: {"fieldRef": {"fieldPath": path}}  # noqa: E731
    env = [
        {"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['tier']")},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "COLOR"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "x", "optional": True}}},
        {"name": "URL", "value": "http://$(IP):$(PORT)/$$(IP)"},
    ]
    source = [{"prefix": "ALL_", "configMapRef": {"name": "c"}}]
    cluster.create(POD, objects.pod("web", labels={"tier": "front"}, env=env, envFrom=source))
    pod = cluster.wait(POD, is_ready)[0]
    found = dict(line.split("=", 1) for line in fetch(pod, "/env")[1].splitlines())
    address = pod["status"]["podIP"]
    expected = {
        "NAMESPACE": cluster.namespace,
        "IP": address,
        "LABEL": "front",
        "FROM_MAP": "blue",
        "FROM_SECRET": "hidden",
    }
    assert found == {**expected, "URL": f"http://{address}:$(PORT)/$(IP)", "ALL_COLOR": "blue", "ALL_SIZE": "7"}


def test_service_links(cluster, objects):
    """Variables of the Services that there are when the container starts, unless the pod wants none."""
    ports = [{"name": "web-app", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    cluster.create(SERVICE, {"metadata": {"name": "my-shop"}, "spec": {"ports": ports, "selector": {"a": "b"}}})
    cluster.create(SERVICE, {"metadata": {"name": "headless"}, "spec": {"ports": ports, "clusterIP": "None"}})
    [address] = [s["spec"]["clusterIP"] for s in cluster.items(SERVICE) if s["metadata"]["name"] == "my-shop"]
    env = [{"name": "MY_SHOP_PORT_80_TCP", "value": "mine, not $(MY_SHOP_PORT)"}]
    cluster.create(POD, objects.pod("web", env=env))
    cluster.create(POD, objects.pod("bare", spec={"enableServiceLinks": False}))
    found = {}
    cluster.wait(POD, lambda pods: len(pods) == 2 and is_ready(pods))
    for name in ("web", "bare"):
        lines = fetch(cluster.read(POD, name), "/env")[1].splitlines()
        found[name] = dict(line.split("=", 1) for line in lines if line.startswith(("MY_SHOP", "HEADLESS")))
    assert found["bare"] == {}
    assert found["web"] == {
        "MY_SHOP_SERVICE_HOST": address,
        "MY_SHOP_SERVICE_PORT": "80",
        "MY_SHOP_SERVICE_PORT_WEB_APP": "80",
        "MY_SHOP_SERVICE_PORT_DNS": "53",
        "MY_SHOP_PORT": f"tcp://{address}:80",
        "MY_SHOP_PORT_80_TCP": f"mine, not tcp://{address}:80",
        "MY_SHOP_PORT_80_TCP_PROTO": "tcp",
        "MY_SHOP_PORT_80_TCP_PORT": "80",
        "MY_SHOP_PORT_80_TCP_ADDR": address,
        "MY_SHOP_PORT_53_UDP": f"udp://{address}:53",
        "MY_SHOP_PORT_53_UDP_PROTO": "udp",
        "MY_SHOP_PORT_53_UDP_PORT": "53",
        "MY_SHOP_PORT_53_UDP_ADDR": address,
    }


def test_a_missing_secret_holds_the_container_until_it_is_there(cluster, objects):
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
    cluster.create(POD, objects.pod("web", env=env))
    pod = cluster.wait(POD, waits_for("CreateContainerConfigError"))[0]
    assert state(pod)["waiting"]["message"] == 'secret "late" not found'
    cluster.create("secret", {"metadata": {"name": "late"}, "stringData": {"k": "v"}})
    cluster.wait(POD, is_ready)


def test_a_pod_for_another_node_stays_pending(cluster, objects):
    cluster.create(POD, objects.pod("web", spec={"nodeSelector": {"disk": "ssd"}}))
    assert "didn't match Pod's node affinity/selector" in cluster.event("FailedScheduling")["message"]
    pod = cluster.read(POD, "web")
    assert pod["status"]["phase"] == "Pending"
    told = pod["status"]["conditions"][0]
    assert (told["type"], told["status"], told["reason"]) == ("PodScheduled", "False", "Unschedulable")
    cluster.delete(POD, "web")
    assert not cluster.items(POD)


def test_what_cannot_be_run_faithfully_is_not_run(cluster, objects):
    init = [{"name": "init", "image": "sample/web:1"}]
    cluster.create(POD, objects.pod("web", spec={"initContainers": init}))
    pod = cluster.wait(POD, waits_for("CreateContainerError"))[0]
    assert state(pod)["waiting"]["message"] == "the sandbox does not support initContainers"


def test_logs(cluster, objects, refused):
    cluster.create(POD, objects.pod("web", env=[{"name": "APP_VERSION", "value": "4"}]))
    cluster.wait(POD, is_ready)
    read = cluster.core.read_namespaced_pod_log
    assert read("web", cluster.namespace) == "starting version 4\n"
    assert read("web", cluster.namespace, limit_bytes=8) == "starting"
    assert read("web", cluster.namespace, tail_lines=0) == ""
    path = cluster.path(POD, "web") + "/log"
    status = refused(400, lambda: cluster.request("GET", path, previous="true"))
    assert status["message"] == 'previous terminated container "web" in pod "web" not found'
    assert refused(501, lambda: cluster.request("GET", path, follow="true"))["reason"] == "NotImplemented"
    cluster.create(POD, objects.pod("none", image="sample/web:missing"))
    cluster.wait(POD, lambda found: any(waits_for("ImagePullBackOff")([pod]) for pod in found))
    status = refused(400, lambda: cluster.request("GET", cluster.path(POD, "none") + "/log"))
    assert status["message"] == 'container "web" in pod "none" is waiting to start: trying and failing to pull image'


def test_requests_under_way_end_while_a_pod_drains(cluster, objects):
    cluster.create(POD, objects.pod("web", env=[{"name": "DRAIN", "value": "3"}]))
    pod = cluster.wait(POD, is_ready)[0]
    with urllib3.PoolManager(retries=False) as pool:
        slow = pool.request("GET", f"http://{pod['status']['podIP']}:8080/slow", timeout=5, preload_content=False)
        cluster.delete(POD, "web")
        assert slow.read() == b"slow\n"
        slow.release_conn()
    assert "deletionTimestamp" in cluster.read(POD, "web")["metadata"]
    cluster.delete(POD, "web", grace_period_seconds=0)
    assert not cluster.items(POD)


def test_a_pod_that_outstays_its_grace_time_is_killed(cluster, objects):
    spec = {"terminationGracePeriodSeconds": 1}
    cluster.create(POD, objects.pod("web", spec=spec, env=[{"name": "DRAIN", "value": "60"}]))
    cluster.wait(POD, is_ready)
    cluster.delete(POD, "web")
    ended = lambda found: found and "terminated" in state(found[0])  # noqa: E731
    pod = cluster.wait(POD, ended, timeout=5)[0]
    assert state(pod)["terminated"]["exitCode"] == 128 + signal.SIGKILL
    cluster.wait(POD, lambda found: not found)


def test_pre_stop_sleep_keeps_a_pod_serving(cluster, objects):
    cluster.create(POD, objects.pod("web", lifecycle={"preStop": {"sleep": {"seconds": 3}}}))
    pod = cluster.wait(POD, is_ready)[0]
    cluster.delete(POD, "web")
    cluster.event("Killing")
    assert fetch(pod)[0] == 200
    cluster.delete(POD, "web", grace_period_seconds=0)


def test_two_containers_share_the_address(cluster, objects):
    second = objects.container(
        name="side", env=[{"name": "PORT", "value": "8081"}, {"name": "HEALTH_PORT", "value": "9998"}]
    )
    second |= {"ports": [{"containerPort": 8081}], "readinessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1}}
    cluster.create(POD, objects.pod("web", spec={"containers": [objects.container(), second]}))
    pod = cluster.wait(POD, is_ready)[0]
    assert [fetch(pod, port=port)[0] for port in (8080, 8081)] == [200, 200]


@pytest.mark.parametrize(
    ("name", "value"), [("HEALTH_REDIRECT", "http://127.0.0.1:1/"), ("HEALTH_BODY_BYTES", "100000")]
)
def test_the_sample_can_misbehave(cluster, objects, name, value):
    probe = {"tcpSocket": {"port": 9999}, "periodSeconds": 1}
    cluster.create(POD, objects.pod("web", env=[{"name": name, "value": value}], readinessProbe=probe))
    pod = cluster.wait(POD, is_ready)[0]
    with urllib3.PoolManager(retries=False) as pool:
        url = f"http://{pod['status']['podIP']}:9999/healthy"
        answer = pool.request("GET", url, redirect=False, timeout=5)
    if name == "HEALTH_REDIRECT":
        assert (answer.status, answer.headers["Location"]) == (302, value)
    else:
        assert len(answer.data) == int(value)
        assert json.loads(answer.data)["healthy"] is True


def test_the_logs_of_a_pod_go_with_it(cluster, objects, sandbox):
    made = cluster.create(POD, objects.pod("web"))
    cluster.wait(POD, is_ready)
    folder: Path = sandbox.state / "pods" / made["metadata"]["uid"]
    assert folder.is_dir()
    cluster.delete(POD, "web")
    cluster.wait(POD, lambda found: not found)
    later = cluster.create(POD, objects.pod("later"))  # by then the removal had its time
    cluster.wait(POD, is_ready)
    assert not folder.exists()
    assert (sandbox.state / "pods" / later["metadata"]["uid"]).is_dir()
