"""Sends spans to a collector by OTLP over HTTP. Needs the extra `otel`."""

from __future__ import annotations

from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from deployer.plugins.traces_otel.spans import Span, spans_of
from deployer.sdk.errors import NotDelivered
from deployer.sdk.observer import HOOKS, Notification, Observer

_NANOSECONDS = 1_000_000_000


class Traces(Observer):
    """Of all deployments. The spans of an operation are sent when it has ended, with the times that it had."""

    name = "traces"
    hooks = HOOKS - {"deployment_started"}

    def __init__(self, endpoint: str, service: str, timeout: float) -> None:
        """`endpoint` is the whole URL; `timeout` in seconds is for one attempt and its repetitions."""
        release = version("kube-deployer")
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout)
        # Nothing of the environment (`OTEL_RESOURCE_ATTRIBUTES`) or the host but what is said here.
        self._resource = Resource({"service.name": service, "service.version": release})
        self._scope = InstrumentationScope("deployer", release)

    def notify(self, notification: Notification) -> None:
        """Send them. Raises NotDelivered."""
        spans = [self._made(span) for span in spans_of(notification)]
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise NotDelivered(f"the collector at {self._endpoint} has not taken the spans of an operation")

    def _made(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_context(span.trace, span.id),
            parent=_context(span.trace, span.parent) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.message or span.error) if span.error else Status(StatusCode.UNSET),
            start_time=int(span.began * _NANOSECONDS),
            end_time=int(span.ended * _NANOSECONDS),
            instrumentation_scope=self._scope,
        )


def _context(trace: int, id: int) -> SpanContext:
    return SpanContext(trace, id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
