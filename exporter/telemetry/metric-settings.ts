/**
 * What the environment says of metrics, as the OpenTelemetry specification defines the variables.
 * Pure but for what it logs: a value that is not understood is said, and the default holds.
 *
 * Source: OpenTelemetry specification, "OpenTelemetry Environment Variable Specification".
 */

import type { Config, Environment } from '../config.ts'
import type { Logger } from '../logging.ts'

/** `trace_based`: only exemplars of requests whose trace is sampled, so that it can be opened. */
export type ExemplarFilter = 'always_on' | 'always_off' | 'trace_based'

const filters: readonly ExemplarFilter[] = ['always_on', 'always_off', 'trace_based']

export function exemplarFilter(environment: Environment, logger: Logger): ExemplarFilter {
  const text = environment.OTEL_METRICS_EXEMPLAR_FILTER?.trim().toLowerCase() ?? ''
  const found = filters.find((filter) => filter === text)
  if (found === undefined && text !== '') {
    logger.warn(
      { expected: filters, actual: text },
      'OTEL_METRICS_EXEMPLAR_FILTER is not understood',
    )
  }
  return found ?? 'trace_based'
}

/** Only cumulative points are sent; another preference is answered by a word. */
export function checkTemporality(environment: Environment, logger: Logger): void {
  const text = environment.OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE?.trim() ?? ''
  if (text === '' || text.toLowerCase() === 'cumulative') return
  logger.warn(
    { expected: 'cumulative', actual: text },
    'OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is not supported: metrics are cumulative',
  )
}

/** The specification's variable is in milliseconds, and wins when it is a positive number. */
export function metricIntervalMillis(config: Config, environment: Environment): number {
  const fromEnvironment = Number(environment.OTEL_METRIC_EXPORT_INTERVAL)
  // A timer takes no more than 31 bits.
  if (fromEnvironment > 0) return Math.min(fromEnvironment, 2 ** 31 - 1)
  return config.telemetry.metrics_interval_seconds * 1000
}
