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
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace'
import type { Logger } from '../logging.ts'
import { createAnswerReader, type PartialSuccess } from './partial-success.ts'
import { EncodingError } from './retry-decision.ts'
import { encodeSpans } from './span-encoding.ts'
import { isStatistic } from './span-registry.ts'

/** An exporter that knows how many spans of an export that succeeded were rejected. */
export interface PartialSpanExporter extends SpanExporter {
  /** Spans rejected since the last call. */
  takeRejected?(): number
}

/**
 * Takes one export at a time.
 *
 * @param target the endpoint; without a `url`, the `OTEL_EXPORTER_OTLP_…` variables say it.
 * @throws Error when the endpoint is no URL.
 */
export function createSpanExporter(
  target: { readonly url?: string },
  logger: Logger | null = null,
): PartialSpanExporter {
  const answers = createAnswerReader('spans', decodeAnswer, logger)
  const delegate = createOtlpGrpcExportDelegate(
    convertLegacyOtlpGrpcOptions(target, 'TRACES'),
    {
      serializeRequest,
      deserializeResponse: (data) => {
        answers.read(data)
        // Empty: what it says has been logged, and the transport would log it once more.
        return {}
      },
    },
    'otlp_grpc_span_exporter',
    TraceExporterMetricsHelper,
    undefined,
    'TraceExportService',
    '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  )
  return {
    export: (spans, done) => delegate.export(spans, done),
    shutdown: () => delegate.shutdown(),
    takeRejected: answers.take,
  }
}

function serializeRequest(spans: ReadableSpan[]): Uint8Array {
  try {
    return encodeSpans(spans, isStatistic)
  } catch (error) {
    throw new EncodingError(error)
  }
}

function decodeAnswer(data: Uint8Array): PartialSuccess {
  const { partialSuccess } = ProtobufTraceSerializer.deserializeResponse(data)
  return {
    rejected: Number(partialSuccess?.rejectedSpans ?? 0),
    message: partialSuccess?.errorMessage ?? '',
  }
}
