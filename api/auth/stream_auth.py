"""Authentication of the log stream: credentials of a WebSocket, and what ends it when they are no longer good.

Credentials come in the handshake (the header `Authorization`, or a subprotocol, which is all that a page in a browser
can set) or as the first message. Refusals are close codes: browsers show scripts nothing of a refused handshake.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.typing import Subprotocol

from deployer.api.auth import credentials
from deployer.api.auth.access import Access
from deployer.api.auth.audit import Audit
from deployer.api.auth.principal import Forbidden, Principal, Unauthenticated, Unsure
from deployer.api.request_head import Target
from deployer.api.routes import ROUTES, Permission
from deployer.redaction.redactor import about_nobody

UNAUTHENTICATED, FORBIDDEN, LATER = 4401, 4403, 1013

FIRST_MESSAGE = 5.0
"""Seconds in which credentials must have come."""

CHECKING = 10.0
"""Seconds for checking them."""

WAITING = 100
"""Connections that have not sent their first message yet."""

RECHECK = 60.0
"""Seconds after which the credentials of a stream that goes on are checked again: rights may have been revoked."""

BORNE = 300.0
"""Seconds for which a stream goes on although nobody can say whether it may."""

T = TypeVar("T")
End = tuple[int, str]


class Refused(Exception):
    """The connection is to be closed with that code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ticket:
    """Somebody who was let in, where, and with which token."""

    caller: Principal
    token: str
    namespace: str
    id: str


class StreamAuth:
    """Lets viewers in and watches over them. Everything but `close` runs in the loop's thread."""

    def __init__(
        self, access: Access | None = None, audit: Audit | None = None, *, first: float = FIRST_MESSAGE,
        waiting: int = WAITING, recheck: float = RECHECK,
    ) -> None:  # fmt: skip
        """Without `access` everybody is let in. `first` and `recheck` are seconds, `waiting` connections."""
        self._access = access
        self._audit = audit
        self._first = first
        self._most = waiting
        self._recheck = recheck
        self._waiting = 0
        self._permission = _permission()
        # Threads of their own: checking may take seconds, and neither readers of logs nor REST shall wait for it.
        self._checkers = concurrent.futures.ThreadPoolExecutor(
            4, thread_name_prefix="log-auth", initializer=about_nobody
        )

    def close(self) -> None:
        """End the threads."""
        self._checkers.shutdown(cancel_futures=True)

    def crowded(self, request: Request) -> bool:
        """True when nobody else may come who has yet to say who they are."""
        return self._access is not None and self._waiting >= self._most and not _has_credentials(request)

    def protocol(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """The subprotocol to agree on: never the one with the token, which would be sent back."""
        return Subprotocol(credentials.PROTOCOL) if credentials.PROTOCOL in offered else None

    async def enter(self, connection: ServerConnection, namespace: str, id: str) -> Ticket | None:
        """A ticket for the deployment's stream; None when none is needed. Raises Refused or ConnectionClosed."""
        if self._access is None:
            return None
        caller: Principal | None = None
        try:
            token = await self._token(connection)
            caller = await self._check(self._access.identify, token)
            await self._check(self._access.require, caller, self._permission, namespace, id)
        except Unauthenticated as error:
            end = UNAUTHENTICATED, str(error)
        except Forbidden as error:
            end = FORBIDDEN, str(error)
        except Unsure as error:
            end = LATER, str(error)
        else:
            return Ticket(caller, token, namespace, id)
        self.note(connection, *end, who=caller.name if caller else None, namespace=namespace, id=id)
        raise Refused(*end)

    async def hold(self, ticket: Ticket | None, showing: Coroutine[Any, Any, End]) -> End:
        """How `showing` ends; when the ticket's credentials end before, it is cancelled and that is the end."""
        if ticket is None:
            return await showing
        tasks = asyncio.ensure_future(showing), asyncio.ensure_future(self._over(ticket))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _token(self, connection: ServerConnection) -> str:
        assert connection.request is not None
        headers = connection.request.headers.get_all("Authorization")
        offered = credentials.from_protocols(_offered(connection.request))
        if headers and offered is not None:
            raise Unauthenticated("there is one token in the header and one in the subprotocol; send one of them")
        if headers:
            return credentials.from_header(", ".join(headers))
        if offered is not None:
            return offered
        self._waiting += 1
        try:
            async with asyncio.timeout(self._first):
                return credentials.from_message(await connection.recv())
        except TimeoutError:
            raise Unauthenticated(
                f"no credentials came within {self._first:g} s: send them in the handshake, or `Bearer <token>` as the "
                "first message", given=False,
            ) from None  # fmt: skip
        finally:
            self._waiting -= 1

    async def _check(self, question: Any, *args: Any) -> Any:
        """Ask in one of the threads. Raises what the question does, and Unsure when that takes too long."""
        try:
            async with asyncio.timeout(CHECKING):
                return await asyncio.get_running_loop().run_in_executor(self._checkers, question, *args)
        except TimeoutError:
            raise Unsure("credentials could not be checked in time; try again") from None

    async def _over(self, ticket: Ticket) -> End:
        """Return when the ticket is no longer good."""
        assert self._access is not None
        good = time.monotonic()
        expires = ticket.caller.expires
        while True:
            await asyncio.sleep(max(0.0, min(expires - time.time(), self._recheck)))
            if time.time() >= expires:
                return UNAUTHENTICATED, "the token has expired"
            try:
                caller = await self._check(self._access.identify, ticket.token)
                await self._check(self._access.require, caller, self._permission, ticket.namespace, ticket.id)
            except Unauthenticated as error:
                return UNAUTHENTICATED, str(error)
            except Forbidden as error:
                return FORBIDDEN, str(error)
            except Unsure as error:
                if time.monotonic() - good > BORNE:
                    return LATER, str(error)
            else:
                good = time.monotonic()

    def note(
        self, connection: ServerConnection, status: int, reason: str, *, who: str | None = None,
        namespace: str | None = None, id: str | None = None,
    ) -> None:  # fmt: skip
        """Write a refusal to the audit log. `status` is that of HTTP, or a close code."""
        if self._audit is None or connection.request is None:
            return
        self._audit.note(
            who=who,
            outcome="refused",
            status=status,
            source=_source(connection),
            method="WEBSOCKET",
            path=Target.of(connection.request.path).path,
            verb=self._permission.verb,
            resource=self._permission.resource,
            namespace=namespace,
            id=id,
            reason=reason,
        )


def _permission() -> Permission:
    """What the route table permissions of a stream."""
    (permission,) = {p for route in ROUTES if route.stream for p in route.methods.values()}
    assert isinstance(permission, Permission)
    return permission


def _offered(request: Request) -> list[str]:
    return [p.strip() for value in request.headers.get_all("Sec-WebSocket-Protocol") for p in value.split(",")]


def _has_credentials(request: Request) -> bool:
    tokens = any(p.startswith(credentials.BEARER_PROTOCOL) for p in _offered(request))
    return tokens or bool(request.headers.get_all("Authorization"))


def _source(connection: ServerConnection) -> str | None:
    try:
        return str(connection.remote_address[0])
    except (TypeError, IndexError, ConnectionClosed):
        return None  # it is gone already
