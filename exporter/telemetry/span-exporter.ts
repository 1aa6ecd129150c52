/**
 * Sends spans by OTLP over gRPC: OpenTelemetry's own transport, and a serializer that keeps the type
 * of a statistic (span-encoding.ts). It neither queues nor retries.
 */

import {
  convertLegacyOtlpGrpcOptions,
  createOtlpGrpcExportDelegate,
} from '@opentelemetry/otlp-grpc-exporter-base'
import {
  ProtobufTraceSerializer,
  TraceExporterMetricsHelper,
} from '@opentelemetry/otlp-transformer'
import type { SpanExporter } from '@opentelemetry/sdk-trace'
import { encodeSpans } from './span-encoding.ts'
import { isStatistic } from './span-registry.ts'

/**
 * @param target the endpoint; without a `url`, the `OTEL_EXPORTER_OTLP_…` variables say it.
 * @throws Error when the endpoint is no URL.
 */
export function createSpanExporter(target: { readonly url?: string }): SpanExporter {
  return createOtlpGrpcExportDelegate(
    convertLegacyOtlpGrpcOptions(target, 'TRACES'),
    { ...ProtobufTraceSerializer, serializeRequest: (spans) => encodeSpans(spans, isStatistic) },
    'otlp_grpc_span_exporter',
    TraceExporterMetricsHelper,
    undefined,
    'TraceExportService',
    '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  )
}
