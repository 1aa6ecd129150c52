"""Encodes an OTLP trace request given as JSON on standard input, by the official protobuf classes.

Prints one JSON document: the request in base64, the answer of standard input's "decode" likewise.
"""

import base64
import json
import sys

from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

document = json.load(sys.stdin)
if "request" in document:
    message = ParseDict(document["request"], trace_service_pb2.ExportTraceServiceRequest())
    print(json.dumps({"base64": base64.b64encode(message.SerializeToString()).decode()}))
else:
    kinds = {
        "response": trace_service_pb2.ExportTraceServiceResponse,
        "status": status_pb2.Status,
    }
    answer = kinds[document["kind"]]()
    answer.ParseFromString(base64.b64decode(document["base64"]))
    print(json.dumps(MessageToDict(answer)))
