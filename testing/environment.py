"""What every environment injector must do, as checks of the injector alone and of deployments on a sandbox.

No test framework is needed: `CHECKS` are functions that take an `InjectorBench` and raise AssertionError. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_injector(check, cluster, tmp_path):
        check(InjectorBench(lambda: Mine(SOURCE), away=lambda: Mine("nowhere"), cluster=cluster, path=tmp_path))
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer import sandbox
from deployer.core.calls import Invocation
from deployer.core.model.records import Status
from deployer.core.model.secrets import values_of
from deployer.planning import injection
from deployer.sdk.environment import EnvContext, EnvInjector
from deployer.sdk.errors import Cancelled, Interrupted, StepFailed
from deployer.sdk.kube import CONTROLLER, Kind
from deployer.sdk.plugin import CancelScope, Document, hookimpl
from deployer.testing.descriptors import describe
from deployer.testing.fakes import FakeEnvironment
from deployer.testing.plugins import require_options
from deployer.testing.service import SandboxedService

SECONDS = 1.0
"""What an injector gets whose source is away."""

LATE = 1.0
"""Seconds after its deadline, or after a cancellation, in which it has to be back."""

AT_ONCE = 4
"""Deployments that ask at the same time."""

LONG = 60.0
"""Seconds for a deployment whose injector has no time-out of its own: it is given 30 s."""

TELLING = 6
"""Characters that a value needs at least to be looked for: a shorter one is in every other text by chance."""


@dataclass
class InjectorBench:
    """Where one environment injector is tried.

    injector       makes it anew, as a restarted service would, with a source that answers
    away           the same, with a source that takes connections and never answers, or is not there; None: it has no
                   source that could be away
    broken         others, that have to fail at once: their source refuses, or has something that is no value
    values         what their sources hold and nobody may see, besides what `injector` gives
    options        what the descriptor has for it in `extensions`
    wrong_options  options that a descriptor must not have
    objects        what it is to find in the namespace, by kind
    cluster        a sandbox for the checks that deploy; None: they do nothing
    path           a directory for them
    """

    injector: Callable[[], EnvInjector]
    away: Callable[[], EnvInjector] | None = None
    broken: Sequence[Callable[[], EnvInjector]] = ()
    values: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    wrong_options: Sequence[Mapping[str, Any]] = ()
    objects: Mapping[Kind, Sequence[Document]] = field(default_factory=dict)
    cluster: sandbox.Sandbox | None = None
    path: Path = Path()

    def ask(self, injector: EnvInjector | None = None, *, scope: CancelScope | None = None, app: str = "shop") -> Asked:
        """Ask once, as a deployment does, and keep what was said and done meanwhile. Raises nothing."""
        scope = scope or CancelScope(time.monotonic() + 10.0)
        fake = FakeEnvironment(app, options=self.options, descriptor=describe("default", app))
        for kind, objects in self.objects.items():
            for body in objects:
                fake.kube.put(kind, body)
        watched = _Watched(injector or self.injector())
        given: list[Document] = []
        error: StepFailed | Interrupted | None = None
        with _listening() as records:
            try:
                title = f"environment injector {watched.name}"
                given = injection.ask(watched, title, fake.within(scope))
            except (StepFailed, Interrupted) as raised:
                error = raised
            watched.back.wait(3 * LATE)
        return Asked(given, error, watched.raised, watched.seconds, [*fake.log, *records], fake.kube.writes)

    def given(self) -> list[Document]:
        """What it gives. Raises AssertionError when it fails."""
        found = self.ask()
        assert found.error is None, f"environment() failed: {found.error}"
        return found.given

    def secrets(self) -> set[str]:
        """The values that nobody may see. Those that are too short to be looked for are left out."""
        return {value for value in (*values_of(self.given()), *self.values) if len(value) >= TELLING}


@dataclass(frozen=True)
class Asked:
    """What came of asking once: variables, or an error as the Deployer has it and as it was raised, when `environment`
    came back, and what was logged and written to the cluster meanwhile."""

    given: list[Document]
    error: StepFailed | Interrupted | None
    raised: BaseException | None
    seconds: float
    log: list[str]
    writes: list[str]

    @property
    def sentence(self) -> str:
        """What users see of the error."""
        hint = self.error.hint if isinstance(self.error, StepFailed) else ""
        return f"{self.error} {hint}" if self.error else ""


class _Watched(EnvInjector):
    """Passes on to another one, and keeps when that came back, and how."""

    def __init__(self, injector: EnvInjector) -> None:
        self.name = injector.name
        self.back = threading.Event()
        self.raised: BaseException | None = None
        self.seconds = float("inf")
        self._injector = injector
        self._began = time.monotonic()

    def environment(self, context: EnvContext) -> Sequence[Document]:
        try:
            return list(self._injector.environment(context))
        except BaseException as error:
            self.raised = error
            raise
        finally:
            self.seconds = time.monotonic() - self._began
            self.back.set()


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Whatever is logged meanwhile, by whom ever, at every level; with tracebacks."""
    records: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: records.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _require_hidden(bench: InjectorBench, where: str, texts: Sequence[str]) -> None:
    for secret in bench.secrets():
        for text in texts:
            assert secret not in text, f"{where}: a value is in {text.replace(secret, '<the value>')!r}"


Check = Callable[[InjectorBench], None]


# --- what it gives ------------------------------------------------------------------------------------------------


def names_and_values_are_legal(bench: InjectorBench) -> None:
    """core/v1 EnvVars, each name once."""
    names = [variable["name"] for variable in bench.given()]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"{twice[0]} is given twice"


def it_gives_the_same_again(bench: InjectorBench) -> None:
    """The same object, and one made anew: a deployment that dies while it is decided asks again."""
    injector = bench.injector()
    first = bench.ask(injector).given
    for again in (bench.ask(injector), bench.ask()):
        assert again.given == first, f"the second time {_named(again.given)}, the first time {_named(first)}"


def deployments_may_ask_at_once(bench: InjectorBench) -> None:
    """Of several apps: each gets what it would get alone."""
    injector = bench.injector()
    apps = [f"app-{number}" for number in range(AT_ONCE)]
    alone = [bench.ask(app=app).given for app in apps]
    with _listening():  # around those of the threads, which end in any order
        calls = [Invocation(lambda app=app: bench.ask(injector, app=app), "environment") for app in apps]  # type: ignore[misc]
        for app, call, wanted in zip(apps, calls, alone, strict=True):
            call.wait(30.0)
            found = call.result()
            assert (found.error, found.given) == (None, wanted), f"{app}, asked with others: {found.error or 'others'}"


def it_only_reads(bench: InjectorBench) -> None:
    """Nothing is written to the cluster, whatever comes of the deployment."""
    for made in (bench.injector, *_failing(bench)):
        found = bench.ask(made(), scope=CancelScope(time.monotonic() + SECONDS))
        assert not found.writes, f"environment() wrote: {found.writes}"


def _named(given: Sequence[Document]) -> list[str]:
    return [f"{variable['name']} ({'value' if 'value' in variable else 'valueFrom'})" for variable in given]


def _failing(bench: InjectorBench) -> list[Callable[[], EnvInjector]]:
    return [*bench.broken, *([bench.away] if bench.away else [])]


# --- when it cannot -----------------------------------------------------------------------------------------------


def a_source_that_is_away_fails_in_time(bench: InjectorBench) -> None:
    """`environment` is back at its deadline."""
    for made in _failing(bench):
        found = bench.ask(made(), scope=CancelScope(time.monotonic() + SECONDS))
        assert found.error is not None, f"it gave {_named(found.given)} although its source is away"
        assert found.seconds < SECONDS + LATE, f"it came back after {found.seconds:.1f} s; it had {SECONDS:g} s"


def it_says_what_is_wrong(bench: InjectorBench) -> None:
    """As StepFailed with a sentence: of other errors users see only the class."""
    for made in _failing(bench):
        found = bench.ask(made())
        raised = found.raised
        assert isinstance(raised, StepFailed | Interrupted), f"it raised {raised!r} instead of StepFailed"
        assert str(raised).strip(), "the error has no text"


def a_cancellation_ends_it(bench: InjectorBench) -> None:
    """While its source lets it wait."""
    if bench.away is None:
        return
    scope = CancelScope()
    timer = threading.Timer(0.2, scope.close, [Cancelled("cancelled by request")])
    timer.start()
    found = bench.ask(bench.away(), scope=scope)
    timer.join()
    assert found.error is not None, f"it gave {_named(found.given)} although its source is away"
    assert found.seconds < 0.2 + LATE, "environment() goes on although it is cancelled: let `context.scope` end it"


def values_are_never_said(bench: InjectorBench) -> None:
    """Not in a log, the deployment's or the service's, and not in an error, whatever is wrong with the source."""
    for made in (bench.injector, *_failing(bench)):
        found = bench.ask(made(), scope=CancelScope(time.monotonic() + SECONDS))
        _require_hidden(bench, "the log", found.log)
        _require_hidden(bench, "the error", [found.sentence])


def warnings_are_sentences(bench: InjectorBench) -> None:
    """For the service's log, once it has started: in time, without a value."""
    for made in (bench.injector, *_failing(bench)):
        scope = CancelScope(time.monotonic() + SECONDS)
        call = Invocation(lambda made=made, scope=scope: list(made().warnings(scope)), "warnings")  # type: ignore[misc]
        assert call.wait(SECONDS + LATE), f"warnings() is not back after {SECONDS + LATE:g} s; it had {SECONDS:g} s"
        try:
            said = call.result()
        except (StepFailed, Interrupted) as error:
            said = [str(error)]
        assert all(isinstance(one, str) and one.strip() for one in said), f"warnings() returned {said!r}"
        _require_hidden(bench, "warnings()", said)


def options_are_checked(bench: InjectorBench) -> None:
    """By the injector's schema or `check_descriptor`: the right ones pass, wrong and misspelt ones do not."""
    injector = bench.injector()

    def place(options: Document) -> Document:
        return _describe(injector, "default", options)

    require_options(injector, "env", bench.options, bench.wrong_options, place)


# --- deployments --------------------------------------------------------------------------------------------------


class _Observer:
    """Keeps what observers are told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def deployment_started(self, deployment: Document) -> None:
        self.told.append(json.dumps(deployment))

    @hookimpl
    def deployment_changed(self, deployment: Document) -> None:
        self.told.append(json.dumps(deployment))

    @hookimpl
    def deployment_finished(self, deployment: Document) -> None:
        self.told.append(json.dumps(deployment))


def containers_get_what_it_gives(bench: InjectorBench) -> None:
    """On a sandbox: names are in the deployment's log, and values in the pods alone; not in the log, in what observers
    are told, which is what REST shows, or in the service's own log."""
    if bench.cluster is None:
        return
    with _service(bench, bench.injector()) as (service, observer), _listening() as records:
        id = service.deploy_descriptor(_descriptor(bench, service))
        assert service.await_status(id).status is Status.DEPLOYED, service.log(id)
        service.quiet()
        (container,) = service.objects(CONTROLLER)["shop-1"]["spec"]["template"]["spec"]["containers"]
        for variable in bench.given():
            assert variable in container["env"], f"{variable['name']} is not in the container"
            assert variable["name"] in service.log(id), service.log(id)
        service.until(lambda: not service.events() or None, "observers to be told")
        said = {"the deployment's log": [service.log(id)], "what observers were told": observer.told}
        assert observer.told, "no observer was told"
        for where, texts in {**said, "the service's log": records}.items():
            _require_hidden(bench, where, texts)


def a_source_that_is_away_leaves_the_old_version(bench: InjectorBench) -> None:
    """On a sandbox: the deployment fails before anything is written, says why, and what was live serves on."""
    if bench.cluster is None or not _failing(bench):
        return
    failing = [*bench.broken[:1], *([bench.away] if bench.away else [])]
    with _service(bench, bench.injector()) as (service, observer):
        first = service.deploy_descriptor(_descriptor(bench, service))
        assert service.await_status(first).status is Status.DEPLOYED, service.log(first)
        before = service.names()
        for made in failing:
            error = bench.ask(made()).error
            service.providers = [made()]
            service.restart()
            second = service.deploy_descriptor(_descriptor(bench, service))
            service.until(lambda: service.engine.idle() or None, f"deployment {second} to end", LONG)
            assert service.record(second).status is Status.FAILURE, f"it is live\n{service.log(second)}"
            said = str(error) if isinstance(error, StepFailed) else ""
            assert said in service.log(second), f"{said} is not in the log\n{service.log(second)}"
            assert service.names() == before, service.log(second)
            code, body = service.answer("shop.example.com")
            assert (code, body.startswith("version 1 ")) == (200, True), body
            _require_hidden(bench, "what is told of the failure", [service.log(second), *observer.told])


@contextlib.contextmanager
def _service(bench: InjectorBench, injector: EnvInjector) -> Iterator[tuple[SandboxedService, _Observer]]:
    assert bench.cluster is not None
    observer = _Observer()
    made = SandboxedService(bench.cluster, bench.path, providers=[injector], modules={"observer": observer})
    for kind, objects in bench.objects.items():
        for body in objects:
            made.put(kind, body)
    with made as service:
        yield service, observer


def _descriptor(bench: InjectorBench, service: SandboxedService) -> Document:
    return _describe(bench.injector(), service.namespace, bench.options)


def _describe(injector: EnvInjector, namespace: str, options: Mapping[str, Any]) -> Document:
    made = describe(namespace, frontend="shop.example.com")
    return {**made, "extensions": {injector.name: dict(options)}} if options else made


CHECKS: Sequence[Check] = (
    names_and_values_are_legal,
    it_gives_the_same_again,
    deployments_may_ask_at_once,
    it_only_reads,
    a_source_that_is_away_fails_in_time,
    it_says_what_is_wrong,
    a_cancellation_ends_it,
    values_are_never_said,
    warnings_are_sentences,
    options_are_checked,
    containers_get_what_it_gives,
    a_source_that_is_away_leaves_the_old_version,
)


__all__ = ["CHECKS", "Check", "InjectorBench"]
