"""A real OTLP/gRPC server for spans that gives the answers listed, in turn, then takes everything.

Answers, arguments and lines are those of metric_server.py; "request" is the names of the spans.
"""

import metric_server
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

metric_server.SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def names(message: bytes) -> list:
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(message)
    return [
        span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


# The answers are alike in both services, field by field: partial success counts what was rejected.
metric_server.describe = names

if __name__ == "__main__":
    metric_server.main()
