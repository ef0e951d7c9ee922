"""The commands: `make release`, and `make version VERSION=1.2.0`."""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import distributions, licences, sbom, version
from release.distributions import git
from release.version import Refused

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Release the last commit of the repository at `root`, or set its version; the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=main.__doc__)
    parser.add_argument("--set-version", metavar="VERSION", help="only write it into every file that names it")
    parser.add_argument("--dry-run", action="store_true", help="make everything but the tag")
    options = parser.parse_args(arguments)
    try:
        if options.set_version is not None:
            version.write(root, options.set_version, datetime.now(UTC).date())
            print(f"Version {options.set_version} is written. Next: read CHANGELOG.md and commit, then make release")
            return 0
        return release(root, dry=options.dry_run)
    except Refused as refused:
        print(f"Not released: {refused}", file=sys.stderr)
        return 1


def release(root: Path, dry: bool) -> int:
    """Check, build twice and compare, list licences and materials, and set the tag as the last of all.

    A dry run does all but the tag, and says in the end what would keep a release from being made.
    """
    ours = version.version(root)
    tag, into = f"v{ours}", root / "build" / "release" / ours
    wrong = obstacles(root, ours, tag)
    if wrong and not dry:
        raise Refused("\n".join(wrong))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        make(root, ours, made)
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(made, into)
    for file in sorted(into.iterdir()):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}  {file.relative_to(root)}")
    if wrong:
        print("This was a dry run. A release would not be made:\n" + "\n".join(wrong), file=sys.stderr)
        return 1
    if dry:
        print(f"This was a dry run: {tag} is not set. Next: make release")
        return 0
    git(root, "tag", "--annotate", tag, "--cleanup=verbatim", "--file", str(into / "NOTES.md"))
    print(f"Tagged {tag}. Next: git push origin {tag}")
    return 0


def obstacles(root: Path, ours: str, tag: str) -> list[str]:
    """What keeps a release from being made before anything is built, as sentences."""
    wrong = version.differing(root)
    if changed := git(root, "status", "--porcelain"):
        files = [line.split(maxsplit=1)[1] for line in changed.splitlines()]
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        wrong.append(f"Not everything is committed: {', '.join(files[:3])}{more}; commit or stash it")
    if git(root, "tag", "--list", tag):
        wrong.append(f"The tag {tag} exists; make version VERSION=... sets the next version")
    try:
        version.notes(root, ours)
    except Refused as refused:
        wrong.append(str(refused))
    return wrong


def make(root: Path, ours: str, into: Path) -> None:
    """Everything that belongs to a release, made from the last commit, into an empty directory.

    Raises:
        Refused: two builds differ, a description would not be shown, or a licence is not on the list.
    """
    commit = git(root, "rev-parse", "HEAD")
    epoch = int(git(root, "log", "-1", "--format=%ct", commit))
    built = distributions.build(root, commit, into)
    with tempfile.TemporaryDirectory() as again:
        for one, other in zip(built, distributions.build(root, commit, Path(again)), strict=True):
            if not filecmp.cmp(one, other, shallow=False):
                raise Refused(f"{one.name} has other bytes when built again; mend deploy/release/distributions.py")
    check = (sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, built))
    if (done := subprocess.run(check, capture_output=True, text=True, check=False)).returncode:
        raise Refused(f"twine check found:\n{done.stdout}{done.stderr}")
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch)
        distributions.export(root, commit, sources)
        packages = licences.read(sources / "requirements" / "run.txt")
        if wrong := licences.refused(packages):
            raise Refused("\n".join(wrong))
        (into / "LICENCES.md").write_text(licences.table(packages))
        (into / "sbom.cdx.json").write_text(sbom.make(packages, ours, direct(sources), commit, epoch))
        try:
            (into / "NOTES.md").write_text(version.notes(sources, ours) + "\n")
        except Refused:  # of a dry run, which says so in the end
            (into / "NOTES.md").write_text("")
    sums = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(into.iterdir()))
    (into / "SHA256SUMS").write_text("".join(sums))


def direct(root: Path) -> set[str]:
    """The names of the packages that pyproject.toml asks for."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {canonicalize_name(Requirement(one).name) for one in project["dependencies"]}


if __name__ == "__main__":
    sys.exit(main())
