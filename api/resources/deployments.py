"""`/deployments/`: past, current and queued deployments, with logs and health data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import falcon

from deployer.api import http
from deployer.api.lists import continuation
from deployer.api.lists.answers import Collection, Streams
from deployer.api.polling import Made, Polls
from deployer.api.routes import ROLLBACK
from deployer.api.views import DeploymentView
from deployer.commands.approvals import ApprovalCommands
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.progress import Progress
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Deployment as Record
from deployer.core.model.records import Document, Status
from deployer.descriptor import parse


class Deployments(http.Resource):
    """The collection."""

    def __init__(self, service: DeploymentCommands, progress: Progress, streams: Streams) -> None:
        self._service = service
        self._progress = progress
        self._collection = Collection[Record]("/deployments/", streams)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Newest first, narrowed to `appname` and `status`; at most `limit` of each app. With `continue` a page."""
        view = DeploymentView(req, verb="list")
        namespace, app, status = http.namespace(req), http.app(req), http.choice(req, "status", Status)
        limit, paged = http.number(req, "limit", least=1), continuation.NAME in req.params

        def render(found: Sequence[Record]) -> bytes:
            waiting = self._progress.open(namespace, app)
            return http.render_record([view.show(one, self._progress.among(one, waiting)) for one in found])

        # Of one app it is the same whether so many are wanted of each app or of all.
        per_app, most = (None, limit) if app or paged else (limit, None)
        moved = (self._progress.moved(namespace), view.sort)
        records = self._service.listed(namespace, app, status, per_app=per_app)
        self._collection.answer(req, resp, records, render, moved=moved, paged=paged, most=most)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Queue a deployment of the descriptor `descriptorId`."""
        namespace, descriptor = http.namespace(req), http.required(req, "descriptorId")
        view, key = DeploymentView(req), http.request_key(req, namespace)
        with view.checking():
            deployment = self._service.deploy(namespace, descriptor, http.by(req), override=_override(req), key=key)
        http.tell_replayed(resp, key)
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
        key = http.request_key(req, namespace)
        with view.checking():
            deployment = self._rollbacks.redeploy(
                namespace,
                id,
                http.by(req),
                if_match=http.if_match(req),
                override=_override(req),
                key=key,
                to_warm=http.may(req, ROLLBACK),
            )
        http.tell_replayed(resp, key)
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
        view, key = DeploymentView(req), http.request_key(req, namespace)
        with view.checking():
            rollback = self._rollbacks.roll_back(namespace, app, http.text(req, "to") or "", http.by(req), key=key)
        http.tell_replayed(resp, key)
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

    def __init__(self, service: DeploymentCommands, streams: Streams) -> None:
        self._service = service
        self._streams = streams

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """The lines so far; those after line number `after`, when it is given.

        `X-Next-After` is the number of the last line: the `after` of whoever wants only what comes next.
        """
        namespace = http.namespace(req)
        pieces, last = self._service.log(namespace, id, http.number(req, "after", least=0) or 0)
        resp.set_header("X-Next-After", str(last))
        resp.content_type = "text/plain; charset=utf-8"
        self._streams.send(req, resp, namespace, _encoded(pieces))


class HealthCheckData(http.Resource):
    """What the health checks of a deployment's pods answered."""

    def __init__(self, service: DeploymentCommands) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: str) -> None:
        """`[{"podName", "value"}]`."""
        found = self._service.health_data(http.namespace(req), id)
        http.send(resp, found)
        http.set_tag(resp, http.tag_of(found))


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
