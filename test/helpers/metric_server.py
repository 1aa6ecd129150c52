"""A real OTLP/gRPC server for metrics that gives the answers listed, in turn, then takes everything.

Prints {"port": N}, then one JSON line for each request: {"answer", "headers", "request"}, where the
request is what the official messages read, in protobuf's JSON form with ids in hexadecimal and
"unknown_bytes", the bytes that the official messages do not know. It ends when its standard input
is closed.

Answers: ok, garbage (OK with a body that is no message), partial:POINTS:TEXT, throttled:SECONDS
(RESOURCE_EXHAUSTED with RetryInfo), too_large, silent:SECONDS (then OK), or the name of a gRPC
status.

With --decode it reads requests from standard input instead, in base64, one a line, and prints theirs.
"""

import argparse
import base64
import json
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
ID_FIELDS = {"traceId", "spanId"}


def hex_ids(value, field=""):
    if isinstance(value, dict):
        return {name: hex_ids(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [hex_ids(inner, field) for inner in value]
    return base64.b64decode(value).hex() if field in ID_FIELDS else value


def describe(message: bytes) -> dict:
    """Every field that the official message has, and how many bytes it does not know."""
    request = metrics.ExportMetricsServiceRequest.FromString(message)
    known = metrics.ExportMetricsServiceRequest()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    document = hex_ids(MessageToDict(known))
    return {**document, "unknown_bytes": request.ByteSize() - known.ByteSize()}


class Server:
    def __init__(self, answers):
        self._answers = list(answers)
        self._lock = threading.Lock()

    def export(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            answer = self._answers.pop(0) if self._answers else "ok"
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            line = {"answer": answer, "headers": headers, "request": describe(message)}
            print(json.dumps(line), flush=True)
        return self._give(answer, context)

    def _give(self, answer: str, context: grpc.ServicerContext) -> bytes:
        kind, *details = answer.split(":", 2)
        if kind == "ok":
            return b""
        if kind == "silent":
            time.sleep(float(details[0]))
            return b""
        if kind == "garbage":
            return b"\xff\xff\xff"
        if kind == "partial":
            partial = metrics.ExportMetricsPartialSuccess(
                rejected_data_points=int(details[0]), error_message=details[1]
            )
            response = metrics.ExportMetricsServiceResponse(partial_success=partial)
            return response.SerializeToString()
        if kind == "throttled":
            context.set_trailing_metadata([("grpc-status-details-bin", retry_info(details[0]))])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        if kind == "too_large":
            text = "grpc: received message larger than max (3 vs. 2)"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        context.abort(grpc.StatusCode[kind.upper()], "as asked")


def retry_info(seconds: str) -> bytes:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(float(seconds) * 1e9))
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    status.details.add().Pack(info)
    return status.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("answers", nargs="*")
    arguments = parser.parse_args()
    if arguments.decode:
        for line in sys.stdin:
            print(json.dumps({"request": describe(base64.b64decode(line))}))
        return
    handler = grpc.unary_unary_rpc_method_handler(Server(arguments.answers).export)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    handlers = grpc.method_handlers_generic_handler(SERVICE, {"Export": handler})
    server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
