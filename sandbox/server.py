"""The sandbox's process: puts the parts together, says where it listens, ends with its pods."""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from deployer.sandbox.api.http import LONGEST_BODY, Api
from deployer.sandbox.api.podproxy import PodProxy
from deployer.sandbox.api.watch import Watches
from deployer.sandbox.controllers import SLICE_NAME, controllers
from deployer.sandbox.dataplane.httproutes import CLASS as GATEWAY_CLASS
from deployer.sandbox.dataplane.httproutes import EDGE
from deployer.sandbox.dataplane.ingress import LONGEST_BODY as LONGEST_PROXIED
from deployer.sandbox.dataplane.ingress import Follower, Proxy
from deployer.sandbox.dataplane.routes import CLASS, CONTROLLER
from deployer.sandbox.jobs import Jobs
from deployer.sandbox.kinds import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    GATEWAY,
    HTTP_ROUTE,
    INGRESS_CLASS,
    NAMESPACE,
    NODE,
    SERVICE,
    Object,
    timestamp,
)
from deployer.sandbox.nodes.kubelet import NODE_LABELS, NODE_NAME, Kubelet
from deployer.sandbox.nodes.node import Node
from deployer.sandbox.objects.resources import Resources
from deployer.sandbox.process import STATE_FILE, start_ticks
from deployer.sandbox.store import Store

log = logging.getLogger("sandbox")

Handler = Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    options = _arguments().parse_args(argv)
    options.state.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=options.log_file, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (options.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"A sandbox already runs in {options.state}; stop it or choose another --state\n")
            return 1
        try:
            asyncio.run(_run(options))
        except OSError as error:
            sys.stderr.write(f"The sandbox cannot start: {error}\n")
            return 1
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployer.sandbox", description="A Kubernetes stand-in on loopback."
    )
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="where sandbox.json, kubeconfig and the pods' logs go"
    )
    parser.add_argument("--port", type=int, default=0, help="of the API; 0 chooses a free one")
    parser.add_argument("--ingress-port", type=int, default=0, help="of the ingress; 0 chooses a free one")
    parser.add_argument(
        "--ingress-delay", type=float, default=0.5, metavar="S", help="seconds that the ingress lags behind (0.5)"
    )
    parser.add_argument("--log-file", metavar="FILE", help="the sandbox's own log; default: standard error")
    parser.add_argument(
        "--bookmark-interval", type=float, default=5.0, metavar="S", help="seconds between the bookmarks of a watch (5)"
    )
    parser.add_argument(
        "--probe-factor", type=float, default=1.0, metavar="F", help="multiplies the delays and periods of probes (1)"
    )
    parser.add_argument("--no-gateway-api", action="store_true", help="as in a cluster without Gateways and HTTPRoutes")
    return parser


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store, instance = Store(), uuid.uuid4().hex
    resources, logs = Resources(store), options.state / "pods"
    shutil.rmtree(logs, ignore_errors=True)
    node = Node(store, logs, options.probe_factor)
    kubelet, watches, follower = (
        Kubelet(node),
        Watches(store, options.bookmark_interval),
        Follower(store, options.ingress_delay),
    )
    proxy, pods = Proxy(follower), PodProxy(store)
    api = Api(resources, watches, kubelet, pods, instance)
    if options.no_gateway_api:
        api.absent = frozenset([GATEWAY, HTTP_ROUTE])
    loops = [asyncio.create_task(controller.run()) for controller in (*controllers(resources), Jobs(resources))]
    servers: list[web.ServerRunner] = []
    try:
        api_port = await _listen(servers, api.handle, options.port, LONGEST_BODY)
        ingress_port = await _listen(servers, proxy.handle, options.ingress_port, LONGEST_PROXIED)
        _furnish(resources, ingress_port)
        _announce(options.state, instance, f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{ingress_port}")
        await stop.wait()
    finally:
        watches.close()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await kubelet.close()
        for server in servers:
            await server.cleanup()
        await proxy.close()
        await pods.close()
        (options.state / STATE_FILE).unlink(missing_ok=True)
        shutil.rmtree(logs, ignore_errors=True)


async def _listen(servers: list[web.ServerRunner], handler: Handler, port: int, longest: int) -> int:
    """Serves on a loopback port; returns its number."""
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=longest)

    low_level = web.Server(handler, request_factory=request, access_log=None, keepalive_timeout=75.0)
    runner = web.ServerRunner(low_level, shutdown_timeout=2.0)
    await runner.setup()
    servers.append(runner)
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    number: int = runner.addresses[0][1]
    return number


def _furnish(resources: Resources, ingress_port: int) -> None:
    """What a cluster with ingress-nginx, and with a Gateway, has from the start."""
    for name in ("default", "kube-system", CONTROLLER[0], EDGE[0]):
        resources.create(NAMESPACE, "", {"metadata": {"name": name}})
    store, namespace, name = resources.store, *CONTROLLER
    status = {
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": timestamp()}]
    }
    status |= {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
    meta: Object = {
        "name": NODE_NAME,
        "labels": NODE_LABELS,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": timestamp(),
    }
    store.write(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status})
    resources.create(INGRESS_CLASS, "", {"metadata": {"name": CLASS}, "spec": {"controller": "k8s.io/ingress-nginx"}})
    resources.create(
        CONFIG_MAP, namespace, {"metadata": {"name": name}, "data": {"allow-snippet-annotations": "false"}}
    )
    # No selector: its endpoints are written here, as there is no controller pod.
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    resources.create(SERVICE, namespace, {"metadata": {"name": name}, "spec": {"ports": ports}})
    endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True, "serving": True, "terminating": False}}
    part: Object = {"metadata": {"generateName": f"{name}-", "labels": {SLICE_NAME: name}}, "addressType": "IPv4"}
    part |= {"endpoints": [endpoint], "ports": [{"name": "http", "port": ingress_port, "protocol": "TCP"}]}
    resources.create(ENDPOINT_SLICE, namespace, part)
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]
    gateway = {"metadata": {"name": EDGE[1]}, "spec": {"gatewayClassName": GATEWAY_CLASS, "listeners": listeners}}
    resources.create(GATEWAY, EDGE[0], gateway)


def _announce(state: Path, instance: str, api: str, ingress: str) -> None:
    """Writes kubeconfig and sandbox.json, then the one line that says it is ready."""
    kubeconfig = state / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "users": [{"name": "sandbox", "user": {}}],
        "clusters": [{"name": "sandbox", "cluster": {"server": api}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox", "namespace": "default"}}],
    }
    kubeconfig.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML too
    found = {"pid": os.getpid(), "api": api, "ingress": ingress, "kubeconfig": str(kubeconfig.absolute())}
    found |= {"instance": instance, "start_ticks": start_ticks(os.getpid())}
    draft = state / f"{STATE_FILE}.new"
    draft.write_text(json.dumps(found, indent=2) + "\n")
    draft.replace(state / STATE_FILE)
    sys.stdout.write(f"sandbox ready: API {api}, ingress {ingress}, KUBECONFIG={kubeconfig.absolute()}\n")
    sys.stdout.flush()
