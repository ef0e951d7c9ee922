"""The image: what the Dockerfile says is what is built without Docker, and the same sources give the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from deployer import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def building() -> Iterator[ModuleType]:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("image_build", ROOT / "deploy" / "image" / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """What the build stage leaves, in small."""
    for name in ("python/usr/bin/python3.11", "dependencies/usr/lib/one.py", "deployer/usr/bin/deployer"):
        path = tmp_path / "image" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (tmp_path / "image/python/usr/bin/python3.11").chmod(0o700)
    (tmp_path / "image/python/usr/bin/python3").symlink_to("python3.11")
    (tmp_path / "image/data").mkdir()
    return tmp_path / "image"


def test_the_dockerfile_says_how_it_is_run(building: ModuleType) -> None:
    stage = building.read(DOCKERFILE)
    assert stage.build == ["python3", "deploy/image/layers.py", "/image"]
    assert stage.copies == [
        ("/image/python", "/", 0),
        ("/image/dependencies", "/", 0),
        ("/image/deployer", "/", 0),
        ("/image/data", "/data", 65532),
    ]
    assert (stage.config["Entrypoint"], stage.config["Cmd"]) == (["deployer"], ["serve"])
    assert (stage.config["User"], stage.config["ExposedPorts"]) == ("65532:65532", {"8000/tcp": {}})
    assert {"PATH=/usr/bin", "TMPDIR=/data", "DEPLOYER_DATA_DIR=/data"} <= set(stage.config["Env"])
    assert stage.config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize(
    "line",
    [
        "RUN true",
        "ADD https://example.com/x /x",
        "COPY --from=build --chown=65532:0 /image/data /data",
        "COPY deploy /deploy",
        "HEALTHCHECK CMD true",
    ],
)
def test_what_only_docker_would_do_is_refused(building: ModuleType, line: str) -> None:
    """So that nobody adds to one of the two what the other one lacks."""
    with pytest.raises(ValueError, match=line.split(maxsplit=1)[0]):
        building.read(f"{DOCKERFILE}{line}\n")


def test_the_last_stage_is_needed(building: ModuleType) -> None:
    with pytest.raises(ValueError, match="FROM scratch"):
        building.read(DOCKERFILE.replace("FROM scratch", "FROM debian"))


def test_the_same_folders_give_the_same_bytes(building: ModuleType, folders: Path, tmp_path: Path) -> None:
    stage = building.read(DOCKERFILE)
    first = building.build(stage, folders, tmp_path / "first.tar", "1.0", EPOCH)
    for path in folders.rglob("*"):
        os.utime(path, (5, 5), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o020)  # another umask
    second = building.build(stage, folders, tmp_path / "second.tar", "1.0", EPOCH)
    assert first == second
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    (folders / "deployer/usr/bin/deployer").write_text("another one")
    assert building.build(stage, folders, tmp_path / "second.tar", "1.0", EPOCH)[0] != first[0]


def test_the_layout_is_one_of_oci(building: ModuleType, folders: Path, tmp_path: Path) -> None:
    """Every descriptor leads to a blob of that digest and size; layers unpack to what was copied."""
    stage = building.read(DOCKERFILE)
    digest, packed, _ = building.build(stage, folders, tmp_path / "image.tar", "1.0", EPOCH)
    with tarfile.open(tmp_path / "image.tar") as tar:
        files = {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name))}

    def blob(descriptor: dict[str, Any]) -> bytes:
        algorithm, _, value = descriptor["digest"].partition(":")
        data = files[f"blobs/{algorithm}/{value}"]
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (value, descriptor["size"])
        return data

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [found] = json.loads(files["index.json"])["manifests"]
    assert found["annotations"]["io.containerd.image.name"] == "docker.io/library/kube-deployer:1.0"
    assert found["digest"] == digest
    manifest = json.loads(blob(found))
    config = json.loads(blob(manifest["config"]))
    layers = [gzip.decompress(blob(layer)) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert sum(layer["size"] for layer in manifest["layers"]) == packed
    assert config["config"]["User"] == "65532:65532"
    assert config["created"] == "2023-11-14T22:13:20Z"
    entries: list[tarfile.TarInfo] = []
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            entries += tar.getmembers()
    python = next(entry for entry in entries if entry.name == "usr/bin/python3.11")
    assert (python.mode, python.uid, python.mtime) == (0o755, 0, EPOCH)
    assert next(entry for entry in entries if entry.name == "usr/bin/python3").linkname == "python3.11"
    assert [(entry.name, entry.uid, entry.gid) for entry in entries if entry.uid] == [("data", 65532, 65532)]


def test_kustomize_names_this_release() -> None:
    base = yaml.safe_load((ROOT / "deploy/kustomize/base/kustomization.yaml").read_text())
    assert base["images"] == [{"name": "kube-deployer", "newTag": __version__}]


def test_what_docker_is_given_has_all_that_the_image_is_made_of() -> None:
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split("\n")
    rooms = {link.readlink().name for link in (ROOT / "src/deployer").iterdir() if link.is_symlink()}
    needed = rooms | {"src", "requirements", "deploy", "pyproject.toml", "setup.py", "README.md", "LICENSE"}
    assert needed & set(ignored) == set()


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
@pytest.mark.parametrize("which", ["base", "etcd"])
def test_the_folder_of_the_page_is_what_it_says(which: str, tmp_path: Path) -> None:
    """`kubectl kustomize` makes of it the image of that registry, with those settings; of the patch that etcd."""
    _, _, page = (ROOT / "docs" / "installation.md").read_text().partition("## With kustomize")
    kustomization, patch = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    [settings] = re.findall(r"```toml\n# production/settings.toml\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "production"
    folder.mkdir()
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    text = kustomization if which == "base" else kustomization.replace("kustomize/base", "kustomize/etcd") + patch
    (folder / "kustomization.yaml").write_text(text)
    (folder / "settings.toml").write_text(settings)
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    objects = {o["kind"]: o for o in yaml.safe_load_all(done.stdout)}
    assert objects["ConfigMap"]["data"] == {"settings.toml": settings}
    spec = objects["StatefulSet"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/kube-deployer:{__version__}"
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env.get("DEPLOYER_ETCD") == (None if which == "base" else "https://etcd.example.com:2379")
    assert (spec["replicas"], len(spec["volumeClaimTemplates"])) == ((1, 1) if which == "base" else (3, 0))
    volumes = {v["name"]: v for v in spec["template"]["spec"]["volumes"]}
    assert volumes["settings"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    # Whatever selects the pods selects these alone.
    labels = spec["template"]["metadata"]["labels"]
    selectors = [spec["selector"]["matchLabels"], objects["Service"]["spec"]["selector"]]
    selectors += [objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    selectors += [objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    assert selectors == [labels] * 4
