"""The sdist and the wheel of a commit, in which nothing depends on when, where and by whom they are built.

Sources: https://reproducible-builds.org/specs/source-date-epoch/, PEP 517 (build back ends), PEP 625 (names of sdists).
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from release.version import Refused


def git(root: Path, *arguments: str) -> str:
    """What git answers; raises `Refused` with what it says when it fails."""
    done = subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {arguments[0]} failed: {done.stderr.strip() or 'it said nothing'}")
    return done.stdout.strip()


def build(root: Path, commit: str, into: Path) -> list[Path]:
    """Build both from a clean export of a commit of the repository at `root`; the wheel comes from the sdist.

    Returns:
        The sdist and the wheel, in the directory `into`.
    """
    epoch = int(git(root, "log", "-1", "--format=%ct", commit))
    with tempfile.TemporaryDirectory() as scratch:
        sources, made = Path(scratch, "sources"), Path(scratch, "made")
        export(root, commit, sources)
        _build("sdist", sources, made, epoch)
        (raw,) = made.glob("*.tar.gz")
        into.mkdir(parents=True, exist_ok=True)
        sdist = into / raw.name
        sdist.write_bytes(normalized(raw, epoch))
        with tarfile.open(sdist) as tar:
            tar.extractall(Path(scratch, "unpacked"), filter="data")
        (unpacked,) = Path(scratch, "unpacked").iterdir()
        _build("wheel", unpacked, into, epoch)
    (wheel,) = into.glob("*.whl")
    return [sdist, wheel]


def export(root: Path, commit: str, to: Path) -> None:
    """The files of a commit, and no others, with the permissions that git knows."""
    command = ("git", "archive", "--format=tar", commit)
    packed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(to, filter="data")


def normalized(sdist: Path, epoch: int) -> bytes:
    """The same files in a tar file whose order, owners, permissions and times are always the same."""
    made = io.BytesIO()
    with (
        tarfile.open(sdist) as source,
        gzip.GzipFile(fileobj=made, mode="wb", filename="", mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for entry in sorted(source.getmembers(), key=lambda one: one.name):
            content = source.extractfile(entry) if entry.isfile() or entry.islnk() else None
            clean = tarfile.TarInfo(entry.name)
            clean.type = tarfile.DIRTYPE if entry.isdir() else tarfile.REGTYPE
            clean.mtime = epoch
            clean.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            if content:
                data = content.read()
                clean.size = len(data)
                target.addfile(clean, io.BytesIO(data))
            else:
                target.addfile(clean)
    return made.getvalue()


def _build(kind: str, sources: Path, into: Path, epoch: int) -> None:
    """One distribution, by the back end that is installed here from the lock."""
    fixed = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    command = (sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(into), str(sources))
    done = subprocess.run(command, env=os.environ | fixed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"The {kind} cannot be built:\n{done.stdout}{done.stderr}")
