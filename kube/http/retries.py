"""Sending a request again: when that may be done, the pause before it, and telling who waits."""

from __future__ import annotations

import time

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeadlineExceeded, KubeError, KubeUnavailable


class Retry(Exception):
    """The same request may be sent again after `after` seconds. `refused`: the credentials were not accepted."""

    def __init__(self, error: KubeError, *, after: float = 0.0, refused: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after
        self.refused = refused


def report(scope: CancelScope | None, error: KubeError | None, since: float) -> None:
    """Tell the caller's scope whether the API server answers. A refusal is an answer as well."""
    if scope is not None and not scope.closed:
        scope.report("requests", str(error) if isinstance(error, KubeUnavailable) else "", since)


def pause(scope: CancelScope | None, seconds: float, error: KubeError) -> None:
    """Wait before the next attempt; a deadline that passes meanwhile says what stood in the way."""
    if scope is None:
        time.sleep(seconds)
        return
    try:
        scope.pause(seconds)
    except DeadlineExceeded as over:
        raise DeadlineExceeded(f"{over}; last: {error}") from error
