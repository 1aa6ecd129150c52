/**
 * The /metrics page, from the same families as OTLP: OpenMetrics text 1.0 with exemplars and
 * `_created` samples, or, for scrapers that know only that, Prometheus text 0.0.4 with neither.
 *
 * Classic buckets are read off the exponential ones. The bounds are 2^(n/4), and a bucket counts
 * every exponential bucket that ends at or below its bound. At scale 2 and finer that is exact,
 * because the bound is then also a bound of the exponential histogram. A coarser one (values spread
 * over more than twelve decades) may have an exponential bucket across the bound; its values are
 * then counted in the next bucket, so that a count is never too high. Counts grow along the bounds,
 * and `+Inf` is the count of all.
 *
 * Sources: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md and
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */

import type { ExemplarPoint, HistogramPoint } from '../../collector/records.ts'
import type { MetricDefinition } from './metric-definition.ts'
import type { HistogramSeries, MetricFamily, PointAttributes } from './metric-families.ts'
import { openMetricsFamily, openMetricsLabel, openMetricsUnit } from './prometheus-names.ts'

export const openMetricsContentType = 'application/openmetrics-text; version=1.0.0; charset=utf-8'
export const plainTextContentType = 'text/plain; version=0.0.4; charset=utf-8'

export interface MetricsPage {
  readonly contentType: string
  readonly body: string
}

type Format = 'openmetrics' | 'text'

/** log2 of the number of quarter octaves in an octave. */
const QUARTERS_LOG2 = 2
const MICROS_PER_SECOND = 1_000_000

/**
 * Writes the page.
 *
 * @param target attributes of the resource, written as `target_info`.
 * @param accept the scraper's Accept header; without one it is OpenMetrics.
 */
export function writeMetricsPage(
  families: readonly MetricFamily[],
  target: Readonly<Record<string, string>>,
  accept?: string,
): MetricsPage {
  const format = chooseFormat(accept)
  const isOpen = format === 'openmetrics'
  const targetName = isOpen ? 'target' : 'target_info'
  const lines = [
    `# TYPE ${targetName} ${isOpen ? 'info' : 'gauge'}`,
    `# HELP ${targetName} The exporter itself.`,
  ]
  const targetLabels = Object.entries(target).map(([name, value]) => labelText(name, value))
  lines.push(`target_info{${targetLabels.join(',')}} 1`)
  for (const family of families) addFamily(lines, family, format)
  if (isOpen) lines.push('# EOF')
  lines.push('')
  const contentType = isOpen ? openMetricsContentType : plainTextContentType
  return { contentType, body: lines.join('\n') }
}

/** Plain text only where it is asked for, and preferred to OpenMetrics. */
function chooseFormat(accept: string | undefined): Format {
  const weight = (type: string): number => {
    const entries = (accept ?? '').toLowerCase().split(',')
    const found = entries.map((entry) => entry.split(';').map((part) => part.trim()))
    const parameters = found.find(([name]) => name === type)
    if (parameters === undefined) return 0
    const quality = parameters.find((parameter) => parameter.startsWith('q='))
    return quality === undefined ? 1 : Number(quality.slice(2)) || 0
  }
  return weight('text/plain') > weight('application/openmetrics-text') ? 'text' : 'openmetrics'
}

/**
 * Per bound, how many samples are at or below 2^(n/4), of those in buckets that end there or before.
 *
 * Exponential bucket i ends at 2^((i+1)·2^-scale), so it ends at or below the bound exactly when
 * i + 1 ≤ n · 2^(scale-2).
 *
 * @param quarterOctaves the bounds' n, growing.
 */
export function cumulativeCounts(
  point: HistogramPoint,
  quarterOctaves: readonly number[],
): number[] {
  const perQuarter = 2 ** (point.scale - QUARTERS_LOG2)
  let total = point.zeroCount
  let index = 0
  return quarterOctaves.map((quarterOctave) => {
    const ended = Math.floor(quarterOctave * perQuarter) - point.offset
    const last = Math.min(ended, point.buckets.length)
    for (; index < last; index += 1) total += point.buckets[index] ?? 0
    return total
  })
}

function addFamily(lines: string[], family: MetricFamily, format: Format): void {
  const { definition } = family
  const name = openMetricsFamily(definition)
  const sample = definition.kind === 'counter' ? `${name}_total` : name
  // Text 0.0.4 knows no families of samples with suffixes, but for histograms.
  const described = format === 'openmetrics' ? name : sample
  lines.push(`# TYPE ${described} ${typeText(definition)}`)
  if (format === 'openmetrics') {
    const unit = openMetricsUnit(definition)
    if (unit !== null && name.endsWith(`_${unit}`)) lines.push(`# UNIT ${name} ${unit}`)
    lines.push(`# HELP ${described} ${escapeText(definition.help)}`)
  } else {
    lines.push(`# HELP ${described} ${escapePlainHelp(definition.help)}`)
  }
  for (const { attributes, value, startedAtMicros } of family.numbers) {
    const labels = braces(labelsOf(attributes))
    lines.push(`${sample}${labels} ${numberText(value)}`)
    if (definition.kind === 'counter') addCreated(lines, name, labels, startedAtMicros, format)
  }
  for (const series of family.histograms) addHistogram(lines, name, definition, series, format)
}

/** When the counts of one series began. */
function addCreated(
  lines: string[],
  name: string,
  labels: string,
  startedAtMicros: number,
  format: Format,
): void {
  if (format === 'openmetrics') lines.push(`${name}_created${labels} ${seconds(startedAtMicros)}`)
}

function addHistogram(
  lines: string[],
  name: string,
  definition: MetricDefinition,
  series: HistogramSeries,
  format: Format,
): void {
  const { histogram, attributes } = series
  const quarterOctaves = definition.quarterOctaves ?? []
  const counts = cumulativeCounts(histogram, quarterOctaves)
  const labels = labelsOf(attributes)
  const start = `${name}_bucket{${labels.map((label) => `${label},`).join('')}le="`
  let exemplar = format === 'openmetrics' ? histogram.exemplar : undefined
  for (const [index, quarterOctave] of quarterOctaves.entries()) {
    const bound = 2 ** (quarterOctave / 4)
    const line = `${start}${numberText(bound)}"} ${numberText(counts[index] ?? 0)}`
    const isHere = exemplar !== undefined && exemplar.value <= bound
    lines.push(isHere ? line + exemplarText(exemplar) : line)
    if (isHere) exemplar = undefined
  }
  lines.push(`${start}+Inf"} ${numberText(histogram.count)}${exemplarText(exemplar)}`)
  lines.push(`${name}_count${braces(labels)} ${numberText(histogram.count)}`)
  lines.push(`${name}_sum${braces(labels)} ${numberText(histogram.sum)}`)
  addCreated(lines, name, braces(labels), series.startedAtMicros, format)
}

function exemplarText(exemplar: ExemplarPoint | undefined): string {
  if (exemplar === undefined) return ''
  const ids = `trace_id="${exemplar.traceId}",span_id="${exemplar.spanId}"`
  return ` # {${ids}} ${numberText(exemplar.value)} ${seconds(exemplar.atMicros)}`
}

function seconds(micros: number): string {
  return (micros / MICROS_PER_SECOND).toFixed(6)
}

function typeText(definition: MetricDefinition): string {
  if (definition.kind === 'counter') return 'counter'
  return definition.kind === 'histogram' ? 'histogram' : 'gauge'
}

function labelsOf(attributes: PointAttributes): string[] {
  return Object.entries(attributes).map(([name, value]) =>
    labelText(openMetricsLabel(name), String(value)),
  )
}

function labelText(name: string, value: string): string {
  return `${openMetricsLabel(name)}="${escapeText(value)}"`
}

function braces(labels: readonly string[]): string {
  return labels.length === 0 ? '' : `{${labels.join(',')}}`
}

/** OpenMetrics escapes backslash, line feed and quote, in labels and in help texts. */
function escapeText(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')
}

/** Text 0.0.4 leaves quotes in help texts as they are. */
function escapePlainHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

/** OpenMetrics wants bounds of buckets as floats, so that `1` is written `1.0`. */
function numberText(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf'
  return Number.isInteger(value) && Math.abs(value) < 1e15 ? `${value}.0` : String(value)
}
