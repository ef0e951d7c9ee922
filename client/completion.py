"""What a shell completes beside verbs and flags: names of apps, as the service has them, and files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployer.client.session import FLAGS, Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

WAIT = 1.5
"""Seconds for the service: who presses Tab does not wait for one that is dead."""

_SUFFIXES = (".json", ".yaml", ".yml")


def apps(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of apps; none when the service cannot be asked, as there is no place for an error."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in _names(context) if name.startswith(incomplete)]


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and directories, which the shell itself knows."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def files_or_apps(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Descriptors here and apps there; any file when there are neither."""
    from click.shell_completion import CompletionItem

    if "/" in incomplete:
        return files(context, parameter, incomplete)
    here = sorted(path.name for path in Path().glob("*") if path.suffix in _SUFFIXES)
    found = [CompletionItem(name) for name in here if name.startswith(incomplete)]
    return [*found, *apps(context, parameter, incomplete)] or files(context, parameter, incomplete)


def _names(context: click.Context) -> list[str]:
    given = {name: context.params.get(name) for name in (f[0][-1].lstrip("-").replace("-", "_") for f in FLAGS)}
    found: list[str] = []

    def ask() -> None:
        try:
            service = Session(given).service
            found.extend(str(app["appName"]) for app in service.apps())
        except Exception:  # noqa: BLE001 - whatever it is, it would be written into a half typed command
            return

    asking = threading.Thread(target=ask, daemon=True)  # the process ends without it
    asking.start()
    asking.join(WAIT)
    return list(found)
