"""GitLab: a dotenv report, whose variables later jobs and `environment:url` have.

https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployer.client.output.words import one_line


def dotenv(deployment: dict[str, Any], urls: Sequence[str]) -> str:
    """One variable a line, without quotes, which GitLab would keep."""
    values = {
        "DEPLOYMENT_ID": str(deployment["id"]),
        "DEPLOYMENT_VERSION": str(deployment.get("version", "")),
        "DEPLOYMENT_STATUS": str(deployment["status"]),
        "DEPLOYMENT_URL": urls[0] if urls else "",
    }
    return "".join(f"{name}={one_line(value)}\n" for name, value in values.items())
