"""What it costs to move a store: export, import and backup of ten times the records, in time and memory.

    python bench/moving.py [DEPLOYMENTS] [--etcd URL]

Each deployment has a descriptor of 2 KB and 20 lines of log. Ten times as many should take ten times as long (`time
x10` near 10) and no more memory but for their names (`memory x10` near 1). With `--etcd` the import goes there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from deployer.core.model.records import Deployment, Status
from deployer.store.etcd.client.gateway import Access
from deployer.store.etcd.store import EtcdStore
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer import export_file, importing
from deployer.store.transfer.port import Lines, LogLine, Row
from deployer.store.transfer.sqlite import SqliteFile

NOW = "2026-01-01T12:00:00.000Z"


def filled(path: Path, deployments: int) -> None:
    """A store with so many."""
    with closing(SqliteStore(path)) as store:
        for first in range(0, deployments, 500):
            ids = range(first, min(first + 500, deployments))
            rows = [
                Deployment(
                    namespace=f"n{id % 50}",
                    app=f"app{id % 200}",
                    id=f"{id:08d}-{uuid.uuid4()}",
                    descriptor={"text": uuid.uuid4().hex * 60},
                    created=NOW,
                    last_modified=NOW,
                    status=Status.UNDEPLOYED,
                    sequence=id + 1,
                )
                for id in ids
            ]
            lines = tuple(LogLine(number, NOW, f"a line of a log, number {number}") for number in range(1, 21))
            store.load([*map(Row.of, rows), *(Lines(row.id, lines) for row in rows)])


def measured(what: str, path: Path, etcd: str) -> tuple[float, float]:
    """Seconds, and MiB at the most, of one thing in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, __file__, "--do", what, str(path), etcd]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return time.monotonic() - began, grown


def do(what: str, path: Path, etcd: str) -> None:
    """In the process that is measured."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source, file = path / "deployer.db", path / "export.gz"
    if what == "export":
        with SqliteFile(source).dump() as items:
            export_file.write(file, items)
    elif what == "backup":
        SqliteFile(source).backup(path / "backup.db")
    else:
        target = (
            EtcdStore(Access(endpoints=(etcd,)), prefix=f"/bench/{uuid.uuid4().hex}/")
            if etcd
            else SqliteStore(path / "imported" / "deployer.db")
        )
        with closing(target):
            importing.run(target, "bench", export_file.ExportFile(file))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main(deployments: int, etcd: str) -> None:
    print(f"{'':8}{'records/s':>12}{'time x10':>12}{'MiB':>8}{'memory x10':>12}")
    with tempfile.TemporaryDirectory() as directory:
        sizes = {number: Path(directory) / str(number) for number in (deployments, 10 * deployments)}
        for number, path in sizes.items():
            filled(path / "deployer.db", number)
        for what in ("export", "import", "backup"):
            (seconds, memory), (more_seconds, more_memory) = (measured(what, path, etcd) for path in sizes.values())
            rate = 10 * deployments / more_seconds
            ratios = more_seconds / seconds, more_memory, more_memory / max(memory, 1)
            print(f"{what:8}{rate:12.0f}{ratios[0]:12.1f}{ratios[1]:8.0f}{ratios[2]:12.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--do"]:
        do(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        arguments = sys.argv[1:]
        url = arguments.pop(arguments.index("--etcd") + 1) if "--etcd" in arguments else ""
        numbers = [argument for argument in arguments if argument.isdigit()]
        main(int(numbers[0]) if numbers else 2_000, url)
