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
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-grpc'
import {
  defaultResource,
  envDetector,
  hostDetector,
  resourceFromAttributes,
} from '@opentelemetry/resources'
import { PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { NodeSDK } from '@opentelemetry/sdk-node'
import type { SpanProcessor } from '@opentelemetry/sdk-trace'
import { Ring2Error } from '../../collector/errors.ts'
import type { Config } from '../config.ts'
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { metricLimits, shutdownLimits } from './limits.ts'
import { type WatchedMetricExporter, watchMetricExporter } from './metric-exporter.ts'
import { collectFamilies, type MetricFamily, type SpanCounts } from './metric-families.ts'
import type { MetricSnapshot } from './metric-points.ts'
import { createMetricProducer } from './metric-producer.ts'
import { writeOpenMetrics } from './openmetrics.ts'
import { decideOtlp, type OtlpDecision } from './otlp-decision.ts'
import { resourceAttributes, SERVICE_NAME, targetAttributes } from './resource.ts'
import {
  createRetryingExporter,
  type ExporterStatus,
  type RetryingExporter,
} from './retrying-exporter.ts'
import { forwardDiagnostics } from './sdk-diagnostics.ts'
import { createSpanExporter } from './span-exporter.ts'
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
}

export interface TelemetryStatus {
  readonly otlp: OtlpDecision
  readonly spans: ExporterStatus
  /** The error of the last metric export, when that failed. */
  readonly metricsFailing: string | null
}

export interface Telemetry {
  readonly spans: SpanSink
  /** The /metrics page, to be sent as `openMetricsContentType`. */
  metricsPage(): string
  /** Sends what waits; false when the time was over before every span was taken. */
  flush(timeoutMillis: number): Promise<boolean>
  /** Sends what waits within the time, then closes; what is left is counted and logged as lost. */
  shutdown(timeoutMillis: number): Promise<void>
  status(): TelemetryStatus
}

interface CurrentFamilies {
  readonly families: readonly MetricFamily[]
  readonly takenAtMicros: number
}

const noSpans: ExporterStatus = {
  delivered: 0,
  lost: { queue_full: 0, rejected: 0, shutdown: 0 },
  pendingSpans: 0,
  pendingBytes: 0,
  failing: null,
}

/** @throws Ring2Error RING2_E_CONFIG when OTLP is asked for in a way that is not supported. */
export function startTelemetry(options: TelemetryOptions): Telemetry {
  const { config, logger, version } = options
  const decision = decideOtlp(config.telemetry, process.env)
  logger.info(decision.reason)
  const startedAtMicros = Date.now() * 1000
  const families = (): CurrentFamilies => {
    const { takenAtMicros, ...rest } = options.snapshot()
    const counts = spanCounts(startedAtMicros, running?.spans.status() ?? noSpans)
    return { families: collectFamilies({ takenAtMicros, ...rest }, counts), takenAtMicros }
  }
  const sends = decision.spans || decision.metrics
  const running = sends ? startSdk(options, decision, families) : null
  const target = targetAttributes(config, version, process.env)
  return {
    spans: running?.sink ?? silentSink,
    metricsPage: () => writeOpenMetrics(families().families, target),
    flush: async (timeoutMillis) => (running === null ? true : running.flush(timeoutMillis)),
    shutdown: async (timeoutMillis) => running?.shutdown(timeoutMillis),
    status: () => ({
      otlp: decision,
      spans: running?.spans.status() ?? noSpans,
      metricsFailing: running?.metricExporter?.failing() ?? null,
    }),
  }
}

const silentSink: SpanSink = { finish: () => undefined }

function spanCounts(startedAtMicros: number, status: ExporterStatus): SpanCounts {
  const { delivered, lost, pendingSpans: pending } = status
  return { startedAtMicros, delivered, lost: { ...lost }, pending }
}

function startSdk(
  options: TelemetryOptions,
  decision: OtlpDecision,
  families: () => CurrentFamilies,
) {
  const { config, logger, version } = options
  const scope = { name: SERVICE_NAME, version }
  const { spans, metricExporter } = createExporters(config, logger, decision)
  const reader =
    metricExporter === null
      ? null
      : new PeriodicExportingMetricReader({
          exporter: metricExporter,
          exportIntervalMillis: metricIntervalMillis(config),
          metricProducers: [createMetricProducer(families, scope)],
          maxExportBatchSize: metricLimits.batchPointsMax,
        })
  const ids = createGivenIds()
  const detectors = process.env.OTEL_NODE_RESOURCE_DETECTORS
  const sdk = new NodeSDK({
    resource: defaultResource().merge(resourceFromAttributes(resourceAttributes(config, version))),
    ...(detectors === undefined ? { resourceDetectors: [hostDetector, envDetector] } : {}),
    idGenerator: ids,
    spanProcessors: decision.spans ? [queueingProcessor(spans)] : [],
    metricReaders: reader === null ? [] : [reader],
    logRecordProcessors: [],
    textMapPropagator: null,
  })
  forwardDiagnostics(logger)
  sdk.start()
  const tracer = trace.getTracer(SERVICE_NAME, version)
  if (decision.spans) checkOwnTracer(tracer, ids)
  const baseUrl = options.apiUrl ?? (() => apiUrl(config.api))
  const tensorsUrl = (traceId: string) => `${baseUrl()}/v1/traces/${traceId}`
  return {
    spans,
    metricExporter,
    sink: decision.spans ? createSpanSink(tracer, ids, tensorsUrl) : silentSink,
    flush: async (timeoutMillis: number): Promise<boolean> => {
      const metricsSent = reader === null ? Promise.resolve() : reader.forceFlush()
      const [empty] = await Promise.all([
        spans.flush(timeoutMillis),
        within(timeoutMillis, metricsSent),
      ])
      return empty
    },
    shutdown: async (timeoutMillis: number): Promise<void> => {
      const deadline = performance.now() + timeoutMillis
      await spans.shutdown(timeoutMillis * shutdownLimits.spanShare)
      await within(Math.max(0, deadline - performance.now()), sdk.shutdown())
      for (const api of [trace, metrics, context, propagation, diag]) api.disable()
    },
  }
}

function createExporters(config: Config, logger: Logger, decision: OtlpDecision) {
  const { endpoint } = config.telemetry
  const target = endpoint === undefined ? {} : { url: endpoint }
  try {
    const spans: RetryingExporter = createRetryingExporter({
      exporter: createSpanExporter(target),
      logger,
      spansMax: config.limits.spans_max,
      bytesMax: config.limits.span_bytes_max,
    })
    const metricExporter: WatchedMetricExporter | null = decision.metrics
      ? watchMetricExporter(new OTLPMetricExporter(target), logger)
      : null
    return { spans, metricExporter }
  } catch (cause) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: 'telemetry.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT to be a URL',
      actual: errorText(cause),
      action: 'Set it to a URL such as http://localhost:4317.',
      cause,
    })
  }
}

function queueingProcessor(spans: RetryingExporter): SpanProcessor {
  return {
    onStart: () => undefined,
    onEnd: (span) => spans.enqueue(span),
    forceFlush: async () => undefined,
    shutdown: async () => undefined,
  }
}

/** The specification's variable is in milliseconds, and wins when it is a positive number. */
function metricIntervalMillis(config: Config): number {
  const fromEnvironment = Number(process.env.OTEL_METRIC_EXPORT_INTERVAL)
  if (Number.isFinite(fromEnvironment) && fromEnvironment > 0) return fromEnvironment
  return config.telemetry.metrics_interval_seconds * 1000
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
