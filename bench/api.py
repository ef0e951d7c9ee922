"""How fast the API is: reads a second over REST, and how soon a new log line reaches 200 viewers.

    python bench/api.py [--seconds 5] [--connections 8] [--viewers 200] [--lines 100]

The server runs in a process of its own; the load comes from this one.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from websockets.asyncio.client import connect

from deployer.api.app import create_app
from deployer.api.server import Server
from deployer.api.stream import LogStream
from deployer.core import plugins
from deployer.core.logbook import Logbook
from deployer.core.records import Deployment, new_id, timestamp
from deployer.core.service import Service
from deployer.core.settings import Settings
from deployer.core.store.base import Create
from deployer.core.store.sqlite import SqliteStore

NS = "bench"


def serve(directory: Path) -> None:
    """The server's process. Each line of standard input is `<count> <seconds between>`: lines to append to the log."""
    store = SqliteStore(directory / "deployer.db")
    logbook = Logbook(store)
    settings = Settings(ingress="none")
    service = Service(store, logbook, plugins.load(settings, entry_points=[]), settings)
    server = Server(create_app(service, list, list), LogStream(service), "127.0.0.1", 0)
    server.start()
    now = timestamp()
    container = {"name": "main", "image": "example/shop:1", "ports": [{"containerPort": 8080}]}
    record = Deployment(
        namespace=NS,
        app="shop",
        id=new_id(),
        created=now,
        last_modified=now,
        version="1",
        descriptor={"namespace": NS, "appName": "shop", "newVersion": "1", "podspec": {"containers": [container]}},
    )
    store.commit(Create(record))
    print(json.dumps({"port": server.port, "id": record.id}), flush=True)
    for line in sys.stdin:
        count, gap = line.split()
        for _ in range(int(count)):
            logbook.append(record.id, f"{time.monotonic_ns()}")
            time.sleep(float(gap))
    server.stop()
    logbook.close()
    store.close()


def read_for(port: int, path: str, seconds: float, latencies: list[float]) -> None:
    """One keep-alive connection that reads as fast as it can."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        connection.request("GET", path)
        with connection.getresponse() as response:
            response.read()
        latencies.append(time.monotonic() - start)
    connection.close()


def rest(port: int, id: str, seconds: float, connections: int) -> None:
    """GET one deployment."""
    latencies: list[float] = []
    arguments = (port, f"/deployments/{id}/?namespace={NS}", seconds, latencies)
    threads = [threading.Thread(target=read_for, args=arguments) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"GET /deployments/<id>/, {connections} connections, {seconds:g} s")
    print(f"  requests/s  {len(latencies) / seconds:8.0f}")
    show(latencies)


async def stream(port: int, id: str, viewers: int, lines: int, server: subprocess.Popen[str]) -> None:
    """Open the viewers, have lines appended, and compare the time in each line with that of its arrival."""
    url = f"ws://127.0.0.1:{port}/stream/deployments/{id}/logs?namespace={NS}"
    latencies: list[float] = []
    ready = asyncio.Semaphore(0)

    async def view() -> None:
        async with connect(url, proxy=None, compression=None, open_timeout=60) as viewer:
            ready.release()
            for _ in range(lines):
                message = await viewer.recv()
                latencies.append((time.monotonic_ns() - int(str(message).split(" ")[1])) / 1e9)

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(viewers):
            group.create_task(view())
        for _ in range(viewers):
            await ready.acquire()
        assert server.stdin is not None
        server.stdin.write(f"{lines} 0.05\n")
        server.stdin.flush()
    print(f"log stream, {viewers} viewers, {lines} lines, 20 a second")
    print(f"  messages    {len(latencies):8d}")
    show(latencies)


def show(latencies: list[float]) -> None:
    """Two percentiles in milliseconds."""
    cuts = statistics.quantiles(latencies, n=100)
    print(f"  p50         {cuts[49] * 1e3:8.2f} ms")
    print(f"  p99         {cuts[98] * 1e3:8.2f} ms")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description="Measure the API.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--serve", directory]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None and server.stdout is not None
            place = json.loads(server.stdout.readline())
            rest(place["port"], place["id"], options.seconds, options.connections)
            asyncio.run(stream(place["port"], place["id"], options.viewers, options.lines, server))
            server.stdin.close()
            server.wait(30)


if __name__ == "__main__":
    main()
