"""For plugins that ask, or tell, receivers that the settings name."""

from deployer.toolkit.webhook.receiver import RECEIVER_SCHEMA, NoAnswer, Receiver, receiver_of
from deployer.toolkit.webhook.signature import parse_keys, signature

__all__ = [
    "RECEIVER_SCHEMA",
    "NoAnswer",
    "Receiver",
    "parse_keys",
    "receiver_of",
    "signature",
]
