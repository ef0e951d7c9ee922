"""A job that is tried again never deploys twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import Rest

from .conftest import Run, shop

JOB = {"GITHUB_RUN_ID": "77", "GITHUB_JOB": "deploy", "GITHUB_REPOSITORY": "org/shop"}


@pytest.fixture
def job(environment: pytest.MonkeyPatch) -> None:
    """What this runs in."""
    for name, value in JOB.items():
        environment.setenv(name, value)


def write(*args: str, **fields: object) -> str:
    Path("shop.yaml").write_text(shop(*args, **fields))
    return "shop.yaml"


def versions(service: Rest) -> list[tuple[str, str]]:
    return [(d["version"], d["status"]) for d in service.call("GET", "/deployments/", query="&appname=shop")[1]]


def test_it_follows_the_first_one(run: Run, service: Rest, job: None) -> None:
    file = write()
    first, again = run("deploy", file), run("deploy", file)
    assert (first.code, again.code) == (0, 0)
    assert first.out == again.out and "this job deployed it already" in again.err
    assert versions(service) == [("1", "DEPLOYED")]


def test_another_image_is_another_deployment(run: Run, service: Rest, job: None) -> None:
    assert run("deploy", write()).code == 0
    assert run("deploy", "shop.yaml", "--set", "image=sample/web:2").code == 0
    assert [version for version, _ in versions(service)] == ["2", "1"]


def test_one_that_failed_is_tried_again(run: Run, service: Rest, job: None) -> None:
    file = write("sample/web:crash")
    assert run("deploy", file).code == 1
    assert run("deploy", file).code == 1
    assert versions(service) == [("2", "FAILURE"), ("1", "FAILURE")]


def test_one_that_was_cancelled_is_tried_again(run: Run, service: Rest, job: None) -> None:
    file = write(gates="{beforeStart: [{type: approval, name: release}]}")
    assert run("deploy", file).code == 6
    assert run("cancel", "shop").code == 0
    assert run("deploy", file).code == 6
    assert [status for _, status in versions(service)] == ["DEPLOYING", "UNDEPLOYED"]
    assert run("deploy", file).code == 6
    assert len(versions(service)) == 2


def test_an_old_job_does_not_take_back_what_came_after_it(
    run: Run, service: Rest, job: None, environment: pytest.MonkeyPatch
) -> None:
    assert run("deploy", write()).code == 0
    environment.setenv("GITHUB_RUN_ID", "78")
    assert run("deploy", write("sample/web:2"), "--until", "retired").code == 0
    environment.setenv("GITHUB_RUN_ID", "77")
    done = run("deploy", write())
    assert done.code == 0 and "has been replaced or removed since" in done.out
    assert versions(service) == [("2", "DEPLOYED"), ("1", "UNDEPLOYED")]
    [stored] = service.call("GET", "/descriptors/")[1]
    assert stored["podspec"]["containers"][0]["image"] == "sample/web:2"


def test_without_a_job_a_key_may_be_given(run: Run, service: Rest) -> None:
    file = write()
    for _ in range(2):
        assert run("deploy", file, "--idempotency-key", "ticket 7").code == 0
    assert len(versions(service)) == 1
    assert run("deploy", file).code == 0
    assert len(versions(service)) == 2
