"""`/metrics`: figures for Prometheus, in a registry of their own for each application."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import falcon
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import deployer
from deployer.api import http
from deployer.api.figures.deployments import DeploymentFigures
from deployer.api.figures.labels import Namespaces
from deployer.core.errors import StoreError
from deployer.core.model.records import Event

_log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float]


class Metrics:
    """What is counted while requests are answered, and what is asked for when somebody looks."""

    def __init__(self, namespaces: int = 20) -> None:
        """`namespaces`: how many of them have a label of their own; see `Namespaces`."""
        self.registry = CollectorRegistry()
        self._collected = _Collected()
        self._requests = Histogram(
            "deployer_http_request_duration_seconds",
            "REST requests by route, method and status; the route is a template, `other` is none of ours.",
            ("route", "method", "status"),
            buckets=_REQUEST,
            registry=None,
        )
        self._deployments = DeploymentFigures(Namespaces(namespaces))
        self._collected.counted = (self._requests, *self._deployments.collected)
        self._children: dict[tuple[str | None, str, int], Any] = {}
        self.registry.register(self._collected)
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, says: str, ask: Callable[[], Values], *labels: str) -> None:
        """Show what `ask` returns whenever somebody looks; with `labels`, a number for each of their
        values, which are a text or as many as there are labels.

        A StoreError that it raises leaves the figure out.
        """
        self._collected.families.append((GaugeMetricFamily, name, says, labels, ask))

    def counter(self, name: str, says: str, ask: Callable[[], Values], *labels: str) -> None:
        """Like `gauge`, for what only grows."""
        self._collected.families.append((CounterMetricFamily, name, says, labels, ask))

    def observe(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is its template, None for none of ours; so the number of series is bounded."""
        method = method if method in _METHODS else "other"
        child = self._children.get((route, method, status))
        if child is None:
            child = self._requests.labels(route or "other", method, status)
            self._children[route, method, status] = child
        child.observe(seconds)

    def told(self, event: Event) -> None:
        """Count what observers are told."""
        self._deployments.told(event)

    def namespace(self, namespace: str) -> str:
        """The label for a namespace."""
        return self._deployments.label(namespace)

    def render(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)


class _Collected(Collector):
    """What was counted here, and what others keep, who are asked when somebody looks."""

    def __init__(self) -> None:
        self.families: list[tuple[type[Any], str, str, tuple[str, ...], Callable[[], Values]]] = []
        self.counted: tuple[Histogram | Counter, ...] = ()

    def describe(self) -> Iterable[Metric]:
        """Nothing is promised: the names are ours alone."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "deployer_build",
            "Which release this is.",
            {"version": deployer.__version__, "python": platform.python_version()},
        )
        for counted in self.counted:
            for metric in counted.collect():
                # The library adds when each series began, which nobody asked for and doubles the answer.
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric
        for family, name, says, labels, ask in self.families:
            try:
                values = ask()
            except StoreError as error:
                _log.warning("%s is left out: %s", name, error)
                continue
            out: Any = family(name, says, labels=labels)
            for value, number in values.items() if isinstance(values, Mapping) else [((), values)]:
                out.add_metric([value] if isinstance(value, str) else value, number)
            yield out


class Timing:
    """A middleware that tells `Metrics` of each request. It is the outermost, so that nothing escapes it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Begin."""
        req.env["deployer.began"] = time.perf_counter()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """End."""
        seconds = time.perf_counter() - req.env["deployer.began"]
        self._metrics.observe(req.uri_template, req.method, resp.status_code, seconds)


class Figures(http.Resource):
    """The resource."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Everything, in the text format."""
        resp.content_type = CONTENT_TYPE
        resp.data = self._metrics.render()
