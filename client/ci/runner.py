"""Which pipeline this is, from the variables that runners set."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

# By runner: variables that stay the same when a job is tried again, and differ between jobs, and more that make them
# unique. GitHub's number of the attempt is none of them; in GitLab a job that is tried again gets another CI_JOB_ID.
_JOBS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "github": (("GITHUB_RUN_ID", "GITHUB_JOB"), ("GITHUB_REPOSITORY",)),
    "gitlab": (("CI_PIPELINE_ID", "CI_JOB_NAME"), ("CI_SERVER_HOST", "CI_PROJECT_ID")),
    "jenkins": (("BUILD_TAG",), ("JENKINS_URL", "STAGE_NAME")),
    "tekton": (("TEKTON_RUN",), ()),
    "buildkite": (("BUILDKITE_BUILD_ID", "BUILDKITE_STEP_ID"), ()),
    "circleci": (("CIRCLE_WORKFLOW_ID", "CIRCLE_JOB"), ()),
    "azure": (("BUILD_BUILDID", "SYSTEM_JOBNAME"), ("SYSTEM_COLLECTIONURI",)),
}


def job(environ: Mapping[str, str] = os.environ) -> str:
    """What names this job, however often it is tried; empty outside of a pipeline."""
    for runner, (needed, more) in _JOBS.items():
        if all(environ.get(name) for name in needed):
            parts = [environ.get(name, "") for name in (*more, *needed)]
            return f"{runner}:{'/'.join(parts)}"
    return ""


def idempotency_key(
    given: str | None, namespace: str, app: str, descriptor: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> str:
    """The key of one app's deployment by this job: one that is given, or made of the job; empty when there is neither.

    A job may deploy several apps, and one of them with several images: app and descriptor are part of the key. It is
    short and printable, whatever a job is called.
    """
    name = given or job(environ)
    if not name:
        return ""
    content = hashlib.sha256(json.dumps(descriptor, sort_keys=True).encode()).hexdigest()[:16]
    whole = f"{name}:{namespace}/{app}:{content}"
    plain = re.sub(r"[^A-Za-z0-9:/._-]", "-", whole)
    return plain if plain == whole and len(whole) <= 160 else hashlib.sha256(whole.encode()).hexdigest()
