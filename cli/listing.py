"""The list of plugins, as a table on a terminal and as plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployer.core.model.records import Document


def show(plugins: Sequence[Document], *, tracebacks: bool = False) -> None:
    """Print what `Registry.describe` gave. Plain: name, distribution and version, state, what it provides or why not,
    separated by tabs."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_table(plugins) if plugins else "no plugins are installed")
    else:
        for plugin in plugins:
            columns = (plugin["name"], _source(plugin), plugin["state"], _about(plugin).replace("\n", " "))
            click.echo("\t".join(columns))
    for plugin in plugins:
        if tracebacks and plugin.get("traceback"):
            click.echo(f"\n{plugin['distribution']}:{plugin['name']}\n{plugin['traceback'].rstrip()}")


def _table(plugins: Sequence[Document]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("NAME", "DISTRIBUTION", "STATE", "PROVIDES"):
        table.add_column(name, no_wrap=name != "PROVIDES")
    for plugin in plugins:
        # Text, not markup: what a plugin says of itself may hold brackets.
        style = "red" if plugin["state"] == "quarantined" else ""
        cells = (plugin["name"], _source(plugin), plugin["state"], _about(plugin))
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _source(plugin: Document) -> str:
    return f"{plugin['distribution']} {plugin['version']}".rstrip()


def _about(plugin: Document) -> str:
    if plugin["state"] == "quarantined":
        return str(plugin["error"])
    remark = f" ({plugin['remark']})" if plugin.get("remark") else ""
    return (", ".join(plugin["provides"]) or "nothing with these settings") + remark
