"""One POST to one receiver, signed. Errors name the receiver's origin only: the rest of an address may be a secret, as
it is with Slack."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from deployer.plugins.notify_webhook.formats import Message
from deployer.sdk.errors import NotDelivered, SettingsError
from deployer.sdk.plugin import http_exchange, outgoing

ANSWER = 1024
"""Bytes of an answer that are read."""

SAID = 100
"""Characters of an answer that an error repeats."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Receiver(outgoing.Server):
    """One receiver, as the settings have it. `secret` signs what is sent."""

    secret: str = ""
    secret_file: str = ""

    def check(self) -> None:
        """Raises SettingsError, without any value, for what cannot work."""
        if self.secret and self.secret_file:
            raise SettingsError("secret: give either secret or secret_file")
        # Not super(): a dataclass with slots is another class than the one that was written here.
        outgoing.Server.check(self)
        if self.secret:
            try:
                outgoing.parse_keys(self.secret)
            except ValueError as error:
                raise SettingsError(f"secret: {error}") from None

    def post(self, id: str, message: Message) -> None:
        """Deliver it. Raises NotDelivered, with a sentence that holds neither path nor secret."""
        try:
            headers = {**message.headers, "webhook-id": id, **self._signed(id, message.body)}
            answer = self.request("POST", "", message.body, headers, limit=ANSWER)
        except outgoing.NoAnswer as error:
            raise NotDelivered(str(error)) from None
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"{self.address.origin} {_refusal(answer)}")

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        if not self.secret and not self.secret_file:
            return {}
        # That of this attempt, as receivers refuse what is old.
        seconds = int(datetime.datetime.now(datetime.UTC).timestamp())
        signature = outgoing.signature(self.given("secret", outgoing.parse_keys), id, seconds, body)
        return {"webhook-timestamp": str(seconds), "webhook-signature": signature}


def _refusal(answer: http_exchange.Response) -> str:
    """What the receiver answered, as the rest of a sentence."""
    status = outgoing.status_text(answer)
    if not 300 <= answer.status < 400:
        said = " ".join(answer.body.decode("utf-8", "replace").split())[:SAID]
        return f"answers {status}" + (f": {said}" if said.isprintable() and said else "")
    return f"answers {status}, and redirects are not followed; correct its address in the settings"
