"""What authentication costs a request: GET of one deployment, without and with tokens, in turns.

    python bench/auth.py [--seconds 4] [--rounds 3] [--connections 8]

Servers run in processes of their own, side by side; the load comes from this one and goes to one of them at a time.
`none, unread` sends a token to a server that does not look at it: what the longer header costs client and server.
`jwt, new tokens` sends a token that was never seen before with each request, so that every signature is checked.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployer.api.app import create_app
from deployer.api.auth.access import open_access
from deployer.api.auth.audit import Audit
from deployer.api.auth.stream_auth import StreamAuth
from deployer.api.fairness.callers import Callers
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.deployment_log import DeploymentLog
from deployer.core.model.records import Deployment, new_id, timestamp
from deployer.core.ports.store import Create
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore

NS = "bench"


def serve(directory: Path, auth: str) -> None:
    """The server's process, until standard input ends. `shared`: with tokens, and shares of its threads."""
    fields: dict[str, Any] = {}
    name, auth = auth, "jwt" if auth == "shared" else auth
    if auth == "jwt":
        fields = {"jwt_algorithm": "ES256", "jwt_issuer": "bench", "jwt_audience": "bench"}
        fields["jwt_key_file"] = str(directory / "key.pem")
    settings = Settings(own_namespace="deployer", ingress="none", auth=auth, **fields)
    access = open_access(settings, None)  # type: ignore[arg-type] # no cluster is asked
    store = SqliteStore(directory / f"{name}.db")
    deployment_log = DeploymentLog(store, Redactor())
    service = DeploymentCommands(store, deployment_log, load_plugins(settings, entry_points=[]), settings)
    now = timestamp()
    document = {"namespace": NS, "appName": "shop", "newVersion": "1", "podspec": {"containers": [{"name": "a"}]}}
    deployment = Deployment(
        namespace=NS, app="shop", id=new_id(), descriptor=document, created=now, last_modified=now, version="1"
    )
    store.commit(Create(deployment))
    callers = Callers(secured=name == "shared")
    app = create_app(service, list, list, access=access, callers=callers)
    server = Server(app, LogStream(service, auth=StreamAuth(access, Audit())), "127.0.0.1", 0, callers=callers)
    server.start()
    print(json.dumps({"port": server.port, "id": deployment.id}), flush=True)
    sys.stdin.read()
    server.stop(5)
    deployment_log.close()
    store.close()


def read_for(port: int, path: str, seconds: float, tokens: list[str], latencies: list[float]) -> None:
    """One keep-alive connection that reads as fast as it can, with one token after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    end, number = time.monotonic() + seconds, 0
    while (start := time.monotonic()) < end:
        headers = {"Authorization": f"Bearer {tokens[number % len(tokens)]}"} if tokens else {}
        number += 1
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            body = response.read()
            assert response.status == 200, body
        latencies.append(time.monotonic() - start)
    connection.close()


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(place: Any, pid: int, seconds: float, tokens: list[list[str]]) -> tuple[float, float, float]:
    """Requests a second, median latency in milliseconds, and microseconds of the server's processor time for each.

    The last is what holds on a machine that others use too. A list of tokens for each connection.
    """
    used = cpu(pid)
    latencies: list[float] = []
    path = f"/deployments/{place['id']}/?namespace={NS}"
    threads = [threading.Thread(target=read_for, args=(place["port"], path, seconds, t, latencies)) for t in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = len(latencies)
    return count / seconds, statistics.median(latencies) * 1e3, (cpu(pid) - used) / count * 1e6


def make_tokens(key: ec.EllipticCurvePrivateKey, count: int) -> list[str]:
    """Different ones."""
    claims = {"iss": "bench", "aud": "bench", "exp": int(time.time()) + 3600, "namespaces": [NS], "roles": ["read"]}
    return [jwt.encode({**claims, "sub": f"ann-{n}", "jti": str(n)}, key, algorithm="ES256") for n in range(count)]


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description="Measure what authentication costs.")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), options.serve[1])
        return
    key = ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "key.pem").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        servers = {}
        for auth in ("none", "jwt"):
            command = [sys.executable, __file__, "--serve", directory, auth]
            servers[auth] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        places = {auth: json.loads(server.stdout.readline()) for auth, server in servers.items() if server.stdout}
        one = make_tokens(key, 1)
        fresh = make_tokens(key, 2000 * options.connections)
        share = len(fresh) // options.connections
        cases: dict[str, tuple[str, list[list[str]]]] = {
            "none": ("none", [[]] * options.connections),
            "none, unread": ("none", [one] * options.connections),
            "jwt": ("jwt", [one] * options.connections),
            # More than are remembered, in a circle: each has been forgotten when its turn comes again.
            "jwt, new tokens": ("jwt", [fresh[n * share : (n + 1) * share] for n in range(options.connections)]),
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
        for _ in range(options.rounds):
            for name, (auth, tokens) in cases.items():
                found[name].append(load(places[auth], servers[auth].pid, options.seconds, tokens))
        for server in servers.values():
            server.communicate(timeout=30)
    print(
        f"GET /deployments/<id>/, {options.connections} connections, {options.rounds} x {options.seconds:g} s, medians"
    )
    base = statistics.median(used for _, _, used in found["none"])
    for name, results in found.items():
        rate, latency, used = (statistics.median(values) for values in zip(*results, strict=True))
        print(
            f"  {name:16} {rate:7.0f} requests/s  p50 {latency:5.2f} ms  CPU {used:4.0f} us, {used / base * 100:4.0f} %"
        )


if __name__ == "__main__":
    main()
