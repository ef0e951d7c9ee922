"""The service's REST API as methods, in one namespace. Each raises a ClientError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from deployer.client.connection import Answer, Connection, not_a_deployer
from deployer.client.errors import Refused, Unreachable

Document = dict[str, Any]

IDENTITY = ("id", "created", "lastModified", "validation")
"""What the service adds to a descriptor."""

_BEYOND = 2**31 - 1  # more messages than a log has: the answer says where its end is, and brings none of them


def bare(descriptor: Document) -> Document:
    """A descriptor without what the service adds: two of them are the same when they are equal."""
    return {name: value for name, value in descriptor.items() if name not in IDENTITY}


class Service:
    """In `namespace`. `connection` is that of the session."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def within(self, namespace: str) -> Service:
        """The same in another namespace."""
        return Service(self.connection, namespace)

    # --- descriptors ----------------------------------------------------------------------------------------------

    def descriptors(self, app: str | None = None) -> list[Document]:
        """All, or those of an app."""
        return list(self._pages("/descriptors/", ("id", "appName"), appname=app))

    def latest_descriptor(self, app: str) -> Document | None:
        """The one of an app that was modified last; None when there is none."""
        found = self.descriptors(app)
        # Of those of one second the newest id is not known; the one that stands first in a list newest first is.
        return max(found, key=lambda d: str(d.get("lastModified", "")), default=None)

    def descriptor(self, id: str) -> tuple[Document, str]:
        """One, and its revision as an ETag."""
        answer = self._get(f"/descriptors/{quote(id, safe='')}/")
        return self._object(answer, "id", "appName"), answer.headers.get("ETag", "")

    def validate(self, descriptor: Document) -> Document:
        """Its normal form, with `validation`. Raises Refused with every problem."""
        query = {"namespace": self.namespace}
        return self._object(
            self.connection.request("POST", "/descriptors/validate", query, descriptor, safe=True), "appName"
        )

    def create_descriptor(self, descriptor: Document) -> Document:
        """Store a new one."""
        answer = self.connection.request("POST", "/descriptors/", {"namespace": self.namespace}, descriptor)
        return self._object(answer, "id")

    def replace_descriptor(self, id: str, descriptor: Document, etag: str) -> str:
        """Store it in the place of another one that has this revision; returns the new one. Raises Refused (412)."""
        path = f"/descriptors/{quote(id, safe='')}/"
        # Not sent twice: the first one may have changed the revision.
        answer = self.connection.request(
            "PUT", path, {"namespace": self.namespace}, descriptor, {"If-Match": etag}, safe=False
        )
        return str(answer.headers.get("ETag", ""))

    def delete_descriptor(self, id: str) -> None:
        """Delete one."""
        self.connection.request("DELETE", f"/descriptors/{quote(id, safe='')}/", {"namespace": self.namespace})

    # --- deployments ----------------------------------------------------------------------------------------------

    def deploy(self, descriptor: str, *, key: str, override: str | None = None) -> Document:
        """Ask for a deployment. `key` makes asking again safe: the service answers with the first one."""
        query = {"namespace": self.namespace, "descriptorId": descriptor, "override": override}
        headers = {"Idempotency-Key": key}
        return self._deployment(self.connection.request("POST", "/deployments/", query, headers=headers, safe=True))

    def deployments(
        self, app: str | None = None, limit: int | None = None, status: str | None = None
    ) -> list[Document]:
        """Newest first; at most `limit` of each app."""
        query = {"appname": app, "limit": str(limit) if limit else None, "status": status}
        return list(self._pages("/deployments/", ("id", "status"), **query))

    def deployment(self, id: str) -> Document:
        """One."""
        return self._deployment(self._get(f"/deployments/{quote(id, safe='')}/"))

    def moved(self, id: str, etag: str) -> tuple[Document | None, str]:
        """The deployment and its ETag when it is not as it was at `etag`; None when it is."""
        headers = {"If-None-Match": etag} if etag else {}
        answer = self._get(f"/deployments/{quote(id, safe='')}/", headers)
        return (None, etag) if answer.status == 304 else (self._deployment(answer), answer.headers.get("ETag", ""))

    def undeploy(self, id: str) -> Document:
        """Undeploy a live one, cancel one under way."""
        path = f"/deployments/{quote(id, safe='')}/"
        return self._deployment(self.connection.request("DELETE", path, {"namespace": self.namespace}))

    def decide(self, id: str, decision: Document) -> Document:
        """Say whether a gate may be passed; the same once more is answered with what was recorded."""
        path = f"/deployments/{quote(id, safe='')}/approval/"
        answer = self.connection.request("POST", path, {"namespace": self.namespace}, decision, safe=True)
        return self._object(answer, "approve")

    def roll_back(self, app: str, to: str | None = None) -> Document:
        """Go back to an earlier deployment; by default to the one before."""
        query = {"namespace": self.namespace, "appname": app, "to": to}
        return self._deployment(self.connection.request("POST", "/rollbacks/", query))

    def health(self, id: str) -> list[Document]:
        """What its pods answered to health checks."""
        return self._list(self._get(f"/deployments/{quote(id, safe='')}/healthcheckdata"), "podName")

    def log(self, id: str, after: int = 0) -> tuple[str, int]:
        """The log after line `after`, and the number of its last line."""
        query = {"namespace": self.namespace, "after": str(after) if after else None}
        answer = self.connection.request("GET", f"/deployments/{quote(id, safe='')}/logs", query)
        last = str(answer.headers.get("X-Next-After", after))
        if not isinstance(answer.document, str | None) or not last.isdecimal():
            raise self._unexpected()
        return answer.document or "", int(last)

    def log_end(self, id: str) -> int:
        """The number of the last message of the log."""
        return self.log(id, _BEYOND)[1]

    # --- apps -----------------------------------------------------------------------------------------------------

    def apps(self) -> list[Document]:
        """All, by name."""
        return list(self._pages("/apps/", ("appName",)))

    def app(self, name: str) -> Document | None:
        """One with its queue; None when there is none."""
        try:
            return self._object(self._get(f"/apps/{quote(name, safe='')}/"), "appName")
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def history(self, app: str, limit: int = 20) -> list[Document]:
        """What was done to it, newest first."""
        query = {"namespace": self.namespace, "limit": str(limit)}
        answer = self.connection.request("GET", f"/apps/{quote(app, safe='')}/history", query)
        return self._list(answer, "deployment", "what", "version", "asked")

    def data_plane(self, app: str) -> Document:
        """What every address of the data plane answers for it."""
        found = self._object(self._get(f"/apps/{quote(app, safe='')}/dataplane"), "addresses")
        addresses = found["addresses"]
        if not isinstance(addresses, list) or not all(isinstance(a, dict) and "address" in a for a in addresses):
            raise self._unexpected()
        return found

    # --- freezes and the service itself ---------------------------------------------------------------------------

    def freezes(self) -> list[Document]:
        """What freezes the namespace; of `*`: all that is frozen anywhere."""
        return self._list(self._get("/freezes/"), "namespace", "source", "reason")

    def freeze(self, freeze: Document) -> Document:
        """Freeze the namespace."""
        answer = self.connection.request("PUT", f"/freezes/{quote(self.namespace, safe='')}/", None, freeze)
        return self._object(answer, "reason")

    def unfreeze(self) -> None:
        """Lift the freeze of the namespace."""
        self.connection.request("DELETE", f"/freezes/{quote(self.namespace, safe='')}/")

    def plugins(self) -> list[Document]:
        """What is installed there."""
        return self._list(self.connection.request("GET", "/plugins"), "name", "state")

    def start(self) -> Document:
        """What it is, and its version."""
        return self._object(self.connection.request("GET", "/"))

    # --- plumbing -------------------------------------------------------------------------------------------------

    def _get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.connection.request("GET", path, {"namespace": self.namespace}, headers=headers)

    def _deployment(self, answer: Answer) -> Document:
        return self._object(answer, "id", "status")

    def _object(self, answer: Answer, *fields: str) -> Document:
        """What was answered, if it is an object with these fields at least; something else may be at this address."""
        found = answer.document
        if not isinstance(found, dict) or not all(name in found for name in fields):
            raise self._unexpected()
        return found

    def _list(self, answer: Answer, *fields: str) -> list[Document]:
        """The same of a list of objects."""
        found = [] if answer.document is None else answer.document
        if not isinstance(found, list) or not all(isinstance(o, dict) and all(f in o for f in fields) for o in found):
            raise self._unexpected()
        return found

    def _unexpected(self) -> Unreachable:
        return not_a_deployer(self.connection.base)

    def _pages(self, path: str, fields: Sequence[str], **query: str | None) -> Iterator[Document]:
        """Every item of a list, page after page where the service gives pages (`Link`, RFC 8288)."""
        asked: dict[str, str | None] = {"namespace": self.namespace, **query}
        while True:
            answer = self.connection.request("GET", path, asked)
            yield from self._list(answer, *fields)
            following = _next(answer.headers.get("Link", ""))
            if not following:
                return
            asked = dict(parse_qsl(urlsplit(following).query, keep_blank_values=True))


def _next(link: str) -> str:
    """The target of the link to the next page; empty when there is none."""
    for part in link.split(","):
        target, _, parameters = part.strip().partition(">")
        if target.startswith("<") and 'rel="next"' in parameters.replace("'", '"'):
            return target[1:]
    return ""
