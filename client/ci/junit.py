"""JUnit XML, as Jenkins and others read it: a test case for each step and each gate.

The shape is that of https://github.com/testmoapp/junitxml, which has what the runners have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from deployer.client.errors import ExitCode
from deployer.client.following.state import Outcome
from deployer.client.following.state import name as named
from deployer.client.output.words import seconds_of

Document = dict[str, Any]


def document(outcome: Outcome, log: str) -> str:
    """The report of one deployment, `log` with it."""
    found = outcome.deployment
    suite = named(found)
    cases = [*_steps(suite, found), *_gates(suite, found)]
    if outcome.exit_code != ExitCode.DONE:
        kind = "failure" if outcome.exit_code == ExitCode.FAILED else "error"
        reason = str((found.get("failure") or {}).get("reason", outcome.exit_code.name))
        cases.append(
            _case(
                suite, "deployment", 0.0, f"<{kind} type={_attribute(reason)} message={_attribute(outcome.sentence)}/>"
            )
        )
    else:
        cases.append(_case(suite, "deployment", 0.0, ""))
    whole = "\n".join(cases)
    failures, errors, skipped = (whole.count(f"<{kind}") for kind in ("failure", "error", "skipped"))
    took = sum(max(_seconds(step), 0.0) for step in found.get("steps", ()))
    numbers = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" time="{took:.3f}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<testsuites {numbers}>\n"
        f'<testsuite name={_attribute(suite)} skipped="{skipped}" {numbers}>\n'
        f'<properties><property name="deployment" value={_attribute(str(found["id"]))}/></properties>\n'
        f"{whole}\n<system-out>{_text(log)}</system-out>\n</testsuite>\n</testsuites>\n"
    )


def _steps(suite: str, found: Document) -> Iterator[str]:
    for step in found.get("steps", ()):
        if step["state"] in ("failed", "cancelled"):
            failure = found.get("failure") or {}
            said = str(failure.get("message") or step["state"])
            inside = (
                f"<failure type={_attribute(str(failure.get('reason', step['state'])))} message={_attribute(said)}/>"
            )
        else:
            inside = "<skipped/>" if step["state"] in ("pending", "running") else ""
        yield _case(suite, f"{step['phase']} {step['id']}", _seconds(step), inside)


def _gates(suite: str, found: Document) -> Iterator[str]:
    for gate in found.get("gates", ()):
        verdict, reason = gate["verdict"], str(gate["reason"])
        inside = "" if verdict == "passed" else f"<skipped message={_attribute(reason)}/>"
        if verdict == "failed" and not gate["dryRun"]:
            inside = f'<failure type="gate" message={_attribute(reason)}/>'
        seconds = seconds_of(gate["ended"]) - seconds_of(gate["began"]) if gate["began"] and gate["ended"] else 0.0
        yield _case(suite, f"gate {gate['point']} {gate['name']}", seconds, inside)


def _case(suite: str, name: str, seconds: float, inside: str) -> str:
    head = f'<testcase classname={_attribute(suite)} name={_attribute(name)} time="{max(seconds, 0.0):.3f}"'
    return f"{head}>{inside}</testcase>" if inside else f"{head}/>"


def _seconds(step: Document) -> float:
    began, ended = step.get("began"), step.get("ended")
    return seconds_of(ended) - seconds_of(began) if began and ended else 0.0


def _text(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return escape(
        "".join(c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff")
    )


def _attribute(text: str) -> str:
    return quoteattr(_text(text).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
