"""Builds the image of `deploy/Dockerfile` without Docker, as an OCI layout in a tar file: `build.py FILE`.

Layers and configuration come from the last stage of that file and the program that its build stage runs, so that there
is one list of steps. The same sources and packages give the same bytes: SOURCE_DATE_EPOCH, by default the time of the
last commit, is the time of everything. `skopeo`, `podman load` and `ctr image import` read the file.

Sources: the specifications of OCI images (image-layout, config, manifest) and https://reproducible-builds.org/specs/.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAME = "docker.io/library/kube-deployer"
"""What containerd calls the image; `kube-deployer` for short, in podspecs."""
OCI = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass
class Stage:
    """The last stage of a Dockerfile: what goes where, and how it is run."""

    build: list[str] = field(default_factory=list)
    """The program that fills the folders that are copied: its words."""
    copies: list[tuple[str, str, int]] = field(default_factory=list)
    """Folder in the build stage, folder in the image, and whose it is there (uid, which is the gid too)."""
    config: dict[str, Any] = field(default_factory=dict)


def read(dockerfile: str) -> Stage:
    """What a Dockerfile says, as far as ours makes use of it; ValueError for everything else."""
    stage = Stage()
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "RUN" and "deploy/image/" in rest:
            stage.build = shlex.split(rest)
        elif line == "FROM scratch":
            stage.config = {"Labels": {}, "Env": []}
        elif stage.config:
            _final(stage, word, rest.strip())
    if not stage.build or not stage.copies:
        raise ValueError("the Dockerfile has no last stage `FROM scratch` that copies what deploy/image/ makes")
    return stage


def _final(stage: Stage, word: str, rest: str) -> None:
    """One instruction of the last stage."""
    match word:
        case "COPY":
            found = re.fullmatch(r"--from=build(?: --chown=(\d+):\1)? (/\S+) (/\S*)", rest)
            if not found:
                raise ValueError(
                    f"COPY {rest}: only --from=build, --chown with numbers, and two folders are known here"
                )
            stage.copies.append((found[2], found[3], int(found[1] or 0)))
        case "LABEL":
            stage.config["Labels"] |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        case "ENV":
            stage.config["Env"] += shlex.split(rest)
        case "USER" | "WORKDIR" | "STOPSIGNAL":
            stage.config[{"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[word]] = rest
        case "EXPOSE":
            stage.config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
        case "ENTRYPOINT" | "CMD":
            stage.config[word.capitalize()] = json.loads(rest)
        case _:
            raise ValueError(f"{word} {rest}: this instruction is not known here")


def layer(source: Path, target: str, owner: int, epoch: int) -> bytes:
    """The content of a folder as a tar file, in which nothing depends on when, where and by whom it is made."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted([source, *source.rglob("*")]):
            name = (Path(target.strip("/")) / path.relative_to(source)).as_posix()
            if name == ".":
                continue
            entry = tar.gettarinfo(str(path), name)
            entry.uid = entry.gid = owner
            entry.uname = entry.gname = ""
            entry.mtime = epoch
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o111 else 0o644
            if entry.islnk():  # a second name of a file that is packed already: by itself, as a copy would have it
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return made.getvalue()


class Layout:
    """An OCI layout that is written as a tar file."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, kind: str, content: bytes | dict[str, Any]) -> dict[str, Any]:
        """Add content; its descriptor. `kind` is the end of the media type, as in `layer.v1.tar+gzip`."""
        data = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        self._files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def write(self, to: Path, manifest: dict[str, Any], name: str) -> None:
        """Write everything, with an index of this one image by its name; a file half written is never left."""
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        index = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.index.v1+json",
            "manifests": [manifest | {"annotations": names}],
        }
        self._files["index.json"] = json.dumps(index, sort_keys=True).encode()
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name}.part")
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path, data in sorted(self._files.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mtime, entry.mode = len(data), self._epoch, 0o644
                tar.addfile(entry, io.BytesIO(data))
        part.replace(to)


def build(stage: Stage, folders: Path, to: Path, tag: str, epoch: int) -> tuple[str, int, int]:
    """Write the image; its digest, and the bytes of its layers, packed and unpacked.

    `folders` is where the build stage's program has made what is copied.
    """
    layout = Layout(epoch)
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = stage.config["Labels"] | {
        "org.opencontainers.image.version": tag,
        "org.opencontainers.image.created": created,
    }
    if revision := _git("rev-parse", "HEAD"):
        labels["org.opencontainers.image.revision"] = revision
    layers, digests, unpacked = [], [], 0
    for source, target, owner in stage.copies:
        tar = layer(folders / Path(source).name, target, owner, epoch)
        digests.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        unpacked += len(tar)
        layers.append(layout.blob("layer.v1.tar+gzip", gzip.compress(tar, 6, mtime=0)))
    config = layout.blob("config.v1+json", {
        "created": created,
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": stage.config | {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created": created, "created_by": f"COPY {source} {to}"} for source, to, _ in stage.copies],
    })  # fmt: skip
    manifest = layout.blob("manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": config,
        "layers": layers,
        "annotations": labels,
    })  # fmt: skip
    layout.write(to, manifest, f"{NAME}:{tag}")
    return manifest["digest"], sum(one["size"] for one in layers), unpacked


def main() -> int:
    """Build into the file that the command line names."""
    to = Path(sys.argv[1]).absolute()
    stage = read((ROOT / "deploy" / "Dockerfile").read_text())
    tag = re.findall(r'__version__ = "(.*)"', (ROOT / "src/deployer/__init__.py").read_text())[0]
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "0"
    with tempfile.TemporaryDirectory() as scratch:
        folders = Path(scratch) / "image"
        command = [sys.executable if word == "python3" else word for word in stage.build]
        command = [str(folders) if word == "/image" else word for word in command]
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return code
        digest, packed, unpacked = build(stage, folders, to, tag, int(epoch))
    print(f"{NAME}:{tag}\n{digest}\n{packed / 1e6:.0f} MB to pull, {unpacked / 1e6:.0f} MB on a node: {to}")
    return 0


def _git(*arguments: str) -> str:
    """What git says; nothing where there is none."""
    try:
        return subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
