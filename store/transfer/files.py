"""Files that hold secrets, written so that they are either complete or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deployer.core.errors import DeployerError


class FileProblem(DeployerError):
    """A file cannot be read or written, or is not what it should be."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A draft beside `target`, readable by its owner only, that takes its place, durably, when the block ends well.

    Raises FileProblem.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # with mode 0600
        os.close(descriptor)
        draft = Path(name)
        try:
            yield draft
            _sync(draft)
            draft.replace(target)
            _sync(target.parent)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise FileProblem(
            f"{target} cannot be written ({error.strerror or error}); name a place that has room for it"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
