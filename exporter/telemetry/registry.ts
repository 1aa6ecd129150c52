/**
 * The one registry of metrics: every name, kind, unit, attribute, bucket bound and help text.
 *
 * The OTLP producer, the /metrics page, docs/signals.md and whatever draws or alerts on a metric
 * read it here. Span names and attributes are in span-registry.ts. A metric never carries a request
 * id, a head or a token as attribute: those are unbounded.
 */

import { hooks } from '../../collector/hooks.gen.ts'
import type { BaselineUnused } from '../../collector/index.ts'
import { lossReasons } from '../../collector/layout.gen.ts'
import { contextFaults, traceOrigins, verdicts } from '../../collector/records.ts'
import { signalMetrics } from './signal-metrics.ts'

export type MetricKind = 'histogram' | 'counter' | 'up_down_counter' | 'gauge'

/** UCUM; a unit in braces counts things. */
export type MetricUnit =
  | '1'
  | 'By'
  | 's'
  | '{nat}'
  | '{nat2}'
  | '{element}'
  | '{row}'
  | '{record}'
  | '{request}'
  | '{file}'
  | '{failure}'
  | '{span}'
  | '{point}'
  | '{sample}'

export interface AttributeDefinition {
  readonly type: 'string' | 'int'
  readonly help: string
  /** Every value that code can emit, or null where producers name them. */
  readonly values: readonly string[] | null
  /** For attributes without a list, what a value looks like. */
  readonly example?: string
}

const captureLosses = [...lossReasons.values()]
const deliveryLosses = ['queue_full', 'rejected', 'shutdown']
const baselineReasons: readonly BaselineUnused[] = [
  'other_revision',
  'other_dtype',
  'other_engine',
  'no_entry',
  'damaged',
]

/** Attributes of metrics. */
export const metricAttributes = {
  'gen_ai.request.model': {
    type: 'string',
    help: 'model name as the producer gave it',
    values: null,
    example: '`HuggingFaceTB/SmolLM2-135M-Instruct`',
  },
  'ring2.hook': {
    type: 'string',
    help: 'where in the model the tensor was taken',
    values: hooks.map(({ name }) => name),
  },
  'ring2.layer': {
    type: 'int',
    help: 'layer, from 0; left out for hooks that are not per layer',
    values: null,
    example: '`0` … `layers − 1`',
  },
  'ring2.phase': {
    type: 'string',
    help: 'phase of the request',
    values: ['prefill', 'decode'],
  },
  'ring2.nonfinite.kind': {
    type: 'string',
    help: 'kind of a value that is no finite number',
    values: ['nan', 'positive_infinity', 'negative_infinity'],
  },
  'ring2.verdict': {
    type: 'string',
    help: 'what the statistics say about the request',
    values: verdicts,
  },
  'ring2.completeness': {
    type: 'string',
    help: 'whether everything that the request called for was seen',
    values: ['complete', 'incomplete', 'unknown'],
  },
  'ring2.segment': {
    type: 'string',
    help: 'name of the shared-memory segment',
    values: null,
    example: '`chat`',
  },
  'ring2.ring.kind': {
    type: 'string',
    help: 'which of the two rings of a segment',
    values: ['payload', 'meta'],
  },
  'ring2.trace.origin': {
    type: 'string',
    help: "where a request's trace id came from, best first",
    values: traceOrigins,
  },
  'ring2.export.signal': {
    type: 'string',
    help: 'what is exported by OTLP',
    values: ['spans', 'metrics'],
  },
  'error.type': {
    type: 'string',
    help: 'why something was lost, or not taken, or not used',
    values: [...captureLosses, ...deliveryLosses, ...contextFaults, ...baselineReasons],
  },
} as const satisfies Record<string, AttributeDefinition>

export type MetricAttribute = keyof typeof metricAttributes

export interface MetricDefinition {
  readonly name: string
  readonly kind: MetricKind
  readonly unit: MetricUnit
  readonly help: string
  readonly attributes: readonly MetricAttribute[]
  /** Histograms: the name in `ring2_signal` that is folded into it. */
  readonly signal?: string
  /** Histograms: the hooks that can have it. */
  readonly hooks?: readonly string[]
  /** Values of an attribute on this metric, where they are not all of the attribute's own. */
  readonly values?: Readonly<Partial<Record<MetricAttribute, readonly string[]>>>
  /**
   * Histograms: upper bounds of the classic buckets on the /metrics page, in quarters of an octave:
   * n means 2^(n/4). Such bounds are also bounds of every exponential histogram of scale ≥ 2.
   */
  readonly quarterOctaves?: readonly number[]
}

const elementAttributes = ['gen_ai.request.model', 'ring2.hook', 'ring2.layer'] as const

function plain(
  name: string,
  kind: Exclude<MetricKind, 'histogram'>,
  unit: MetricUnit,
  attributes: readonly MetricAttribute[],
  help: string,
  values: Readonly<Partial<Record<MetricAttribute, readonly string[]>>> = {},
): MetricDefinition {
  return { name, kind, unit, help, attributes, values }
}

/** Every metric, by a short name for code. */
export const metrics = {
  ...signalMetrics,
  tensorElements: plain(
    'ring2.tensor.elements',
    'counter',
    '{element}',
    elementAttributes,
    'Elements measured.',
  ),
  tensorNonfinite: plain(
    'ring2.tensor.nonfinite.elements',
    'counter',
    '{element}',
    [...elementAttributes, 'ring2.nonfinite.kind'],
    'Elements that are NaN or infinite.',
  ),
  tensorMassive: plain(
    'ring2.tensor.massive.elements',
    'counter',
    '{element}',
    elementAttributes,
    'Massive activations: above 100 and above 1000 times the median magnitude of their tensor.',
  ),
  tensorInvalidRows: plain(
    'ring2.tensor.invalid_rows',
    'counter',
    '{row}',
    elementAttributes,
    'Rows without statistics because of a value that is no finite number.',
  ),
  requests: plain(
    'ring2.requests',
    'counter',
    '{request}',
    ['gen_ai.request.model', 'ring2.verdict', 'ring2.completeness'],
    'Requests that have ended.',
  ),
  sliValid: plain(
    'ring2.sli.valid',
    'counter',
    '{request}',
    ['gen_ai.request.model'],
    'Requests with a verdict: all but the unknown ones.',
  ),
  sliGood: plain(
    'ring2.sli.good',
    'counter',
    '{request}',
    ['gen_ai.request.model'],
    'Requests with the verdict ok. Over ring2.sli.valid it is the service level indicator.',
  ),
  uncalibrated: plain(
    'ring2.verdict.uncalibrated.requests',
    'counter',
    '{request}',
    ['gen_ai.request.model', 'error.type'],
    'Requests judged by the built-in bounds, by why no baseline of their model was used.',
    { 'error.type': baselineReasons },
  ),
  requestActive: plain(
    'ring2.request.active',
    'up_down_counter',
    '{request}',
    [],
    'Requests that have begun and not ended.',
  ),
  contextRequests: plain(
    'ring2.context.requests',
    'counter',
    '{request}',
    ['ring2.trace.origin'],
    'Requests that have ended and were handed on, by where their trace id came from.',
  ),
  contextReceived: plain(
    'ring2.context.received',
    'counter',
    '{span}',
    [],
    'Spans of other processes that name a request and thereby give its trace context.',
  ),
  contextRejected: plain(
    'ring2.context.rejected',
    'counter',
    '{request}',
    ['error.type'],
    'Trace contexts that were not taken, by reason; the next best source is used.',
    { 'error.type': contextFaults },
  ),
  contextWaiting: plain(
    'ring2.context.waiting',
    'up_down_counter',
    '{request}',
    [],
    'Ended requests whose spans wait for a trace context.',
  ),
  contextLate: plain(
    'ring2.context.late.requests',
    'counter',
    '{request}',
    [],
    "Requests whose trace context came after their spans: sent once more, in the caller's trace.",
  ),
  contextSkewed: plain(
    'ring2.context.skewed.requests',
    'counter',
    '{request}',
    [],
    'Requests whose times lie outside their parent span: the clocks disagree.',
  ),
  captureRecords: plain(
    'ring2.capture.records',
    'counter',
    '{record}',
    ['ring2.segment'],
    'Records that producers committed.',
  ),
  captureIo: plain(
    'ring2.capture.io',
    'counter',
    'By',
    ['ring2.segment'],
    'Payload bytes of the records that producers committed.',
  ),
  captureLostRecords: plain(
    'ring2.capture.lost.records',
    'counter',
    '{record}',
    ['ring2.segment', 'error.type'],
    'Records that were lost, by reason.',
    { 'error.type': captureLosses },
  ),
  captureLostIo: plain(
    'ring2.capture.lost.io',
    'counter',
    'By',
    ['ring2.segment', 'error.type'],
    'Payload bytes of the records that were lost, by reason.',
    { 'error.type': captureLosses },
  ),
  ringUsage: plain(
    'ring2.ring.usage',
    'up_down_counter',
    'By',
    ['ring2.segment', 'ring2.ring.kind'],
    'Bytes of a ring that hold records not yet released.',
  ),
  ringLimit: plain(
    'ring2.ring.limit',
    'up_down_counter',
    'By',
    ['ring2.segment', 'ring2.ring.kind'],
    'Size of a ring.',
  ),
  exportLag: plain(
    'ring2.export.lag',
    'gauge',
    's',
    ['ring2.segment'],
    'Age of the oldest record that is not yet released.',
  ),
  storeRows: plain('ring2.store.rows', 'counter', '{row}', [], 'Tensor rows written to the store.'),
  storeIo: plain('ring2.store.io', 'counter', 'By', [], 'Payload bytes written to the store.'),
  storeFiles: plain('ring2.store.files', 'counter', '{file}', [], 'Files published in the store.'),
  storeFailures: plain(
    'ring2.store.failures',
    'counter',
    '{failure}',
    [],
    'Writes to the store that failed; the data waits and is written again.',
  ),
  storePendingRows: plain(
    'ring2.store.pending.rows',
    'up_down_counter',
    '{row}',
    [],
    'Tensor rows that wait to be written.',
  ),
  storePendingSize: plain(
    'ring2.store.pending.size',
    'up_down_counter',
    'By',
    [],
    'Payload bytes that wait to be written.',
  ),
  exportSpans: plain(
    'ring2.export.spans',
    'counter',
    '{span}',
    [],
    'Spans that the Collector took.',
  ),
  exportLostSpans: plain(
    'ring2.export.lost.spans',
    'counter',
    '{span}',
    ['error.type'],
    'Spans that were lost, by reason.',
    { 'error.type': deliveryLosses },
  ),
  exportPendingSpans: plain(
    'ring2.export.pending.spans',
    'up_down_counter',
    '{span}',
    [],
    'Spans that wait for the Collector.',
  ),
  exportPoints: plain(
    'ring2.export.points',
    'counter',
    '{point}',
    [],
    'Points of metrics that the Collector took.',
  ),
  exportLostPoints: plain(
    'ring2.export.lost.points',
    'counter',
    '{point}',
    ['error.type'],
    'Points of metrics that were lost, by reason; counts are in the next export all the same.',
    { 'error.type': deliveryLosses },
  ),
  exportPendingPoints: plain(
    'ring2.export.pending.points',
    'up_down_counter',
    '{point}',
    [],
    'Points of metrics that wait for the Collector.',
  ),
  exportPendingSize: plain(
    'ring2.export.pending.size',
    'up_down_counter',
    'By',
    ['ring2.export.signal'],
    'Bytes that wait for the Collector; of spans they are estimated.',
  ),
  exportFailures: plain(
    'ring2.export.failures',
    'counter',
    '{failure}',
    ['ring2.export.signal'],
    'Exports that failed; what may be tried again is.',
  ),
  refusedSamples: plain(
    'ring2.telemetry.refused.samples',
    'counter',
    '{sample}',
    ['gen_ai.request.model'],
    'Samples that found no room in the metrics, because their model has too many series.',
  ),
} as const satisfies Record<string, MetricDefinition>

/** Every metric, in the order of the documents and of the /metrics page. */
export const allMetrics: readonly MetricDefinition[] = Object.values(metrics)

/** Every value that an attribute can have on a metric, or null where producers name them. */
export function knownValues(
  definition: MetricDefinition,
  attribute: MetricAttribute,
): readonly string[] | null {
  if (attribute === 'ring2.hook' && definition.hooks !== undefined) return definition.hooks
  return definition.values?.[attribute] ?? metricAttributes[attribute].values
}

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
