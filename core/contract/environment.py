"""What an environment injector implements, and what it may know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import KubeReader
from deployer.core.contract.provider import Provider
from deployer.core.model.records import Document


@dataclass(frozen=True, slots=True)
class EnvContext:
    """What an injector may know.

    version      of the deployment, as it was decided
    log          one line for the deployment's log
    scope        cancellation and the deadline
    descriptor   a copy of the descriptor, in its normal form
    kube         reads objects of the app's namespace, as far as the Deployer may
    options      what the descriptor has in `extensions` for the plugin; empty when it has nothing
    """

    namespace: str
    app: str
    version: str
    log: Callable[[str], None]
    scope: CancelScope
    kube: KubeReader
    descriptor: Document = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class EnvInjector(Provider):
    """Adds environment variables to every container. An error of an injector fails the deployment."""

    @abstractmethod
    def environment(self, context: EnvContext) -> Sequence[Document]:
        """core/v1 EnvVar dicts: `{"name", "value"}` or `{"name", "valueFrom"}`, values being strings. Raise StepFailed
        with a sentence that may be shown; of other errors only the class is."""

    def warnings(self, scope: CancelScope) -> Sequence[str]:
        """What an operator should know, in sentences without values. Asked once, when the service has started, and in
        nobody's way; keep to the scope all the same."""
        return ()
