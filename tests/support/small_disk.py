"""A disk of a few megabytes that can be filled to its last byte, made read-only, and emptied again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs. `ballast` is what fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Leave only so many bytes free."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while os.statvfs(self.path).f_bavail * 4096 > leave:
                file.write(bytes(4096))
        assert os.statvfs(self.path).f_bavail * 4096 <= leave

    def empty(self) -> None:
        """Take away what filled it."""
        self._ballast.unlink()

    def read_only(self) -> None:
        """Mount it read-only; nobody may have a file open for writing."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one at `path` until the end of the block; the test is skipped where that takes a right that it has not."""
    path.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount program")
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)
