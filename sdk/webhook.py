"""For plugins that ask, or tell, servers that the settings name."""

from deployer.toolkit.webhook.receiver import RECEIVER_SCHEMA, Receiver, receiver_of
from deployer.toolkit.webhook.server import NoAnswer, Server, status_text
from deployer.toolkit.webhook.signature import parse_keys, signature

__all__ = [
    "RECEIVER_SCHEMA",
    "NoAnswer",
    "Receiver",
    "Server",
    "parse_keys",
    "receiver_of",
    "signature",
    "status_text",
]
