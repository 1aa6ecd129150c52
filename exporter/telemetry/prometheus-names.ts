/**
 * What a metric and its attributes are called on the /metrics page and in PromQL.
 *
 * Source: OpenTelemetry specification, "Prometheus and OpenMetrics compatibility".
 */

import type { MetricDefinition, MetricUnit } from './metric-definition.ts'

const unitSuffixes: Readonly<Partial<Record<MetricUnit, string>>> = { By: 'bytes', s: 'seconds' }

/** The unit as OpenMetrics writes it, or null for units that its names leave out. */
export function openMetricsUnit(definition: MetricDefinition): string | null {
  if (definition.unit === '1') return definition.kind === 'gauge' ? 'ratio' : null
  return unitSuffixes[definition.unit] ?? null
}

/**
 * Name of the metric family on the /metrics page: dots become underscores, the unit is appended. It
 * is the name that Prometheus gives the same metric when it arrives by OTLP, less `_total`.
 * Source: OpenTelemetry specification, "Prometheus and OpenMetrics compatibility".
 */
export function openMetricsFamily(definition: MetricDefinition): string {
  const unit = openMetricsUnit(definition)
  const name = openMetricsLabel(definition.name)
  return unit === null || name.endsWith(`_${unit}`) ? name : `${name}_${unit}`
}

/** Name of a metric's samples in PromQL; of a histogram, without `_bucket` and the like. */
export function prometheusName(definition: MetricDefinition): string {
  const family = openMetricsFamily(definition)
  return definition.kind === 'counter' ? `${family}_total` : family
}

/** An attribute's name as a label. */
export function openMetricsLabel(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9_]/g, '_')
}
