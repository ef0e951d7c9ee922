"""What hides secrets in texts: a port, so that the core says what is secret and not how it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

Find = Callable[[str], Iterable[str] | None]
"""The secrets of a deployment, from where they are kept; None when it is not known there."""


class Redactor(Protocol):
    """Thread-safe. Deployments are named by their ids."""

    find: Find
    """Asked about a deployment that nobody works on."""

    def register(self, deployment: str, secrets: Iterable[str]) -> None:
        """That deployment has these secrets, besides those that are known. Raises what `find` raises."""

    def about(self, deployment: str, secrets: Iterable[str]) -> AbstractContextManager[None]:
        """Whatever this thread says meanwhile is about that deployment, which has these secrets.

        Threads that it starts take that over by `contextvars.copy_context`.
        """

    def clean_of(self, deployment: str, text: str) -> str:
        """A text of that deployment, as those see it who may read it. Raises what `find` raises."""

    def forget(self, deployment: str) -> None:
        """What is secret of that deployment may have grown: `find` is asked again, unless it is worked on here."""
