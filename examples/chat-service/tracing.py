"""The chat service's OpenTelemetry: the stock SDK over OTLP/gRPC, with more patience.

The stock exporter gives a batch of spans up some seconds after the Collector has gone. Here the same
batch is sent again until the Collector takes it, while the SDK's queue holds what comes meanwhile and
drops beyond its bound (OTEL_BSP_MAX_QUEUE_SIZE). What the Collector refuses for good is given up too,
after as many tries.
"""

import os
import threading
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

# The stock exporter's own tries take seconds each, so this is a quarter of an hour and more.
TRIES_MAX = 120
PAUSE_SECONDS = 1.0


class PatientExporter(SpanExporter):
    """Sends a batch again when another exporter has given it up."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._hurry = threading.Event()

    def hurry(self) -> None:
        """From now on every batch has one try: the process is about to end."""
        self._hurry.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        tries = 1
        while result is not SpanExportResult.SUCCESS and tries < TRIES_MAX:
            if self._hurry.wait(PAUSE_SECONDS):
                break
            result = self._inner.export(spans)
            tries += 1
        return result

    def shutdown(self) -> None:
        self.hurry()
        self._inner.shutdown()


class Tracing:
    """OTEL_TRACES_EXPORTER=none keeps spans inside; every OTEL_* variable means what it always does."""

    def __init__(self) -> None:
        # OTEL_SERVICE_NAME wins: attributes given here would hide it.
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "chat-service"}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._exporter: PatientExporter | None = None
        if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "none":
            self._exporter = PatientExporter(OTLPSpanExporter())
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        trace.set_tracer_provider(self._provider)

    def shutdown(self) -> None:
        """Sends what waits, once, and ends."""
        if self._exporter is not None:
            self._exporter.hurry()
        self._provider.shutdown()
