"""What the command line loads before it answers: help is quick because it loads next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PRINT_MODULES = """
import atexit, json, sys
before = set(sys.modules)
def modules():
    found = [(name, getattr(sys.modules[name], "__file__", None) or "") for name in set(sys.modules) - before]
    print("\\n" + json.dumps(found))
atexit.register(modules)
"""
HEAVY = {"asyncio", "concurrent", "email", "http", "multiprocessing", "sqlite3", "ssl"}
"""Of the standard library, what takes milliseconds and no help needs; `urllib.request` comes with `http`."""
HELP = "import sys; from deployer.cli import main; sys.exit(main({}))"


def offending(code: str, *allowed: str) -> set[str]:
    """The packages that `code` loads and should not: those that are installed, but for `allowed`, and the heavy."""
    run = subprocess.run([sys.executable, "-c", PRINT_MODULES + code], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    installed = {name.partition(".")[0] for name, file in found if "site-packages" in file}
    return (installed | {name.partition(".")[0] for name, _ in found} & HEAVY) - {"deployer", *allowed}


def test_settings_load_without_kubernetes_and_the_like():
    assert offending("import deployer.settings") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([c, "--help"] for c in ("serve", "sandbox", "demo", "plugins", "export", "import", "backup")),
    ],
)
def test_help_loads_next_to_nothing(arguments):
    assert offending(HELP.format(arguments), "click") == set()


def test_a_mistake_in_a_flag_is_told_as_quickly():
    code = "from deployer.cli import main; assert main(['serve', '--timeout', 'soon']) == 2"
    assert offending(code, "click") == set()


@pytest.mark.parametrize("arguments", [["status"], ["logs", "shop"], ["rollback", "shop"], ["deploy", "shop"]])
def test_a_verb_loads_what_it_needs_to_ask_and_no_more(arguments):
    """No drawing, no YAML, no WebSocket before something is drawn, read or followed."""
    code = (
        "import deployer.client.connection as connection; connection.TRIES = 1; from deployer.cli import main; "
        f"assert main([*{arguments}, '--server', 'http://127.0.0.1:1']) == 5"
    )
    heavy = {"asyncio", "multiprocessing", "sqlite3"}
    loaded = offending(code, "click", "urllib3", "backports") - (HEAVY - heavy)  # which urllib3 takes where it is
    assert loaded == set()


def test_the_check_sees_what_is_loaded():
    assert {"falcon", "kubernetes"} <= offending("import falcon, kubernetes", "click")
