"""Schemathesis against a service whose callers must say who they are: it also tries without credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.issuer import Issuer, bearer

from .test_auth_matrix import access, auth_options, issuer  # noqa: F401
from .test_schemathesis import judge, registry, settings  # noqa: F401


@pytest.mark.timeout(700)
def test_nobody_gets_by_without_credentials(served: Any, issuer: Issuer, tmp_path: Path) -> None:  # noqa: F811
    token = bearer(issuer.token(namespaces=["*"], roles=["deploy", "read", "freeze", "override-freeze", "approve"]))[
        "Authorization"
    ]
    assert "Tested: 34" in judge(served.port, tmp_path, "--header", f"Authorization: {token}")
