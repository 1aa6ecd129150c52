/**
 * Every metric of the registry with every value that its attributes can have, growing over some minutes, as
 * OTLP documents: what a Prometheus holds after a busy service, made of the registry alone.
 */
import type {
  MetricAttribute,
  MetricDefinition,
} from '../../exporter/telemetry/metric-definition.ts'
import { allMetrics, knownValues } from '../../exporter/telemetry/registry.ts'

export interface SyntheticOptions {
  /** Seconds since the epoch of the last point. */
  readonly endSeconds: number
  readonly points: number
  readonly intervalSeconds: number
}

/** Values of attributes that producers name. More than ten layers, so that their order shows. */
const named: Readonly<Partial<Record<MetricAttribute, readonly string[]>>> = {
  'gen_ai.request.model': ['example/model-1'],
  'ring2.segment': ['chat'],
  'ring2.layer': ['0', '2', '11'],
}

/** Hooks that panels and rules name, and one more; all would be too many series. */
const hooksKept = ['resid_pre', 'resid_final', 'k', 'v']

export const syntheticModel = 'example/model-1'

type Attributes = Readonly<Record<string, string>>

/** One ExportMetricsServiceRequest per point in time, oldest first. */
export function syntheticDocuments(options: SyntheticOptions): unknown[] {
  const start = options.endSeconds - options.points * options.intervalSeconds
  return Array.from({ length: options.points }, (_, index) => {
    const at = start + (index + 1) * options.intervalSeconds
    return document(allMetrics.map((definition) => metric(definition, start, at, index)))
  })
}

/** Every set of attributes that a metric gets. */
export function syntheticSeries(definition: MetricDefinition): Attributes[] {
  return definition.attributes.reduce<Attributes[]>(
    (sets, attribute) =>
      sets.flatMap((set) =>
        valuesOf(definition, attribute).map((v) => ({ ...set, [attribute]: v })),
      ),
    [{}],
  )
}

function valuesOf(definition: MetricDefinition, attribute: MetricAttribute): readonly string[] {
  const values = named[attribute] ?? knownValues(definition, attribute) ?? []
  if (attribute !== 'ring2.hook') return values
  const kept = values.filter((hook) => hooksKept.includes(hook))
  return kept.length > 0 ? kept : values.slice(0, 1)
}

const nanos = (seconds: number): string => `${BigInt(Math.round(seconds * 1000)) * 1_000_000n}`

function metric(definition: MetricDefinition, start: number, at: number, index: number): unknown {
  const times = { startTimeUnixNano: nanos(start), timeUnixNano: nanos(at) }
  const points = syntheticSeries(definition).map((set) => ({ ...times, attributes: listed(set) }))
  const { name, unit, kind } = definition
  const cumulative = { aggregationTemporality: 2 }
  if (kind === 'histogram') {
    const samples = histogram(index + 1, at)
    const dataPoints = points.map((point) => ({ ...point, ...samples }))
    return { name, unit, exponentialHistogram: { ...cumulative, dataPoints } }
  }
  const dataPoints = points.map((point) => ({ ...point, asDouble: index * 3 }))
  if (kind === 'gauge') return { name, unit, gauge: { dataPoints } }
  return { name, unit, sum: { ...cumulative, isMonotonic: kind === 'counter', dataPoints } }
}

/** Of scale 2, values between 1/2 and 2. */
function histogram(times: number, at: number): Readonly<Record<string, unknown>> {
  return {
    count: 8 * times,
    sum: 8 * times,
    scale: 2,
    zeroCount: 0,
    positive: { offset: -4, bucketCounts: Array.from({ length: 8 }, () => times) },
    exemplars: [
      {
        timeUnixNano: nanos(at),
        asDouble: 1.9,
        traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
        spanId: '00f067aa0ba902b7',
      },
    ],
  }
}

function listed(attributes: Attributes): unknown[] {
  return Object.entries(attributes).map(([key, value]) => ({
    key,
    value: key === 'ring2.layer' ? { intValue: value } : { stringValue: value },
  }))
}

function document(metrics: readonly unknown[]): unknown {
  const attributes = listed({
    'service.name': 'ring2-exporter',
    'service.instance.id': 'one',
    'host.name': 'here',
  })
  const scopeMetrics = [{ scope: { name: 'ring2-exporter' }, metrics }]
  return { resourceMetrics: [{ resource: { attributes }, scopeMetrics }] }
}
