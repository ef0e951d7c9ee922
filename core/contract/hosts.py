"""Who else has a host: what an ingress provider reads and tells of objects of a kind of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from deployer.core.contract.kube import Documents, KubeAccess, KubeReader
from deployer.core.errors import KubeForbidden, KubeNotFound
from deployer.core.model.kind import Kind
from deployer.core.model.records import Document


@dataclass(frozen=True, slots=True)
class RouteClaim:
    """An object that leads the path `/` of hosts somewhere; whose it is, is not the provider's business.

    found  the object, as it was read
    hosts  those that it has, in lower case, exactly as they are asked for: no wildcards
    """

    found: Document
    hosts: Collection[str]


class RouteReader(KubeReader):
    """Reads the objects of the app's namespace, and routes of all others as far as the Deployer may."""

    def __init__(self, kube: KubeAccess, log: Callable[[str], None]) -> None:
        """`log` is told what could not be read."""
        super().__init__(kube)
        self._log = log

    def visible(self, kind: Kind, *, here: bool = True) -> Documents:
        """The objects of all namespaces; where no more may be read, those of the app's own, unless `here` is False.

        None where not even that may be read, or where the cluster does not know the kind. The log says what was not
        looked at. Raises KubeError for anything else, and what the scope raises.
        """
        try:
            return self._kube.everywhere(kind)
        except KubeNotFound:
            return []
        except KubeForbidden:
            self._log(f"{kind.kind} objects of other namespaces are not checked for the host: no right to list them")
        try:
            return self._kube.list(kind) if here else []
        except KubeNotFound:
            return []
        except KubeForbidden:
            self._log(f"nor are those of namespace {self._kube.owner.namespace}")
            return []
