/** The registry's units as Grafana's field units. */
import type { MetricDefinition, MetricUnit } from '../exporter/telemetry/metric-definition.ts'

/** What is not listed is a plain number, or counts things. */
const amounts: Readonly<Partial<Record<MetricUnit, string>>> = {
  By: 'bytes',
  s: 's',
  '{nat}': 'suffix: nat',
  '{nat2}': 'suffix: nat²',
}

export const countUnit = 'short'
export const shareUnit = 'percentunit'

/** Names of which every value is between 0 and 1 and means a share. */
const shares = /\.(share|mass|probability|repetition)$/

/** Unit of a metric's own values. */
export function unitOf(metric: MetricDefinition): string {
  return shares.test(metric.name) ? shareUnit : (amounts[metric.unit] ?? countUnit)
}

/** Unit of a counter's growth per second. */
export function rateUnitOf(metric: MetricDefinition): string {
  if (metric.unit === 'By') return 'binBps'
  // Of a counter of seconds the growth per second has no unit: seconds of CPU per second are cores.
  return metric.unit === 's' ? countUnit : 'cps'
}
