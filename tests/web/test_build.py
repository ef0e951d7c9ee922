"""What is committed, and so packaged, is what `make web` builds from `web/`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from deployer.api.ui.files import files

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"

node = pytest.mark.skipif(
    shutil.which("node") is None or not (WEB / "node_modules").exists(),
    reason="needs Node and what `make web/node_modules/.package-lock.json` installs",
)


@node
def test_what_is_committed_is_what_is_built(tmp_path: Path) -> None:
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=WEB, check=True, timeout=110)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        name: file.plain for name, file in files().items()
    }, "run `make web`, and commit api/ui/static"


@node
@pytest.mark.slow
def test_the_types_are_right() -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_lock_names_no_registry_and_has_a_hash_of_everything() -> None:
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    assert len(packages) > 5
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_what_is_shipped_is_licensed_permissively_and_says_so() -> None:
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    shipped = {name: package for name, package in packages.items() if name and not package.get("dev")}
    assert {package["license"] for package in shipped.values()} <= {"MIT", "ISC", "BSD-3-Clause", "Apache-2.0"}, shipped
    (licences,) = [file.plain.decode() for name, file in files().items() if name.startswith("licences-")]
    for name, package in shipped.items():
        assert f"{name.removeprefix('node_modules/')} {package['version']}\n" in licences
    assert licences.count("Copyright") >= len(shipped)
