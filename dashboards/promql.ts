/**
 * PromQL written from the registry: every metric, label and label value is checked against it when an
 * expression is built. It knows no panel and no alert.
 *
 * Histograms are queried as native histograms, by their name without a suffix. That is how they come
 * by OTLP, and from a scraped /metrics with `convert_classic_histograms_to_nhcb`.
 */
import type { MetricAttribute, MetricDefinition } from '../exporter/telemetry/metric-definition.ts'
import { openMetricsLabel, prometheusName } from '../exporter/telemetry/prometheus-names.ts'
import { knownValues } from '../exporter/telemetry/registry.ts'

/** What a panel asks Prometheus. */
export interface Query {
  readonly expr: string
  /** As Grafana writes legends: `{{label}}`. */
  readonly legend: string
}

/** Labels that Prometheus gives every series, from the resource or the scrape configuration. */
export const resourceLabels = ['job', 'instance', 'service_name', 'host_name'] as const
export type ResourceLabel = (typeof resourceLabels)[number]

/** What an expression is grouped by: an attribute of the registry, or a label of the resource. */
export type Grouping = MetricAttribute | ResourceLabel

export interface Matcher {
  readonly operator: '=' | '!=' | '=~' | '!~'
  /** Values, or one `$variable` of a dashboard. */
  readonly values: readonly string[]
}

export type Matchers = Readonly<Partial<Record<MetricAttribute, Matcher>>>

export function is(...values: readonly string[]): Matcher {
  return { operator: values.length === 1 ? '=' : '=~', values }
}

export function isNot(...values: readonly string[]): Matcher {
  return { operator: values.length === 1 ? '!=' : '!~', values }
}

/** What a dashboard's variable of this name is set to; all of its values too. */
export function chosen(variable: string): Matcher {
  return { operator: '=~', values: [`$${variable}`] }
}

/** @throws TypeError when the metric lacks an attribute, or an attribute the value. */
export function select(metric: MetricDefinition, matchers: Matchers = {}): string {
  const labels = Object.entries(matchers).map(([name, matcher]) => {
    const attribute = name as MetricAttribute
    checkMatcher(metric, attribute, matcher)
    return `${openMetricsLabel(attribute)}${matcher.operator}"${matcher.values.join('|')}"`
  })
  return labels.length === 0 ? prometheusName(metric) : `${prometheusName(metric)}{${labels}}`
}

function checkMatcher(metric: MetricDefinition, attribute: MetricAttribute, matcher: Matcher) {
  if (!metric.attributes.includes(attribute)) {
    throw new TypeError(`${metric.name} has no attribute ${attribute}`)
  }
  const known = knownValues(metric, attribute)
  for (const value of matcher.values) {
    if (known === null || value.startsWith('$') || known.includes(value)) continue
    throw new TypeError(`${metric.name} has no ${attribute} of ${value}`)
  }
}

/** The dashboards' window: Grafana takes at least four intervals of the data source. */
export const rateWindow = '$__rate_interval'

export function rate(
  metric: MetricDefinition,
  matchers: Matchers = {},
  window: string = rateWindow,
): string {
  return `rate(${select(metric, matchers)}[${window}])`
}

export function increase(
  metric: MetricDefinition,
  matchers: Matchers = {},
  window: string = rateWindow,
  offset = '',
): string {
  const shift = offset === '' ? '' : ` offset ${offset}`
  return `increase(${select(metric, matchers)}[${window}]${shift})`
}

export type Aggregation = 'sum' | 'max' | 'min' | 'avg' | 'count'

export function aggregate(
  operation: Aggregation,
  by: readonly Grouping[],
  expression: string,
): string {
  if (by.length === 0) return `${operation}(${expression})`
  return `${operation} by (${by.map(openMetricsLabel).join(', ')}) (${expression})`
}

/** A quantile of the samples that came within the window. */
export function quantile(
  q: number,
  metric: MetricDefinition,
  by: readonly Grouping[],
  matchers: Matchers = {},
  window: string = rateWindow,
): string {
  return `histogram_quantile(${q}, ${aggregate('sum', by, rate(metric, matchers, window))})`
}

/** The mean of the samples that came within the window. */
export function mean(
  metric: MetricDefinition,
  by: readonly Grouping[],
  matchers: Matchers = {},
  window: string = rateWindow,
): string {
  return `histogram_avg(${aggregate('sum', by, rate(metric, matchers, window))})`
}

/**
 * Writes layers with three digits. Prometheus sorts series by their labels as texts, and a heat map
 * draws its rows in that order: without it layer 10 came before layer 2.
 */
export function orderedByLayer(expression: string): string {
  const layer = openMetricsLabel('ring2.layer')
  const padded = (digits: string, zeros: string, inner: string): string =>
    `label_replace(${inner}, "${layer}", "${zeros}$1", "${layer}", "(${digits})")`
  return padded('[0-9]', '00', padded('[0-9]{2}', '0', expression))
}

/**
 * How far a counter that is grouped has grown within the window, where it has; also by its first
 * sample, ever or after an absence, which increase() does not see.
 *
 * Each series is compared with itself before all are summed, so that none hides behind an older or a
 * healthy one. One that comes again with the count that it had has not grown.
 */
export function grew(
  metric: MetricDefinition,
  by: readonly Grouping[],
  matchers: Matchers,
  window: string,
): string {
  const counter = select(metric, matchers)
  const before = `last_over_time(${counter}[1d] offset ${window})`
  const seen = `${increase(metric, matchers, window)} > 0`
  return aggregate('sum', by, `(${seen}) or (${counter} > 0 unless ${counter} == ${before})`)
}
