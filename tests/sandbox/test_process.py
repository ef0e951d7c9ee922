"""The process: survives its starter, is found again, ends with its pods whatever happens to it."""

import json
import os
import select
import signal
import subprocess
import sys

import pytest
from kubernetes import client, config

from deployer.sandbox import Sandbox, SandboxError, start
from deployer.sandbox.process import start_ticks


@pytest.fixture
def running(tmp_path):
    sandbox = start(tmp_path / "state")
    yield sandbox
    sandbox.stop()


def pods_of(sandbox):
    """The processes that are children of the sandbox: its pods."""
    path = f"/proc/{sandbox.pid}/task/{sandbox.pid}/children"
    with open(path) as children:  # noqa: PTH123
        return [int(pid) for pid in children.read().split()]


def start_pod(sandbox, objects):
    with config.new_client_from_config(sandbox.kubeconfig) as api:
        core = client.CoreV1Api(api)
        core.create_namespaced_pod("default", objects.pod("web", env=[{"name": "DRAIN", "value": "60"}]))
        from kubernetes.watch import Watch

        for event in Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=10, _request_timeout=15):
            statuses = event["object"].status.container_statuses or []
            if any(status.ready for status in statuses):
                break
        api.rest_client.pool_manager.clear()
    pids = pods_of(sandbox)
    assert len(pids) == 1
    return pids[0]


def ended(descriptor, timeout=10):
    return bool(select.select([descriptor], [], [], timeout)[0])


def test_a_second_start_attaches(running):
    assert start(running.state) == running
    assert Sandbox.attach(running.state) == running


def test_it_says_where_it_is(running):
    found = json.loads((running.state / "sandbox.json").read_text())
    assert {found[key] for key in ("api", "ingress", "kubeconfig")} == {
        running.api,
        running.ingress,
        running.kubeconfig,
    }
    assert found["pid"] == running.pid


def test_another_process_of_its_number_is_not_taken_for_it(running):
    file = running.state / "sandbox.json"
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "pid": os.getpid()}))
    assert Sandbox.attach(running.state) is None
    file.write_text(json.dumps({**json.loads(before), "instance": "another"}))
    assert Sandbox.attach(running.state) is None
    file.write_text("{")
    assert Sandbox.attach(running.state) is None
    file.write_text(before)
    assert Sandbox.attach(running.state) == running


def test_a_stop_ends_the_pods_and_leaves_nothing(tmp_path, objects):
    sandbox = start(tmp_path)
    pod = os.pidfd_open(start_pod(sandbox, objects))
    try:
        sandbox.stop()
        assert ended(pod, 0)
    finally:
        os.close(pod)
    assert not sandbox.is_alive()
    assert Sandbox.attach(tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} <= {"sandbox.log", "kubeconfig", "lock", "start.lock"}
    sandbox.stop()  # once more does no harm


def test_a_killed_sandbox_takes_its_pods_along(tmp_path, objects):
    sandbox = start(tmp_path)
    pid = start_pod(sandbox, objects)
    pod = os.pidfd_open(pid)
    try:
        os.kill(sandbox.pid, signal.SIGKILL)
        assert ended(pod)
    finally:
        os.close(pod)
    assert Sandbox.attach(tmp_path) is None
    sandbox.stop()
    again = start(tmp_path)
    assert again.pid != sandbox.pid
    again.stop()


def test_it_survives_its_starter(tmp_path):
    code = "import sys, pathlib; from deployer.sandbox import start; start(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    sandbox = Sandbox.attach(tmp_path)
    assert sandbox is not None
    sandbox.stop()
    assert start_ticks(sandbox.pid) is None


def test_two_do_not_share_a_directory(running):
    command = [sys.executable, "-m", "deployer.sandbox", "--state", str(running.state)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"A sandbox already runs in {running.state}")


def test_a_port_that_is_taken_is_an_error_in_one_sentence(running, tmp_path):
    port = int(running.api.rpartition(":")[2])
    with pytest.raises(SandboxError, match=r"The sandbox cannot start: .*address already in use"):
        start(tmp_path / "other", port=port)
