"""Spans by OpenTelemetry, where its API is installed (the extra ``otel``).

Who runs a server under ``opentelemetry-instrument`` has set up where spans go; else, where an endpoint is named by the
standard variables and the SDK is there, they go to it by OTLP.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import structlog

from kalam import __version__
from kalam.errors import Internal, KalamError
from kalam.tracing import Attributes, SpanMaker, current_trace, use_spans

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
LINKS_MAX = 128
"""Traces that a span of a batch names besides its own."""
log = structlog.get_logger(__name__)


def open_spans(environment: Mapping[str, str] = os.environ) -> None:
    """Have spans made if OpenTelemetry is installed and not switched off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or importlib.util.find_spec("opentelemetry") is None:
        return
    try:
        if any(environment.get(name) for name in ENDPOINTS):
            _export()
        use_spans(_maker())
    except ImportError as exc:
        log.warning("there are no spans: OpenTelemetry is installed in part", missing=exc.name)


def _export() -> None:
    """Send spans where the environment says, unless somebody has arranged that already."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "kalam"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _maker() -> SpanMaker:
    from opentelemetry import trace

    tracer = trace.get_tracer("kalam", __version__)

    def remote(traceparent: str) -> trace.SpanContext:
        _, trace_id, span_id, flags = traceparent.split("-")[:4]
        return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))

    def parents_of(traces: Iterable[str]) -> list[str]:
        distinct = list(islice(dict.fromkeys(traces), LINKS_MAX + 1))
        own = current_trace()
        if distinct or own is None or trace.get_current_span().get_span_context().is_valid:
            return distinct
        return [own]

    def make(
        name: str, traces: Iterable[str], attributes: Attributes, *, apart: bool
    ) -> AbstractContextManager[object]:
        parents = [remote(each) for each in parents_of(traces)]
        told: dict[str, Any] = {
            "context": trace.set_span_in_context(trace.NonRecordingSpan(parents[0])) if parents else None,
            "links": [trace.Link(each) for each in parents[1:]],
            "attributes": {f"kalam.{attribute}": value for attribute, value in attributes.items()},
        }
        return _lasting(tracer.start_span(name, **told), current=not apart)

    return make


@contextmanager
def _lasting(span: Any, *, current: bool) -> Iterator[None]:
    """Have a span for as long as the block lasts; of an error it names the code, for the text may hold rows."""
    from opentelemetry import trace

    kept = {"end_on_exit": False, "record_exception": False, "set_status_on_exception": False}
    try:
        with trace.use_span(span, **kept) if current else nullcontext():
            yield
    except Exception as exc:
        span.set_status(trace.StatusCode.ERROR, exc.code if isinstance(exc, KalamError) else Internal.code)
        raise
    finally:
        span.end()
