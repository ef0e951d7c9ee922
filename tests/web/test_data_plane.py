"""Which address of the data plane answers with which version, on the page of an app."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from deployer.kube import client as kube_client
from deployer.settings import Settings
from support.command import Rest, awaited
from support.fake_service import URL, FakeService, app
from support.proxies import ProxyAddress, another_address

from .conftest import Playground, Screen, deployed, shop

pytestmark = [pytest.mark.slow, pytest.mark.long]

Screens = Callable[..., Screen]

PATH = "/apps/web/dataplane"


def told(*addresses: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the service says."""
    shown = {"askedAt": "2026-11-01T08:00:00.000Z", "provider": "nginx", "host": "web.example.com", "path": "/"}
    return {**shown, "addresses": list(addresses), **more}


def answer(number: int, **more: Any) -> dict[str, Any]:
    return {"address": f"10.0.0.{number}:443", "tls": True, "milliseconds": 3.25, **more}


def version(name: str, *, live: bool) -> dict[str, Any]:
    return {"status": 200, "deployment": f"d-{name}", "version": name, "live": live}


@pytest.mark.parametrize(("width", "dark"), [("phone", True), ("desk", False), ("phone", False), ("desk", True)])
def test_each_address_with_its_version_or_why_it_is_not_known(screens: Screens, width: str, dark: bool) -> None:
    screen = screens(URL, width, dark=dark)
    addresses = [
        answer(1, **version("2", live=True)),
        answer(2, **version("1", live=False)),
        answer(3, status=404, unknown="the answer has no header X-Deployer-Revision"),
        answer(4, unknown="gave no answer in time <b>1</b>") | {"milliseconds": 2000.4},
    ]
    answers = {"/apps/web": app(), "/apps/web/history": [], PATH: told(*addresses, leftOut=1)}
    FakeService(screen.page, answers).start()
    page = screen.open("shop-ns/apps/web")
    section = page.get_by_role("region", name="Data plane")
    said = (
        "1 of 4 addresses answers with the live version, 1 with another one, 1 without saying which version it is, "
        "1 not at all."
    )
    expect(section.get_by_role("status")).to_have_text(said)
    row = section.get_by_role("row", name="10.0.0.2")
    expect(row).to_contain_text("Not the live one")
    expect(row.get_by_role("link", name="Version 1")).to_have_attribute("href", "#/shop-ns/deployments/d-1")
    expect(section.get_by_role("row", name="10.0.0.1")).to_contain_text(re.compile("Live.*3 ms", re.DOTALL))
    expect(section.get_by_role("row", name="10.0.0.3")).to_contain_text("The answer has no header X-Deployer-Revision.")
    expect(section.get_by_role("row", name="10.0.0.4")).to_contain_text("Gave no answer in time <b>1</b>")
    expect(section).to_contain_text("for web.example.com/. 1 more address was not asked.")
    assert screen.findings() == []
    screen.picture(f"data-plane-{'dark' if dark else 'light'}")


def asks(service: FakeService) -> int:
    return sum(path == PATH for _, path, _ in service.asked)


def polled(page: Page) -> None:
    """Let seconds pass in which the app itself is asked for again, and whatever else is due."""
    for _ in range(2):
        with page.expect_response(lambda found: found.url.split("?")[0].endswith("/apps/web")):
            page.clock.fast_forward(4000)


def test_it_is_asked_when_somebody_looks_or_something_moves_and_not_else(screens: Screens) -> None:
    screen = screens(URL)
    answers: dict[str, Any] = {
        "/apps/web": app(),
        "/apps/web/history": [],
        PATH: told(answer(1, **version("1", live=True))),
    }
    service = FakeService(screen.page, answers).start()
    screen.page.clock.install()
    page = screen.open("shop-ns/apps/web")
    section = page.get_by_role("region", name="Data plane")
    expect(section.get_by_role("status")).to_have_text("The one address answers with the live version.")
    polled(page)
    assert asks(service) == 1
    with page.expect_response(lambda found: PATH in found.url):
        section.get_by_role("button", name="Ask again").click()
    waits = {
        "deployment": "d-2",
        "version": "2",
        "phase": "EXPOSE",
        "step": "gate:release",
        "waitsForApproval": "release",
    }
    answers["/apps/web"] = app(upcoming=waits)
    expect(page.get_by_text("Waits for approval")).to_be_visible()
    polled(page)
    before = asks(service)
    assert before <= 3  # the step is another one: once more, and then nothing moves until somebody decides

    answers[PATH] = told(answer(1, **version("2", live=False)))
    answers["/apps/web"] = app(upcoming={**waits, "step": "switch-route", "waitsForApproval": ""})
    expect(section.get_by_role("status")).to_contain_text(
        "No address answers with the live version, 1 with another one."
    )
    for _ in range(2):
        with page.expect_response(lambda found: PATH in found.url):
            page.clock.fast_forward(4000)
    answers[PATH] = told(answer(1, **version("2", live=True)))
    answers["/apps/web"] = app(live={"deployment": "d-2", "version": "2", "since": "2026-11-01T09:00:00Z"})
    expect(section.get_by_role("status")).to_have_text("The one address answers with the live version.")
    after = asks(service)
    polled(page)
    assert asks(service) == after


def test_a_cluster_that_is_away_is_said_and_what_was_known_stays(screens: Screens) -> None:
    screen = screens(URL)
    screen.refused.append("/dataplane")
    answers = {"/apps/web": app(), "/apps/web/history": [], PATH: told(answer(1, **version("1", live=True)))}
    FakeService(screen.page, answers).start()
    page = screen.open("shop-ns/apps/web")
    section = page.get_by_role("region", name="Data plane")
    expect(section.get_by_role("row", name="10.0.0.1")).to_be_visible()
    why = "the data plane cannot be asked: the API server does not answer"
    answers[PATH] = {"title": "Service Unavailable", "status": 503, "detail": why}
    section.get_by_role("button", name="Ask again").click()
    expect(section.get_by_role("alert")).to_have_text("The data plane cannot be asked: the API server does not answer.")
    expect(section.get_by_role("row", name="10.0.0.1")).to_be_visible()
    answers[PATH] = told(unknown="there is no ready address of the controller to ask")
    section.get_by_role("button", name="Ask again").click()
    expect(section).to_contain_text("There is no ready address of the controller to ask.")
    assert screen.findings() == []


@pytest.fixture
def second(playground: Playground) -> Iterator[ProxyAddress]:
    """Another address of the sandbox's ingress controller."""
    client = kube_client.connect(Settings(kubernetes=playground.cluster.api, own_namespace=""))
    with another_address(playground.cluster, client) as address:
        yield address
    client.close()


def test_a_switch_that_reaches_one_address_late_and_an_address_that_dies(
    screens: Screens, playground: Playground, rest: Rest, second: ProxyAddress
) -> None:
    screen = screens(playground.url, "phone")
    first = playground.cluster.ingress.removeprefix("http://")
    host = f"{rest.namespace}.example.com"
    deployed(rest, shop(frontend=host))
    page = screen.open(f"{rest.namespace}/apps/shop")
    section = page.get_by_role("region", name="Data plane")
    status = section.get_by_role("status")
    expect(status).to_have_text("Both addresses answer with the live version.")
    second.lags = True
    id = deployed(rest, shop(frontend=host), "")
    expect(status).to_have_text("1 of 2 addresses answers with the live version, 1 with another one.")
    new = section.get_by_role("row", name=first)
    expect(new).to_contain_text("Coming")
    expect(new.get_by_role("link", name="Version 2")).to_have_attribute("href", re.compile(id))
    expect(section.get_by_role("row", name=str(second))).to_contain_text("Version 1")
    assert rest.status(id) == "DEPLOYING"
    assert screen.findings() == []
    screen.picture("data-plane-switch")
    second.lags = False
    awaited(lambda: rest.status(id) == "DEPLOYED", "the end")
    expect(status).to_have_text("Both addresses answer with the live version.")
    expect(new).to_contain_text("Version 2")
    second.die()

    def said() -> str | None:
        """After asking once more: who asks within a second is told what was answered before."""
        with page.expect_response(lambda found: found.url.split("?")[0].endswith("/dataplane")):
            section.get_by_role("button", name="Ask again").click()
        return status.text_content()

    dead = "1 of 2 addresses answers with the live version, 1 not at all."
    awaited(lambda: said() == dead, "the address to be shown as dead")
    expect(section.get_by_role("row", name=str(second))).to_contain_text("Gave no answer (ConnectionRefusedError)")
