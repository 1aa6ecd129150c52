/**
 * Feeds the latest snapshot to the OpenTelemetry SDK as finished metric data.
 *
 * Nothing is ever recorded through an instrument: that costs some 0.5 µs per value, and the values
 * are already folded. Temporality is cumulative, with the start that each count really has.
 */

import { type Attributes, type HrTime, ValueType } from '@opentelemetry/api'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  AggregationTemporality,
  type DataPoint,
  DataPointType,
  type ExponentialHistogram,
  type MetricData,
  type MetricProducer,
} from '@opentelemetry/sdk-metrics'
import type { HistogramPoint } from '../../collector/records.ts'
import type { HistogramSeries, MetricFamily, NumberSeries } from './metric-families.ts'
import type { MetricDefinition } from './registry.ts'

const MICROS_PER_SECOND = 1_000_000

/** Micros since the epoch as the SDK's pair of seconds and nanoseconds. */
export function hrTimeOf(micros: number): HrTime {
  const seconds = Math.floor(micros / MICROS_PER_SECOND)
  return [seconds, Math.round((micros - seconds * MICROS_PER_SECOND) * 1000)]
}

/**
 * @param families the current families, and when their snapshot was taken.
 * @param scope the instrumentation scope that the metrics are reported under.
 */
export function createMetricProducer(
  families: () => { readonly families: readonly MetricFamily[]; readonly takenAtMicros: number },
  scope: { readonly name: string; readonly version: string },
): MetricProducer {
  // The reader takes the SDK's resource and drops the producer's, so this one stays empty.
  const resource = resourceFromAttributes({})
  return {
    collect: async () => {
      const current = families()
      const endTime = hrTimeOf(current.takenAtMicros)
      const metrics = current.families.map((family) => metricData(family, endTime))
      return { resourceMetrics: { resource, scopeMetrics: [{ scope, metrics }] }, errors: [] }
    },
  }
}

function metricData(family: MetricFamily, endTime: HrTime): MetricData {
  const { definition } = family
  const base = {
    descriptor: {
      name: definition.name,
      description: definition.help,
      unit: definition.unit,
      valueType: isInteger(definition) ? ValueType.INT : ValueType.DOUBLE,
    },
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
  }
  if (definition.kind === 'histogram') {
    const dataPoints = family.histograms.map((series) => histogramPoint(series, endTime))
    return { ...base, dataPointType: DataPointType.EXPONENTIAL_HISTOGRAM, dataPoints }
  }
  const dataPoints = family.numbers.map((series) => numberPoint(series, endTime))
  if (definition.kind === 'gauge') {
    return { ...base, dataPointType: DataPointType.GAUGE, dataPoints }
  }
  const isMonotonic = definition.kind === 'counter'
  return { ...base, dataPointType: DataPointType.SUM, dataPoints, isMonotonic }
}

/** Counts and bytes are whole numbers; a gauge in seconds is not. */
function isInteger(definition: MetricDefinition): boolean {
  return definition.kind !== 'gauge' && definition.kind !== 'histogram'
}

function numberPoint(series: NumberSeries, endTime: HrTime): DataPoint<number> {
  return {
    startTime: hrTimeOf(series.startedAtMicros),
    endTime,
    attributes: { ...series.attributes } as Attributes,
    value: series.value,
  }
}

function histogramPoint(series: HistogramSeries, endTime: HrTime): DataPoint<ExponentialHistogram> {
  return {
    startTime: hrTimeOf(series.startedAtMicros),
    endTime,
    attributes: { ...series.attributes } as Attributes,
    value: exponentialHistogram(series.histogram),
  }
}

function exponentialHistogram(point: HistogramPoint): ExponentialHistogram {
  return {
    count: point.count,
    sum: point.sum,
    scale: point.scale,
    zeroCount: point.zeroCount,
    positive: { offset: point.offset, bucketCounts: [...point.buckets] },
    negative: { offset: 0, bucketCounts: [] },
    // An empty histogram has no extremes, and a zero would be a false one.
    ...(point.count === 0 ? {} : { min: point.min, max: point.max }),
  }
}
