"""`/deployments/`: past, current and queued deployments, with logs and health data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import falcon

from deployer.api import http
from deployer.api.polling import Made, Polls
from deployer.api.views import DeploymentView
from deployer.commands.approvals import ApprovalCommands
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.progress import Progress
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Deployment as Record
from deployer.core.model.records import Document, Status
from deployer.descriptor import parse

# Characters up to which a log is answered in one piece, with its length; a longer one is streamed.
_WHOLE = 256 * 1024


class Deployments(http.Resource):
    """The collection."""

    def __init__(self, service: DeploymentCommands, progress: Progress) -> None:
        self._service = service
        self._progress = progress

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Newest first, narrowed to `appname` and `status`; at most `limit` of each app."""
        view = DeploymentView(req, verb="list")
        namespace, app = http.namespace(req), http.app(req)
        found = self._service.deployments(
            namespace, app, http.number(req, "limit", least=1), http.choice(req, "status", Status)
        )
        waiting = self._progress.open(namespace, app)
        http.send_record(resp, [view.show(one, self._progress.among(one, waiting)) for one in found])

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Queue a deployment of the descriptor `descriptorId`."""
        namespace, descriptor = http.namespace(req), http.required(req, "descriptorId")
        view = DeploymentView(req)
        with view.checking():
            deployment = self._service.deploy(namespace, descriptor, http.by(req), override=_override(req))
        _accepted(resp, deployment, view, self._progress)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete the ended ones of `appname`; with `undeploy=true` also what is running."""
        namespace, app = http.namespace(req), http.required_app(req)
        undeploy = http.flag(req, "undeploy", default=False)
        count, live = self._service.delete_deployments(namespace, app, undeploy, http.by(req))
        http.send(resp, {"deleted": count}, 202)
        if live is not None:
            _locate(resp, live)


class Deployment(http.Resource):
    """One deployment."""

    def __init__(self, service: DeploymentCommands, rollbacks: RollbackCommands, progress: Progress) -> None:
        self._service = service
        self._rollbacks = rollbacks
        self._progress = progress
        self._polls = Polls(4096)

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Show it."""
        view, namespace = DeploymentView(req, id), http.namespace(req)

        def make() -> Made:
            deployment = self._service.deployment(namespace, id)
            progress = self._progress.of(deployment) | self._service.gates(deployment)
            shown = view.show(deployment, progress)
            return Made(_tag(deployment, progress), http.render_record(shown))

        moved = partial(self._progress.moved, namespace)
        self._polls.answer(req, resp, (namespace, id, view.sort), moved, make)

    def on_put(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Queue a new deployment of the same descriptor copy; of a version that is still warm: switch back to it."""
        namespace, view = http.namespace(req), DeploymentView(req)
        with view.checking():
            deployment = self._rollbacks.redeploy(
                namespace, id, http.by(req), if_match=http.if_match(req), override=_override(req)
            )
        _accepted(resp, deployment, view, self._progress)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Undeploy or cancel it; with `deleteDeployment=true` delete the record afterwards."""
        namespace, purge = http.namespace(req), http.flag(req, "deleteDeployment", default=False)
        view = DeploymentView(req, id)
        deployment = self._service.undeploy(namespace, id, purge, http.by(req), if_match=http.if_match(req))
        _accepted(resp, deployment, view, self._progress)


class Rollbacks(http.Resource):
    """What is asked for when the live version is not wanted any more."""

    def __init__(self, rollbacks: RollbackCommands, progress: Progress) -> None:
        self._rollbacks = rollbacks
        self._progress = progress

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Go back to `to`, or to the version before the live one; 202 with the deployment that will be live."""
        namespace, app = http.namespace(req), http.required_app(req)
        view = DeploymentView(req)
        with view.checking():
            rollback = self._rollbacks.roll_back(namespace, app, http.text(req, "to") or "", http.by(req))
        _locate(resp, rollback.deployment)
        http.about(resp, app, rollback.deployment.id)
        progress = self._progress.of(rollback.deployment)
        shown = {**view.show(rollback.deployment, progress), **view.details({"rollback": rollback.document()})}
        http.send_record(resp, shown, 202)
        http.set_tag(resp, _tag(rollback.deployment, progress))


class Approval(http.Resource):
    """What people say of a gate that waits for them."""

    def __init__(self, service: DeploymentCommands, approvals: ApprovalCommands) -> None:
        self._service = service
        self._approvals = approvals

    def on_post(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """Record it. The deployment goes on, or is taken back, right after."""
        namespace = http.namespace(req)
        decision = self._approvals.decide(namespace, id, parse(http.body(req)), http.by(req))
        http.about(resp, decision.app, id)
        resp.context.decision = str(decision)
        http.send(resp, decision.public())


class Logs(http.Resource):
    """A deployment's log as text."""

    def __init__(self, service: DeploymentCommands) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """The lines so far; those after line number `after`, when it is given.

        `X-Next-After` is the number of the last line: the `after` of whoever wants only what comes next.
        """
        pieces, last = self._service.log(http.namespace(req), id, http.number(req, "after", least=0) or 0)
        resp.set_header("X-Next-After", str(last))
        resp.content_type = "text/plain; charset=utf-8"
        start: list[str] = []
        size = 0
        for piece in pieces:
            start.append(piece)
            size += len(piece)
            if size >= _WHOLE:
                resp.stream = _encoded(itertools.chain(start, pieces))
                return
        resp.data = "".join(start).encode()


class HealthCheckData(http.Resource):
    """What the health checks of a deployment's pods answered."""

    def __init__(self, service: DeploymentCommands) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """`[{"podName", "value"}]`."""
        http.send(resp, self._service.health_data(http.namespace(req), id))


def _encoded(pieces: Iterator[str]) -> Iterator[bytes]:
    """The pieces as blocks of at least 16 KiB: a line at a time would be a chunk of HTTP each."""
    block: list[str] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= 16 * 1024:
            yield "".join(block).encode()
            block.clear()
            size = 0
    yield "".join(block).encode()


def _override(req: falcon.Request) -> str:
    """Why it is to be deployed in spite of a freeze; empty when it is not. `routes.py` says who may."""
    return http.text(req, "override") or ""


def _locate(resp: falcon.Response, deployment: Record) -> None:
    resp.set_header("Location", http.location("deployments", deployment.id, deployment.namespace))


def _accepted(resp: falcon.Response, deployment: Record, view: DeploymentView, progress: Progress) -> None:
    _locate(resp, deployment)
    http.about(resp, deployment.app, deployment.id)
    how_far = progress.of(deployment)
    http.send_record(resp, view.show(deployment, how_far), 202)
    http.set_tag(resp, _tag(deployment, how_far))


def _tag(deployment: Record, progress: Document) -> str:
    """The revision; of one that is under way with how far it is."""
    return http.tag_of(progress, deployment.revision) if "phase" in progress else str(deployment.revision)
