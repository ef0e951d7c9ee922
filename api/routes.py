"""The route table: every route, its methods, and what a caller must be allowed to do there.

The application, authorisation, the OpenAPI document and their tests are made from it, so that none can forget a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Anybody(Enum):
    """Access that depends on no namespace."""

    EVERYBODY = "everybody"
    """No credentials are asked for: probes of the kubelet, and pages that say how to get in."""
    AUTHENTICATED = "authenticated"
    """Whoever has valid credentials."""


@dataclass(frozen=True, slots=True)
class Permission:
    """A right in the namespace of the request, in the terms of Kubernetes: a verb on one of our virtual resources.

    resource   `descriptors`, `deployments` or `freezes`
    verb       `get`, `list`, `create`, `update`, `delete`, `deletecollection`; `approve` and `rollback`, which are of
               deployments only; or `override`, which is of freezes only
    """

    resource: str
    verb: str

    @property
    def reads(self) -> bool:
        """True when nothing is changed by it."""
        return self.verb in ("get", "list")


Access = Anybody | Permission

OVERRIDE = Permission("freezes", "override")
"""To deploy in spite of a freeze."""

ROLLBACK = Permission("deployments", "rollback")
"""To go back to an earlier version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path (RFC 6570 level 1, without the trailing slash) and what each of its methods permissions.

    HEAD permissions what GET does, and OPTIONS nothing. A `stream` is served over a WebSocket, by `stream.py`. What is
    `dry` changes nothing, whatever its methods are called. `states_namespace`: the descriptor that is sent says which
    namespace is meant when the query does not. `freezes`: the namespace is that of the path, where there is one, and
    may be `*`, which stands for all.

    parameters   what a parameter of the query needs besides, by method and name
    """

    path: str
    methods: Mapping[str, Access]
    stream: bool = False
    dry: bool = False
    states_namespace: bool = False
    freezes: bool = False
    parameters: Mapping[tuple[str, str], Permission] = field(default_factory=dict)


def _may(resource: str, **verbs: str) -> Mapping[str, Access]:
    return {method: Permission(resource, verb) for method, verb in verbs.items()}


ROUTES: tuple[Route, ...] = (
    Route(path="/", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/healthz", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/readyz", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/openapi.json", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/docs", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/metrics", methods={"GET": Anybody.AUTHENTICATED}),
    Route(path="/plugins", methods={"GET": Anybody.AUTHENTICATED}),
    Route(path="/whoami", methods={"GET": Anybody.AUTHENTICATED}),
    # The page and its files, which hold no data: what they show they ask for with the token of whoever looks.
    Route(path="/ui", methods={"GET": Anybody.EVERYBODY}),
    Route(path="/ui/{file}", methods={"GET": Anybody.EVERYBODY}),
    Route(
        path="/descriptors",
        methods=_may("descriptors", GET="list", POST="create", DELETE="deletecollection"),
    ),
    # It writes nothing, but asks the API server with the service's own rights.
    Route(path="/descriptors/validate", methods=_may("descriptors", POST="create"), dry=True, states_namespace=True),
    Route(path="/descriptors/{id}", methods=_may("descriptors", GET="get", PUT="update", DELETE="delete")),
    Route(
        path="/deployments",
        methods=_may("deployments", GET="list", POST="create", DELETE="deletecollection"),
        parameters={("POST", "override"): OVERRIDE},
    ),
    # PUT deploys its descriptor copy anew: that makes another deployment and changes none.
    Route(
        path="/deployments/{id}",
        methods=_may("deployments", GET="get", PUT="create", DELETE="delete"),
        parameters={("PUT", "override"): OVERRIDE},
    ),
    Route(path="/deployments/{id}/logs", methods=_may("deployments", GET="get")),
    Route(path="/deployments/{id}/healthcheckdata", methods=_may("deployments", GET="get")),
    # Whoever may deploy may not therefore say that a deployment may go on.
    Route(path="/deployments/{id}/approval", methods=_may("deployments", POST="approve")),
    # They are about deployments, of all of an app; what comes from descriptors is for those who may list these.
    Route(path="/apps", methods=_may("deployments", GET="list")),
    Route(path="/apps/{appname}", methods=_may("deployments", GET="list")),
    Route(path="/apps/{appname}/history", methods=_may("deployments", GET="list")),
    # It has the ingress controller asked, for the app's own host and nothing that a caller says.
    Route(path="/apps/{appname}/dataplane", methods=_may("deployments", GET="list")),
    # On call, somebody may have to go back who may not deploy. Whoever may deploy may do this too, unless the settings
    # say otherwise.
    Route(path="/rollbacks", methods=_may("deployments", POST="rollback")),
    Route(path="/freezes", methods=_may("freezes", GET="list"), freezes=True),
    Route(path="/freezes/{namespace}", methods=_may("freezes", GET="get", PUT="update", DELETE="delete"), freezes=True),
    Route(path="/stream/deployments/{id}/logs", methods=_may("deployments", GET="get"), stream=True),
)

PERMISSIONS: tuple[Permission, ...] = tuple(
    dict.fromkeys(
        access
        for route in ROUTES
        for access in (*route.methods.values(), *route.parameters.values())
        if isinstance(access, Permission)
    )
)
"""Every right that a route asks for."""
