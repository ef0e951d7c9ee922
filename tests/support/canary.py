"""Drives a Deployer, as a process, through everything that could say a secret, and keeps every byte that it said.

Each secret is a canary: a text that stands nowhere else. A plugin, found by its entry points like any stranger's, gives
some of them to containers and then does all that a plugin should not.
"""

from __future__ import annotations

import base64
import html
import json
import signal
import sqlite3
import textwrap
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from deployer.api.routes import ROUTES
from deployer.core.errors import KubeError
from deployer.core.model.kind import CONTROLLER, EVENT, NAMESPACE, POD, SECRET, SERVICE
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from support.command import PATIENCE, Deployer, Process, Rest
from support.world import describe

INJECTED = {
    "TOKEN": 'iNj3cted-token "quoted" /+ä',
    "DATABASE": "postgres://shop:d4tabase-passw0rd@db.example/shop",
    "KEY": "-----BEGIN KEY-----\nMIIcanaryLineOne/aa\nMIIcanaryLineTwo/bb\n-----END KEY-----\n",
    "SHORT": "q7Zx1",
    "IMAGE": "registry.example/injected-canary-image",
}
"""What the injector gives."""
LITERAL = "l1teral-Value of_the team"
"""What a team writes into its own descriptor, and gets back there, and nowhere else."""
NEVER = {
    "kubernetes password": "kub3-passw0rd-canary",
    "descriptor password": "d3scriptor-passw0rd-canary",
    "registry password": "r3gistry-passw0rd-canary",
    "value of a refused descriptor": "r3fused-value-canary",
    "caller token": "c4ller-token-canary",
    "caller subprotocol": "c4ller-subprotocol-canary",
}

ECHO = {"useHealthCheck": True, "healthCheckPort": 8080, "healthCheckPath": "/env", "healthCheckType": "leaky"}
"""A health check whose answer is the whole environment."""

PLUGIN = """
    import logging
    import threading

    from deployer.sdk.environment import EnvInjector
    from deployer.sdk.health import HealthChecker, Verdict
    from deployer.sdk.plugin import Problem, hookimpl

    VALUES = {values!r}
    log = logging.getLogger("canary")


    class Injector(EnvInjector):
        name = "canary"

        def environment(self, context):
            return [{{"name": name, "value": value}} for name, value in VALUES.items()]


    class Leaky(HealthChecker):
        name = "leaky"

        def check(self, target):
            answer = target.ask()
            log.warning("asked %s and got %r", target.where, answer.text)
            log.debug("values: %s", VALUES)
            thread = threading.Thread(target=int, args=(answer.text,))
            thread.start()
            thread.join()
            if "FAIL=raise" in answer.text:
                raise ValueError("cannot bear " + answer.text)
            return Verdict("FAIL=" not in answer.text, "it said " + answer.text, answer.text)

        def check_descriptor(self, descriptor):
            if descriptor["appName"] == "told":
                yield Problem("healthCheckPath", "is not " + str(descriptor))
            if descriptor["appName"] == "untold":
                raise ValueError(str(descriptor))


    @hookimpl
    def settings_schema():
        return {{"type": "object"}}


    @hookimpl
    def register_env_injectors():
        return [Injector()]


    @hookimpl
    def register_health_checkers():
        return [Leaky()]


    @hookimpl
    def deployment_finished(deployment):
        raise RuntimeError("observed " + str(VALUES) + str(deployment))
"""
BROKEN = "raise RuntimeError('cannot be loaded with {password}')\n"


def install(path: Path) -> None:
    """Put the plugins where `importlib.metadata` finds them when `path` is on PYTHONPATH."""
    path.mkdir()
    (path / "canary_plugin.py").write_text(textwrap.dedent(PLUGIN).format(values=INJECTED))
    (path / "canary_broken.py").write_text(BROKEN.format(password=NEVER["kubernetes password"]))
    info = path / "canary-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: canary\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[deployer.plugins]\ncanary = canary_plugin\ncanary_broken = canary_broken\n"
    )


def spellings(secret: str) -> set[str]:
    """How a secret might be written; independent of the product's own list."""
    raw = secret.encode()
    found = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    found |= {urllib.parse.quote(secret), urllib.parse.quote_plus(secret), html.escape(secret)}
    if len(raw) >= 12:
        found |= {base64.b64encode(raw[n : n + (len(raw) - n) // 3 * 3]).decode() for n in range(3)}
    found |= {line for line in secret.splitlines() if "canary" in line}
    return found


@dataclass
class Canary:
    """A Deployer in a namespace, and what it said: `said` by where."""

    deployer: Deployer
    eyes: KubeClient
    namespace: str
    arguments: list[str]
    fields: Document
    flags: tuple[str, ...] = ("--kubernetes-username=canary", f"--kubernetes-password={NEVER['kubernetes password']}")
    said: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    descriptors: list[str] = field(default_factory=list)
    inside: str = ""
    """What pods were given, wrote and answered: where canaries have to be, or the test shows nothing."""

    def start(self) -> None:
        """Start the process; at debug level, with a password."""
        self.process, self.rest = self.deployer.serve(*self.arguments, *self.flags, "--log-level=debug")
        self.rest.namespace = self.namespace

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process and keep its logs."""
        process: Process = self.process
        process.end(number)
        for stream in ("out", "err"):
            text = "".join(process.seen[stream]) + process.rest(stream)
            self.said[f"{stream} of {process.child.pid}"] = text

    # --- talking ----------------------------------------------------------------------------------------------------

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """One request, whose answer is kept, head and body; with a token that nobody asked for."""
        rest: Rest = self.rest
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {NEVER['caller token']}"}
        request = Request(f"{rest.url.rstrip('/')}{target}", data=data, method=method, headers=headers)
        opener = build_opener(ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                status, head, content = answer.status, str(answer.headers), answer.read().decode()
        except OSError as error:
            if not hasattr(error, "read"):
                raise
            with error:  # type: ignore[attr-defined]
                status, head, content = error.code, str(error.headers), error.read().decode()  # type: ignore[attr-defined]
        self.said[f"{len(self.said)} {method} {target} {status}"] = head + content
        with suppress(ValueError):
            return status, json.loads(content)
        return status, content

    def descriptor(self, app: str, env: Document, **more: Any) -> Document:
        """One whose containers print a secret, answer with all of them, and hold one of the team's own."""
        variables = {"APP_VERSION": "$(TOKEN)", "OWN": LITERAL, **env}
        made = describe(self.namespace, app, **{**self.fields, "env": variables, **more})
        return {**made, "password": NEVER["descriptor password"], "imagePullSecrets": [{"name": "registry"}]}

    def deploy(self, document: Document) -> str:
        """Store and deploy; the id."""
        query = f"?namespace={self.namespace}"
        status, stored = self.ask("POST", f"/descriptors/{query}", document)
        assert status == 201, stored
        self.descriptors.append(stored["id"])
        status, deployment = self.ask("POST", f"/deployments/{query}&descriptorId={stored['id']}")
        assert status == 202, deployment
        self.ids.append(deployment["id"])
        return str(deployment["id"])

    def follow(self, id: str, until: str = "") -> str:
        """Read the stream to its end, or to a text; the reason of the end."""
        url = f"ws{self.rest.url[4:]}stream/deployments/{id}/logs?namespace={self.namespace}"
        token = base64.urlsafe_b64encode(NEVER["caller subprotocol"].encode()).decode().rstrip("=")
        protocols = ["log", f"base64url.bearer.authorization.kube-deployer.{token}"]
        lines: list[str] = []
        with (
            suppress(ConnectionClosed),
            connect(
                url,
                proxy=None,
                subprotocols=protocols,  # type: ignore[arg-type]
                additional_headers={"Authorization": f"Bearer {NEVER['caller token']}"},
            ) as viewer,
        ):
            try:
                while not (until and lines and until in lines[-1]):
                    lines.append(str(viewer.recv(timeout=PATIENCE)))
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                lines.append(closed.rcvd.reason)
        self.said[f"{len(self.said)} stream {id}"] = "\n".join(lines)
        return lines[-1] if lines else ""

    # --- looking ----------------------------------------------------------------------------------------------------

    def look_inside(self, app: str) -> None:
        """Keep what the pods of an app were given and wrote."""
        end = time.monotonic() + PATIENCE
        while True:
            pods = [p for p in self.eyes.list(POD, self.namespace)[0] if p["metadata"]["labels"].get("app") == app]
            for pod in pods:
                self.inside += json.dumps(pod, ensure_ascii=False)
                with suppress(KubeError):
                    written = self.eyes.pod_log(self.namespace, pod["metadata"]["name"], "web")
                    self.inside += written
                    if INJECTED["TOKEN"] in written:
                        return
            assert time.monotonic() < end, f"no pod of {app} wrote its secret: {pods}"
            time.sleep(0.05)

    def look_around(self) -> None:
        """Ask every route that can be read, for everything that there is; and for what is refused."""
        query = f"?namespace={self.namespace}"
        for route in ROUTES:
            if "GET" not in route.methods or route.stream:
                continue
            known = self.descriptors if route.path.startswith("/descriptors") else self.ids
            targets = {route.path.replace("{id}", id) for id in known} if "{id}" in route.path else {route.path}
            for target in sorted(targets):
                self.ask("GET", target + query)
        refused = NEVER["value of a refused descriptor"]
        bad = self.descriptor("bad", {"A=B": refused})
        bad["podspec"]["containers"][0]["env"].append({"name": "X", "value": LITERAL, "valueFrom": {}})
        for path in ("/descriptors/validate", "/descriptors"):
            self.ask("POST", path + query, {**bad, "nonsense": LITERAL, "newVersion": "?"})
        self.ask("POST", f"/descriptors/validate{query}", bad)
        self.ask("POST", f"/descriptors/validate{query}", self.descriptor("good", {}))
        status, _ = self.ask("POST", f"/descriptors{query}", self.descriptor("told", {"A": refused}, **ECHO))
        assert status == 400
        status, _ = self.ask("POST", f"/descriptors{query}", self.descriptor("untold", {"A": refused}, **ECHO))
        assert status == 500

    def cluster(self) -> Iterator[tuple[str, str]]:
        """What others can read in the cluster, but for the pods' own environment."""
        for kind in (CONTROLLER, SERVICE, POD, EVENT, NAMESPACE):
            namespace = self.namespace if kind.namespaced else None
            for found in self.eyes.list(kind, namespace)[0]:
                if not kind.namespaced and found["metadata"]["name"] != self.namespace:
                    continue
                if kind is EVENT and (found.get("source") or {}).get("component") != "deployer":
                    self.inside += str(found.get("message"))
                    continue
                yield f"{kind.kind} {found['metadata']['name']}", json.dumps(found["metadata"], ensure_ascii=False)


def make_secret(eyes: KubeClient, namespace: str) -> None:
    """A registry's credentials, as a pull secret has them."""
    auth = base64.b64encode(f"user:{NEVER['registry password']}".encode()).decode()
    config = {"auths": {"registry.example": {"auth": auth, "password": NEVER["registry password"]}}}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()},
    }
    eyes.create(SECRET, body, namespace)


def without_podspecs(text: str) -> str:
    """An answer without the descriptors' own podspecs, where a team's own values may stand."""
    head, brace, body = text.partition("\n\n")
    try:
        document = json.loads(body)
    except ValueError:
        return text

    def strip(thing: Any) -> Any:
        if isinstance(thing, dict):
            return {key: strip(value) for key, value in thing.items() if key != "podspec"}
        return [strip(item) for item in thing] if isinstance(thing, list) else thing

    return head + brace + json.dumps(strip(document), ensure_ascii=False)


def leaks(said: dict[str, str]) -> list[str]:
    """Which canary was said where. Of a team's own values, only what was said outside of its descriptors."""
    found = []
    secrets = {**INJECTED, **NEVER, "password of the database": "d4tabase-passw0rd"}
    for where, text in said.items():
        bare = without_podspecs(text)
        for name, secret in secrets.items():
            searched = bare if name == "IMAGE" else text  # by coincidence, a team's image is called like that
            for spelling in spellings(secret):
                if spelling in searched:
                    at = searched.index(spelling)
                    found.append(f"{name} in {where}: ...{searched[max(0, at - 200) : at + 80]}...")
        if any(spelling in bare for spelling in spellings(LITERAL)):
            at = min(bare.index(s) for s in spellings(LITERAL) if s in bare)
            found.append(f"the literal value in {where}: ...{bare[max(0, at - 200) : at + 80]}...")
    return found


def stored(path: Path) -> str:
    """Everything in the store, as text."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(row) for table in tables for row in database.execute(f"SELECT * FROM {table}")]
    return "\n".join(rows)


def play(canary: Canary, *more: Document) -> None:
    """Success, failures with everything that they tell, a crash in the middle, and every question there is.

    more   descriptors whose deployment fails
    """
    canary.start()
    assert canary.follow(canary.deploy(canary.descriptor("shop", {}, **ECHO))) == "DEPLOYED"
    canary.look_inside("shop")
    # It runs, and is not healthy: its answer, its log.
    failing = canary.deploy(canary.descriptor("sick", {"FAIL": "yes"}, **ECHO))
    canary.look_inside("sick")
    assert canary.follow(failing) == "FAILURE"
    assert canary.follow(canary.deploy(canary.descriptor("raising", {"FAIL": "raise"}, **ECHO))) == "FAILURE"
    # Its containers end, over and over.
    crashing = canary.descriptor("crashing", {"CRASH_AFTER": "0.05"})
    crashing["podspec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/error", "port": 9999}}
    assert canary.follow(canary.deploy(crashing)) == "FAILURE"
    # Its image is called like a secret, and cannot be pulled: the Events say so.
    missing = canary.descriptor("missing", {})
    missing["podspec"]["containers"][0] |= {
        "image": f"nowhere.invalid/{INJECTED['IMAGE']}:1",
        "imagePullPolicy": "Always",
    }
    for document in (missing, *more):
        assert canary.follow(canary.deploy(document)) == "FAILURE"
    canary.look_around()
    # The process dies while one is under way; the next one has never asked the injector.
    resumed = canary.deploy(canary.descriptor("resumed", {"FAIL": "yes"}, **ECHO))
    canary.follow(resumed, until="not healthy yet")
    canary.end(signal.SIGKILL)
    canary.start()
    assert canary.follow(resumed) == "FAILURE"
    canary.ask("DELETE", f"/deployments/{canary.ids[0]}/?namespace={canary.namespace}")
    assert canary.follow(canary.ids[0]) == "UNDEPLOYED"
    canary.look_around()
    canary.said |= dict(canary.cluster())
    canary.end()


def judge(canary: Canary, store: Path) -> None:
    """Nothing was said; and there was something to say."""
    for name, secret in INJECTED.items():
        assert any(spelling in canary.inside for spelling in spellings(secret)), f"{name} never reached a pod"
    assert any(LITERAL in text for where, text in canary.said.items() if "GET /descriptors/" in where)
    everything = "\n".join(canary.said.values())
    for word in ("last lines of container", "answer of ", "events of ", "could not be pulled", "resumed", "Traceback"):
        assert word in everything, f"{word!r} was never said: nothing was tried there"
    assert everything.count("***") > 20
    assert "c4ller" not in everything
    assert NEVER["descriptor password"] not in stored(store)
    found = leaks(canary.said)
    assert not found, f"{len(found)} leaks\n" + "\n".join(found[:20])
