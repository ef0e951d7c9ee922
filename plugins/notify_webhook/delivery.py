"""One POST to one receiver, which has to take it."""

from __future__ import annotations

from deployer.plugins.notify_webhook.formats import Message
from deployer.sdk.errors import NotDelivered
from deployer.sdk.plugin import http_exchange
from deployer.sdk.webhook import NoAnswer, Receiver, status_text

SAID = 100
"""Characters of an answer that an error repeats."""


def deliver(receiver: Receiver, id: str, message: Message) -> None:
    """Raises NotDelivered, with a sentence that holds neither path nor secret."""
    try:
        answer = receiver.send(id, message.body, message.headers)
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"{receiver.origin} {_refusal(answer)}")
    except NoAnswer as error:
        raise NotDelivered(str(error)) from None


def _refusal(answer: http_exchange.Response) -> str:
    """What the receiver answered, as the rest of a sentence."""
    status = status_text(answer)
    if not 300 <= answer.status < 400:
        said = " ".join(answer.body.decode("utf-8", "replace").split())[:SAID]
        return f"answers {status}" + (f": {said}" if said.isprintable() and said else "")
    return f"answers {status}, and redirects are not followed; correct its address in the settings"
