"""The page with whatever a service may answer: hostile texts, thousands of apps, nothing at all, a login that ends."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from support.fake_service import ISSUER, URL, FakeService, app

from .conftest import Screen

pytestmark = [pytest.mark.slow, pytest.mark.long]

MARKUP = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'

Fake = Callable[..., tuple[Screen, FakeService]]


@pytest.fixture
def fake(screens: Callable[..., Screen]) -> Iterator[Fake]:
    """A screen and the service that it shows."""

    def make(width: str = "desk", *, answers: dict[str, Any] | None = None, **more: Any) -> tuple[Screen, FakeService]:
        screen = screens(URL, width)
        return screen, FakeService(screen.page, answers or {}, **more).start()

    yield make


def deployment(**more: Any) -> dict[str, Any]:
    """A deployment as `/deployments/{id}/` shows it."""
    descriptor = {"namespace": "shop-ns", "appName": "web", "podspec": {"containers": [{"image": "example/web:1"}]}}
    return {
        "id": "d-1",
        "created": "2026-11-01T08:00:00Z",
        "lastModified": "2026-11-01T08:00:09Z",
        "version": "1",
        "status": "DEPLOYED",
        "descriptor": descriptor,
        **more,
    }


def shown(**more: Any) -> dict[str, Any]:
    """What is asked for to show that deployment."""
    return {
        "/deployments/d-1": deployment(**more),
        "/deployments/d-1/healthcheckdata": [],
        "/apps/web": app(),
        "/apps/web/history": [],
    }


# --- what comes from elsewhere is text ----------------------------------------------------------------------------


def test_markup_in_names_failures_gates_health_and_logs_is_text(fake: Fake) -> None:
    gate = {
        "point": "afterSwitch", "type": MARKUP, "name": MARKUP, "forced": False, "dryRun": False, "verdict": "failed",
        "reason": MARKUP, "began": None, "deadline": None, "ended": None, "waitsForApproval": False, "measured": 1,
        "decision": {"approve": False, "by": MARKUP, "comment": MARKUP, "at": "2026-11-01T08:00:00Z"},
        "measurements": [{"time": "x", "name": MARKUP, "value": MARKUP, "threshold": MARKUP, "verdict": MARKUP}],
    }  # fmt: skip
    step = {"id": MARKUP, "phase": MARKUP, "state": "failed", "began": "2026-11-01T08:00:00Z", "ended": "never"}
    failure = {"reason": MARKUP, "message": f"{MARKUP}\n{MARKUP}", "pod": MARKUP, "hint": MARKUP}
    answers = shown(status="FAILURE", failure=failure, gates=[gate], steps=[step], createdBy=MARKUP, held=MARKUP)
    health = {"podName": MARKUP, "value": MARKUP, "healthy": False, "message": MARKUP}
    answers["/deployments/d-1/healthcheckdata"] = [health]
    answers["/apps/"] = [app(MARKUP, hosts=[MARKUP], lastFailure={"message": MARKUP, "at": "9", "version": MARKUP})]
    screen, service = fake(answers=answers)
    service.log = [f"2026-11-01T08:00:00.000Z {MARKUP}\n  {MARKUP}\n", "\x1b[31m\x00\u202ebinary \ud83d\ude00 \x07\n"]
    page = screen.open("shop-ns/deployments/d-1")
    expect(page.get_by_role("heading", name="Why it failed")).to_contain_text("<img src=x")
    expect(page.get_by_role("log")).to_contain_text("<script>")
    expect(page.get_by_role("log")).to_contain_text("�[31m")
    page.get_by_text("1 measurements").click()
    assert page.locator("main img, main script").count() == 0
    assert screen.findings() == []
    page.goto(f"{URL}/ui/#/shop-ns")
    expect(page.get_by_role("table")).to_contain_text("<img src=x")
    assert page.locator("main img, main script").count() == 0
    assert page.title() != "owned"
    # A name that is no name leads back to what has it, and nowhere else.
    page.get_by_role("row", name=re.compile("img")).get_by_role("link").click()
    screen.refused.append("/apps/")
    expect(page.get_by_role("alert")).to_contain_text("There is no app <img src=x")


@pytest.mark.parametrize("width", ["phone", "desk"])
def test_long_lines_break_nothing(fake: Fake, width: str) -> None:
    long = "x" * 5000
    failure = {"reason": "Unhealthy", "message": long, "hint": long}
    screen, service = fake(width, answers=shown(status="FAILURE", failure=failure, createdBy="y" * 256))
    service.log = [f"2026-11-01T08:00:00.000Z {'z' * 60_000}\n"]
    page = screen.open("shop-ns/deployments/d-1")
    expect(page.get_by_role("log")).to_contain_text("56,000 more characters in the download")
    assert screen.findings() == []
    image = f"registry.example.com/{'team/' * 20}web:1"
    listed = {"id": "x", "namespace": "shop-ns", "appName": "w" * 31, "newVersion": "v" * 31}
    service.answers["/descriptors/"] = [{**listed, "podspec": {"containers": [{"image": image}]}}]
    page = screen.open("shop-ns/descriptors")
    expect(page.get_by_role("row").filter(has_text="w" * 31)).to_contain_text(image)
    assert screen.findings() == []
    moves = deployment(phase="EXPOSE", step="wait", deadline="2099-01-01T00:00:00Z", waitingFor="a long time")
    service.answers["/deployments/d-1"] = {**moves, "steps": [step("wait", 1, 2, state="running") | {"ended": ""}]}
    page = screen.open("shop-ns/deployments/d-1")
    expect(page.get_by_role("row", name="wait")).to_contain_text(re.compile(r"At most [\d,]+ d \d+ h more"))
    assert screen.findings() == []


def test_ten_thousand_lines_are_followed_searched_and_paused(fake: Fake) -> None:
    screen, _ = fake(answers=shown(status="DEPLOYING", phase="START"))
    # In the page itself: as many messages at once as a socket would have.
    screen.page.add_init_script("""
      window.WebSocket = class {
        constructor() { window.socket = this; setTimeout(() => this.send(1, 10000), 0); }
        send(first, last) {
          for (let n = first; n <= last; n++) this.onmessage({data: `2026-11-01T08:00:00.000Z line ${n}\\n`});
        }
        close() {}
      }""")
    page = screen.open("shop-ns/deployments/d-1")
    log = page.get_by_role("log")
    expect(log.locator("> div")).to_have_count(10_000)
    at_end = "(e => e.scrollHeight - e.scrollTop - e.clientHeight < 40)(document.querySelector('.log'))"
    while not page.evaluate(at_end):  # it follows
        pass
    page.get_by_label("Search").fill("line 99")
    expect(page.get_by_text("111 lines")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    page.evaluate("socket.send(10001, 10001)")
    expect(page.get_by_text("Paused: new lines wait.")).to_be_visible()
    expect(log.locator("> div")).to_have_count(10_000)
    page.get_by_role("button", name="Go on").click()
    expect(log.locator("> div")).to_have_count(10_001)


def test_a_log_goes_on_where_it_broke_off(fake: Fake) -> None:
    screen, service = fake(answers=shown(status="DEPLOYING", phase="START"))
    service.log = ["2026-11-01T08:00:00.000Z one\n", "2026-11-01T08:00:00.000Z two\n"]
    page = screen.open("shop-ns/deployments/d-1")
    expect(page.get_by_role("log").locator("> div")).to_have_count(2)
    service.log += ["2026-11-01T08:00:01.000Z three\n"]
    service.streams[0].close(code=1001)
    expect(page.get_by_role("log").locator("> div")).to_have_count(3)
    expect(page.get_by_role("log")).to_contain_text(re.compile("one.*two.*three", re.DOTALL))
    service.streams[1].close(code=1000, reason="DEPLOYED")
    expect(page.get_by_text("This is the whole log.")).to_be_visible()


def test_values_of_a_gate_are_drawn_against_their_threshold(fake: Fake) -> None:
    values = [
        {"time": f"2026-11-01T08:00:{n:02}Z", "name": "", "value": v, "threshold": "<= 0.5", "verdict": "passed"}
        for n, v in enumerate([0.1, 0.32, 0.2, 0.45, 0.61, 0.3])
    ]
    gate = {
        "point": "afterSwitch", "type": "prometheus", "name": "errors", "forced": False, "dryRun": False,
        "verdict": "passed", "reason": "stays within <= 0.5", "began": "2026-11-01T08:00:00Z", "deadline": None,
        "ended": "2026-11-01T08:00:06Z", "waitsForApproval": False, "measured": 6, "measurements": values,
    }  # fmt: skip
    screen, _ = fake(answers=shown(gates=[gate]))
    page = screen.open("shop-ns/deployments/d-1")
    chart = page.get_by_role("img", name="Values of gate errors over time, with the threshold <= 0.5")
    expect(chart.locator("canvas")).to_be_visible()
    # Something was drawn: the curve and the threshold, in their colours.
    colours = page.evaluate("""() => {
      const canvas = document.querySelector('.chart canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const found = new Set();
      for (let n = 0; n < data.length; n += 4) found.add(data.slice(n, n + 3).join());
      return [...found];
    }""")
    assert {"11,92,173", "168,32,26"} <= set(colours)
    page.get_by_text("6 measurements").click()
    expect(page.get_by_role("row").filter(has_text="0.61")).to_be_visible()
    assert screen.findings() == []
    screen.picture("gate")


# --- much -----------------------------------------------------------------------------------------------------------


def step(id: str, began: int, ended: int, *, phase: str = "EXPOSE", state: str = "done", **more: Any) -> dict[str, Any]:
    """A step of a deployment; its times are seconds of one minute."""
    times = {"began": f"2026-11-01T08:00:{began:02}.000Z", "ended": f"2026-11-01T08:00:{ended:02}.000Z"}
    return {"id": id, "phase": phase, "state": state, **times, **more}


NONE_LOST = {"asked": 12, "lost": 0, "addresses": 3, "seconds": 0.21}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        pytest.param(
            [step("switch-route", 1, 2), step("confirm-route", 2, 4, phase="CONFIRM", requests=NONE_LOST)],
            "8:00:02; none of 12 requests to 3 addresses lost",
            id="none",
        ),
        pytest.param(
            [step("switch-route", 1, 2), step("move-service", 3, 5, phase="CONFIRM", requests=NONE_LOST | {"lost": 2})],
            "8:00:03; 2 of 12 requests to 3 addresses lost",
            id="with-the-service",
        ),
        pytest.param(
            [step("switch-route", 1, 2), step("confirm-route", 2, 4), step("move-service", 4, 5)],
            "8:00:02; requests lost: not measured",
            id="not-measured",
        ),
        pytest.param(
            [
                step("switch-route", 1, 2, state="undone"),
                step("confirm-route", 2, 9, state="failed", requests={**NONE_LOST, "lost": 12, "seconds": None}),
            ],
            "8:00:02, and back; 12 of 12 requests to 3 addresses lost",
            id="taken-back",
        ),
    ],
)
def test_the_moment_of_the_switch_says_how_many_requests_were_lost(
    fake: Fake, steps: list[dict[str, Any]], told: str
) -> None:
    screen, _ = fake(answers=shown(steps=steps))
    page = screen.open("shop-ns/deployments/d-1")
    caption = page.locator("figcaption .key.switch")
    expect(caption).to_contain_text(told)
    assert told in (page.locator("figure.timeline svg").get_attribute("aria-label") or "")
    assert page.locator("rect.moving").count() == ("not measured" not in told)
    assert screen.findings() == []


def test_hours_at_a_gate_do_not_hide_the_seconds_of_the_switch(fake: Fake) -> None:
    gate = step("gate:release", 2, 3) | {"ended": "2026-11-02T08:00:00.000Z"}
    later = step("switch-route", 0, 0) | {"began": "2026-11-02T08:00:00.000Z", "ended": "2026-11-02T08:00:01.000Z"}
    screen, _ = fake(answers=shown(steps=[step("start-workload", 1, 2, phase="START"), gate, later]))
    page = screen.open("shop-ns/deployments/d-1")
    expect(page.locator("rect.bar")).to_have_count(3)
    start, waited, switched = page.eval_on_selector_all("rect.bar", "all => all.map(one => one.width.baseVal.value)")
    assert start > 10 and switched > 10 and waited > 900


def test_three_thousand_apps_stay_smooth(fake: Fake) -> None:
    apps = [app(f"app-{n:04}") for n in range(3000)]
    screen, _ = fake(answers={"/apps/": apps})
    page = screen.open("shop-ns")
    expect(page.get_by_text("3,000 apps")).to_be_visible()
    assert page.get_by_role("row").count() == 101
    # How long the page is busy after a key: counted in frames that it misses, not in a machine's seconds.
    page.get_by_label("Filter").fill("app-29")
    expect(page.get_by_text("100 apps of 3,000")).to_be_visible()
    page.get_by_label("Filter").fill("")
    page.get_by_role("button", name="App", exact=False).first.click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("app-2999")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("101–200 of 3,000")).to_be_visible()
    assert screen.findings() == []


def test_while_nothing_changes_it_is_asked_for_conditionally(fake: Fake) -> None:
    screen, service = fake(answers={"/apps/": [app()]})
    page = screen.open("shop-ns")
    expect(page.get_by_role("table")).to_contain_text("web")
    with page.expect_response(lambda answer: "/apps/" in answer.url and answer.status == 304):
        pass
    service.asked.clear()
    with page.expect_response(lambda answer: "/apps/" in answer.url):
        pass
    page.evaluate("1")
    assert {status for _, _, status in service.asked} == {304}, service.asked


def test_a_list_in_pages_stays_whole_while_nothing_changes(fake: Fake) -> None:
    listed = {"namespace": "shop-ns", "newVersion": "1", "podspec": {"containers": []}}
    first, second = ([{**listed, "id": name, "appName": name}] for name in ("first", "second"))
    answers = {"/descriptors/": lambda params: second if params.get("continue") else first}
    screen, service = fake(answers=answers)
    follows = "/descriptors/?namespace=shop-ns&limit=500&continue=x"
    service.links["/descriptors/?namespace=shop-ns&limit=500"] = follows
    page = screen.open("shop-ns/descriptors")
    expect(page.get_by_role("table")).to_contain_text("second")
    with page.expect_response(lambda answer: "continue=x" in answer.url and answer.status == 304):
        pass
    expect(page.get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("table")).to_contain_text("second")


# --- nothing --------------------------------------------------------------------------------------------------------


def test_a_service_that_dies_and_comes_back_is_shown_as_such(fake: Fake) -> None:
    screen, service = fake(answers={"/apps/": [app()]})
    screen.refused += ["/apps/", "/freezes/", "/whoami"]
    page = screen.open("shop-ns")
    expect(page.get_by_role("table")).to_contain_text("web")
    service.down = True
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    expect(page.get_by_role("table")).to_contain_text("web")  # what was known stays
    screen.picture("lost")
    assert screen.findings() == []
    service.down = False
    service.answers["/apps/"] = [app("api")]
    expect(page.get_by_role("table")).to_contain_text("api")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_service_that_is_dead_from_the_start_is_waited_for(fake: Fake) -> None:
    screen, service = fake(answers={"/apps/": [app()]}, down=True)
    screen.refused.append("deployer.test")
    page = screen.open("shop-ns")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    service.down = False
    expect(page.get_by_role("table")).to_contain_text("web")


def test_errors_of_the_api_are_sentences(fake: Fake) -> None:
    answer = {"status": 503, "title": "Service Unavailable", "detail": "the store cannot be read: the disk is full"}
    screen, service = fake(answers={"/apps/": answer})
    screen.refused.append("/apps/")
    page = screen.open("shop-ns")
    expect(page.get_by_role("alert")).to_have_text("The store cannot be read: the disk is full.")
    service.answers["/apps/"] = []
    expect(page.get_by_role("heading", name="Nothing is deployed here yet")).to_be_visible()


def test_an_answer_that_is_slow_is_waited_for(fake: Fake) -> None:
    waiting: list[Route] = []
    screen, service = fake(answers={"/apps/": [app()]})
    screen.page.route("**/apps/?*", lambda route: waiting.append(route), times=1)  # noqa: PLW0108
    page = screen.open("shop-ns")
    expect(page.get_by_role("status").filter(has_text="Loading apps")).to_be_visible()
    while not waiting:
        page.evaluate("1")
    service.answer(waiting[0])
    expect(page.get_by_role("table")).to_contain_text("web")


# --- who may what ---------------------------------------------------------------------------------------------------


def test_whoever_may_only_read_sees_no_buttons(fake: Fake) -> None:
    read = {resource: ["get", "list"] for resource in ("descriptors", "deployments", "freezes")}
    gate = {"point": "beforeSwitch", "type": "approval", "name": "ok", "waitsForApproval": True, "measurements": []}
    answers = shown(status="DEPLOYING", phase="EXPOSE", gates=[gate])
    comes = {"deployment": "d-2", "version": "2", "waitsForApproval": "ok"}
    answers["/apps/web"] = app(upcoming=comes, warm={"deployment": "d-0", "version": "0"})
    answers["/apps/"] = [answers["/apps/web"]]
    answers["/descriptors/"] = [{"id": "x", "namespace": "shop-ns", "appName": "web", "newVersion": "1"}]
    screen, _ = fake(answers=answers, may=read)
    harmless = {
        "Ask again",
        "Pause",
        "Download",
        "Copy link",
        "Compare",
        "Show it",
        "App ↑",
        "State",
        "Live",
        "Pods",
        "Last change",
    }
    for view in ("shop-ns", "shop-ns/apps/web", "shop-ns/deployments/d-1", "shop-ns/descriptors"):
        page = screen.open(view)
        page.reload()
        expect(page.get_by_role("main")).to_contain_text("web")
        expect(page.get_by_role("main").locator("h1")).to_be_visible()
        found = {button.inner_text() for button in page.get_by_role("main").get_by_role("button").all()}
        assert found <= harmless, view


def test_a_token_is_asked_for_and_kept_nowhere(fake: Fake) -> None:
    screen, _ = fake(answers={"/apps/": [app()]}, method="jwt", token="a.good.token")
    screen.refused += ["/whoami", "/apps/", "/freezes/", "/descriptors/"]
    page = screen.open("shop-ns")
    dialog = page.get_by_role("dialog", name="Log in")
    expect(dialog).to_be_visible()
    assert screen.findings() == []
    screen.picture("login")
    dialog.get_by_label("Token").fill("a.bad.token")
    dialog.get_by_role("button", name="Use this token").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The token has expired.")
    dialog.get_by_label("Token").fill("Bearer a.good.token ")
    dialog.get_by_role("button", name="Use this token").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("table")).to_contain_text("web")
    expect(page.get_by_role("banner")).to_contain_text("ann")
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert "good" not in kept
    page.get_by_role("button", name="Log out").click()
    expect(dialog).to_contain_text("You are logged out.")
    expect(page.get_by_role("table")).to_have_count(0)


def test_a_login_that_ends_loses_nothing_that_was_typed(fake: Fake) -> None:
    screen, service = fake(answers={"/apps/": [], "/deployments/": []}, method="jwt", token="first")
    service.answers["/descriptors/validate"] = {"namespace": "shop-ns", "appName": "web"}
    screen.refused += ["deployer.test"]
    page = screen.open("shop-ns/descriptors/new")
    page.get_by_label("Token").fill("first")
    page.get_by_role("button", name="Use this token").click()
    text = page.get_by_label("Descriptor in JSON")
    text.fill('{"appName": "what I typed"}')
    service.token = "second"
    page.get_by_role("button", name="Save", exact=True).click()
    dialog = page.get_by_role("dialog", name="Log in")
    expect(dialog).to_contain_text("nothing that you typed is lost")
    dialog.get_by_label("Token").fill("second")
    dialog.get_by_role("button", name="Use this token").click()
    expect(dialog).to_have_count(0)
    expect(text).to_have_value('{"appName": "what I typed"}')

    # Nor what was typed into a question.
    gate = {
        "point": "beforeSwitch", "type": "approval", "name": "ok", "forced": False, "dryRun": False, "verdict": None,
        "reason": "", "began": None, "deadline": None, "ended": None, "waitsForApproval": True, "measured": 0,
        "measurements": [],
    }  # fmt: skip
    service.answers |= shown(status="DEPLOYING", phase="EXPOSE", gates=[gate])
    service.answers["/deployments/d-1/approval/"] = {"approve": False}
    page.evaluate("location.hash = '#/shop-ns/deployments/d-1'")
    page.get_by_role("button", name="Reject").click()
    page.get_by_role("dialog").get_by_label("Comment").fill("not on a Friday")
    service.token = "third"
    page.get_by_role("dialog").get_by_role("button", name="Reject").click()
    expect(dialog).to_contain_text("nothing that you typed is lost")
    dialog.get_by_label("Token").fill("third")
    dialog.get_by_role("button", name="Use this token").click()
    expect(dialog).to_have_count(0)
    question = page.get_by_role("dialog")
    expect(question.get_by_label("Comment")).to_have_value("not on a Friday")
    question.get_by_role("button", name="Reject").click()
    expect(question).to_have_count(0)


def test_the_log_stream_gets_the_token_as_a_subprotocol(fake: Fake) -> None:
    screen, service = fake(answers=shown(), method="jwt", token="tökén".encode().hex())
    screen.refused += ["deployer.test"]
    service.log = ["2026-11-01T08:00:00.000Z hello\n"]
    page = screen.page
    page.add_init_script(
        "const Real = WebSocket; window.protocols = [];"
        "window.WebSocket = class extends Real { constructor(url, p) { super(url, p); protocols.push(p); } };"
    )
    screen.open("shop-ns/deployments/d-1")
    page.get_by_label("Token").fill(service.token)
    page.get_by_role("button", name="Use this token").click()
    expect(page.get_by_role("log")).to_contain_text("hello")
    plain, secret = page.evaluate("protocols.at(-1)")
    assert plain == "logs.kube-deployer"
    encoded = secret.removeprefix("base64url.bearer.authorization.kube-deployer.")
    assert base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode() == service.token
    assert all(service.token not in stream.url for stream in service.streams)


def test_logging_in_at_an_identity_provider_keeps_the_page(fake: Fake) -> None:
    token = jwt({"aud": ["kube-deployer"], "sub": "ann"})
    issuer = {"name": "people", "issuer": ISSUER, "audience": "kube-deployer", "clientId": "web", "scopes": "openid"}
    screen, _ = fake(answers={"/apps/": [app()]}, method="jwt", token=token, issuers=[issuer])
    screen.refused += ["deployer.test"]
    provider = Provider(screen.page, {"access_token": jwt({"aud": "others"}), "id_token": token})
    page = screen.open("shop-ns")
    expect(page.get_by_role("dialog")).to_contain_text("authorization code flow with PKCE")
    assert screen.findings() == []
    screen.picture("login-provider")
    page.get_by_role("button", name="Log in with people").click()
    expect(page.get_by_role("table")).to_contain_text("web")
    # RFC 7636: what was promised at the beginning is shown in the end, and never the other way round.
    asked, exchanged = provider.asked, provider.exchanged
    assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == exchanged["redirect_uri"] == f"{URL}/ui/"
    assert (asked["client_id"], asked["scope"]) == ("web", "openid")
    assert exchanged["code"] == "the-code" and challenge_of(exchanged["code_verifier"]) == asked["code_challenge"]
    assert "client_secret" not in exchanged
    assert len(page.context.pages) == 1, "the other window is gone"


def test_what_the_identity_provider_refuses_is_said(fake: Fake) -> None:
    issuer = {"name": "people", "issuer": ISSUER, "audience": "kube-deployer", "clientId": "web"}
    screen, _ = fake(method="jwt", token="none", issuers=[issuer])
    screen.refused += ["deployer.test"]
    Provider(screen.page, {}, error="access_denied")
    page = screen.open("shop-ns")
    page.get_by_role("button", name="Log in with people").click()
    expect(page.get_by_role("alert")).to_have_text("The identity provider people refused: access_denied.")


class Provider:
    """An identity provider with a login page on which nobody has to type anything."""

    def __init__(self, page: Page, tokens: dict[str, str], error: str = "") -> None:
        self._tokens, self._error = tokens, error
        self.asked: dict[str, str] = {}
        self.exchanged: dict[str, str] = {}
        page.context.route("https://idp.test/**", self._answer)

    def _answer(self, route: Route) -> None:
        url = urllib.parse.urlsplit(route.request.url)
        headers = {"Access-Control-Allow-Origin": "https://deployer.test"}
        if url.path.endswith("/.well-known/openid-configuration"):
            known = {"authorization_endpoint": f"{ISSUER}/auth", "token_endpoint": f"{ISSUER}/token"}
            route.fulfill(json={"issuer": ISSUER, **known}, headers=headers)
        elif url.path.endswith("/auth"):
            self.asked = dict(urllib.parse.parse_qsl(url.query))
            result = {"error": self._error} if self._error else {"code": "the-code", "iss": ISSUER}
            back = urllib.parse.urlencode({"state": self.asked["state"], **result})
            route.fulfill(status=302, headers={"Location": f"{self.asked['redirect_uri']}?{back}"})
        else:
            self.exchanged = dict(urllib.parse.parse_qsl(route.request.post_data or ""))
            route.fulfill(json=self._tokens, headers=headers)


def jwt(claims: dict[str, Any]) -> str:
    """A token of which the page reads the claims; who checks it is the service."""
    exp = int(time.time()) + 600
    return f"e30.{base64.urlsafe_b64encode(json.dumps({**claims, 'exp': exp}).encode()).decode().rstrip('=')}.sig"


def challenge_of(verifier: str) -> str:
    """RFC 7636, 4.2."""
    import hashlib

    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
