/**
 * Sends spans by OTLP over gRPC: OpenTelemetry's own transport and serializer, with one change to
 * what is sent. A statistic is a double also where its value is whole, so that a receiver sees one
 * type per attribute. It neither queues nor retries.
 */

import {
  convertLegacyOtlpGrpcOptions,
  createOtlpGrpcExportDelegate,
} from '@opentelemetry/otlp-grpc-exporter-base'
import {
  ProtobufTraceSerializer,
  TraceExporterMetricsHelper,
} from '@opentelemetry/otlp-transformer'
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace'
import { withDoubles } from './double-attributes.ts'
import { isStatistic } from './span-registry.ts'

/**
 * @param target the endpoint; without a `url`, the `OTEL_EXPORTER_OTLP_…` variables say it.
 * @throws Error when the endpoint is no URL.
 */
export function createSpanExporter(target: { readonly url?: string }): SpanExporter {
  return createOtlpGrpcExportDelegate(
    convertLegacyOtlpGrpcOptions(target, 'TRACES'),
    { ...ProtobufTraceSerializer, serializeRequest },
    'otlp_grpc_span_exporter',
    TraceExporterMetricsHelper,
    undefined,
    'TraceExportService',
    '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  )
}

function serializeRequest(spans: ReadableSpan[]): Uint8Array | undefined {
  const request = ProtobufTraceSerializer.serializeRequest(spans)
  return request === undefined ? undefined : withDoubles(request, isStatistic)
}
