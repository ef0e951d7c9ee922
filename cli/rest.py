"""A small client of the service: REST and the log stream, for the commands that talk to one."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from deployer.core.errors import DeployerError
from deployer.core.model.records import Document

TIMEOUT = 30.0
"""Seconds for one request."""
_TRIES = 10  # connections in a row that may bring nothing, once one has brought something
_PAUSE = 0.5  # seconds before the next one
_REFUSALS = (1008, 4401, 4403, 4404)


class RequestFailed(DeployerError):
    """The service refused, or could not be asked."""


class Client:
    """Talks to the service at `url`, in one namespace. Every method raises RequestFailed."""

    def __init__(self, url: str, namespace: str) -> None:
        self._host = urlsplit(url).netloc
        self._namespace = namespace

    def call(self, method: str, path: str, body: Document | None = None, **query: str) -> Any:
        """The answer's JSON; None when there is none."""
        target = f"{path}?{urlencode({'namespace': self._namespace, **query})}"
        data = None if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self._host, timeout=TIMEOUT)
        try:
            connection.request(method, target, body=data)
            with connection.getresponse() as response:
                status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed(f"{method} {path} at {self._host} failed: {error}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(content) if content else None
        except ValueError as error:
            raise RequestFailed(f"{method} {path} at {self._host} was not answered with JSON") from error
        if status >= 400:
            detail = answer.get("detail", "") if isinstance(answer, dict) else ""
            raise RequestFailed(f"{method} {path} was refused with {status}: {detail}")
        return answer

    def follow(self, deployment: str, patience: float, after: int = 0) -> Iterator[str]:
        """The messages of a deployment's log, live, from the one after the first `after` until it has ended.

        A connection that breaks off is followed by another one, which goes on with the next message. Raises
        RequestFailed after `patience` seconds too.
        """
        end = time.monotonic() + patience
        tries = 0
        while True:
            try:
                for message in self._messages(deployment, end, after):
                    after, tries = after + 1, _TRIES
                    yield message
                return
            except _BrokenOff as error:
                if tries == 0 or time.monotonic() > end:
                    raise RequestFailed(str(error)) from error.__cause__
                tries -= 1
            except TimeoutError as error:
                raise RequestFailed(f"deployment {deployment} did not end within {patience:g} s") from error
            time.sleep(_PAUSE)

    def _messages(self, deployment: str, end: float, after: int) -> Iterator[str]:
        """What one connection brings. Raises _BrokenOff when another one may bring more, TimeoutError at `end`."""
        query = urlencode({"namespace": self._namespace, "after": after})
        url = f"ws://{self._host}/stream/deployments/{deployment}/logs?{query}"
        try:
            with connect(url, proxy=None, open_timeout=TIMEOUT, close_timeout=5) as stream:
                while True:
                    yield stream.recv(timeout=max(0.0, end - time.monotonic()), decode=True).removesuffix("\n")
        except ConnectionClosed as error:
            closed = error.rcvd
            if closed is not None and closed.code == 1000:
                return
            said = f"{closed.code} {closed.reason}" if closed else "without a goodbye"
            kind = RequestFailed if closed is not None and closed.code in _REFUSALS else _BrokenOff
            raise kind(f"the log of deployment {deployment} broke off: {said}") from error
        except TimeoutError:
            raise
        except (OSError, WebSocketException) as error:
            raise _BrokenOff(f"the log of deployment {deployment} cannot be followed: {error}") from error


class _BrokenOff(Exception):
    """The connection ended before the log did."""
