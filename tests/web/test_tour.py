"""The whole tour in a browser, on a service with a sandbox: at a phone's width and at a desk's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from support.command import Rest

from .conftest import Playground, Screen, deployed, shop, stored

Screens = Callable[..., Screen]

pytestmark = [pytest.mark.slow, pytest.mark.long]


def confirm(page: Page, button: str, *named: str) -> None:
    """Answer the question that was asked, which must name all of these."""
    dialog = page.get_by_role("dialog")
    for text in named:
        expect(dialog).to_contain_text(text)
    dialog.get_by_role("button", name=button, exact=True).click()


@pytest.mark.parametrize("width", ["phone", "desk"])
def test_from_the_first_descriptor_to_a_rollback(
    screens: Screens, playground: Playground, rest: Rest, width: str
) -> None:
    screen = screens(playground.url, width)
    namespace = rest.namespace
    page = screen.open(namespace)
    expect(page.get_by_role("heading", name="Nothing is deployed here yet")).to_be_visible()
    assert screen.findings() == []
    page.get_by_role("button", name="Write a descriptor").click()

    # Mistakes stand beside their lines while one types, in JSON and in YAML.
    text = page.get_by_label("Descriptor in JSON")
    text.fill(json.dumps({**shop(replicas="two"), "namespace": namespace}, indent=2))
    finding = page.get_by_role("button", name="replicas")
    expect(finding).to_contain_text(re.compile(r"Line \d+, replicas"))
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    assert screen.findings() == []
    screen.picture("editor")
    finding.click()
    assert "two" in page.evaluate(
        "(() => { const a = document.activeElement; return a.value.slice(a.selectionStart, a.selectionEnd); })()"
    )
    page.get_by_label("As").select_option("yaml")
    text = page.get_by_label("Descriptor in YAML")
    text.fill(text.input_value().replace("replicas: two", "replicas: 2"))
    expect(page.get_by_text("No mistakes found.")).to_be_visible()

    page.get_by_role("button", name="Save and deploy").click()
    confirm(page, "Deploy", "app shop", f"namespace {namespace}", "the next free version", "sample/web:1")
    expect(page.get_by_role("heading", name=re.compile("shop version 1"))).to_contain_text("Live")
    expect(page.get_by_role("log")).to_contain_text("version 1 is live")
    expect(page.get_by_role("row", name=re.compile("switch|move-service"))).to_contain_text("done")
    assert screen.findings() == []

    # Another version; the one before stays warm.
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Descriptors").click()
    page.get_by_role("row", name=re.compile("shop")).get_by_role("link").click()
    text = page.get_by_label("Descriptor in JSON")
    text.fill(text.input_value().replace("sample/web:1", "sample/web:2"))
    expect(page.get_by_label("Differences between live, version 1 and this descriptor")).to_contain_text("+")
    page.get_by_role("button", name="Save and deploy").click()
    confirm(page, "Deploy", "sample/web:2")
    expect(page.get_by_role("heading", name=re.compile("shop version 2"))).to_contain_text("Live")
    expect(page.get_by_role("img", name=re.compile("Timeline of version 2: .*traffic moved"))).to_be_visible()
    assert screen.findings() == []
    screen.picture("deployment")

    # The app: what is live, what is warm, what differs, and back.
    page.get_by_role("link", name="shop", exact=True).first.click()
    expect(page.get_by_text("2 of 2 ready").first).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("became")).to_contain_text("sample/web:2")
    assert screen.findings() == []
    screen.picture("app")
    page.get_by_role("button", name="Roll back to 1").click()
    assert screen.findings() == []
    screen.picture("question")
    confirm(
        page, "Roll back to version 1", "App shop", f"namespace {namespace}", "version 2", "one switch", "sample/web:1"
    )
    expect(page.get_by_role("heading", name=re.compile("shop version 1"))).to_contain_text("Live")
    page.get_by_role("link", name="shop", exact=True).first.click()
    expect(page.get_by_role("table")).to_contain_text("Live again")
    app = rest.call("GET", "/apps/shop/")[1]
    assert (app["live"]["version"], app["warm"]["replicas"]) == ("1", {"wanted": 2, "ready": 2})

    # Every view is a link, and everything that can be done can be done by keyboard.
    page.goto(page.url.split("#")[0] + f"#/{namespace}")
    expect(page.get_by_role("table")).to_contain_text("shop")
    page.keyboard.press("/")
    page.keyboard.type("sho")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^shop"))).to_be_visible()


@pytest.mark.parametrize("width", ["phone", "desk"])
def test_a_deployment_that_fails_says_why_and_what_to_do(
    screens: Screens, playground: Playground, rest: Rest, width: str
) -> None:
    screen = screens(playground.url, width, dark=True)
    deployed(rest, shop())
    failed = deployed(rest, shop(env={"FAIL": "1"}), "FAILURE")
    page = screen.open(f"{rest.namespace}/deployments/{failed}")
    expect(page.get_by_role("heading", name="Why it failed: Unhealthy")).to_be_visible()
    expect(page.get_by_text("What to do:")).to_be_visible()
    expect(page.get_by_role("row", name="verify-health")).to_contain_text("failed")
    expect(page.get_by_role("table").filter(has_text="Answer")).to_contain_text("not healthy")
    assert screen.findings() == []
    screen.picture("failure")
    page.goto(page.url.split("#")[0] + f"#/{rest.namespace}")
    expect(page.get_by_role("row", name="shop")).to_contain_text("Live, last deployment failed")
    assert screen.findings() == []
    screen.picture("overview")


def test_a_gate_waits_for_a_person_who_says_yes(screens: Screens, playground: Playground, rest: Rest) -> None:
    screen = screens(playground.url)
    gate = {"type": "approval", "name": "release", "timeoutSeconds": 600}
    id = deployed(rest, shop(gates={"beforeSwitch": [gate]}), "")
    page = screen.open(rest.namespace)
    expect(page.get_by_text("1 app waits for a person.")).to_be_visible()
    comes = rest.call("GET", "/apps/shop/")[1]["upcoming"]
    assert (comes["waitsForApproval"], comes["replicas"]) == ("release", {"wanted": 1, "ready": 1})
    page.get_by_role("button", name="Show it").click()
    row = page.get_by_role("row", name=re.compile("shop"))
    expect(row).to_contain_text("Waits for approval")
    expect(row).to_contain_text("Gate release of version 1")
    row.get_by_role("link").click()
    expect(page.get_by_text("No traffic yet.")).to_be_visible()
    assert screen.findings() == []
    page.get_by_role("link", name="Version 1").click()
    expect(page.get_by_role("heading", name="release")).to_contain_text("Waits for a person")
    expect(page.get_by_role("row", name="gate:beforeSwitch:release")).to_contain_text("At most")
    screen.picture("approval")
    page.get_by_role("button", name="Approve").click()
    page.get_by_label("Comment").fill("looks <b>fine</b>")
    confirm(page, "Approve", "version 1", "app shop", f"namespace {rest.namespace}")
    expect(page.get_by_role("heading", name=re.compile("shop version 1"))).to_contain_text("Live")
    expect(page.get_by_text("looks <b>fine</b>").first).to_be_visible()
    gates = rest.call("GET", f"/deployments/{id}/")[1]["gates"]
    assert gates[0]["decision"]["comment"] == "looks <b>fine</b>"


def test_what_goes_wrong_with_a_question_is_said_in_it(screens: Screens, playground: Playground, rest: Rest) -> None:
    """A frozen namespace: the freeze is shown, and who tries all the same is told why not."""
    screen = screens(playground.url)
    screen.refused.append("/deployments/")
    stored(rest, shop())
    page = screen.open(rest.namespace)
    page.get_by_role("button", name="Freeze").click()
    page.get_by_label("Reason").fill("Black Friday")
    confirm(page, f"Freeze {rest.namespace}", f"namespace {rest.namespace}")
    expect(page.get_by_text("Black Friday").first).to_be_visible()
    # Somebody whose page is older than the freeze.
    page.route("**/apps/shop?*", lambda route: route.fulfill(json={"namespace": rest.namespace, "appName": "shop"}))
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Descriptors").click()
    page.get_by_role("button", name="Deploy").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Deploy", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("is frozen")
    expect(dialog.get_by_role("alert")).to_contain_text("Black Friday")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.goto(page.url.split("#")[0] + f"#/{rest.namespace}")
    page.get_by_role("button", name="Lift").click()
    confirm(page, "Lift the freeze", "Black Friday")
    expect(page.get_by_role("button", name="Freeze")).to_be_visible()
    assert rest.call("GET", "/freezes/")[1] == []
