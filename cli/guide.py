"""What `deployer` alone says: where to begin."""

from __future__ import annotations

from collections.abc import Collection

_STEPS = (
    (
        "Try it, without a cluster:",
        (
            ("demo", "", "a deployment under load, in half a minute"),
            ("sandbox", "", "the service on a Kubernetes stand-in"),
        ),
    ),
    ("Run the service:", (("serve", "", "on its pod's cluster, or the kubeconfig's"),)),
    (
        "Deploy with it:",
        (
            ("init", " shop > shop.yaml", "a commented descriptor to begin with"),
            ("deploy", " shop.yaml", "store it, deploy it, and follow it"),
            ("status", "", "what is live, and what is under way"),
            ("rollback", " shop", "back to the version before"),
        ),
    ),
)


def guide(commands: Collection[str]) -> str:
    """The text, with those of its commands that there are."""
    blocks = ["Blue-green deployments for Kubernetes."]
    for heading, steps in _STEPS:
        rows = [
            f"  {f'deployer {name}{arguments}':<32} {meaning}" for name, arguments, meaning in steps if name in commands
        ]
        if rows:
            blocks.append("\n".join([heading, *rows]))
    blocks.append("`deployer --help` lists every command, `deployer COMMAND --help` explains one.")
    return "\n\n".join(blocks)
