/**
 * Sends one serialized export of metrics by OTLP over gRPC, with OpenTelemetry's own transport: the
 * `OTEL_EXPORTER_OTLP_…` variables (endpoint, headers, compression, timeout, certificates) mean what
 * the specification says. It neither queues nor retries, and takes one export at a time.
 * What an answer means is partial-success.ts's matter.
 */

import {
  convertLegacyOtlpGrpcOptions,
  createOtlpGrpcExportDelegate,
} from '@opentelemetry/otlp-grpc-exporter-base'
import {
  type IExportMetricsServiceResponse,
  type ISerializer,
  ProtobufMetricsSerializer,
} from '@opentelemetry/otlp-transformer'
import type { Logger } from '../logging.ts'
import type { EncodedRequest } from './metric-encoding.ts'
import { createAnswerReader, type PartialSuccess } from './partial-success.ts'
import type { Receipt } from './retry-delivery.ts'

export interface MetricSender {
  /** Never rejects. */
  send(request: EncodedRequest): Promise<Receipt>
  close(): Promise<void>
}

/**
 * @param target the endpoint; without a `url`, the variables say it.
 * @throws Error when the endpoint is no URL.
 */
export function createMetricSender(
  target: { readonly url?: string },
  logger: Logger,
): MetricSender {
  const answers = createAnswerReader('metrics', decodeAnswer, logger)
  const serializer: ISerializer<EncodedRequest, IExportMetricsServiceResponse> = {
    serializeRequest: ({ bytes }) => bytes,
    deserializeResponse: (data) => {
      answers.read(data)
      // Empty: what it says has been logged, and the transport would log it once more.
      return {}
    },
  }
  const delegate = createOtlpGrpcExportDelegate(
    convertLegacyOtlpGrpcOptions(target, 'METRICS'),
    serializer,
    'otlp_grpc_metric_exporter',
    { name: 'metric_data_point', countItems: ({ points }) => points },
    undefined,
    'MetricsExportService',
    '/opentelemetry.proto.collector.metrics.v1.MetricsService/Export',
  )
  return {
    send: (request) =>
      new Promise((resolve) => {
        delegate.export(request, (result) => {
          const failed = result.error ?? new Error('no reason given')
          const rejected = answers.take()
          resolve(result.code === 0 ? { error: null, rejected } : { error: failed, rejected: 0 })
        })
      }),
    close: () => delegate.shutdown(),
  }
}

function decodeAnswer(data: Uint8Array): PartialSuccess {
  const { partialSuccess } = ProtobufMetricsSerializer.deserializeResponse(data)
  return {
    rejected: Number(partialSuccess?.rejectedDataPoints ?? 0),
    message: partialSuccess?.errorMessage ?? '',
  }
}
