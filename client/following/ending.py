"""Waiting until a deployment is gone: undeployed, or cancelled and undone."""

from __future__ import annotations

import time
from typing import Any

from deployer.client.errors import Unreachable
from deployer.client.following.follower import INTERVAL, PATIENCE
from deployer.client.following.plain import PlainView
from deployer.client.service import Service


def await_end(service: Service, id: str, *, timeout: float | None) -> dict[str, Any]:
    """The deployment once it has ended, or as it is after `timeout` seconds. Raises a ClientError."""
    end = None if timeout is None else time.monotonic() + timeout
    view = PlainView()
    etag, after, silent = "", service.log_end(id), 0.0
    found: dict[str, Any] = {}
    while True:
        try:
            moved, etag = service.moved(id, etag)
            text, after = service.log(id, after)
            silent = 0.0
            view.trouble("")
        except Unreachable as error:
            silent = silent or time.monotonic()
            if time.monotonic() - silent > PATIENCE:
                raise
            view.trouble(str(error))
            moved, text = None, ""
        for line in text.splitlines():
            view.log(line)
        found = moved or found
        if found and found["status"] in ("UNDEPLOYED", "FAILURE") and "phase" not in found:
            return found
        if end is not None and time.monotonic() >= end and found:
            return found
        time.sleep(INTERVAL / 2)
