"""The cluster, as plugins get it: kinds of objects, and the handle that reads and writes them."""

from deployer.core.contract.kube import Changed, KubeAccess, NotReady
from deployer.core.model.kind import (
    CONFIG_MAP,
    CONTROLLER,
    ENDPOINT_SLICE,
    EVENT,
    HTTP_ROUTE,
    INGRESS,
    INGRESS_CLASS,
    JOB,
    NAMESPACE,
    POD,
    SECRET,
    SERVICE,
    Kind,
)
from deployer.kube.ownership import annotation_of, deployment_of, objects_of_app, role_of
from deployer.kube.pods import controlled_by, name_of, uid_of

__all__ = [
    "CONFIG_MAP",
    "CONTROLLER",
    "ENDPOINT_SLICE",
    "EVENT",
    "HTTP_ROUTE",
    "INGRESS",
    "INGRESS_CLASS",
    "JOB",
    "NAMESPACE",
    "POD",
    "SECRET",
    "SERVICE",
    "Changed",
    "Kind",
    "KubeAccess",
    "NotReady",
    "annotation_of",
    "controlled_by",
    "deployment_of",
    "name_of",
    "objects_of_app",
    "role_of",
    "uid_of",
]
