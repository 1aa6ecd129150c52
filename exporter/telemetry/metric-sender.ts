/**
 * Sends one serialized export of metrics by OTLP over gRPC, with OpenTelemetry's own transport: the
 * `OTEL_EXPORTER_OTLP_…` variables (endpoint, headers, compression, timeout, certificates) mean what
 * the specification says. It neither queues nor retries, and takes one export at a time.
 *
 * What an answer means: OTLP specification, "OTLP/gRPC Response". A status OK is acceptance, so an
 * answer whose body cannot be read counts as one: sending again would at best be refused as a
 * duplicate. It is logged once.
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
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { metricLimits } from './limits.ts'
import type { EncodedRequest } from './metric-encoding.ts'
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
  let rejected = 0
  let saidUnreadable = false
  let lastMessage = ''
  const serializer: ISerializer<EncodedRequest, IExportMetricsServiceResponse> = {
    serializeRequest: ({ bytes }) => bytes,
    deserializeResponse: (data) => {
      const response = readResponse(data)
      if (response instanceof Error) {
        if (!saidUnreadable) logger.warn({ cause: response.message }, unreadable)
        saidUnreadable = true
      }
      const { partialSuccess } = response instanceof Error ? {} : response
      rejected = partialSuccess?.rejectedDataPoints ?? 0
      const message = partialSuccess?.errorMessage ?? ''
      const text = message.slice(0, metricLimits.messageCharactersMax)
      // The same message comes with every export while its cause lasts.
      if (text !== lastMessage && (text !== '' || rejected > 0)) {
        logger.warn({ rejected, reason: text }, 'the Collector took only a part of the metrics')
      }
      lastMessage = text
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
        rejected = 0
        delegate.export(request, (result) => {
          const failed = result.error ?? new Error('no reason given')
          resolve(result.code === 0 ? { error: null, rejected } : { error: failed, rejected: 0 })
        })
      }),
    close: () => delegate.shutdown(),
  }
}

const unreadable =
  'the Collector answered OK with a body that is no OTLP; the metrics count as taken'

function readResponse(data: Uint8Array): IExportMetricsServiceResponse | Error {
  try {
    return ProtobufMetricsSerializer.deserializeResponse(data)
  } catch (error) {
    return error instanceof Error ? error : new Error(errorText(error))
  }
}
