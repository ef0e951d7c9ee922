"""For authors of ingress providers: what they implement and get, and how to ask a data plane."""

from deployer.core.contract.ingress import (
    PREVIEW_OPTIONS,
    AddressAnswer,
    Capability,
    IngressProvider,
    PodAnswers,
    RequestMatch,
    RouteAnswers,
    RouteClaim,
    RouteContext,
    RouteReader,
    RouteState,
    Share,
    shares_of,
)
from deployer.core.model.hosts import www_twin
from deployer.core.model.operation.timeline import Requests
from deployer.core.model.plan import Backend, Preview, Route
from deployer.kube.adoption import ANNOTATIONS as ORIGINAL_ANNOTATIONS
from deployer.kube.adoption import redirect_name
from deployer.toolkit.dataplane.probe import Address, Answer, ask
from deployer.toolkit.dataplane.proof import REVISION_HEADER, DataPlane, Objection, data_plane, data_plane_schema
from deployer.toolkit.host_ownership import claimants, ingress_hosts, require_only, www_twin_is_free
from deployer.toolkit.workload import backends_behind

__all__ = [
    "ORIGINAL_ANNOTATIONS",
    "PREVIEW_OPTIONS",
    "REVISION_HEADER",
    "Address",
    "AddressAnswer",
    "Answer",
    "Backend",
    "Capability",
    "DataPlane",
    "IngressProvider",
    "Objection",
    "PodAnswers",
    "Preview",
    "RequestMatch",
    "Requests",
    "Route",
    "RouteAnswers",
    "RouteClaim",
    "RouteContext",
    "RouteReader",
    "RouteState",
    "Share",
    "ask",
    "backends_behind",
    "claimants",
    "data_plane",
    "data_plane_schema",
    "ingress_hosts",
    "redirect_name",
    "require_only",
    "shares_of",
    "www_twin",
    "www_twin_is_free",
]
