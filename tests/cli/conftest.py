"""The command `deployer` as its users run it: a process, with an environment of its own, that is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Deployer, of_a_new_user, running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As of a new user: nothing of the one who runs the tests."""
    return of_a_new_user(tmp_path)


@pytest.fixture
def deployer(environment: dict[str, str], tmp_path: Path) -> Iterator[Deployer]:
    """The command. No process of its own may be left in the end, nor one that it started."""
    with running(environment, tmp_path) as made:
        yield made
