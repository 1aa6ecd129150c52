"""A real OTLP/gRPC receiver for the demo and the tests: decodes with the official protobuf messages.

Prints {"port": N} as the first line of standard output, then appends one JSON document per line to
the file given: {"traces": ResourceSpans} or {"metrics": ResourceMetrics}, in protobuf's JSON form
with ids in hexadecimal. It ends when its standard input is closed. It is not a Collector: it keeps
nothing and forwards nothing.
"""

import argparse
import base64
import json
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)

ID_FIELDS = {"traceId", "spanId", "parentSpanId"}


class Journal:
    """Appends JSON lines from several threads, and decides which exports fail."""

    def __init__(self, path: str, fail_first: int, status: grpc.StatusCode | None):
        self._file = open(path, "a", encoding="utf-8")
        self._lock = threading.Lock()
        self._failures_left = fail_first
        self._status = status

    def admit(self, context: grpc.ServicerContext) -> None:
        """Aborts the call when it is to fail."""
        with self._lock:
            failing = self._failures_left > 0
            self._failures_left -= 1 if failing else 0
        if failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        if self._status is not None:
            context.abort(self._status, "refused for good")

    def append(self, kind: str, messages) -> None:
        lines = [json.dumps({kind: hex_ids(MessageToDict(m))}) + "\n" for m in messages]
        with self._lock:
            self._file.writelines(lines)
            self._file.flush()


def hex_ids(value, field: str = ""):
    """Protobuf's JSON form has ids in base64; OTLP's has them in hexadecimal."""
    if isinstance(value, dict):
        return {name: hex_ids(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [hex_ids(inner, field) for inner in value]
    if field in ID_FIELDS:
        return base64.b64decode(value).hex()
    return value


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, journal: Journal):
        self._journal = journal

    def Export(self, request, context):  # noqa: N802 (the name is the service's)
        self._journal.admit(context)
        self._journal.append("traces", request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, journal: Journal):
        self._journal = journal

    def Export(self, request, context):  # noqa: N802
        self._journal.admit(context)
        self._journal.append("metrics", request.resource_metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--fail-first", type=int, default=0, help="answer UNAVAILABLE that often")
    parser.add_argument("--reject", action="store_true", help="answer INVALID_ARGUMENT always")
    parser.add_argument("--max-message-bytes", type=int, default=4 * 1024 * 1024)
    parser.add_argument("file", help="where received messages are appended")
    arguments = parser.parse_args()

    status = grpc.StatusCode.INVALID_ARGUMENT if arguments.reject else None
    journal = Journal(arguments.file, arguments.fail_first, status)
    limit = ("grpc.max_receive_message_length", arguments.max_message_bytes)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), options=[limit])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(journal), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(journal), server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    if port == 0:
        sys.exit(f"port {arguments.port} is taken")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
