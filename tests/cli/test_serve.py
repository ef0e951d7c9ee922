"""`deployer serve` as a process: it starts without its cluster, ends in order, and takes up again what it left."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from deployer.cli.sandbox import sample
from deployer.sandbox import Sandbox
from support.command import of_a_new_user, running
from support.world import World

NGINX = '[plugins.ingress_nginx]\nrevision_header = true\ncontroller = "ingress-nginx/ingress-nginx-controller"\n'


@pytest.fixture
def flags(cluster: Sandbox, tmp_path: Path) -> list[str]:
    """For a service on the sandbox."""
    file = tmp_path / "deployer.toml"
    file.write_text(NGINX)
    data = str(tmp_path / "data")
    return ["serve", f"--config={file}", "--kubernetes", cluster.api, "--loopback-pods", "--data-dir", data]


def test_a_cluster_that_cannot_be_reached_is_told_by_readyz_alone(deployer: Any, tmp_path: Path) -> None:
    process, rest = deployer.serve("-kubernetes", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "data"))
    assert rest.call("GET", "/healthz") == (200, {"status": "ok"})
    assert rest.call("GET", "/deployments/") == (200, [])
    status, problem = rest.call("GET", "/readyz")
    assert status == 503
    assert "http://127.0.0.1:1 cannot be reached" in problem["detail"]
    assert "not ready" in process.line("not ready", "err")
    assert process.end(signal.SIGINT) == 0
    assert "Traceback" not in process.rest("err")


def test_it_is_ready_when_the_cluster_is(deployer: Any, flags: list[str]) -> None:
    process, rest = deployer.serve(*flags)
    assert rest.call("GET", "/readyz") == (200, {"status": "ready"})
    said = process.line("without authentication")
    assert "in a container is nobody: set --auth, and --deployhost to 0.0.0.0" in said
    assert process.end() == 0
    assert process.rest("err") == ""


def test_figures_have_a_port_of_their_own_for_those_without_a_token(deployer: Any, flags: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, rest = deployer.serve(*flags, "--auth", "kubernetes", "--metrics-port", str(port))
    assert rest.call("GET", "/metrics")[0] == 401
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"\ndeployer_queue_limit 200.0\n" in answer.read()
    assert process.end() == 0


def test_an_etcd_that_does_not_answer_is_told_of_and_delays_nothing(deployer: Any, flags: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process, rest = deployer.serve(*flags, "-etcd", url, "--store", "sqlite")
        assert rest.call("GET", "/readyz") == (200, {"status": "ready"})
        assert f"the environment cannot be read from etcd: {url}" in process.line("etcd", "err")
        assert process.end() == 0


def test_a_stop_in_the_middle_is_orderly_and_resumed(deployer: Any, flags: list[str], world: World) -> None:
    """`world` is here for its namespace and its eyes; its own engine sleeps."""
    world.stop()
    process, rest = deployer.serve(*flags)
    rest.namespace = world.namespace
    id = rest.deploy({**sample.descriptor(SLOW_START="3"), "namespace": world.namespace, "frontend": None})
    viewer = connect(f"ws{rest.url[4:]}stream/deployments/{id}/logs?namespace={world.namespace}", proxy=None)
    with viewer, pytest.raises(ConnectionClosed) as closed:
        for message in viewer:
            if "created" in message:
                break
        began = time.monotonic()
        assert process.end() == 0
        while True:
            viewer.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
    assert time.monotonic() - began < 20
    said = process.rest("err")
    assert "is left as it is: the service is stopping" in said
    assert not any(word in said for word in ("ERROR", "WARNING", "Traceback")), said
    assert world.pods()

    process, rest = deployer.serve(*flags)
    rest.namespace = world.namespace
    with connect(f"ws{rest.url[4:]}stream/deployments/{id}/logs?namespace={world.namespace}", proxy=None) as viewer:
        lines = list(viewer)
    assert rest.call("GET", f"/deployments/{id}/")[1]["status"] == "DEPLOYED"
    assert sum("created shop-1" in line for line in lines) == 1, lines
    assert process.end() == 0


def test_its_figures_tell_of_a_deployment(deployer: Any, flags: list[str], world: World) -> None:
    """`world` is here for its namespace; its own engine sleeps."""
    world.stop()
    _, rest = deployer.serve(*flags)
    rest.namespace = world.namespace
    id = rest.deploy({**sample.descriptor(), "namespace": world.namespace, "frontend": None})
    with connect(f"ws{rest.url[4:]}stream/deployments/{id}/logs?namespace={world.namespace}", proxy=None) as viewer:
        viewer.recv()
        assert figures(rest)["deployer_log_viewers"] == "1.0"
        list(viewer)
    found = figures(rest)
    assert found['deployer_deployments{status="DEPLOYED"}'] == "1.0"
    assert found["deployer_hung_threads"] == "0.0"
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"^\| `(deployer_\w+)`", page, re.MULTILINE))
    assert set(re.findall(r"^# TYPE (deployer_\w+)", rest.call("GET", "/metrics")[1], re.MULTILINE)) == documented
    assert float(found['deployer_kubernetes_requests_total{verb="create"}']) >= 3
    assert (
        found['deployer_http_request_duration_seconds_count{method="POST",route="/deployments",status="202"}'] == "1.0"
    )
    # Who follows the log may know it before those who are told of the end.
    end = time.monotonic() + 20
    where = f'namespace="{world.namespace}"'
    while figures(rest)[f'deployer_deployments_ended_total{{{where},status="DEPLOYED"}}'] != "1.0":
        assert time.monotonic() < end
    found = figures(rest)
    assert found[f'deployer_deployment_duration_seconds_count{{{where},status="DEPLOYED"}}'] == "1.0"
    for part in ("queue", "start", "verify", "switch"):
        assert found[f'deployer_deployment_part_duration_seconds_count{{{where},part="{part}"}}'] == "1.0"
    assert 'deployer_deployment_part_duration_seconds_count{part="drain"}' not in found


def figures(rest: Any) -> dict[str, str]:
    """Each series of `/metrics` with its value."""
    status, text = rest.call("GET", "/metrics")
    assert status == 200
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_a_second_signal_does_not_wait(deployer: Any, flags: list[str]) -> None:
    process, rest = deployer.serve(*flags)
    host, port = rest.url[7:-1].split(":")
    with socket.create_connection((host, int(port))) as half:
        # A request that never arrives whole keeps an orderly stop busy for its grace time.
        half.sendall(b"POST /descriptors/?namespace=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        assert rest.call("GET", "/healthz")[0] == 200
        began = time.monotonic()
        while process.child.poll() is None:
            # Two signals that come together count as one, so it is sent until it is seen.
            assert time.monotonic() - began < 8, "the second signal had no effect"
            process.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.child.wait(0.2)
    assert process.child.returncode == 128 + signal.SIGTERM


def test_a_test_that_fails_leaves_no_service_behind(flags: list[str], tmp_path: Path) -> None:
    """What the tests themselves rely on."""
    with pytest.raises(ZeroDivisionError), running(of_a_new_user(tmp_path), tmp_path) as made:
        process, _ = made.serve(*flags)
        raise ZeroDivisionError
    assert process.child.poll() is not None
