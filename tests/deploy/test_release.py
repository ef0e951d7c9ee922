"""A release: the same bytes each time, everything in it accounted for, and nothing tagged that is not right."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import pytest

import deployer

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("cyclonedx", reason="needs what `make .venv/.release` installs")

from release import __main__ as command  # noqa: E402
from release import distributions, licences, sbom, version  # noqa: E402
from release.version import Refused  # noqa: E402

EPOCH = 1_700_000_000
SECTION = "## [Unreleased]\n\n### Added\n\n- # is no comment here.\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the files of a release, of which everything is committed."""
    root = tmp_path / "clone"
    for file in {file for file, _ in version.PLACES} | {"pyproject.toml", "requirements/run.txt"}:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n{SECTION}\n## [0.0.9] - 2026-01-01\n\n- Older.\n")
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "ann")
    git(root, "config", "user.email", "ann@example.com")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    """Run git with no settings but those of the clone."""
    own = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=root, env=own, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Change something")


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make release`, for that clone."""
    code = f"import pathlib, release.__main__ as it; exit(it.main({[*arguments]!r}, pathlib.Path({str(root)!r})))"
    own = os.environ | {"PYTHONPATH": str(ROOT / "deploy")}
    return subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=False)


# --- the version ---------------------------------------------------------------------------------------------------


def test_every_file_names_the_one_version() -> None:
    assert version.version(ROOT) == deployer.__version__
    assert version.differing(ROOT) == []


def test_a_version_is_written_everywhere(clone: Path) -> None:
    version.write(clone, "7.1.0rc2", date(2026, 11, 30))
    assert version.version(clone) == "7.1.0rc2"
    assert version.differing(clone) == []
    assert deployer.__version__ not in "".join((clone / file).read_text() for file, _ in version.PLACES)
    assert version.notes(clone, "7.1.0rc2") == "### Added\n\n- # is no comment here."
    assert (
        (clone / "CHANGELOG.md")
        .read_text()
        .startswith("# Changelog\n\n## [Unreleased]\n\n## [7.1.0rc2] - 2026-11-30\n\n### Added\n")
    )


def test_a_file_that_was_forgotten_is_named(clone: Path) -> None:
    file = clone / "deploy/kustomize/base/kustomization.yaml"
    file.write_text(file.read_text().replace(deployer.__version__, "0.0.8"))
    [sentence] = version.differing(clone)
    assert sentence.startswith("deploy/kustomize/base/kustomization.yaml names version 0.0.8, and src/deployer")


@pytest.mark.parametrize("wrong", ["", "1.2", "v1.2.0", "1.2.0; true"])
def test_what_is_no_version_changes_nothing(clone: Path, wrong: str) -> None:
    with pytest.raises(Refused, match=r"is no version; give one like 1\.2\.0"):
        version.write(clone, wrong, date(2026, 11, 30))
    assert git(clone, "status", "--porcelain") == ""


def test_nothing_to_say_is_nothing_to_release(clone: Path) -> None:
    log = clone / "CHANGELOG.md"
    log.write_text(log.read_text().replace(SECTION, "## [Unreleased]\n"))
    with pytest.raises(Refused, match=r"nothing under \[Unreleased\]"):
        version.write(clone, "7.1.0", date(2026, 11, 30))
    assert version.version(clone) == deployer.__version__


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_keeps_a_release_from_being_made_is_said_at_once(clone: Path) -> None:
    ours = deployer.__version__
    git(clone, "tag", f"v{ours}")
    (clone / "README.md").write_text((clone / "README.md").read_text() + "More.\n")
    (clone / "left over.txt").write_text("")
    done = release(clone)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        'Not released: Not everything is committed: README.md, "left over.txt"; commit or stash it',
        f"The tag v{ours} exists; make version VERSION=... sets the next version",
        f"CHANGELOG.md has no section for {ours}; make version VERSION={ours} makes it",
    ]
    assert not (clone / "build").exists()


# --- distributions -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_release_has_the_same_bytes_each_time_and_is_tagged_last(tmp_path: Path) -> None:
    """The real sources, as they are committed here: built by two people, on two days, and tagged by one."""
    root = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", "--depth=1", f"file://{ROOT}", str(root))
    for file in ("user.name", "user.email"):
        git(root, "config", file, "ann@example.com")
    ours = version.version(root)
    done = release(root, "--set-version", ours)
    assert done.returncode == 0, done.stderr
    commit(root)
    done = release(root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Tagged v{ours}. Next: git push origin v{ours}\n")
    made = root / "build/release" / ours
    names = {file.name for file in made.iterdir()}
    wheel, sdist = f"kube_deployer-{ours}-py3-none-any.whl", f"kube_deployer-{ours}.tar.gz"
    assert names == {wheel, sdist, "LICENCES.md", "NOTES.md", "SHA256SUMS", "sbom.cdx.json"}
    sums = dict(reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    assert git(root, "tag", "--list", "--format=%(contents)", f"v{ours}").strip() == version.notes(root, ours)
    assert git(root, "rev-list", "-1", f"v{ours}") == git(root, "rev-parse", "HEAD")

    with zipfile.ZipFile(made / wheel) as packed:
        inside = set(packed.namelist())
    with tarfile.open(made / sdist) as tar:
        members = tar.getmembers()
    tracked = {line for line in git(root, "ls-files").splitlines() if line.endswith(".py")}
    rooms = {link.name for link in (root / "src/deployer").iterdir() if link.is_symlink()}
    modules = {f"deployer/{file}" for file in tracked if file.split("/")[0] in rooms}
    assert modules | {"deployer/__init__.py", "deployer/py.typed"} <= inside
    assert {(entry.uid, entry.gid, entry.uname, entry.mode & 0o022) for entry in members} == {(0, 0, "", 0)}
    assert len({entry.mtime for entry in members}) == 1
    assert {f"kube_deployer-{ours}/src/{name}" for name in modules} <= {entry.name for entry in members}


def test_when_by_whom_and_in_which_order_leaves_no_trace(tmp_path: Path) -> None:
    packed = []
    for number, names in enumerate((["b", "a/c"], ["a/c", "b"])):
        file = tmp_path / f"{number}.tar.gz"
        with tarfile.open(file, "w:gz") as tar:
            for name in names:
                source = tmp_path / str(number) / name
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_text(name)
                source.chmod(0o600 if number else 0o664)
                os.utime(source, (EPOCH + number, EPOCH + number))
                tar.add(source, f"root/{name}")
        packed.append(distributions.normalized(file, EPOCH))
    assert packed[0] == packed[1]


# --- licences and materials ----------------------------------------------------------------------------------------


def test_everything_that_is_installed_is_permissively_licensed() -> None:
    packages = licences.read(ROOT / "requirements/run.txt")
    assert licences.refused(packages) == []
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE)
    assert {one.name for one in packages} == set(locked)
    assert licences.WITHIN_FILES.keys() <= set(locked)


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", True),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", True),
        ("GPL-3.0-only OR Apache-2.0 AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(MIT", False),
        ("MIT GPL-3.0-only", False),
        ("", False),
    ],
)
def test_the_way_through_an_expression_is_found(expression: str, fine: bool) -> None:
    assert licences.permissive(expression) is fine


def test_a_licence_that_is_not_on_the_list_is_refused_by_name() -> None:
    one = licences.Package("readline", "8.2", (), "GPL-3.0-only")
    assert licences.refused([one]) == [
        "readline 8.2 is licensed under GPL-3.0-only, which is not on the list in deploy/release/licences.py; "
        "use another package"
    ]


def test_what_is_not_installed_as_locked_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "run.txt"
    lock.write_text("click==0.0.1 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(Refused, match=r"click 0\.0\.1 of the lock is not what is installed; rm -r \.venv"):
        licences.read(lock)


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    packages = licences.read(ROOT / "requirements/run.txt")
    text = sbom.make(packages, "1.2.0", command.direct(ROOT), "c0ffee", EPOCH)
    assert text == sbom.make(packages, "1.2.0", command.direct(ROOT), "c0ffee", EPOCH)
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/kube-deployer@1.2.0"
    lock = (ROOT / "requirements/run.txt").read_text()
    for part in document["components"]:
        _, _, entry = f"\n{lock}".partition(f"\n{part['name']}=={part['version']} ")
        hashes = {one["content"] for reference in part["externalReferences"] for one in reference["hashes"]}
        assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", re.split(r"\n(?=\S)", entry)[0]))
        assert part["licenses"]
    needs = {
        one["ref"].split("@")[0]: {to.split("@")[0] for to in one.get("dependsOn", [])}
        for one in document["dependencies"]
    }
    assert needs["kube-deployer"] == command.direct(ROOT)
    assert "rpds-py" in needs["jsonschema"]
    reached, todo = set(), ["kube-deployer"]
    while todo:
        if (name := todo.pop()) not in reached:
            reached.add(name)
            todo += needs[name]
    assert reached == {part["name"] for part in document["components"]} | {"kube-deployer"}


def test_what_is_no_bill_of_materials_is_refused() -> None:
    with pytest.raises(Refused, match="does not keep to the schema"):
        sbom.check('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "click"}]}')
