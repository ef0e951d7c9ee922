"""The live log of a deployment, over a WebSocket; a connection that breaks off is followed by another one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from deployer.client.connection import CONNECT, Connection, proxy_of, unreachable
from deployer.client.errors import ClientError, Refused, Unauthorised, Unreachable
from deployer.client.service import Service

PROTOCOL = "logs.kube-deployer"

_REFUSALS = {1008: Refused, 4401: Unauthorised, 4403: Unauthorised, 4404: Refused}
_MOVING = ("DEPLOYING", "UNDEPLOYING")
_LONGEST = 5.0  # seconds between two connections


class LogStream:
    """The messages of one deployment's log. `after` counts those that have come, and can be set before.

    patience  seconds in which no connection brings anything after which Unreachable is raised
    timeout   seconds for all of it, after which it is raised too; None: as long as it takes
    """

    def __init__(
        self, connection: Connection, namespace: str, id: str, *, patience: float = 60.0, timeout: float | None = None
    ) -> None:
        self.after = 0
        self.status = ""
        self._connection = connection
        self._namespace = namespace
        self._id = id
        self._patience = patience
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._closed = False
        self._close: Callable[[], None] = lambda: None

    def messages(self) -> Iterator[str]:
        """Each as `RFC3339 text`, further lines indented, without a line feed at the end, until the deployment has
        ended; `status` is then its status. Raises a ClientError."""
        broken, tries = 0.0, 0
        while not self._closed:
            try:
                for message in self._one_connection():
                    broken, tries = 0.0, 0
                    yield message
                return
            except _NoStream:
                yield from self._asked_for()
                return
            except _BrokenOff as error:
                broken = broken or time.monotonic()
                if self._closed:
                    return
                if time.monotonic() - broken > self._patience:
                    raise error.error from error.error.__cause__
            tries += 1
            time.sleep(min(_LONGEST, random.uniform(0.1, 0.2) * 2**tries))

    def _asked_for(self) -> Iterator[str]:
        """The same by asking again and again, where something on the way lets no WebSocket pass."""
        service = Service(self._connection, self._namespace)
        while not self._closed:
            status = str(service.deployment(self._id)["status"])
            text, self.after = service.log(self._id, self.after)
            yield from text.splitlines()
            if status not in _MOVING:
                self.status = status
                return
            time.sleep(1.0)

    def close(self) -> None:
        """End it, from whatever thread."""
        self._closed = True
        self._close()

    def _one_connection(self) -> Iterator[str]:
        """What one connection brings. Raises _BrokenOff when another one may bring more."""
        query = urlencode({"namespace": self._namespace, "after": self.after})
        base = self._connection.base
        url = f"ws{base[4:]}/stream/deployments/{quote(self._id, safe='')}/logs?{query}"
        headers = self._connection.headers()
        agent = headers.pop("User-Agent")
        try:
            with connect(
                url,
                ssl=self._connection.tls,
                proxy=proxy_of(self._connection.profile, base) or None,
                additional_headers=headers,
                user_agent_header=agent,
                open_timeout=CONNECT * 2,
                close_timeout=1,
                ping_interval=20,
                ping_timeout=20,
                max_size=None,
            ) as stream:
                self._close = stream.close
                if self._closed:
                    return
                while True:
                    left = None if self._end is None else max(0.0, self._end - time.monotonic())
                    message = stream.recv(timeout=left, decode=True)
                    if message.startswith("!!error"):
                        continue  # for clients of the original; the close code says the same
                    self.after += 1
                    yield message.removesuffix("\n")
        except ConnectionClosed as closed:
            received = closed.rcvd
            if received is not None and received.code == 1000:
                self.status = received.reason
                return
            reason = received.reason if received is not None else "the connection broke off"
            if received is not None and received.code in _REFUSALS:
                raise _REFUSALS[received.code](reason) from closed
            raise _BrokenOff(Unreachable(f"the log of deployment {self._id} broke off: {reason}")) from closed
        except InvalidStatus as error:
            status = error.response.status_code
            sentence = f"the log of deployment {self._id} cannot be followed: HTTP {status}"
            if status in (401, 403):
                raise Unauthorised(sentence) from error
            if status in (429, 502, 503, 504):
                raise _BrokenOff(Unreachable(sentence)) from error
            raise _NoStream from error
        except TimeoutError as error:
            if self._end is not None and time.monotonic() >= self._end:
                late = f"deployment {self._id} did not end within {self._timeout:g} s"
                raise Unreachable(late) from error
            raise _BrokenOff(unreachable(self._connection.profile, base, error)) from error
        except (OSError, WebSocketException) as error:
            raise _BrokenOff(unreachable(self._connection.profile, base, error)) from error


class _NoStream(Exception):
    """Whoever answers speaks no WebSocket."""


class _BrokenOff(Exception):
    """The connection ended before the log did."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(str(error))
        self.error = error
