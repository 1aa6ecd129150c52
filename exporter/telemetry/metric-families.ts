/**
 * A snapshot laid out by metric: the one place that says which count is a point of which metric.
 *
 * The OTLP producer and the /metrics page both write what this gives, so they always agree. Pure
 * functions; nothing here knows OpenTelemetry's types or a text format.
 */

import type { ContextCounts } from '../../collector/index.ts'
import { signals } from '../../collector/layout.gen.ts'
import {
  contextFaults,
  type ElementCounts,
  type HistogramPoint,
  type ModelPoints,
  traceOrigins,
} from '../../collector/records.ts'
import { uploadFailures } from '../store/upload-failure.ts'
import { captureLosses, type MetricAttribute, type MetricDefinition } from './metric-definition.ts'
import type {
  LossPoint,
  MetricSnapshot,
  RemovedPoints,
  RequestCount,
  SegmentPoints,
  UploadPoints,
} from './metric-points.ts'
import type { ExemplarFilter } from './metric-settings.ts'
import { allMetrics, metrics } from './registry.ts'

/** Size of one descriptor of the meta ring, as native/include/ring2_layout.h asserts it. */
export const DESCRIPTOR_BYTES = 128

export type PointAttributes = Readonly<Partial<Record<MetricAttribute, string | number>>>

export interface NumberSeries {
  readonly attributes: PointAttributes
  readonly startedAtMicros: number
  /** When it was taken, where that is not the snapshot's time. */
  readonly takenAtMicros?: number
  readonly value: number
}

export interface HistogramSeries {
  readonly attributes: PointAttributes
  readonly startedAtMicros: number
  readonly takenAtMicros?: number
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

/** What one exporter (of spans, of metrics) counts since it was started. */
export interface DeliveryCounts {
  readonly delivered: number
  /** Reason → items. */
  readonly lost: Readonly<Record<string, number>>
  readonly pending: number
  readonly pendingBytes: number
  readonly failures: number
}

/** The counts of the exporters, which are newer than the snapshot. */
export interface ExportCounts {
  readonly startedAtMicros: number
  readonly takenAtMicros: number
  readonly spans: DeliveryCounts
  readonly metrics: DeliveryCounts
}

type Emit = (definition: MetricDefinition, attributes: PointAttributes, value: number) => void

/**
 * Lays a snapshot out by metric, in the registry's order; metrics without a point are left out.
 *
 * @param filter which exemplars are kept.
 */
export function collectFamilies(
  snapshot: MetricSnapshot,
  exports: ExportCounts,
  filter: ExemplarFilter = 'trace_based',
): MetricFamily[] {
  const numbers = new Map<MetricDefinition, NumberSeries[]>()
  const histograms = new Map<MetricDefinition, HistogramSeries[]>()
  const emitSince = (startedAtMicros: number): Emit => {
    return (definition, attributes, value) => {
      append(numbers, definition, { attributes, startedAtMicros, value })
    }
  }
  const emit = emitSince(snapshot.startedAtMicros)
  for (const model of snapshot.models) {
    addHistograms(histograms, model, snapshot.startedAtMicros, filter)
    emit(metrics.refusedSamples, { 'gen_ai.request.model': model.model }, model.refused)
    for (const counts of model.elements) addElements(emit, model.model, counts)
  }
  for (const segment of snapshot.segments) {
    addSegment(emitSince(segment.startedAtMicros), segment)
  }
  addRequestsAndStore(emit, snapshot)
  emit(metrics.policyChanges, {}, snapshot.policyChanges ?? 0)
  addContexts(emit, snapshot.contexts)
  addUploads(emit, snapshot.uploads)
  addRemoved(emit, snapshot.removed)
  const { startedAtMicros, takenAtMicros } = exports
  addExports((definition, attributes, value) => {
    append(numbers, definition, { attributes, startedAtMicros, takenAtMicros, value })
  }, exports)
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
  filter: ExemplarFilter,
): void {
  for (const point of model.histograms) {
    const definition = definitionsBySignal.get(point.signal)
    if (definition === undefined) continue
    const place = placeOf(model.model, point.hook, point.layer)
    const attributes = { ...place, 'ring2.phase': point.phase }
    const histogram = filtered(point, filter)
    append(histograms, definition, { attributes, startedAtMicros, histogram })
  }
}

function filtered(point: HistogramPoint, filter: ExemplarFilter): HistogramPoint {
  const { exemplar } = point
  if (exemplar === undefined || filter === 'always_on') return point
  if (filter === 'trace_based' && exemplar.sampled) return point
  const { exemplar: _left, ...rest } = point
  return rest
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
  emit(metrics.tensorMassive, place, counts.massive)
  emit(metrics.tensorInvalidRows, place, counts.invalidRows)
}

function addSegment(emit: Emit, segment: SegmentPoints): void {
  const place = { 'ring2.segment': segment.segment }
  emit(metrics.captureRecords, place, segment.committedRecords)
  emit(metrics.captureIo, place, segment.committedBytes)
  for (const [reason, { records, bytes }] of lossesOf(segment)) {
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

/**
 * Every reason, as 0 where it never occurred: a counter that appears with its first event hides that
 * event from whoever takes differences. Reasons that only a newer producer knows are kept too.
 */
function lossesOf({ losses }: SegmentPoints): Map<string, Omit<LossPoint, 'reason'>> {
  const none = { records: 0, bytes: 0 }
  return new Map([
    ...captureLosses.map((reason): [string, typeof none] => [reason, none]),
    ...losses.map((loss): [string, LossPoint] => [loss.reason, loss]),
  ])
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
  for (const { model, reason, requests } of snapshot.uncalibrated) {
    const attributes = { 'gen_ai.request.model': model, 'error.type': reason }
    emit(metrics.uncalibrated, attributes, requests)
  }
  for (const [model, { valid, good }] of indicatorsOf(snapshot.requests)) {
    emit(metrics.sliValid, { 'gen_ai.request.model': model }, valid)
    emit(metrics.sliGood, { 'gen_ai.request.model': model }, good)
  }
  emit(metrics.requestActive, {}, snapshot.activeRequests)
  emit(metrics.storeRows, {}, snapshot.store.rows)
  emit(metrics.storeIo, {}, snapshot.store.bytes)
  emit(metrics.storeFiles, {}, snapshot.store.files)
  emit(metrics.storeFailures, {}, snapshot.store.failures)
  emit(metrics.storePendingRows, {}, snapshot.store.pendingRows)
  emit(metrics.storePendingSize, {}, snapshot.store.pendingBytes)
}

function addUploads(emit: Emit, uploads: UploadPoints | undefined): void {
  if (uploads === undefined) return
  emit(metrics.storeUploadFiles, {}, uploads.files)
  emit(metrics.storeUploadIo, {}, uploads.bytes)
  for (const reason of uploadFailures) {
    emit(metrics.storeUploadFailures, { 'error.type': reason }, uploads.failures[reason] ?? 0)
  }
  emit(metrics.storeUploadPendingFiles, {}, uploads.waitingFiles)
  emit(metrics.storeUploadPendingSize, {}, uploads.waitingBytes)
  emit(metrics.storeUploadPendingLimit, {}, uploads.waitingBytesMax)
}

function addRemoved(emit: Emit, removed: RemovedPoints | undefined): void {
  for (const [reason, { files, bytes }] of Object.entries(removed ?? {})) {
    emit(metrics.storeRemovedFiles, { 'ring2.removal.reason': reason }, files)
    emit(metrics.storeRemovedIo, { 'ring2.removal.reason': reason }, bytes)
  }
}

function addContexts(emit: Emit, contexts: ContextCounts): void {
  for (const origin of traceOrigins) {
    emit(metrics.contextRequests, { 'ring2.trace.origin': origin }, contexts.requests[origin])
  }
  emit(metrics.contextReceived, {}, contexts.received)
  for (const fault of contextFaults) {
    emit(metrics.contextRejected, { 'error.type': fault }, contexts.faults[fault] ?? 0)
  }
  emit(metrics.contextWaiting, {}, contexts.waiting)
  emit(metrics.contextLate, {}, contexts.late)
  emit(metrics.contextSkewed, {}, contexts.skewed)
}

function indicatorsOf(requests: readonly RequestCount[]) {
  const byModel = new Map<string, { valid: number; good: number }>()
  for (const { model, verdict, count } of requests) {
    const sum = byModel.get(model) ?? { valid: 0, good: 0 }
    byModel.set(model, sum)
    if (verdict !== 'unknown') sum.valid += count
    if (verdict === 'ok') sum.good += count
  }
  return byModel
}

function addExports(emit: Emit, { spans, metrics: points }: ExportCounts): void {
  emit(metrics.exportSpans, {}, spans.delivered)
  emit(metrics.exportPoints, {}, points.delivered)
  for (const [reason, count] of Object.entries(spans.lost)) {
    emit(metrics.exportLostSpans, { 'error.type': reason }, count)
  }
  for (const [reason, count] of Object.entries(points.lost)) {
    emit(metrics.exportLostPoints, { 'error.type': reason }, count)
  }
  emit(metrics.exportPendingSpans, {}, spans.pending)
  emit(metrics.exportPendingPoints, {}, points.pending)
  for (const [signal, counts] of Object.entries({ spans, metrics: points })) {
    const attributes = { 'ring2.export.signal': signal }
    emit(metrics.exportPendingSize, attributes, counts.pendingBytes)
    emit(metrics.exportFailures, attributes, counts.failures)
  }
}
