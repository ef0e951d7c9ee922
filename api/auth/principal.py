"""A caller, the two questions about one, and the three ways in which the answer can be no."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from deployer.api.routes import Permission
from deployer.core.errors import DeployerError

REALM = 'Bearer realm="kube-deployer"'
"""How every challenge begins (RFC 6750, 3)."""

NAME_MOST = 256
"""Characters of a caller's name. It is stored with what they deploy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who has proved who they are.

    name      printable, at most `NAME_MOST` characters; shown in records and in the audit log
    expires   until when the proof is good, as `time.time()` counts; infinite when that is not known
    """

    name: str
    expires: float


class Unauthenticated(DeployerError):
    """401: no credentials (`given` False), or none that are good for anything."""

    def __init__(self, message: str, *, given: bool = True) -> None:
        super().__init__(message)
        self.given = given

    @property
    def challenge(self) -> str:
        """The header `WWW-Authenticate`. Without credentials there is no error to name (RFC 6750, 3.1)."""
        return REALM + (f', error="invalid_token", error_description="{_quotable(self)}"' if self.given else "")


class Forbidden(DeployerError):
    """403: known, but not allowed to do that there."""

    @property
    def challenge(self) -> str:
        """The header `WWW-Authenticate`."""
        return f'{REALM}, error="insufficient_scope"'


class Unsure(DeployerError):
    """503: nobody can say now who that is or what they may do, so nothing is allowed.

    `detail` is for those who run the service: callers who have not proved who they are get the message alone.
    """

    retry_after = 1.0
    """Seconds."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail or message


class Authenticator(ABC):
    """Knows whose a token is. Thread-safe; may block for some seconds."""

    @abstractmethod
    def authenticate(self, token: str) -> Principal:
        """Raises Unauthenticated, or Unsure when it cannot be found out now."""

    def problem(self) -> str:
        """Why nobody can be authenticated at present, as a sentence; empty when that is possible."""
        return ""

    def start(self) -> None:  # noqa: B027 - most have nothing to do
        """Prepare, without waiting for anybody."""

    def close(self) -> None:  # noqa: B027
        """Let go of everything; idempotent."""


class Authorizer(ABC):
    """Knows what callers may do. Thread-safe; may block for some seconds."""

    @abstractmethod
    def refusal(self, caller: Principal, permission: Permission, namespace: str, name: str) -> str:
        """Why the caller may not do that, as a sentence; empty when they may. Raises Unsure.

        `name` is the id that is asked about; empty when it is about none, or about many.
        """

    def named(self, caller: Principal) -> Collection[str]:
        """The namespaces that the caller's rights name one by one; none where only questions about one are answered."""
        return ()


def check_name(name: object, where: str) -> str:
    """The name, if it can be shown and stored. Raises Unauthenticated; `where` says whose name it is."""
    if not isinstance(name, str) or not name or len(name) > NAME_MOST or not name.isprintable():
        raise Unauthenticated(f"{where} is no printable text of 1 to {NAME_MOST} characters")
    return name


def _quotable(error: Exception) -> str:
    """What may stand in quotes in that header (RFC 6750, 3)."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in str(error))
