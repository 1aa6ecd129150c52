/**
 * A snapshot laid out by metric: the one place that says which count is a point of which metric.
 *
 * The OTLP producer and the /metrics page both write what this gives, so they always agree. Pure
 * functions; nothing here knows OpenTelemetry's types or a text format.
 */

import { signals } from '../../collector/layout.gen.ts'
import type { ElementCounts, HistogramPoint, ModelPoints } from '../../collector/records.ts'
import type { MetricSnapshot, SegmentPoints } from './metric-points.ts'
import { allMetrics, type MetricAttribute, type MetricDefinition, metrics } from './registry.ts'

/** Size of one descriptor of the meta ring, as native/include/ring2_layout.h asserts it. */
export const DESCRIPTOR_BYTES = 128

export type PointAttributes = Readonly<Partial<Record<MetricAttribute, string | number>>>

export interface NumberSeries {
  readonly attributes: PointAttributes
  readonly startedAtMicros: number
  readonly value: number
}

export interface HistogramSeries {
  readonly attributes: PointAttributes
  readonly startedAtMicros: number
  readonly histogram: HistogramPoint
}

/** One metric and its series, of which no two have the same attributes. */
export interface MetricFamily {
  readonly definition: MetricDefinition
  /** Empty for histograms. */
  readonly numbers: readonly NumberSeries[]
  /** Empty for all other kinds. */
  readonly histograms: readonly HistogramSeries[]
}

/** What the span exporter counts, since it was started. */
export interface SpanCounts {
  readonly startedAtMicros: number
  readonly delivered: number
  /** Reason → spans. */
  readonly lost: Readonly<Record<string, number>>
  readonly pending: number
}

type Emit = (definition: MetricDefinition, attributes: PointAttributes, value: number) => void

/** Lays a snapshot out by metric, in the registry's order; metrics without a point are left out. */
export function collectFamilies(snapshot: MetricSnapshot, spans: SpanCounts): MetricFamily[] {
  const numbers = new Map<MetricDefinition, NumberSeries[]>()
  const histograms = new Map<MetricDefinition, HistogramSeries[]>()
  const emitSince = (startedAtMicros: number): Emit => {
    return (definition, attributes, value) => {
      append(numbers, definition, { attributes, startedAtMicros, value })
    }
  }
  const emit = emitSince(snapshot.startedAtMicros)
  for (const model of snapshot.models) {
    addHistograms(histograms, model, snapshot.startedAtMicros)
    for (const counts of model.elements) addElements(emit, model.model, counts)
  }
  for (const segment of snapshot.segments) {
    addSegment(emitSince(segment.startedAtMicros), segment)
  }
  addRequestsAndStore(emit, snapshot)
  addSpans(emitSince(spans.startedAtMicros), spans)
  return allMetrics
    .map((definition) => ({
      definition,
      numbers: numbers.get(definition) ?? [],
      histograms: histograms.get(definition) ?? [],
    }))
    .filter((family) => family.numbers.length + family.histograms.length > 0)
}

const definitionsBySignal: ReadonlyMap<number, MetricDefinition> = new Map(
  [...signals].flatMap(([id, name]) =>
    allMetrics
      .filter((definition) => definition.signal === name)
      .map((definition): [number, MetricDefinition] => [id, definition]),
  ),
)

function append<T>(
  byMetric: Map<MetricDefinition, T[]>,
  definition: MetricDefinition,
  series: T,
): void {
  const list = byMetric.get(definition)
  if (list === undefined) byMetric.set(definition, [series])
  else list.push(series)
}

/** Hooks that are not per layer have no layer attribute. */
function placeOf(model: string, hook: string, layer: number): PointAttributes {
  const place = { 'gen_ai.request.model': model, 'ring2.hook': hook }
  return layer < 0 ? place : { ...place, 'ring2.layer': layer }
}

function addHistograms(
  histograms: Map<MetricDefinition, HistogramSeries[]>,
  model: ModelPoints,
  startedAtMicros: number,
): void {
  for (const histogram of model.histograms) {
    const definition = definitionsBySignal.get(histogram.signal)
    if (definition === undefined) continue
    const place = placeOf(model.model, histogram.hook, histogram.layer)
    const attributes = { ...place, 'ring2.phase': histogram.phase }
    append(histograms, definition, { attributes, startedAtMicros, histogram })
  }
}

function addElements(emit: Emit, model: string, counts: ElementCounts): void {
  const place = placeOf(model, counts.hook, counts.layer)
  emit(metrics.tensorElements, place, counts.elements)
  const kinds: [string, number][] = [
    ['nan', counts.nan],
    ['positive_infinity', counts.positiveInfinity],
    ['negative_infinity', counts.negativeInfinity],
  ]
  for (const [kind, value] of kinds) {
    emit(metrics.tensorNonfinite, { ...place, 'ring2.nonfinite.kind': kind }, value)
  }
  emit(metrics.tensorInvalidRows, place, counts.invalidRows)
}

function addSegment(emit: Emit, segment: SegmentPoints): void {
  const place = { 'ring2.segment': segment.segment }
  emit(metrics.captureRecords, place, segment.committedRecords)
  emit(metrics.captureIo, place, segment.committedBytes)
  for (const { reason, records, bytes } of segment.losses) {
    emit(metrics.captureLostRecords, { ...place, 'error.type': reason }, records)
    emit(metrics.captureLostIo, { ...place, 'error.type': reason }, bytes)
  }
  const payload = { ...place, 'ring2.ring.kind': 'payload' }
  const meta = { ...place, 'ring2.ring.kind': 'meta' }
  // One metric has one unit, so the meta ring's descriptors are given in bytes too.
  emit(metrics.ringUsage, payload, segment.payloadUsedBytes)
  emit(metrics.ringUsage, meta, segment.metaUsedRecords * DESCRIPTOR_BYTES)
  emit(metrics.ringLimit, payload, segment.payloadLimitBytes)
  emit(metrics.ringLimit, meta, segment.metaLimitRecords * DESCRIPTOR_BYTES)
  emit(metrics.exportLag, place, segment.lagSeconds)
}

function addRequestsAndStore(emit: Emit, snapshot: MetricSnapshot): void {
  for (const { model, verdict, completeness, count } of snapshot.requests) {
    const attributes = {
      'gen_ai.request.model': model,
      'ring2.verdict': verdict,
      'ring2.completeness': completeness,
    }
    emit(metrics.requests, attributes, count)
  }
  emit(metrics.requestActive, {}, snapshot.activeRequests)
  emit(metrics.storeRows, {}, snapshot.store.rows)
  emit(metrics.storeIo, {}, snapshot.store.bytes)
  emit(metrics.storeFiles, {}, snapshot.store.files)
  emit(metrics.storeFailures, {}, snapshot.store.failures)
  emit(metrics.storePendingRows, {}, snapshot.store.pendingRows)
  emit(metrics.storePendingSize, {}, snapshot.store.pendingBytes)
}

function addSpans(emit: Emit, spans: SpanCounts): void {
  emit(metrics.exportSpans, {}, spans.delivered)
  for (const [reason, count] of Object.entries(spans.lost)) {
    emit(metrics.exportLostSpans, { 'error.type': reason }, count)
  }
  emit(metrics.exportPendingSpans, {}, spans.pending)
}
