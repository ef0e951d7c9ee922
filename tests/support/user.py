"""A user of a Deployer that runs: stores descriptors, deploys, follows logs; everything goes over HTTP."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.command import PATIENCE, Rest
from support.contract import Document, Running


class User:
    """Works in one namespace. `logs` are the lines of each deployment that was followed, by id."""

    def __init__(self, url: str, namespace: str) -> None:
        self.rest = Rest(url, namespace)
        self.namespace = namespace
        self.logs: dict[str, list[str]] = {}

    # --- asking -----------------------------------------------------------------------------------------------------

    def store(self, descriptor: Document) -> str:
        """Store a descriptor; its id."""
        status, headers, stored = self.rest.request("POST", f"/descriptors/?namespace={self.namespace}", descriptor)
        assert status == 201, stored
        assert headers["Location"] == f"/descriptors/{stored['id']}/?namespace={self.namespace}"
        return str(stored["id"])

    def deploy(self, descriptor: Document) -> str:
        """Store it, and ask for its deployment; the deployment's id."""
        return self.accepted("POST", f"/deployments/?namespace={self.namespace}&descriptorId={self.store(descriptor)}")

    def redeploy(self, id: str) -> str:
        """Ask for the same once more; the new deployment's id."""
        return self.accepted("PUT", self._target(id))

    def undeploy(self, id: str, more: str = "") -> None:
        """Ask for the undeployment, or the cancellation."""
        status, _, answer = self.rest.request("DELETE", self._target(id) + more)
        assert status == 202, answer

    def accepted(self, method: str, target: str) -> str:
        """The id of the deployment that was accepted; its `Location` leads to it."""
        status, headers, deployment = self.rest.request(method, target)
        assert status == 202, deployment
        assert headers["Location"] == self._target(deployment["id"])
        status, _, found = self.rest.request("GET", headers["Location"])
        assert (status, found["id"]) == (200, deployment["id"])
        return str(deployment["id"])

    def get(self, id: str) -> Document:
        """The deployment as it is now."""
        status, _, found = self.rest.request("GET", self._target(id))
        assert status == 200, found
        return dict(found)

    def all(self, app: str = "shop") -> list[Document]:
        """The app's deployments, newest first."""
        status, found = self.rest.call("GET", "/deployments/", query=f"&appname={app}")
        assert status == 200, found
        return list(found)

    def _target(self, id: str) -> str:
        return f"/deployments/{id}/?namespace={self.namespace}"

    # --- following --------------------------------------------------------------------------------------------------

    def follow(self, id: str, until: str = "") -> str:
        """Read the log until the server closes it, or a line has `until` in it; the reason that the server gives."""
        lines = self.logs[id] = []
        url = f"ws{self.rest.url[4:]}stream/deployments/{id}/logs?namespace={self.namespace}"
        with connect(url, proxy=None) as viewer:
            try:
                while not (until and lines and until in lines[-1]):
                    lines.append(str(viewer.recv(timeout=PATIENCE)))
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, "the connection broke off"
                assert not until, f"{closed.rcvd.reason} without {until!r}:\n" + "".join(lines)
                return closed.rcvd.reason
        return ""

    def ended(self, id: str, status: str) -> Document:
        """The deployment, once its log has ended with this status."""
        reason = self.follow(id)
        assert reason == status, f"{reason} instead of {status}:\n{self.log(id)}"
        found = self.get(id)
        assert found["status"] == status
        return found

    def deployed(self, descriptor: Document, **more: Any) -> Running:
        """Deploy it, and wait until it is live."""
        return Running(descriptor, self.ended(self.deploy(descriptor), "DEPLOYED"), **more)

    def failed(self, descriptor: Document) -> Document:
        """Deploy what cannot be deployed."""
        return self.ended(self.deploy(descriptor), "FAILURE")

    def log(self, id: str) -> str:
        """The log as it was followed."""
        return "".join(self.logs[id])
