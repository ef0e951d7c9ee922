"""A service on a sandbox of its own for all tests here, and the command run in this process, as fast as it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployer.cli import main
from support.command import Rest, of_a_new_user
from support.impostor import Impostor
from support.playground import Playground, playing
from support.terminal import Terminal


@dataclass(frozen=True)
class Ran:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """That of a new user outside of any pipeline; a test may change it."""
    import os

    wanted = of_a_new_user(tmp_path)
    for name in list(os.environ):
        if name not in wanted and not name.startswith("PYTEST"):
            monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def run(environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `deployer` with these arguments."""

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:  # of a shell's completion
            code = int(ended.code or 0)
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A `deployer sandbox`, the process."""
    path = tmp_path_factory.mktemp("playground")
    settings = path / "settings.toml"
    settings.write_text('preview_host = "{app}-{namespace}.example.org"\n')
    with playing(path, "--proxysleep=1", f"--config={settings}") as found:
        yield found


@pytest.fixture
def namespace(playground: Playground) -> str:
    """One of its own, in the cluster too."""
    return playground.namespace()


@pytest.fixture
def service(playground: Playground, namespace: str, run: Run, environment: pytest.MonkeyPatch) -> Rest:
    """The service for whom `run` runs, by variables; in a namespace of the test's own."""
    environment.setenv("DEPLOYER_SERVER", playground.url)
    environment.setenv("DEPLOYER_NAMESPACE", namespace)
    return Rest(playground.url, namespace)


def shop(image: str = "sample/web:1", *, app: str = "shop", **more: Any) -> str:
    """A small descriptor in YAML, without a namespace."""
    version = more.pop("newVersion", "#")
    fields = "".join(f"{key}: {value}\n" for key, value in more.items())
    return f"""\
appName: {app}
newVersion: "{version}"
{fields}podspec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: web
      image: {image}
      ports:
        - containerPort: 8080
      readinessProbe:
        httpGet: {{path: /health, port: 9999}}
        periodSeconds: 1
"""


@pytest.fixture
def impostor(environment: pytest.MonkeyPatch) -> Iterator[Impostor]:
    """Answers in the place of a service."""
    made = Impostor()
    environment.setenv("DEPLOYER_SERVER", made.url)
    # A pause between two tries is not what is tested.
    environment.setattr("deployer.client.connection.random.uniform", lambda *_: 0.001)
    yield made
    made.close()


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(environment: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open one of that size and run `deployer` in it."""
    opened: list[Terminal] = []

    def start(*arguments: str, columns: int = 80, rows: int = 24) -> Terminal:
        opened.append(Terminal(arguments, columns, rows))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
