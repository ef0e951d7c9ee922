"""What the crash matrix does to an app, over REST: every kind of operation, with every strategy that ships.

`act` may be called again and again: it asks for whatever was not accepted yet, as a client does that got no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.core.cancel_scope import CancelScope
from support.command import PATIENCE
from support.user import User
from support.world import HEALTHY, describe

POLL = 0.1
"""Seconds between two looks at what REST says."""


@dataclass(frozen=True)
class Site:
    """How apps look where the matrix is played.

    fields    of every descriptor: image and the like
    frontend  whether apps have one, so that they are exposed
    job       options of a gate `job` that succeeds
    """

    fields: Mapping[str, Any]
    frontend: bool
    job: Mapping[str, Any]


@dataclass(frozen=True)
class CrashFlow:
    """`prepare` runs undisturbed; `act` may be killed anywhere.

    ends      the statuses of the app's deployments in the end, oldest first
    stays     the app, once there, serves until the end
    fields    of the descriptors of `act`
    divides   needs an ingress that divides requests
    """

    prepare: Callable[[Team], None]
    act: Callable[[Team], None]
    ends: tuple[str, ...]
    stays: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    divides: bool = False


class Team:
    """Those who work with the app; `flow` says how."""

    def __init__(self, site: Site, flow: CrashFlow, user: User) -> None:
        self.site, self.flow, self.user = site, flow, user

    def deploy(self, **fields: Any) -> None:
        """A deployment of a new descriptor."""
        space = self.user.namespace
        if fields.get("gates") == "job":
            gate = {"type": "job", "name": "migrate", "timeoutSeconds": 60, "options": dict(self.site.job)}
            fields["gates"] = {"beforeStart": [gate]}
        frontend = {"frontend": f"{space}.example"} if self.site.frontend else {}
        self.user.deploy(describe(space, "shop", **{**frontend, **HEALTHY, **self.site.fields, **fields}))

    def all(self) -> list[dict[str, Any]]:
        """The app's deployments, oldest first."""
        return self.user.all()[::-1]

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for what REST says."""
        for _ in range(int(PATIENCE / POLL)):
            if condition():
                return
            CancelScope().pause(POLL)
        raise AssertionError(f"waited for {what}: {[(d['version'], d['status']) for d in self.all()]}")

    def statuses(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(d["status"] for d in self.all())

    def live(self, **fields: Any) -> None:
        """Deploy, and wait until it is live, and what it replaced is gone or kept warm."""
        self.deploy(**fields)
        self.until(lambda: self.statuses()[-1] == "DEPLOYED", "it to be live")


# --- what is done -------------------------------------------------------------------------------------------------


def nothing(team: Team) -> None:
    """An app that was never deployed."""


def live(team: Team) -> None:
    """Version 1 is live."""
    team.live(**_strategy(team))


def deploy(count: int) -> Callable[[Team], None]:
    """Deploy, until there are so many deployments."""

    def act(team: Team) -> None:
        if len(team.all()) < count:
            team.deploy(**team.flow.fields)

    return act


def undeploy(team: Team) -> None:
    """Undeploy, or cancel, the newest deployment."""
    newest = team.all()[-1]
    if newest["status"] in ("DEPLOYED", "DEPLOYING"):
        team.user.undeploy(newest["id"])


def waiting(team: Team) -> None:
    """Version 1 is live, and version 2 waits for a person once it is ready."""
    live(team)
    team.deploy(**{**_strategy(team), **ASKS})
    team.until(lambda: _asks(team), "a gate to ask")


def approve(team: Team) -> None:
    """Deploy behind gates, and approve each that waits for that."""
    deploy(2)(team)
    while team.statuses()[-1] == "DEPLOYING":
        team.until(lambda: _asks(team) or team.statuses()[-1] != "DEPLOYING", "a gate to ask")
        for gate in _asks(team):
            said = {"approve": True, "gate": gate["name"], "point": gate["point"]}
            status, answer = team.user.rest.call("POST", f"/deployments/{team.all()[-1]['id']}/approval", said)
            assert status in (200, 409), answer


def warm(team: Team) -> None:
    """Version 2 has replaced version 1, which is kept warm."""
    live(team)
    team.live(**{**_strategy(team), "keepWarm": 3600.0})


def cold(team: Team) -> None:
    """Version 2 has replaced version 1, which is gone."""
    live(team)
    team.live(**_strategy(team))
    team.until(lambda: team.statuses() == ("UNDEPLOYED", "DEPLOYED"), "version 1 to be gone")


def roll_back(team: Team) -> None:
    """Roll back to version 1."""
    first, second, *more = team.all()
    if second["status"] == "DEPLOYED" and not more:
        query = f"&appname=shop&to={first['id']}"
        status, answer = team.user.rest.call("POST", "/rollbacks/", query=query)
        assert status in (202, 409), answer


def again(team: Team) -> None:
    """Undeploy version 1, and deploy at once."""
    first, *more = team.all()
    if first["status"] == "DEPLOYED":
        team.user.undeploy(first["id"])
    if not more:
        team.deploy(**team.flow.fields)


def _asks(team: Team) -> list[dict[str, Any]]:
    """The gates of the newest deployment that wait for a person."""
    return [gate for gate in team.user.get(team.all()[-1]["id"]).get("gates", ()) if gate["waitsForApproval"]]


def _strategy(team: Team) -> dict[str, Any]:
    wanted = ("deploymentType", "strategyOptions", "replicas", "probe")
    return {name: value for name, value in team.flow.fields.items() if name in wanted}


ASK = {"type": "approval", "name": "ask"}
ASKS = {"gates": {"beforeSwitch": [ASK]}}
GATES = {"gates": {"beforeStart": [ASK], "beforeSwitch": [ASK], "afterSwitch": [ASK]}}
UNHEALTHY = {"env": {"FAIL": "1"}}
CANARY = {
    "probe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1},
    "deploymentType": "canary",
    "replicas": 2,
    "strategyOptions": {"steps": [{"weight": 40, "pause": 0.1}]},
}
RECREATE = {"deploymentType": "recreate"}
D, F, U = "DEPLOYED", "FAILURE", "UNDEPLOYED"

STRATEGIES: Mapping[str, Mapping[str, Any]] = {"blue-green": {}, "canary": CANARY, "recreate": RECREATE}


def _with(strategy: str) -> Mapping[str, CrashFlow]:
    """The flows that every strategy has."""
    own = STRATEGIES[strategy]
    stays, divides = strategy != "recreate", strategy == "canary"
    common = {"stays": stays, "divides": divides}
    return {
        "first": CrashFlow(nothing, deploy(1), (D,), fields=own, **common),
        "redeploy": CrashFlow(live, deploy(2), (U, D), fields=own, **common),
        "fail": CrashFlow(live, deploy(2), (D, F), fields={**own, **UNHEALTHY}, **common),
        "cancel": CrashFlow(waiting, undeploy, (D, U), fields=own, **common),
        "undeploy": CrashFlow(live, undeploy, (U,), fields=own, stays=False, divides=divides),
        "again": CrashFlow(live, again, (U, D), fields=own, stays=False, divides=divides),
        "roll back, cold": CrashFlow(cold, roll_back, (U, U, D), fields=own, **common),
    }


FLOWS: Mapping[tuple[str, str], CrashFlow] = {
    **{(strategy, name): flow for strategy in STRATEGIES for name, flow in _with(strategy).items()},
    ("blue-green", "roll back, warm"): CrashFlow(warm, roll_back, (D, F)),
    ("blue-green", "soak"): CrashFlow(live, deploy(2), (U, D), fields={"soakSeconds": 2}),
    ("blue-green", "gates"): CrashFlow(live, approve, (U, D), fields=GATES),
    ("blue-green", "gate job"): CrashFlow(live, deploy(2), (U, D), fields={"gates": "job"}),
    ("blue-green", "roll back by itself"): CrashFlow(
        live, deploy(2), (D, F), fields={"keepWarm": 3600.0, "env": {"CRASH_AFTER": "3"}}, stays=False
    ),
}
"""By strategy and name. `{"gates": "job"}` stands for a gate of the site's own job."""
