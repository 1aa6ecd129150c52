/**
 * Watches a metric exporter: the first failure and the recovery are logged, and nothing between.
 *
 * Metrics need no queue. They are cumulative, so the next export carries whatever the failed one
 * did.
 */

import type { PushMetricExporter, ResourceMetrics } from '@opentelemetry/sdk-metrics'
import { Ring2Error } from '../../collector/errors.ts'
import { errorText } from '../errors.ts'
import type { Logger } from '../logging.ts'
import { spanLimits } from './limits.ts'

export interface WatchedMetricExporter extends PushMetricExporter {
  /** The error of the last export, when that failed; null when all is well. */
  failing(): string | null
}

export function watchMetricExporter(
  exporter: PushMetricExporter,
  logger: Logger,
): WatchedMetricExporter {
  let failing: string | null = null
  const watched: WatchedMetricExporter = {
    export: (metrics: ResourceMetrics, done) => {
      exporter.export(metrics, (result) => {
        if (result.code === 0) {
          if (failing !== null) logger.info('the Collector takes metrics again')
          failing = null
        } else {
          const text = errorText(result.error ?? 'no reason given')
          const actual = text.slice(0, spanLimits.errorCharactersMax)
          if (failing === null) warn(logger, actual)
          failing = actual
        }
        done(result)
      })
    },
    forceFlush: () => exporter.forceFlush(),
    shutdown: () => exporter.shutdown(),
    failing: () => failing,
  }
  const { selectAggregation, selectAggregationTemporality } = exporter
  if (selectAggregation !== undefined) {
    watched.selectAggregation = selectAggregation.bind(exporter)
  }
  if (selectAggregationTemporality !== undefined) {
    watched.selectAggregationTemporality = selectAggregationTemporality.bind(exporter)
  }
  return watched
}

function warn(logger: Logger, actual: string): void {
  const error = new Ring2Error('RING2_E_TELEMETRY', {
    expected: 'the Collector to take the metrics',
    actual,
    action: 'Check the endpoint and the Collector; the next export carries all that was counted.',
  })
  logger.warn({ code: error.code, action: error.action }, error.message)
}
