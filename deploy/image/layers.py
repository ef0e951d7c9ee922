"""Assembles the image's layers: `layers.py DIRECTORY` fills `python`, `dependencies`, `deployer` and `data` there.

The Dockerfile's build stage runs this, and so does `build.py` where there is no Docker. It needs Debian 12 with apt,
pip and the network, no root. Python and what it needs are Debian's own packages, unpacked and cut down, with no shell
and no package manager; the libraries are those of `requirements/run.txt`, checked by their hashes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = "12"
PYTHON = "python3.11"
PACKAGES = (
    f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libc6", "libbz2-1.0", "libcrypt1", "libexpat1",
    "libffi8", "liblzma5", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g",
    "libgcc-s1", "libstdc++6",  # grpcio, for the plugin env_etcd
    "base-files", "ca-certificates", "media-types",
)  # fmt: skip
LICENCES = re.compile(r"usr/share/(doc/[^/]+/copyright|common-licenses/.*)")
KEPT = re.compile(r"(bin|lib|lib64|usr/bin|usr/lib|usr/share/ca-certificates)/.*|etc/(mime\.types|python3.*)")
UNUSED = re.compile(
    rf"usr/lib/({PYTHON}/(test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data|config-.*|.*/tests?)/"
    r"|[^/]+/(gconv|engines-3|ossl-modules|perl.*)/|locale/|tmpfiles|systemd/)"
    # Modules whose libraries are left out: terminals, and the databases of another time.
    rf"|usr/lib/{PYTHON}/lib-dynload/(_curses|_curses_panel|_dbm|_gdbm|nis|readline)\."
    r"|(usr/)?s?bin/(?!python)|usr/share/ca-certificates/(?!mozilla)"
)
LIBRARIES = Path(f"usr/local/lib/{PYTHON}/dist-packages")
USER = 65532  # `nonroot`, as in the images that people know it from; the Dockerfile names it
COMMAND = f"""#!/usr/bin/{PYTHON} -P
import sys
from deployer.cli import main
sys.exit(main())
"""
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nologin\nnonroot:x:{USER}:{USER}:nonroot:/data:/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
COMPILE = """
import compileall, sys
from py_compile import PycInvalidationMode as Mode
root = sys.argv[1]
options = {"stripdir": root, "prependdir": "/", "invalidation_mode": Mode.UNCHECKED_HASH}
sys.exit(not compileall.compile_dir(root, maxlevels=50, quiet=1, **options))
"""


def main() -> int:
    """Fill the directory that the command line names, which must be empty."""
    target = Path(sys.argv[1])
    release = _release()
    if release != ("debian", DEBIAN) or not shutil.which("apt-get"):
        print(f"The image is made of the packages of Debian {DEBIAN}, and this is {' '.join(release)}; use Docker:\n"
              "docker build --file deploy/Dockerfile .", file=sys.stderr)  # fmt: skip
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        Layers(target, Path(scratch)).make()
    return 0


class Layers:
    """The layers below one directory; what is needed on the way is in another one.

    The Python that is packed does the work itself, so that what is installed and compiled fits it, whatever runs this.
    """

    def __init__(self, target: Path, scratch: Path) -> None:
        self.python, self.dependencies, self.deployer = (target / n for n in ("python", "dependencies", "deployer"))
        self.scratch = scratch
        (target / "data").mkdir(parents=True)

    def make(self) -> None:
        """All of them, in the order in which they build upon each other."""
        self._unpack()
        tools = self.scratch / "tools"
        self._requirements(tools)
        libraries = self.dependencies / LIBRARIES
        self._install(libraries, tools, "--require-hashes", "--requirement", ROOT / "requirements" / "run.txt")
        wheels = self._wheel(tools)
        ours = self.deployer / LIBRARIES
        self._install(ours, tools, "--no-deps", "--no-index", "--find-links", wheels, "kube-deployer")
        command = self.deployer / "usr/bin/deployer"
        _write(command, COMMAND)
        command.chmod(0o755)
        for layer in (self.python, self.dependencies, self.deployer):
            self._run("-c", COMPILE, layer)
        self._prove(libraries, ours)

    def _unpack(self) -> None:
        """Debian's packages, without what nothing here uses; scanners find them in `/var/lib/dpkg/status.d`."""
        debs = self.scratch / "debs"
        debs.mkdir()
        _call("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *PACKAGES, cwd=debs)
        whole = self.scratch / "whole"
        for deb in sorted(debs.iterdir()):
            _call("dpkg-deb", "--extract", deb, whole)
            name = deb.name.partition("_")[0]
            _write(self.python / "var/lib/dpkg/status.d" / name, _call("dpkg-deb", "--field", deb))
        for path in sorted(whole.rglob("*")):
            name = path.relative_to(whole).as_posix()
            wanted = LICENCES.fullmatch(name) or (KEPT.fullmatch(name) and not UNUSED.match(name))
            if wanted and (path.is_symlink() or path.is_file()):
                to = self.python / name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to, follow_symlinks=False)
        certificates = sorted((self.python / "usr/share/ca-certificates").rglob("*.crt"))
        bundle = "".join(certificate.read_text() for certificate in certificates)
        release = (whole / "usr/lib/os-release").read_text()
        for name, text in {**FILES, "etc/ssl/certs/ca-certificates.crt": bundle, "etc/os-release": release}.items():
            _write(self.python / name, text)
        shutil.rmtree(self.python / "usr/share/ca-certificates")
        links = {"usr/bin/python3": PYTHON, "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt"}
        for name, to_name in links.items():
            (self.python / name).parent.mkdir(parents=True, exist_ok=True)
            (self.python / name).symlink_to(to_name)

    def _requirements(self, tools: Path) -> None:
        """pip and the build backend, as locked for who works on the Deployer."""
        lock = (ROOT / "requirements" / "dev.txt").read_text()
        found = re.findall(r"^(?:pip|setuptools)==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
        _write(self.scratch / "tools.txt", "".join(found))
        pip = ("-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:")
        _call(sys.executable, *pip, "--target", tools, "--requirement", self.scratch / "tools.txt")

    def _install(self, target: Path, tools: Path, *what: str | Path) -> None:
        """Install into a folder of libraries, leaving nothing that tells when, where or by what that was done."""
        pip = ("-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-compile", "--root-user-action=ignore")
        self._run(*pip, "--target", target, *what, path=[tools])
        # Scripts, whose first line is the path of this Python here; and the whole client once more for asyncio, 68 MB.
        for unused in ("bin", "kubernetes/aio"):
            shutil.rmtree(target / unused, ignore_errors=True)
        for record in target.glob("*.dist-info/RECORD"):
            lines = record.read_text().splitlines(keepends=True)
            record.write_text("".join(line for line in lines if not re.match(r"\.\./|kubernetes/aio/", line)))

    def _wheel(self, tools: Path) -> Path:
        """The Deployer's own wheel, in a folder; built from a copy, where nothing of an earlier build is."""
        source, wheels = self.scratch / "source", self.scratch / "wheels"
        source.mkdir()
        rooms = [link.readlink() for link in (ROOT / "src/deployer").iterdir() if link.is_symlink()]
        for name in ["src", *(room.name for room in rooms)]:
            without = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, source)
        wheels.mkdir()
        build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        self._run("-c", build, wheels, path=[tools], cwd=source)
        return wheels

    def _prove(self, *path: Path) -> None:
        """What was packed works: each module of C finds its libraries, and the command starts."""
        modules = [
            p for layer in (self.python, self.dependencies) for p in layer.rglob("*.so") if p.name.startswith("_")
        ]
        names = {m.name.partition(".")[0] for m in modules if m.parent.name == "lib-dynload"} - {"_tkinter"}
        names |= {
            "grpc._cython.cygrpc",
            "_cffi_backend",
            "ssl",
            "sqlite3",
            "deployer.cli.wiring",
            "deployer.cli.commands",
        }
        self._run(
            "-c", "import importlib, sys; [importlib.import_module(n) for n in sys.argv[1:]]", *sorted(names), path=path
        )

    def _run(self, *arguments: str | Path, path: list[Path] | tuple[Path, ...] = (), cwd: Path | None = None) -> str:
        """Run the packed Python on the packed libraries, by their own loader."""
        loader = next(self.python.glob("lib*/ld-linux-*"))
        libraries = [path for under in ("lib", "usr/lib") for path in self.python.glob(f"{under}/*-linux-gnu")]
        found = os.environ | {
            "PYTHONHOME": str(self.python / "usr"),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONNOUSERSITE": "1",
        }
        start = (loader, "--library-path", os.pathsep.join(map(str, libraries)), self.python / "usr/bin" / PYTHON)
        return _call(*start, *arguments, cwd=cwd, env=found)


def _release() -> tuple[str, str]:
    """What this machine runs, as its /etc/os-release says: `("debian", "12")`."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        lines = []
    told = dict(line.partition("=")[::2] for line in lines)
    return told.get("ID", "another system"), told.get("VERSION_ID", "").strip('"')


def _call(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program; its output. When it fails, what it said of that is shown, and ends this."""
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise SystemExit(f"{said}\n{' '.join(map(str, command[:8]))} ... failed with exit code {done.returncode}")
    return done.stdout


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
