"""What a page tells people to type, typed into a shell."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_curl = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs bash and curl")


def welcome(process: Any) -> dict[str, str]:
    """The variables that `deployer sandbox` tells people to set."""
    words = shlex.split(process.line("export API="))
    return dict(word.split("=", 1) for word in words[1:])


def shell(script: str, variables: dict[str, str], directory: Path) -> str:
    """What a shell prints that stops at the first command that fails."""
    whole = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(whole, env=variables, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def part(page: Path, name: str) -> str:
    """What stands between `<!-- name -->` and the end of that part."""
    kind = name.split(":", maxsplit=1)[0]
    [found] = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{kind} -->", page.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
