"""The observers of `notify_webhook`: what arrives at a receiver, byte for byte, and what happens when it does not."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deployer.core.errors import NotDelivered, SettingsError
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.notify_webhook import register_observers, settings_schema
from deployer.sdk import webhook
from deployer.sdk.observer import Notification, Observer, Occurrence
from deployer.sdk.plugin import PluginSettings
from deployer.settings import Settings
from support.issuer import server_context
from support.receiver import Proxy, Receiver, reply

SCHEMAS = Path(__file__).parent / "cdevents"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
IMAGE = "registry.example.com:5000/shop/Web:1.2"
VALUE = "hunter2-in-a-variable"
DEPLOYMENT = {
    "id": "0c5f6c1e-5b1a-4b7e-9f57-0a0e9d5c0001",
    "created": "2026-01-02T03:04:05Z",
    "lastModified": "2026-01-02T03:05:05Z",
    "version": "2",
    "status": "DEPLOYED",
    "createdBy": "alice",
    "descriptor": {
        "namespace": "shop-prod",
        "appName": "shop",
        "frontend": "shop.example.com",
        "email": "someone@example.com",
        "podspec": {"containers": [{"name": "web", "image": IMAGE, "env": [{"name": "PASSWORD", "value": VALUE}]}]},
        "extensions": {"vault": {"path": "shop"}},
    },
}


def happened(
    occurrence: Occurrence | str = Occurrence.UPGRADED, *, previous: str = "1", **changes: Any
) -> Notification:
    hook = occurrence.hook if isinstance(occurrence, Occurrence) else "deployment_changed"
    return Notification("n-1", hook, occurrence, 1767323106.25, previous, DEPLOYMENT | changes)


def observers(targets: dict[str, Any], **table: Any) -> dict[str, Observer]:
    """As the service makes them from `[plugins.notify_webhook]`."""
    settings = Settings(own_namespace="")
    jsonschema.validate({"targets": targets, **table}, settings_schema())
    made = register_observers(PluginSettings({"targets": targets, **table}, settings))
    return {observer.name: observer for observer in made}


def target(table: dict[str, Any], **more: Any) -> Observer:
    return observers({"ops": table}, **more)["ops"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


# --- what is sent -------------------------------------------------------------------------------------------------


def test_json_has_who_what_and_when_and_nothing_of_the_environment(receiver: Receiver) -> None:
    target({"url": f"{receiver.origin}/hooks?team=shop"}).notify(happened())
    [request] = receiver.requests
    assert request.path == "/hooks?team=shop"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["webhook-id"] == "n-1"
    assert not {"webhook-signature", "authorization"} & request.headers.keys()
    assert request.json == {
        "type": "deployment.upgraded",
        "timestamp": "2026-01-02T03:05:06.250Z",
        "data": {
            "id": DEPLOYMENT["id"],
            "namespace": "shop-prod",
            "appName": "shop",
            "version": "2",
            "previousVersion": "1",
            "status": "DEPLOYED",
            "created": "2026-01-02T03:04:05Z",
            "createdBy": "alice",
            "lastModified": "2026-01-02T03:05:05Z",
            "frontend": "shop.example.com",
            "images": [IMAGE],
        },
    }


@pytest.mark.parametrize("format", ["json", "slack", "cdevents"])
@pytest.mark.parametrize("occurrence", [*Occurrence, ""])
def test_no_format_has_the_value_of_a_variable(receiver: Receiver, format: str, occurrence: Occurrence) -> None:
    events = {} if format == "cdevents" else {"events": [*Occurrence, "progress"]}
    target({"url": receiver.origin, "format": format, **events}).notify(happened(occurrence))
    sent = b"".join(request.body for request in receiver.requests)
    assert bool(sent) is (format != "cdevents" or occurrence in ("deployed", "upgraded", "rolledback", "removed"))
    for hidden in (VALUE, "PASSWORD", "vault", "someone@example.com"):
        assert hidden.encode() not in sent


@pytest.mark.parametrize(
    ("occurrence", "changes", "said"),
    [
        (Occurrence.STARTED, {}, "[shop-prod] shop 2 is being deployed by alice, to replace version 1"),
        (Occurrence.UPGRADED, {}, "[shop-prod] shop 2 is live instead of version 1"),
        (Occurrence.ROLLED_BACK, {}, "[shop-prod] shop 2 is live again instead of version 1: rolled back"),
        (
            Occurrence.FAILED,
            {"failure": {"reason": "X", "message": "<!channel> & co", "hint": "look"}},
            "[shop-prod] shop 2 failed: &lt;!channel&gt; &amp; co (look); version 1 stays live",
        ),
        (Occurrence.REMOVED, {"undeployedBy": "bob"}, "[shop-prod] shop 2 was undeployed by bob"),
        (
            Occurrence.HELD,
            {"operation": {"waitingFor": "the old version is gone"}},
            "[shop-prod] shop 2 is held and needs a person: the old version is gone",
        ),
        ("", {"operation": {"steps": {"a": "done", "b": "started"}}}, "[shop-prod] shop 2 goes on: b"),
    ],
)
def test_slack_gets_a_sentence_that_calls_nobody(
    receiver: Receiver, occurrence: Occurrence, changes: dict[str, Any], said: str
) -> None:
    """Slack's mrkdwn would take `<!channel>` for a call to everybody."""
    events = [*Occurrence, "progress"]
    target({"url": receiver.origin, "format": "slack", "events": events}).notify(happened(occurrence, **changes))
    assert receiver.requests[0].json == {"text": said}


def test_slack_gets_a_link_where_the_service_has_an_address(receiver: Receiver) -> None:
    target({"url": receiver.origin, "format": "slack"}, source="https://deployer.example.com/").notify(happened())
    link = f"https://deployer.example.com/deployments/{DEPLOYMENT['id']}/?namespace=shop-prod"
    assert receiver.requests[0].json["text"].endswith(f" (<{link}|deployment>)")


# --- CDEvents -----------------------------------------------------------------------------------------------------

PREDICATES = {
    Occurrence.DEPLOYED: "deployed",
    Occurrence.UPGRADED: "upgraded",
    Occurrence.ROLLED_BACK: "rolledback",
    Occurrence.REMOVED: "removed",
}


def valid(event: Any, schema: str) -> None:
    found = json.loads((SCHEMAS / f"{schema}.json").read_text())
    checker = jsonschema.FormatChecker()
    jsonschema.validators.validator_for(found)(found, format_checker=checker).validate(event)


@pytest.mark.parametrize("occurrence", PREDICATES)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_cdevents_are_valid_in_both_modes(receiver: Receiver, occurrence: Occurrence, mode: str) -> None:
    target({"url": receiver.origin, "format": "cdevents", "mode": mode}).notify(happened(occurrence))
    [request] = receiver.requests
    attributes = {
        "specversion": "1.0",
        "id": "n-1",
        "source": "/deployer/deployer",
        "type": f"dev.cdevents.service.{PREDICATES[occurrence]}.0.3.0",
        "subject": "shop-prod/shop",
        "time": "2026-01-02T03:05:06.250Z",
    }
    if mode == "binary":
        event = request.json
        assert request.headers["content-type"] == "application/json"
        got = {name[3:]: urllib.parse.unquote(v) for name, v in request.headers.items() if name.startswith("ce-")}
        assert got == attributes
    else:
        assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        valid(request.json, "cloudevents")
        event = request.json["data"]
        assert {name: value for name, value in request.json.items() if name not in ("data", "datacontenttype")} == (
            attributes
        )
    valid(event, f"service{PREDICATES[occurrence]}")
    # What the binding demands of both: they say the same.
    context = event["context"]
    assert [context["id"], context["source"], context["type"], context["timestamp"], event["subject"]["id"]] == [
        attributes[name] for name in ("id", "source", "type", "time", "subject")
    ]
    assert event["subject"]["content"]["environment"]["id"] == "shop-prod"


@pytest.mark.parametrize(
    ("image", "artifact"),
    [
        (IMAGE, "pkg:oci/web?repository_url=registry.example.com%3A5000/shop/web&tag=1.2"),
        ("registry:5000/web", "pkg:oci/web?repository_url=registry%3A5000/web"),
        ("web@sha256:0a1b", "pkg:oci/web@sha256%3A0a1b?repository_url=web"),
        ("", "pkg:generic/shop@2"),
    ],
)
def test_the_artifact_is_the_image_as_a_package_url(receiver: Receiver, image: str, artifact: str) -> None:
    descriptor = {"namespace": "n", "appName": "shop", "podspec": {"containers": [{"image": image}]}}
    target({"url": receiver.origin, "format": "cdevents"}).notify(happened(descriptor=descriptor))
    assert receiver.requests[0].json["subject"]["content"]["artifactId"] == artifact


# --- which ones ---------------------------------------------------------------------------------------------------


def test_a_target_hears_of_its_events_and_namespaces_only(receiver: Receiver) -> None:
    chosen = target({"url": receiver.origin, "events": ["failed", "held"], "namespaces": ["*-prod", "live"]})
    assert chosen.hooks == {"deployment_finished", "deployment_changed"}
    chosen.notify(happened())
    chosen.notify(happened(""))
    elsewhere = {"namespace": "shop-test", "appName": "shop"}
    chosen.notify(happened(Occurrence.FAILED, descriptor=elsewhere))
    assert receiver.requests == []
    chosen.notify(happened(Occurrence.FAILED))
    chosen.notify(happened(Occurrence.HELD))
    assert [request.json["type"] for request in receiver.requests] == ["deployment.failed", "deployment.held"]


def test_progress_is_told_to_who_wants_it_only(receiver: Receiver) -> None:
    target({"url": receiver.origin}).notify(happened(""))
    assert receiver.requests == []
    target({"url": receiver.origin, "events": ["progress"]}).notify(happened(""))
    assert receiver.requests[0].json["type"] == "deployment.progress"


def test_what_an_earlier_release_left_is_told_as_it_is(receiver: Receiver) -> None:
    old = Notification("n-2", "deployment_finished", "", 0.0, "", DEPLOYMENT)
    target({"url": receiver.origin, "events": ["failed"]}).notify(old)
    assert receiver.requests[0].json["type"] == "deployment.finished"
    assert receiver.requests[0].json["timestamp"] == "2026-01-02T03:05:05Z"


# --- signatures ---------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The values of the test of the reference library (standard-webhooks, libraries/python/tests)."""
    keys = webhook.parse_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = webhook.signature(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_attempt_is_signed_anew_with_every_secret_of_the_file(receiver: Receiver, tmp_path: Path) -> None:
    new = "whsec_" + base64.b64encode(b"f" * 32).decode()
    file = tmp_path / "secret"
    file.write_text(f"{new}\n{SECRET}\n")
    before = int(datetime.datetime.now(datetime.UTC).timestamp())
    signing = target({"url": receiver.origin, "secret_file": str(file)})
    signing.notify(happened())
    file.write_text(f"{new}\n")  # rotated: no restart
    signing.notify(happened())
    for request, keys in zip(receiver.requests, ([b"f" * 32, b"0123456789abcdef01234567"], [b"f" * 32]), strict=True):
        at = request.headers["webhook-timestamp"]
        assert before <= int(at) <= datetime.datetime.now(datetime.UTC).timestamp()
        signed = f"n-1.{at}.".encode() + request.body
        digests = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
        assert request.headers["webhook-signature"] == " ".join(f"v1,{digest}" for digest in digests)


def test_the_receiver_of_the_documentation_takes_what_is_fresh_and_ours(receiver: Receiver) -> None:
    page = (Path(__file__).parents[2] / "docs/notifications.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    target({"url": receiver.origin, "secret": SECRET}).notify(happened())
    [request] = receiver.requests
    verify, headers = names["verify"], request.headers
    assert verify(SECRET, headers, request.body)
    assert not verify(SECRET, headers, request.body + b" ")
    assert not verify("whsec_" + base64.b64encode(b"x" * 24).decode(), headers, request.body)
    assert not verify(SECRET, headers | {"webhook-id": "n-2"}, request.body)
    old = str(int(headers["webhook-timestamp"]) - 301)
    stale = webhook.signature(webhook.parse_keys(SECRET), "n-1", int(old), request.body)
    assert not verify(SECRET, headers | {"webhook-timestamp": old, "webhook-signature": stale}, request.body)


def test_a_token_is_sent_as_one(receiver: Receiver) -> None:
    target({"url": receiver.origin, "token": "abc.def="}).notify(happened())
    assert receiver.requests[0].headers["authorization"] == "Bearer abc.def="


# --- when it does not arrive --------------------------------------------------------------------------------------


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(NotDelivered) as caught:
        target({"secret": SECRET, "token": "t0ken", **table}).notify(happened())
    said = str(caught.value)
    for hidden in (SECRET, "t0ken", "secret-path"):
        assert hidden not in said
    return said


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"oops\nagain", "answers 500 Internal Server Error: oops again"),
        (400, b"x" * 100_000, "answers 400 Bad Request: " + "x" * 100),
        (410, b"\x1b[31m", "answers 410 Gone"),
        (599, b"", "answers 599"),
        (302, b"", "answers 302 Found, and redirects are not followed; correct its address in the settings"),
    ],
)
def test_whatever_is_not_a_2xx_is_told_again(receiver: Receiver, status: int, body: bytes, said: str) -> None:
    other = Receiver()
    receiver.answer = lambda handler: reply(handler, status, body, Location=f"{other.origin}/secret-path")
    with contextlib.closing(other):
        assert refused({"url": f"{receiver.origin}/secret-path"}) == f"{receiver.origin} {said}"
        assert other.requests == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 20"])
def test_a_receiver_that_hangs_is_given_up_in_time(receiver: Receiver, answer: bytes) -> None:
    go = threading.Event()

    def hang(handler: Any) -> None:
        handler.wfile.write(answer)
        go.wait(20)

    receiver.answer = hang
    said = refused({"url": f"{receiver.origin}/secret-path", "timeout": 0.2})
    go.set()
    assert said == f"{receiver.origin} does not answer within 0.2 s"


def test_of_an_endless_answer_no_more_is_read_than_is_needed(receiver: Receiver) -> None:
    ended = threading.Event()

    def pour(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()  # without a length: until the connection ends
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"y" * 65536)
        ended.set()

    receiver.answer = pour
    target({"url": receiver.origin}).notify(happened())
    assert ended.wait(20)


def test_nobody_there_and_somebody_else_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        origin = f"http://127.0.0.1:{port}"
        assert refused({"url": f"{origin}/secret-path"}) == f"{origin} cannot be reached: ECONNREFUSED"
        free.listen()

        def ssh() -> None:
            with free.accept()[0] as sock:
                sock.sendall(b"SSH-2.0-x\r\n")
                sock.recv(100_000)

        thread = threading.Thread(target=ssh)
        thread.start()
        assert refused({"url": f"{origin}/secret-path"}) == f"{origin} answers, but not in HTTP (BadStatusLine)"
        thread.join()


def test_certificates_are_verified(tmp_path: Path) -> None:
    with contextlib.closing(Receiver(server_context(tmp_path))) as secure:
        url = f"{secure.origin}/secret-path"
        said = refused({"url": url})
        assert said.startswith(f"{secure.origin}: its certificate is refused: ")
        assert secure.requests == []
        target({"url": url, "ca_file": str(tmp_path / "ca.pem")}).notify(happened())
        assert [request.path for request in secure.requests] == ["/secret-path"]
        assert "ca_file /nowhere cannot be used" in refused({"url": url, "ca_file": "/nowhere"})


@pytest.mark.parametrize("name", ["url", "secret", "token"])
def test_files_are_read_for_each_delivery(receiver: Receiver, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    table = {"url": receiver.origin, f"{name}_file": str(file)}
    if name == "url":
        del table["url"]
    there = target(table)
    with pytest.raises(NotDelivered, match=rf"{name}_file {file} cannot be read: No such file"):
        there.notify(happened())
    file.write_text("not right\n")
    with pytest.raises(NotDelivered, match=rf"{name}_file {file}: (an address|a secret|a token) "):
        there.notify(happened())
    file.write_text({"url": receiver.origin, "secret": SECRET, "token": "abc"}[name] + "\n")
    there.notify(happened())
    assert len(receiver.requests) == 1


def test_a_proxy_is_used_when_the_settings_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Receiver(server_context(tmp_path))) as secure:
        table = {"url": f"{secure.origin}/secret-path", "ca_file": str(tmp_path / "ca.pem")}
        with contextlib.closing(Proxy()) as proxy:
            target({**table, "proxy": proxy.url}).notify(happened())
        assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1\r\n".encode())
        assert b"secret-path" not in proxy.heads[0]
        assert len(secure.requests) == 1
        with contextlib.closing(Proxy(407)) as proxy:
            said = refused({**table, "proxy": proxy.url})
        assert said == f"the proxy {proxy.url} answers 407 instead of connecting to {secure.origin}"
        # One in the environment is not asked, as nowhere in the service.
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        target(table).notify(happened())
        assert len(secure.requests) == 2


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "url: the address is missing; give url or url_file"),
        ({"url": "https://x/", "url_file": "/x"}, "url: give either url or url_file"),
        ({"url": "https://x/", "secret": SECRET, "secret_file": "/x"}, "secret: give either secret or secret_file"),
        ({"url": "ftp://hooks/hidden"}, "url: this is not an address like https://hooks.example.com/deployer"),
        ({"url": "https://[hidden/"}, "url: this is not an address like"),
        (
            {"url": "https://a:hidden@x/"},
            "url: an address may not contain credentials",
        ),
        ({"url": "https://x/hid den"}, "url: an address is printable ASCII without spaces"),
        ({"url": "https://x/", "secret": "hidden"}, "secret: a secret is whsec_ and 24 to 64 bytes in base64"),
        ({"url": "https://x/", "secret": "whsec_aGlkZGVu"}, "secret: a secret is whsec_ and 24 to 64 bytes in base64"),
        ({"url": "https://x/", "token": "hid den"}, "token: a token consists of"),
        ({"url": "http://x/", "proxy": "http://p:3128"}, "proxy: only https:// is sent through a proxy"),
        ({"url": "https://x/", "proxy": "https://p:3128"}, "proxy: a proxy is asked over http://"),
        (
            {"url": "https://x/", "format": "cdevents", "events": ["upgraded", "failed"]},
            "events: CDEvents has no word for failed; it has deployed, upgraded, rolledback, removed",
        ),
        ({"url": "https://x/", "mode": "binary"}, 'mode: only format = "cdevents" has modes'),
    ],
)
def test_a_target_that_cannot_work_stops_the_service_with_a_sentence(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        target(table)
    assert f"[plugins.notify_webhook.targets.ops] {said}" in str(caught.value)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"targets": {"Ops Room": {"url": "https://x/"}}},
        {"targets": {"ops": {"url": "https://x/", "events": ["exploded"]}}},
        {"targets": {"ops": {"url": "https://x/", "events": []}}},
        {"targets": {"ops": {"url": "https://x/", "timeout": 30}}},
        {"targets": {"ops": {"url": "https://x/", "urls": []}}},
        {"source": "with space"},
    ],
)
def test_a_table_that_breaks_the_schema_stops_the_service(table: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^\[plugins\.notify_webhook\]"):
        load_plugins(Settings(own_namespace="", plugins={"notify_webhook": table}))


def test_without_a_table_there_is_nobody_to_tell() -> None:
    assert [o.key for o in load_plugins(Settings(own_namespace="")).observers] == []


def test_a_descriptor_has_no_say(receiver: Receiver) -> None:
    """Where something is sent is the operator's alone: what a descriptor has for the plugin is refused."""
    settings = Settings(own_namespace="", plugins={"notify_webhook": {"targets": {"ops": {"url": receiver.origin}}}})
    assert "notify_webhook" not in load_plugins(settings).extensions
