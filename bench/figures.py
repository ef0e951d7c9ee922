"""Raw figures for the report: what a program measured, as JSON beside what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option that every program of the report has; `options.json` is None without it."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there, too")


def write(to: Path | None, figures: Any) -> None:
    """Write them, if somebody asked; never half of them."""
    if to is not None:
        part = to.with_suffix(".part")
        part.write_text(json.dumps(figures, indent=1) + "\n")
        part.replace(to)
