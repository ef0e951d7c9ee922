"""`/apps/{appname}/dataplane`: what is told of the answers of a data plane, which are anybody's words, and to whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from falcon import testing

from deployer.api.app import create_app
from deployer.commands.apps import AppViews, Shown
from deployer.commands.progress import Progress
from deployer.core.contract.ingress import AddressAnswer, RouteAnswers
from deployer.core.errors import KubeUnavailable, PluginBusy
from deployer.core.model.plan import Backend, ProviderRef, Route
from deployer.core.model.records import App, Deployment, Plan, Status, new_id
from deployer.core.ports.store import Create, Update

from .conftest import NS, Served

HOST = "shop.example.com"


class DataPlane:
    """Answers as a test says, at the beginning of 2026."""

    def __init__(self, *answers: AddressAnswer, error: Exception | None = None, **more: Any) -> None:
        self.found = RouteAnswers(answers, **more)
        self.error = error
        self.asked: list[str] = []

    def ask(self, plan: Plan) -> tuple[float, RouteAnswers]:
        assert plan.route is not None
        self.asked.append(plan.route.host)
        if self.error is not None:
            raise self.error
        return 1_767_225_600.25, self.found


def live(served: Served, app: str = "shop", version: str = "2") -> Deployment:
    """A deployment that is live under `HOST`, with the one before, version 1, still warm."""
    before, made = (served.deployment(app, one) for one in ("1", version))
    served.end(before.id)
    served.end(before.id, Status.UNDEPLOYING)
    route = Route(
        namespace=NS, app=app, host=HOST, version=version, deployment=made.id, backend=Backend("x", 80), path="/up"
    )
    plan = Plan(namespace=NS, app=app, deployment=made.id, version=version, route=route, ingress=ProviderRef("nginx"))
    record = App(namespace=NS, app=app, live=made.id, live_version=version, held=before.id, held_version="1")
    served.store.commit(Create(plan), Create(record))
    return served.end(made.id)


def shown(served: Served, plane: DataPlane, app: str = "shop", **allowed: bool) -> Any:
    views = AppViews(served.store, Progress(served.store), data_plane=plane)
    return views.data_plane(NS, app, shown=Shown(**allowed))


def told(served: Served, **answer: Any) -> dict[str, Any]:
    """What is told of one answer."""
    (found,) = shown(served, DataPlane(AddressAnswer(address="10.0.0.7:80", status=200, **answer)))["addresses"]
    assert {found.pop(name) for name in ("address", "tls", "milliseconds", "status")} == {"10.0.0.7:80", False, 200}
    return dict(found)


def test_the_whole_answer(served: Served) -> None:
    made = live(served)
    answers = [
        AddressAnswer(address="10.0.0.7:443", tls=True, seconds=0.01234, status=503, deployment=made.id),
        AddressAnswer(address="10.0.0.8:443", tls=True, seconds=2.0, unknown="gave no answer in time"),
    ]
    plane = DataPlane(*answers, left_out=3)
    assert shown(served, plane) == {
        "askedAt": "2026-01-01T00:00:00.250Z",
        "provider": "nginx",
        "host": HOST,
        "path": "/up",
        "addresses": [
            {
                "address": "10.0.0.7:443",
                "tls": True,
                "milliseconds": 12.3,
                "status": 503,
                "deployment": made.id,
                "version": "2",
                "live": True,
            },
            {"address": "10.0.0.8:443", "tls": True, "milliseconds": 2000.0, "unknown": "gave no answer in time"},
        ],
        "leftOut": 3,
    }
    assert plane.asked == [HOST]
    less = shown(served, plane, descriptors=False)
    assert not {"host", "path"} & less.keys() and HOST not in str(less)
    nobody = shown(served, DataPlane(unknown="there is no ready address of the controller to ask"))
    assert (nobody["addresses"], nobody["unknown"]) == ([], "there is no ready address of the controller to ask")


def test_only_a_deployment_of_the_app_itself_is_named(served: Served) -> None:
    made = live(served)
    app = served.store.get(App, f"{NS}/shop")
    assert app is not None
    coming = served.deployment("shop", "3")
    assert told(served, deployment=app.held) == {"deployment": app.held, "version": "1", "live": False}
    assert told(served, deployment=coming.id)["live"] is False
    record = served.store.get(Deployment, made.id)
    assert record is not None
    foreign = [
        new_id(),
        served.deployment("other").id,
        dataclasses.replace(record, namespace="other-ns", id=new_id(), revision=0),
        "<img src=x>",
        "../" * 1000,
    ]
    for one in foreign:
        if isinstance(one, Deployment):
            served.store.commit(Create(one))
        id = one.id if isinstance(one, Deployment) else one
        said = told(served, deployment=id)
        assert said == {"unknown": "the answer names a deployment that is none of this app's"}


def test_a_version_that_an_app_names_is_that_which_runs_now(served: Served) -> None:
    made = live(served)
    app = served.store.get(App, f"{NS}/shop")
    assert app is not None
    coming = served.deployment("shop", "3")
    served.store.commit(Update(dataclasses.replace(coming, version="3")))
    assert told(served, version="2") == {"deployment": made.id, "version": "2", "live": True}
    assert told(served, version="1") == {"deployment": app.held, "version": "1", "live": False}
    assert told(served, version="3") == {"deployment": coming.id, "version": "3", "live": False}
    assert told(served, version="9") == {"version": "9", "live": False}
    for nonsense in ("<b>", "x" * 64, "2, 2", "\u00e4"):
        assert told(served, version=nonsense) == {"unknown": "what the answer names as its version cannot be one"}


def test_a_live_version_whose_record_was_deleted_is_still_named(served: Served) -> None:
    made = live(served)
    app = served.store.get(App, f"{NS}/shop")
    assert app is not None
    gone, plan = new_id(), served.store.get(Plan, made.id)
    assert plan is not None
    renamed = dataclasses.replace(plan, deployment=gone, revision=0)
    served.store.commit(Update(dataclasses.replace(app, live=gone)), Create(renamed))
    assert told(served, deployment=gone) == {"deployment": gone, "version": "2", "live": True}


def test_nobody_is_asked_about_what_is_not_live(served: Served) -> None:
    plane = DataPlane()
    served.deployment("coming")
    assert shown(served, plane, "coming")["unknown"] == "no version is live, so no host leads to the app"
    made = live(served)
    plan = served.store.get(Plan, made.id)
    assert plan is not None
    served.store.commit(Update(dataclasses.replace(plan, route=None)))
    assert shown(served, plane)["unknown"].startswith("no host leads to the live version")
    assert plane.asked == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KubeUnavailable("the data plane cannot be asked: the API server does not answer"), "does not answer"),
        (PluginBusy("too many requests wait for the data plane; try again"), "too many requests"),
    ],
    ids=["cluster", "busy"],
)
def test_what_may_be_otherwise_later_is_a_503(served: Served, error: Exception, said: str) -> None:
    live(served)
    views = AppViews(served.store, Progress(served.store), data_plane=DataPlane(error=error))
    client = testing.TestClient(create_app(served.service, list, list, apps=views), headers={"Host": "localhost"})
    answer = client.simulate_get(f"/apps/shop/dataplane?namespace={NS}")
    assert answer.status_code == 503 and said in answer.json["detail"] and int(answer.headers["Retry-After"]) > 0


def test_names_are_those_of_descriptors_and_others_are_not_there(served: Served) -> None:
    live(served, "my-app")
    for name in ("my-app", "My.App"):
        assert served.call("GET", f"/apps/{name}/dataplane?namespace={NS}").json == {
            "addresses": [],
            "unknown": "the data plane cannot be asked from here",
        }
    assert served.call("GET", f"/apps/shop/dataplane?namespace={NS}").status == 404
    assert served.call("GET", "/apps/my-app/dataplane").status == 400
