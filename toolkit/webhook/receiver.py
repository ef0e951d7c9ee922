"""A receiver of webhooks: a server whose requests are signed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import SettingsError
from deployer.toolkit import http_exchange
from deployer.toolkit.webhook.server import Server
from deployer.toolkit.webhook.signature import parse_keys, signature

ANSWER = 1024
"""Bytes of an answer that are read."""

RECEIVER_SCHEMA: Mapping[str, Mapping[str, object]] = {
    name: {"type": "string", "minLength": 1}
    for name in ("url", "url_file", "secret", "secret_file", "token", "token_file", "ca_file", "proxy")
}
"""Properties (JSON Schema) of the table of a receiver, but for `timeout`."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Receiver(Server):
    """One receiver, as the settings have it. Each key in `secret` signs what is sent (Standard Webhooks)."""

    secret: str = ""
    secret_file: str = ""

    def check(self) -> None:
        """Raises SettingsError, without any value, for what cannot work."""
        if self.secret and self.secret_file:
            raise SettingsError("secret: give either secret or secret_file")
        Server.check(self)  # super() does not know the class that `slots` makes of this one
        if self.secret:
            try:
                parse_keys(self.secret)
            except ValueError as error:
                raise SettingsError(f"secret: {error}") from None

    def send(
        self,
        id: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        limit: int = ANSWER,
        scope: CancelScope | None = None,
    ) -> http_exchange.Response:
        """What it answers, whatever that is; redirects are not followed. Raises NoAnswer, and what the scope raises.

        id     the same whenever this is sent again
        limit  bytes of the answer that are read
        """
        sent = {**headers, "webhook-id": id, **self._signed(id, body)}
        return self.request(method, "", body, sent, limit=limit, scope=scope)

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        if not self.secret and not self.secret_file:
            return {}
        # That of this attempt, as receivers refuse what is old.
        seconds = int(datetime.datetime.now(datetime.UTC).timestamp())
        signed = signature(self.given("secret", parse_keys), id, seconds, body)
        return {"webhook-timestamp": str(seconds), "webhook-signature": signed}


def receiver_of(table: Mapping[str, object], where: str) -> Receiver:
    """The receiver of a table whose other keys are ignored. Raises SettingsError that begins with `where`."""
    known = {key: value for key, value in table.items() if key in Receiver.__dataclass_fields__}
    receiver = Receiver(**known)  # type: ignore[arg-type]
    try:
        receiver.check()
    except SettingsError as error:
        raise SettingsError(f"{where} {error}") from None
    return receiver
