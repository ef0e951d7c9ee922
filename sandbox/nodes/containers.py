"""One container of a pod: image, start, readiness, restarts with back-off, stop."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deployer.sandbox.kinds import Key, Object, timestamp
from deployer.sandbox.nodes.environment import ConfigError, environment
from deployer.sandbox.nodes.logs import read_log, write_log
from deployer.sandbox.nodes.node import Node
from deployer.sandbox.nodes.probes import probe
from deployer.sandbox.status import bad_request

PROGRAM = Path(__file__).parent / "sample.py"
# Of a kubelet's 10 s to 5 min; short, so that a test sees the states in seconds.
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 10.0
START_LAG = 0.15
"""Seconds from a start to the first probe; a kubelet needs up to a second to notice a start."""
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH")
"""What a sample's process gets of our environment; the container's own travels in its first line of input."""
UNSUPPORTED = ("livenessProbe", "startupProbe", "volumeMounts", "volumeDevices", "restartPolicy")


def program_of(image: str) -> str | None:
    """The sample program that an image name stands for; None for an image that does not exist."""
    name, _, tag = image.removeprefix("docker.io/").partition(":")
    if image == "lab/demo:1":
        return "web"
    if name not in ("sample/web", "sample/job") or tag == "missing" or "@" in image:
        return None
    if name == "sample/job":
        return "job"
    return "crash" if tag == "crash" else "web"


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


class Pod(Protocol):
    """What a container needs of the pod that it is in."""

    node: Node
    key: Key
    uid: str
    spec: Object
    address: str | None

    @property
    def logs(self) -> Path:
        """The folder for the logs of its containers."""

    def pod(self) -> Object | None:
        """The object as it is now; None when it is gone."""

    def warn(self, reason: str, message: str, container: str = "") -> None:
        """An Event of type Warning."""

    def tell(self, reason: str, message: str, container: str) -> None:
        """An Event of type Normal."""

    def publish(self) -> None:
        """Write the status anew."""


class Container:
    """Runs until it is stopped; `status` is its entry in the pod's containerStatuses."""

    def __init__(self, pod: Pod, spec: Object, refusal: str) -> None:
        self.pod, self.spec = pod, spec
        self.name: str = spec["name"]
        self.refusal = refusal or self._refusal()
        self.status: Object = {
            "name": self.name,
            "image": spec["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        self.status |= {"started": False, "state": waiting("ContainerCreating"), "lastState": {}}
        self.process: Process | None = None
        self._probing: asyncio.Task[None] | None = None
        self._stopping = False

    def _refusal(self) -> str:
        if self.spec.get("command") or self.spec.get("args"):
            return "the sandbox runs only its sample programs; command and args are not supported"
        return ""

    async def run(self) -> None:
        self._warn_of_unsupported()
        delay = BACKOFF_FIRST
        while not self._stopping:
            env = await self._environment()
            if self._stopping:
                return
            began = time.monotonic()
            code = await self._run_once(env)
            policy = self.pod.spec["restartPolicy"]
            if self._stopping or policy == "Never" or (policy == "OnFailure" and code == 0):
                return
            if time.monotonic() - began > BACKOFF_LONGEST:
                delay = BACKOFF_FIRST
            await self._back_off(delay)
            delay = min(delay * 2, BACKOFF_LONGEST)
            self.status["restartCount"] += 1

    def _warn_of_unsupported(self) -> None:
        ignored = [name for name in UNSUPPORTED if self.spec.get(name)]
        if set(self.spec.get("lifecycle") or {}) - {"preStop"} or set(self._pre_stop()) - {"sleep"}:
            ignored.append("lifecycle (other than preStop.sleep)")
        if ignored:
            self.pod.warn(
                "NotSupported", f"not supported by the sandbox, without effect: {', '.join(ignored)}", self.name
            )

    def _pre_stop(self) -> Object:
        return (self.spec.get("lifecycle") or {}).get("preStop") or {}

    async def _environment(self) -> dict[str, str]:
        """Waits, with back-off, until the image is there and the container can be made."""
        delay = BACKOFF_FIRST
        while True:
            reason, message = "", ""
            if program_of(self.spec["image"]) is None:
                await (self._refuse_pull if self.spec["imagePullPolicy"] == "Never" else self._fail_pull)(delay)
            elif self.refusal:
                reason, message = "CreateContainerError", self.refusal
            else:
                try:
                    pod = self.pod.pod()
                    return environment(self.pod.node.store, pod, self.spec) if pod else {}
                except ConfigError as error:
                    reason, message = "CreateContainerConfigError", str(error)
            if reason:
                self._show(waiting(reason, message))
                self.pod.warn("Failed", f"Error: {message}", self.name)
                await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_LONGEST)

    async def _refuse_pull(self, delay: float) -> None:
        text = f'Container image "{self.spec["image"]}" is not present with pull policy of Never'
        self.pod.warn("ErrImageNeverPull", text, self.name)
        self.pod.warn("Failed", "Error: ErrImageNeverPull", self.name)
        self._show(waiting("ErrImageNeverPull", text))
        await asyncio.sleep(delay)

    async def _fail_pull(self, delay: float) -> None:
        image = self.spec["image"]
        text = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
        self.pod.tell("Pulling", f'Pulling image "{image}"', self.name)
        self.pod.warn("Failed", f'Failed to pull image "{image}": rpc error: code = NotFound desc = {text}', self.name)
        self.pod.warn("Failed", "Error: ErrImagePull", self.name)
        self._show(waiting("ErrImagePull", f"rpc error: code = NotFound desc = {text}"))
        await asyncio.sleep(delay / 2)
        self.pod.tell("BackOff", f'Back-off pulling image "{image}"', self.name)
        self.pod.warn("Failed", "Error: ImagePullBackOff", self.name)
        self._show(waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}'))
        await asyncio.sleep(delay)

    async def _run_once(self, env: dict[str, str]) -> int:
        image = self.spec["image"]
        self.pod.tell("Pulled", f'Container image "{image}" already present on machine', self.name)
        path = self._log_file(self.status["restartCount"])
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = (sys.executable, "-I", "-S", str(PROGRAM))
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=own, cwd=path.parent, start_new_session=True
        )
        log = asyncio.create_task(write_log(self.process.stdout, path))
        start = {"address": self.pod.address, "program": program_of(image), "env": env}
        stdin = self.process.stdin
        if stdin is None:
            raise RuntimeError("a pod's process has no stdin")
        stdin.write(json.dumps(start).encode() + b"\n")
        self.pod.tell("Created", f"Created container: {self.name}", self.name)
        self.pod.tell("Started", f"Started container {self.name}", self.name)
        began = timestamp()
        identity = f"sandbox://{uuid.uuid4().hex}"
        self.status |= {
            "containerID": identity,
            "imageID": f"sandbox/{image}",
            "started": True,
            "ready": not self.spec.get("readinessProbe"),
        }
        self._show({"running": {"startedAt": began}})
        if self.spec.get("readinessProbe"):
            self._probing = asyncio.create_task(self._probe())
        code = await self.process.wait()
        stdin.close()
        await log
        self._ended(code, began, identity)
        return code

    def _ended(self, code: int, began: str, identity: str) -> None:
        if self._probing:
            self._probing.cancel()
        exit_code = code if code >= 0 else 128 - code
        ended = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "startedAt": began}
        ended |= {"finishedAt": timestamp(), "containerID": identity}
        self.status |= {"ready": False, "started": False}
        self._show({"terminated": ended})

    async def _back_off(self, delay: float) -> None:
        pod = self.pod
        message = (
            f"back-off {delay:g}s restarting failed container={self.name} pod={pod.key[1]}_{pod.key[0]}({pod.uid})"
        )
        self.status["lastState"] = self.status["state"]
        self._show(waiting("CrashLoopBackOff", message))
        pod.warn(
            "BackOff",
            f"Back-off restarting failed container {self.name} in pod {pod.key[1]}_{pod.key[0]}({pod.uid})",
            self.name,
        )
        await asyncio.sleep(delay)

    async def _probe(self) -> None:
        spec, node = self.spec["readinessProbe"], self.pod.node
        if not {"httpGet", "tcpSocket"} & spec.keys():
            handler = next((name for name in ("exec", "grpc") if name in spec), "none")
            self.pod.warn(
                "Unhealthy", f"Readiness probe failed: the sandbox does not support probes of type {handler}", self.name
            )
            return
        await asyncio.sleep(START_LAG + spec.get("initialDelaySeconds", 0) * node.probe_factor)
        passed = failed = 0
        while True:
            failure = await probe(node.http, spec, self.pod.address or "", self.spec)
            passed, failed = (0, failed + 1) if failure else (passed + 1, 0)
            if failure:
                self.pod.warn("Unhealthy", f"Readiness probe failed: {failure}", self.name)
            ready = self.status["ready"]
            if not ready and passed >= spec["successThreshold"]:
                ready = True
            elif ready and failed >= spec["failureThreshold"]:
                ready = False
            if ready != self.status["ready"]:
                self.status["ready"] = ready
                self.pod.publish()
            await asyncio.sleep(spec["periodSeconds"] * node.probe_factor)

    def _show(self, state: Object) -> None:
        self.status["state"] = state
        self.pod.publish()

    async def stop(self, deadline: Callable[[], float]) -> None:
        """preStop sleep, SIGTERM, SIGKILL at the deadline (on the loop's clock), which may move closer meanwhile."""
        self._stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        self.pod.tell("Killing", f"Stopping container {self.name}", self.name)
        now = asyncio.get_running_loop().time
        pause = now() + self._pre_stop().get("sleep", {}).get("seconds", 0)
        while now() < min(pause, deadline()) and process.returncode is None:
            await asyncio.sleep(min(0.1, max(0.0, min(pause, deadline()) - now())))
        self._signal(signal.SIGTERM)
        end = asyncio.ensure_future(process.wait())
        while not end.done() and now() < deadline():
            await asyncio.wait([end], timeout=min(0.5, max(0.0, deadline() - now())))
        self._signal(signal.SIGKILL)
        await end
        # The exit is published by run(), which waits for the same process.
        await asyncio.sleep(0)

    async def kill(self) -> None:
        self._stopping = True
        if self._probing:
            self._probing.cancel()
        if self.process is not None and self.process.returncode is None:
            self._signal(signal.SIGKILL)
            await self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the process group that the container's process leads."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def _log_file(self, run: int) -> Path:
        return self.pod.logs / self.name / f"{run}.log"

    def log_lines(self, previous: bool) -> list[tuple[str, bytes]]:
        """With the time of each. Raises the kubelet's 400 when there is none."""
        run, where = self.status["restartCount"], f'container "{self.name}" in pod "{self.pod.key[1]}"'
        if "waiting" in self.status["state"] and self.process is not None:
            pass  # crash loop: its log is still that of the last run
        elif "waiting" in self.status["state"]:
            reason = self.status["state"]["waiting"]["reason"]
            pulling = reason in ("ErrImagePull", "ImagePullBackOff")
            raise bad_request(
                f"{where} is waiting to start: {'trying and failing to pull image' if pulling else reason}"
            )
        if previous and run == 0:
            raise bad_request(f"previous terminated {where} not found")
        path = self._log_file(run - 1 if previous else run)
        return read_log(path)
