"""The verbs, in click's terms. Each module is loaded when one of its verbs is run."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """Where a verb is: `attribute` of `deployer.client.verbs.<module>`; `summary` as its own help has it."""

    module: str
    attribute: str
    summary: str


VERBS: dict[str, dict[str, Verb]] = {
    "Deploying": {
        "deploy": Verb("deploy", "deploy", "Store or update a descriptor, deploy it and follow."),
        "apply": Verb("apply", "apply", "Store or update descriptors; deploy those that changed."),
        "rollback": Verb("change", "rollback", "Go back to an earlier version."),
        "undeploy": Verb("change", "undeploy", "Remove an app's live version."),
        "cancel": Verb("change", "cancel", "Stop a deployment that is under way."),
        "approve": Verb("change", "approve", "Let a deployment pass the gate that waits."),
        "reject": Verb("change", "reject", "Take a deployment back at the gate that waits."),
        "wait": Verb("watch", "wait", "Wait until a deployment is live, switched or retired."),
    },
    "Looking": {
        "status": Verb("look", "status", "What is live, and what is under way."),
        "get": Verb("look", "get", "Show apps, deployments, descriptors, freezes, plugins."),
        "logs": Verb("watch", "logs", "Show the log of a deployment, live with -f."),
        "history": Verb("look", "history", "What was done to an app, newest first."),
        "health": Verb("look", "health", "What pods answered to their health checks."),
    },
    "Descriptors": {
        "init": Verb("write", "init", "Write a commented descriptor to begin with."),
        "lint": Verb("write", "lint", "Check descriptors without a service."),
        "validate": Verb("write", "validate", "Ask the service what is wrong with descriptors."),
        "descriptors": Verb("stored", "descriptors", "List, show, edit or delete stored descriptors."),
    },
    "Freezes": {
        "freeze": Verb("freeze", "freeze", "Keep a namespace from new deployments."),
        "unfreeze": Verb("freeze", "unfreeze", "Lift the freeze of a namespace."),
    },
    "The client itself": {
        "login": Verb("own", "login", "Get a token from the identity provider."),
        "logout": Verb("own", "logout", "Forget the token of `login`."),
        "config": Verb("own", "config", "Show and change the client's settings."),
        "completion": Verb("own", "completion", "Print the completion of a shell."),
        "version": Verb("own", "version", "Versions of this client and of the service."),
    },
}
"""By heading, in the order of the help."""
