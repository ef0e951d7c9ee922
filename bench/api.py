"""How fast the API is: requests a second over REST, and how soon a new log line reaches many viewers.

    python bench/api.py [get] [lists] [post] [viewers] [shared] [server] [--seconds 4] [--repeat 3] ...

    get      GET of one deployment, with 100, 1,000 and 100,000 of them stored
    lists    GET of one app's 20 deployments, with as many others stored
    post     POST of a descriptor, durable
    viewers  from `append` to the arrival at each of 1,000 viewers
    shared   what the log stream costs REST: the look at a connection's first bytes, idle viewers, flowing lines
    server   the WSGI server by itself, with an application that does nothing, and what its number of threads changes

Without a name: all of them. The server runs in a process of its own, the load (`load.py`) in others. Other work on the
machine makes every figure worse and none better, so each is the best of `--repeat` runs. `CPU` is the server process's
processor time, user and system, for 1,000 requests: it depends less on what else is running.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from waitress.channel import HTTPChannel

import figures
from deployer.api import server as rest_server
from deployer.api.app import create_app
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.deployment_log import DeploymentLog
from deployer.core.model.records import App, Deployment, HostClaim, Record, Status, new_id, timestamp
from deployer.core.ports.store import Create, Update
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore

NS = "bench"
LOAD = Path(__file__).with_name("load.py")
SIZES = (100, 1_000, 100_000)
CONTAINER = {
    "name": "main",
    "image": "registry.example.com/shop/cart:1.4.2",
    "ports": [{"containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}],
    "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(5)],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 2},
}


def descriptor(app: str = "cart", version: str = "#") -> dict[str, Any]:
    """A descriptor of the usual size, about 1 KiB."""
    return {
        "namespace": NS,
        "appName": app,
        "newVersion": version,
        "deploymentType": "blue-green",
        "replicas": 2,
        "useHealthCheck": False,
        "webhooks": [{"key": "registry", "description": "deploys whatever was built last"}],
        "additionHttpHeaders": [{"Header": "X-Frame-Options", "Value": "DENY"}],
        "podspec": {"containers": [CONTAINER]},
    }


def deployment(app: str) -> Deployment:
    """One that has ended, so that nobody waits for anything."""
    now = timestamp()
    document = {"id": new_id(), **descriptor(app, "1")}
    return Deployment(
        namespace=NS,
        app=app,
        id=new_id(),
        created=now,
        last_modified=now,
        version="1",
        status=Status.UNDEPLOYED,
        descriptor=document,
    )


def touch(store: SqliteStore, count: int, gap: float) -> None:
    """Write to an app, again and again."""
    for _ in range(count):
        (app,) = store.find(App, namespace=NS, app="live-0")
        store.commit(Update(app))
        time.sleep(gap)


def live_app(name: str) -> list[Record]:
    """An app with a live version and a host."""
    live = dataclasses.replace(deployment(name), status=Status.DEPLOYED)
    app = App(namespace=NS, app=name, live=live.id, live_version="1")
    return [live, app, HostClaim(namespace=NS, app=name, host=f"{name}.example.com")]


# --- the server's process -------------------------------------------------------------------------------------------


class NoPeek(rest_server._Channel):
    """A REST connection without the look at its first bytes, as if the log stream had a port of its own."""

    handle_read = HTTPChannel.handle_read


def empty(_environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    """An application that does nothing, with an answer as long as a deployment's."""
    body = b"x" * 1500
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def serve(directory: Path, options: argparse.Namespace) -> None:
    """Answers commands of one line each on standard input with one JSON object each."""
    store = SqliteStore(directory / "deployer.db")
    deployment_log = DeploymentLog(store, Redactor())
    settings = Settings(ingress="none")
    service = DeploymentCommands(store, deployment_log, load_plugins(settings), settings)
    if options.no_peek:
        rest_server._Rest.channel_class = NoPeek
    app: Any = empty if options.empty else create_app(service, list, list)
    more = {"threads": options.threads} if options.threads else {}
    server = Server(app, LogStream(service), "127.0.0.1", 0, **more)
    server.start()
    print(json.dumps({"port": server.port}), flush=True)
    watched = ""
    writer = threading.Thread()

    def append(count: int, gap: float) -> None:
        for _ in range(count):
            deployment_log.append(watched, f"{time.monotonic_ns()}")
            time.sleep(gap)

    for line in sys.stdin:
        answer: dict[str, Any] = {}
        match line.split():
            case ["cpu"]:
                used = resource.getrusage(resource.RUSAGE_SELF)
                answer = {"cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss}
            case ["fill", number]:
                have = store.count(Deployment)
                records = [deployment(f"app-{n // 20}") for n in range(have, int(number))]
                for start in range(0, len(records), 1000):
                    store.commit(*(Create(record) for record in records[start : start + 1000]))
                answer = {"id": records[len(records) // 2].id if records else ""}
            case ["apps", number]:
                for n in range(int(number)):
                    store.commit(*map(Create, live_app(f"live-{n}")))
            case ["touch", count, gap]:
                writer = threading.Thread(target=touch, args=(store, int(count), float(gap)))
                writer.start()
            case ["moving"]:
                watched = new_id()
                now = timestamp()
                store.commit(
                    Create(
                        Deployment(
                            namespace=NS,
                            app="seen",
                            id=watched,
                            created=now,
                            last_modified=now,
                            descriptor=descriptor(),
                        )
                    )
                )
                answer = {"id": watched}
            case ["lines", count, gap]:
                writer = threading.Thread(target=append, args=(int(count), float(gap)))
                writer.start()
            case ["written"]:
                writer.join()
        print(json.dumps(answer), flush=True)
    server.stop()
    deployment_log.close()
    store.close()


class Remote:
    """The server's process, as this one sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port: int = self._answer()["port"]

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.contextmanager
def running(*flags: str) -> Iterator[Remote]:
    """A server with an empty store."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--serve", directory, *flags]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Remote(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


# --- load and figures -----------------------------------------------------------------------------------------------


def load(remote: Remote, requests: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """The best of several runs of the same requests."""
    return max((once(remote, requests, options) for _ in range(options.repeat)), key=lambda run: run["rate"])


def once(remote: Remote, requests: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One run: requests a second, percentiles, and the server's processor time for 1,000 of them."""
    before = remote.ask("cpu")["cpu"]
    command = [sys.executable, LOAD, "rest", str(remote.port), str(options.connections), str(options.seconds)]
    done = subprocess.run(command, input=json.dumps(requests), stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    if result["refused"]:
        raise SystemExit(f"{result['refused']} requests were refused")
    result["rate"] = result["done"] / result["seconds"]
    result["cpu"] = (remote.ask("cpu")["cpu"] - before) / result["done"] * 1000
    return result


def get(path: str, **headers: str) -> list[str]:
    """A request of `load.py`."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"]


def tag_of(remote: Remote, path: str) -> str:
    """The entity tag of an answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{remote.port}{path}", timeout=60) as answer:
        return str(answer.headers["ETag"])


def posts() -> list[str]:
    """Descriptors of 50 apps."""
    head = f"POST /descriptors/?namespace={NS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    bodies = [json.dumps(descriptor(f"app-{number}")) for number in range(50)]
    return [f"{head}{len(body)}\r\n\r\n{body}" for body in bodies]


RAW: list[dict[str, Any]] = []
"""The figures of every line, for the report."""


def show(name: str, result: dict[str, Any], **of: Any) -> None:
    """One line; `of` says to a program what it is about, as the name does to people."""
    RAW.append({"name": name, **of, **{key: result.get(key) for key in ("rate", "p50", "p99", "cpu")}})
    rate = f"{result['rate']:8,.0f}/s" if "rate" in result else f"{result['done']:8,d}  "
    cpu = f"  CPU {result['cpu']:6.3f} s" if "cpu" in result else ""
    print(f"  {name:<44}{rate}  p50 {result['p50'] * 1e3:7.2f} ms  p99 {result['p99'] * 1e3:7.2f} ms{cpu}", flush=True)


def one_deployment(options: argparse.Namespace) -> None:
    """GET of one deployment does not depend on how many there are."""
    print(f"GET /deployments/<id>/, {options.connections} connections")
    with running() as remote:
        for size in options.sizes:
            id = remote.ask(f"fill {size}")["id"]
            result = load(remote, get(f"/deployments/{id}/?namespace={NS}"), options)
            show(f"{size:,} stored", result, part="get", stored=size)


def lists(options: argparse.Namespace) -> None:
    """Nor does the list of an app."""
    print(f"GET /deployments/?appname=, 20 deployments, {options.connections} connections")
    with running() as remote:
        for size in options.sizes:
            remote.ask(f"fill {size}")
            result = load(remote, get(f"/deployments/?namespace={NS}&appname=app-2"), options)
            show(f"{size:,} stored", result, part="lists", stored=size)


def post(options: argparse.Namespace) -> None:
    """Every answer comes after an fsync."""
    print(f"POST /descriptors/, {options.connections} connections")
    with running() as remote:
        show("durable", load(remote, posts(), options))


@contextlib.contextmanager
def watching(remote: Remote, viewers: int, lines: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes, each with half of the viewers, all of them open."""
    id = remote.ask("moving")["id"]
    path = f"/stream/deployments/{id}/logs?namespace={NS}"
    with contextlib.ExitStack() as stack:
        processes = []
        for share in (viewers // 2, viewers - viewers // 2):
            command = [sys.executable, LOAD, "viewers", str(remote.port), path, str(share), str(lines)]
            processes.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the viewers could not be opened")
        yield processes
        for process in processes:
            process.terminate()


def arrived(processes: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """What the viewers saw; the worse of two percentiles."""
    results = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
    worst = {cut: max(result[cut] for result in results) for cut in ("p50", "p99")}
    return {"done": sum(result["done"] for result in results), **worst}


def viewers(options: argparse.Namespace) -> None:
    """Lines are appended one by one, slowly and faster than they can all be sent one by one."""
    print(f"log stream, {options.viewers} viewers of one deployment: messages, and time from append to arrival")
    with running() as remote:
        for name, lines, gap in (("20 lines a second", options.lines, 0.05), ("200 lines a second", 400, 0.005)):
            runs = []
            for _ in range(options.repeat):
                with watching(remote, options.viewers, lines) as processes:
                    before = remote.ask("cpu")["cpu"]
                    remote.ask(f"lines {lines} {gap}")
                    run = arrived(processes)
                    run["cpu"] = (remote.ask("cpu")["cpu"] - before) / run["done"] * 1000
                runs.append(run)
            show(name, min(runs, key=lambda run: run["p99"]), part="viewers", viewers=options.viewers)


def shared(options: argparse.Namespace) -> None:
    """REST beside the stream, on one port."""
    print(f"GET /deployments/<id>/ beside the log stream, {options.connections} connections")
    for name, flags in (("without the look at first bytes", ["--no-peek"]), ("with it", [])):
        with running(*flags) as remote:
            id = remote.ask("fill 100")["id"]
            show(name, load(remote, get(f"/deployments/{id}/?namespace={NS}"), options))
            if flags:
                continue
            requests = get(f"/deployments/{id}/?namespace={NS}")
            with watching(remote, options.viewers, 1 << 30):
                show(f"{options.viewers} idle viewers", load(remote, requests, options))
            lines = int(options.seconds * options.repeat * 20) + 40
            with watching(remote, options.viewers, lines) as processes:
                remote.ask(f"lines {lines} 0.05")
                show(f"{options.viewers} viewers, 20 lines a second", load(remote, requests, options))
                remote.ask("written")
                show("  the lines meanwhile", arrived(processes))


def polls(options: argparse.Namespace) -> None:
    """What it costs to ask whether anything is new."""
    print(f"polling, {options.connections} connections")
    apps = f"/apps/?namespace={NS}"
    with running() as remote:
        id = remote.ask("fill 1000")["id"]
        path = f"/deployments/{id}/?namespace={NS}"
        show("a deployment, 200", load(remote, get(path), options))
        show("a deployment, 304", load(remote, get(path, If_None_Match=tag_of(remote, path)), options))
        before = remote.ask("cpu")["rss"]
        remote.ask("apps 1000")
        show("1,000 apps, 200", load(remote, get(apps), options))
        show("1,000 apps, 304", load(remote, get(apps, If_None_Match=tag_of(remote, apps)), options))
        page = f"{apps}&limit=50"
        show("50 of 1,000 apps, 200", load(remote, get(page), options))
        show("50 of 1,000 apps, 304", load(remote, get(page, If_None_Match=tag_of(remote, page)), options))
        for name, asked in (("1,000 apps", apps), ("50 of 1,000 apps", page)):
            remote.ask(f"touch {int(options.seconds * options.repeat * 10) + 40} 0.1")
            show(f"{name}, one changes 10 times a second", load(remote, get(asked), options))
            remote.ask("written")
        one = f"/apps/live-7/?namespace={NS}"
        show("one app, 200", load(remote, get(one), options))
        show("one app, 304", load(remote, get(one, If_None_Match=tag_of(remote, one)), options))
        after = remote.ask("cpu")["rss"]
        print(f"  resident at most: {before / 1024:.0f} MB before there were apps, {after / 1024:.0f} MB after")


def wsgi_server(options: argparse.Namespace) -> None:
    """The ceiling: nothing that an application does makes these figures better."""
    print(f"the server, {options.connections} connections")
    with running("--empty") as remote:
        show("an application that does nothing", load(remote, get("/"), options))
    for threads in (2, 4, 8, 16, 32):
        with running("--threads", str(threads)) as remote:
            id = remote.ask("fill 100")["id"]
            show(f"{threads} threads, GET", load(remote, get(f"/deployments/{id}/?namespace={NS}"), options))
            show(f"{threads} threads, POST", load(remote, posts(), options))


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "get": one_deployment,
    "lists": lists,
    "post": post,
    "viewers": viewers,
    "shared": shared,
    "polls": polls,
    "server": wsgi_server,
}


def main() -> None:
    """The parts that were asked for."""
    parser = argparse.ArgumentParser(description="Measure the API.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="deployments stored, in get and lists")
    figures.add_option(parser)
    for flag in ("--no-peek", "--empty"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}")
    for name, part in PARTS.items():
        if name in options.parts or not options.parts:
            part(options)
    figures.write(options.json, RAW)


if __name__ == "__main__":
    main()
