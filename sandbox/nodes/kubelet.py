"""The kubelet of the one node: every pod gets an address of its own, its containers run as local processes."""

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from deployer.sandbox.kinds import POD, Key, Object, condition, is_deleting, key_of, timestamp
from deployer.sandbox.nodes.containers import Container, waiting
from deployer.sandbox.nodes.node import Node
from deployer.sandbox.status import ApiError, bad_request
from deployer.sandbox.store import Change

log = logging.getLogger("sandbox")

NODE_NAME = "sandbox"

NODE_LABELS = {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}

SELECTOR_MISMATCH = (
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)

IGNORED = ("affinity", "topologySpreadConstraints", "volumes", "resourceClaims", "hostAliases")

BLOCKING = ("initContainers", "ephemeralContainers", "hostNetwork", "readinessGates", "schedulingGates")


class PodWorker:
    """One pod from its creation to its removal."""

    def __init__(self, node: Node, pod: Object) -> None:
        self.node, self.key = node, key_of(pod)
        self.uid: str = pod["metadata"]["uid"]
        self.spec: Object = pod["spec"]
        self.address: str | None = None
        self.containers: list[Container] = []
        self.deadline: float | None = None  # on the loop's clock, once it is being deleted
        self._changed = asyncio.Event()
        self._stopping = False
        self.task = asyncio.create_task(self._run())

    def pod(self) -> Object | None:
        found = self.node.store.find(POD, *self.key)
        return found if found and found["metadata"]["uid"] == self.uid else None

    def terminate(self, grace: float) -> None:
        """Called for every deletion mark; a later one may shorten the grace time."""
        deadline = asyncio.get_running_loop().time() + grace
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline
            self._changed.set()

    async def kill(self) -> None:
        """Ends the processes at once; the object stays as it is."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def _let_go(self) -> None:
        """The pod has used its grace time; only finalizers keep it from going."""
        if (pod := self.pod()) and not pod["metadata"].get("finalizers"):
            self.node.store.remove(POD, self.key)
            return
        self.node.store.change(POD, self.key, lambda pod: pod["metadata"].update(deletionGracePeriodSeconds=0))

    async def _run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            if not self._schedule():
                await self._changed.wait()
                return
            if self._place():
                tasks = [asyncio.create_task(container.run()) for container in self.containers]
            await self._changed.wait()
            self._stopping = True
            stops = [asyncio.create_task(container.stop(lambda: self.deadline or 0.0)) for container in self.containers]
            tasks += stops
            await asyncio.gather(*stops)
            self.publish()
            self._let_go()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(container.kill() for container in self.containers))
            if self.address:
                self.node.addresses.give_back(self.address)
            await asyncio.to_thread(shutil.rmtree, self.logs, ignore_errors=True)

    @property
    def logs(self) -> Path:
        return self.node.logs / self.uid

    def _schedule(self) -> bool:
        pod = self.pod()
        if pod is None or is_deleting(pod):
            return False
        wanted = self.spec.get("nodeSelector") or {}
        bound = self.spec.get("nodeName", NODE_NAME)
        fits = all(NODE_LABELS.get(key) == value for key, value in wanted.items()) and bound == NODE_NAME

        def edit(current: Object) -> None:
            if fits:
                current["spec"]["nodeName"] = NODE_NAME
                set_condition(current, "PodScheduled", True)
            else:
                set_condition(current, "PodScheduled", False, "Unschedulable", SELECTOR_MISMATCH)

        pod = self.node.store.change(POD, self.key, edit) or pod
        namespace, name = self.key
        if fits:
            self.node.scheduler.normal(
                POD, pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {NODE_NAME}"
            )
        else:
            self.node.scheduler.warning(POD, pod, "FailedScheduling", SELECTOR_MISMATCH)
        return fits

    def _place(self) -> bool:
        """Gives the pod its address and containers, and says what of it has no effect here."""
        pod = self.pod()
        if pod is None:
            return False
        self.address = self.node.addresses.take()
        if self.address is None:
            text = "Failed to create pod sandbox: no free loopback address"
            self.node.events.warning(POD, pod, "FailedCreatePodSandBox", text)
            return False
        if ignored := [name for name in IGNORED if self.spec.get(name)]:
            self.warn("NotSupported", f"not supported by the sandbox, without effect: {', '.join(ignored)}")
        blocked = next((name for name in BLOCKING if self.spec.get(name)), None)
        refusal = f"the sandbox does not support {blocked}" if blocked else ""
        self.containers = [Container(self, spec, refusal) for spec in self.spec["containers"]]
        for container in self.containers:
            container.status["state"] = waiting("ContainerCreating")
        self.publish()
        return True

    def warn(self, reason: str, message: str, container: str = "") -> None:
        if pod := self.pod():
            self.node.events.warning(POD, pod, reason, message, f"spec.containers{{{container}}}" if container else "")

    def tell(self, reason: str, message: str, container: str) -> None:
        if pod := self.pod():
            self.node.events.normal(POD, pod, reason, message, f"spec.containers{{{container}}}")

    def publish(self) -> None:
        """Writes the pod's status from what its containers say."""
        if self.pod():
            self.node.store.change(POD, self.key, self._write_status)

    def _write_status(self, pod: Object) -> None:
        status = pod["status"]
        status |= {
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
        }
        status.setdefault("startTime", timestamp())
        status["phase"] = self._phase(status["phase"])
        status["containerStatuses"] = [dict(container.status) for container in self.containers]
        unready = [container.name for container in self.containers if not container.status["ready"]]
        message = f"containers with unready status: [{' '.join(unready)}]"
        reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(status["phase"], "ContainersNotReady")
        set_condition(pod, "PodReadyToStartContainers", True)
        set_condition(pod, "Initialized", True)
        for name in ("Ready", "ContainersReady"):
            if unready:
                set_condition(pod, name, False, reason, message if reason == "ContainersNotReady" else "")
            else:
                set_condition(pod, name, True)

    def _phase(self, before: str) -> str:
        states = [container.status["state"] for container in self.containers]
        if self.containers and all("terminated" in state for state in states):
            codes = [state["terminated"]["exitCode"] for state in states]
            if self._stopping or self.spec["restartPolicy"] == "Never" or not any(codes):
                restarts = self.spec["restartPolicy"] == "Always" and not self._stopping
                return before if restarts else ("Failed" if any(codes) else "Succeeded")
        started = all(
            "waiting" not in state or container.status["restartCount"]
            for state, container in zip(states, self.containers, strict=True)
        )
        return "Running" if before == "Running" or started else "Pending"


def set_condition(pod: Object, name: str, value: bool, reason: str = "", message: str = "") -> None:
    conditions = pod["status"].setdefault("conditions", [])
    new: dict[str, Any] = {"type": name, "status": str(value), "lastProbeTime": None, "lastTransitionTime": timestamp()}
    new |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
    old = condition(pod, name)
    if old is None:
        conditions.append(new)
        return
    if old["status"] == new["status"]:
        new["lastTransitionTime"] = old["lastTransitionTime"]
    conditions[conditions.index(old)] = new


class Kubelet:
    """Follows the pods in the store and keeps a worker for each."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._workers: dict[str, PodWorker] = {}
        node.store.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if change.kind is not POD:
            return
        meta = change.obj["metadata"]
        worker = self._workers.get(meta["uid"])
        if change.type == "ADDED":
            worker = self._workers[meta["uid"]] = PodWorker(self.node, change.obj)
            worker.task.add_done_callback(lambda task: self._ended(meta["uid"], task))
        if worker and change.type == "DELETED":
            worker.terminate(0)
        elif worker and is_deleting(change.obj):
            worker.terminate(meta.get("deletionGracePeriodSeconds", 0))

    def _ended(self, uid: str, task: "asyncio.Task[None]") -> None:
        worker = self._workers.pop(uid, None)
        if worker and not task.cancelled() and (error := task.exception()):
            log.error("pod %s: %r", worker.key, error, exc_info=error)
            worker.warn("Failed", f"the sandbox failed to run this pod: {error!r}")

    def log_lines(self, key: Key, container: str, previous: bool) -> list[tuple[str, bytes]]:
        """What a container wrote, and when. Raises a 400 with the kubelet's sentences."""
        pod = self.node.store.get(POD, *key)
        names = [spec["name"] for spec in pod["spec"]["containers"]]
        if not container and len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {key[1]}, choose one of: [{' '.join(names)}]"
            )
        name = container or names[0]
        if name not in names:
            raise bad_request(f"container {name} is not valid for pod {key[1]}")
        worker = self._workers.get(pod["metadata"]["uid"])
        found = next((c for c in worker.containers if c.name == name), None) if worker else None
        if found is None:
            raise ApiError(
                400, "BadRequest", f'container "{name}" in pod "{key[1]}" is waiting to start: ContainerCreating'
            )
        return found.log_lines(previous)

    async def close(self) -> None:
        """Kills every pod's processes and waits for their end."""
        started = time.monotonic()
        workers = list(self._workers.values())
        await asyncio.gather(*(worker.kill() for worker in workers))
        await self.node.close()
        log.info("%d pods ended within %.1f s", len(workers), time.monotonic() - started)
