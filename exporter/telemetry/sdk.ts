/**
 * The only place that wires OpenTelemetry together: spans and metrics out by OTLP over gRPC, and
 * the /metrics page.
 *
 * One telemetry runs per process, because the SDK registers itself globally. `OTEL_…` variables
 * mean what the specification says; `telemetry.endpoint`, where it is set, wins over the endpoint
 * variables. When OTLP is off nothing is sent, and the page works all the same.
 */

import { hostname } from 'node:os'
import { context, diag, metrics, propagation, type Tracer, trace } from '@opentelemetry/api'
import type { Resource } from '@opentelemetry/resources'
import { NodeSDK } from '@opentelemetry/sdk-node'
import type { SpanProcessor } from '@opentelemetry/sdk-trace'
import { Ring2Error } from '../../collector/errors.ts'
import type { RequestKey } from '../catalog/sent.ts'
import type { Config } from '../config.ts'
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { shutdownLimits } from './limits.ts'
import { type CurrentFamilies, createMetricExporter } from './metric-exporter.ts'
import { collectFamilies } from './metric-families.ts'
import type { MetricSnapshot } from './metric-points.ts'
import { createMetricSender } from './metric-sender.ts'
import { checkTemporality, exemplarFilter, metricIntervalMillis } from './metric-settings.ts'
import { type MetricsPage, writeMetricsPage } from './openmetrics.ts'
import { decideOtlp, type OtlpDecision } from './otlp-decision.ts'
import { detectedResource, SERVICE_NAME, settledAttributes, targetAttributes } from './resource.ts'
import type { DeliveryStatus } from './retry-delivery.ts'
import { createRetryingExporter, type RetryingExporter } from './retrying-exporter.ts'
import { forwardDiagnostics } from './sdk-diagnostics.ts'
import { createSpanExporter } from './span-exporter.ts'
import { createSpanReceipts, type SpanReceipts } from './span-receipts.ts'
import { createGivenIds, createSpanSink, type GivenIds, type SpanSink } from './span-sink.ts'
import { within } from './within.ts'

export interface TelemetryOptions {
  readonly config: Config
  /** The latest snapshot; asked for whenever metrics are exported or the page is written. */
  readonly snapshot: () => MetricSnapshot
  readonly logger: Logger
  /** Version of the exporter. */
  readonly version: string
  /** Base URL of the API, for links on spans; made from the configuration when left out. */
  readonly apiUrl?: () => string
  /** The spans of a request have been sent, or will never be. */
  onSent?(key: RequestKey): void
}

export interface TelemetryStatus {
  readonly otlp: OtlpDecision
  readonly spans: DeliveryStatus
  readonly metrics: DeliveryStatus
}

export interface Telemetry {
  readonly spans: SpanSink
  /** The /metrics page in the format that an Accept header asks for. */
  metricsPage(accept?: string): MetricsPage
  /** Sends what waits; false when the time was over before everything was taken. */
  flush(timeoutMillis: number): Promise<boolean>
  /** Sends what waits within the time, then closes; what is left is counted and logged as lost. */
  shutdown(timeoutMillis: number): Promise<void>
  status(): TelemetryStatus
}

const nothingSent: DeliveryStatus = {
  delivered: 0,
  lost: { queue_full: 0, rejected: 0, shutdown: 0 },
  pending: 0,
  pendingBytes: 0,
  failures: 0,
  failing: null,
}

/** @throws Ring2Error RING2_E_CONFIG when OTLP is asked for in a way that is not supported. */
export function startTelemetry(options: TelemetryOptions): Telemetry {
  const { config, logger, version } = options
  const decision = decideOtlp(config.telemetry, process.env)
  logger.info(decision.reason)
  const filter = exemplarFilter(process.env, logger)
  const startedAtMicros = Date.now() * 1000
  const counts = () => ({
    spans: running?.spans?.status() ?? nothingSent,
    metrics: running?.metrics?.status() ?? nothingSent,
  })
  const collect = (): CurrentFamilies => {
    const snapshot = options.snapshot()
    const exports = { startedAtMicros, takenAtMicros: Date.now() * 1000, ...counts() }
    const families = collectFamilies(snapshot, exports, filter)
    return { families, takenAtMicros: snapshot.takenAtMicros }
  }
  const sends = decision.spans || decision.metrics
  const running = sends ? startExports(options, decision, collect) : null
  const target = targetAttributes(config, version, process.env)
  return {
    spans: running?.sink ?? silentSink,
    metricsPage: (accept) => writeMetricsPage(collect().families, target, accept),
    flush: async (timeoutMillis) => (running === null ? true : running.flush(timeoutMillis)),
    shutdown: async (timeoutMillis) => running?.shutdown(timeoutMillis),
    status: () => ({ otlp: decision, ...counts() }),
  }
}

const silentSink: SpanSink = { finish: () => undefined }

function startExports(
  options: TelemetryOptions,
  decision: OtlpDecision,
  collect: () => CurrentFamilies,
) {
  const { config, logger, version } = options
  const { spanExporter, metricSender } = createSenders(config, logger, decision)
  const resource = detectedResource(config, version, process.env)
  const receipts = createSpanReceipts(config.limits.spans_max, (key) => options.onSent?.(key))
  const spans =
    spanExporter === null
      ? null
      : createRetryingExporter({
          exporter: spanExporter,
          logger,
          spansMax: config.limits.spans_max,
          bytesMax: config.limits.span_bytes_max,
          onLeft: receipts.left,
        })
  const traces = spans === null ? null : startTraces(options, spans, receipts, resource)
  forwardDiagnostics(logger)
  const metricExporter =
    metricSender === null
      ? null
      : createMetricExporter({
          collect,
          source: async () => ({
            resource: await settledAttributes(resource),
            scope: { name: SERVICE_NAME, version },
          }),
          sender: metricSender,
          logger,
          intervalMillis: metricIntervalMillis(config, process.env),
          bytesMax: config.limits.metric_bytes_max,
        })
  const exporters = [spans, metricExporter].filter((exporter) => exporter !== null)
  return {
    spans,
    metrics: metricExporter,
    sink: traces?.sink ?? silentSink,
    flush: async (timeoutMillis: number): Promise<boolean> => {
      const empty = await Promise.all(exporters.map((exporter) => exporter.flush(timeoutMillis)))
      return empty.every((isEmpty) => isEmpty)
    },
    shutdown: async (timeoutMillis: number): Promise<void> => {
      const deadline = performance.now() + timeoutMillis
      const millis = timeoutMillis * shutdownLimits.sendingShare
      await Promise.all(exporters.map((exporter) => exporter.shutdown(millis)))
      const closed = traces?.shutdown() ?? Promise.resolve()
      await within(Math.max(0, deadline - performance.now()), closed)
      for (const api of [trace, metrics, context, propagation, diag]) api.disable()
    },
  }
}

/** The SDK makes the spans, and the queue takes them; metrics are none of its matter. */
function startTraces(
  options: TelemetryOptions,
  spans: RetryingExporter,
  receipts: SpanReceipts,
  resource: Resource,
) {
  const { config, version } = options
  const ids = createGivenIds()
  const sdk = new NodeSDK({
    resource,
    autoDetectResources: false,
    idGenerator: ids,
    spanProcessors: [queueingProcessor(spans, receipts)],
    metricReaders: [],
    logRecordProcessors: [],
    textMapPropagator: null,
  })
  sdk.start()
  const tracer = trace.getTracer(SERVICE_NAME, version)
  checkOwnTracer(tracer, ids)
  const baseUrl = options.apiUrl ?? (() => apiUrl(config.api))
  const tensorsUrl = (traceId: string) => `${baseUrl()}/t/${traceId}`
  const sink = receipts.watch(createSpanSink(tracer, ids, tensorsUrl))
  return { sink, shutdown: () => sdk.shutdown() }
}

function createSenders(config: Config, logger: Logger, decision: OtlpDecision) {
  const { endpoint } = config.telemetry
  const target = endpoint === undefined ? {} : { url: endpoint }
  if (decision.metrics) checkTemporality(process.env, logger)
  try {
    return {
      spanExporter: decision.spans ? createSpanExporter(target, logger) : null,
      metricSender: decision.metrics ? createMetricSender(target, logger) : null,
    }
  } catch (cause) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: 'telemetry.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT to be a URL',
      actual: errorText(cause),
      action: 'Set it to a URL such as http://localhost:4317.',
      cause,
    })
  }
}

function queueingProcessor(spans: RetryingExporter, receipts: SpanReceipts): SpanProcessor {
  return {
    onStart: () => undefined,
    onEnd: (span) => {
      receipts.made(span)
      spans.enqueue(span)
    },
    forceFlush: async () => undefined,
    shutdown: async () => undefined,
  }
}

/** The address that others reach the API under, as far as the configuration tells. */
function apiUrl(api: Config['api']): string {
  if (api.public_url !== undefined) return api.public_url.replace(/\/+$/, '')
  // An address that means "all of them" is no address to call.
  const host = api.host === '0.0.0.0' || api.host === '::' ? hostname() : api.host
  return `http://${host.includes(':') ? `[${host}]` : host}:${api.port}`
}

/**
 * The tracer must be that of the SDK started here: with another one, spans would have random ids
 * and go elsewhere. The span of this trial is never ended, so it is never sent.
 */
function checkOwnTracer(tracer: Tracer, ids: GivenIds): void {
  const spanId = 'f'.repeat(16)
  ids.next('f'.repeat(32), spanId)
  const { spanId: given } = tracer.startSpan('trial', { root: true }).spanContext()
  if (given === spanId) return
  throw new Ring2Error('RING2_E_INTERNAL_EXPORTER', {
    expected: 'no other OpenTelemetry SDK in the process of the exporter',
    actual: 'one that was registered before',
    action: 'Start the exporter without auto-instrumentation (NODE_OPTIONS --require, --import).',
  })
}
