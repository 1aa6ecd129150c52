/**
 * What the drain loop tells the telemetry side: one snapshot of everything counted so far.
 *
 * Plain data that structured clone carries from the worker to the main thread; it knows nothing of
 * OpenTelemetry. Every count is cumulative: since `startedAtMicros` of the snapshot, or, for a
 * segment, since the segment's own start, because its counters live in its header and outlast the
 * exporter. A count never falls while its start stays the same.
 */

import type { CompletenessState, Phase, Verdict } from '../../collector/records.ts'

/**
 * A notable sample of a series: the largest one since the snapshot before. A series without a new
 * sample keeps its last exemplar, so that a reader who comes less often still finds one.
 */
export interface ExemplarPoint {
  readonly value: number
  /** Lower-case hexadecimal, 32 and 16 digits. */
  readonly traceId: string
  readonly spanId: string
  readonly atMicros: number
}

/**
 * One base-2 exponential histogram of one model, in the OpenTelemetry data model: bucket i counts
 * values in (base^(offset+i), base^(offset+i+1)] with base = 2^(2^-scale). All values are ≥ 0.
 */
export interface HistogramPoint {
  /** Id in `ring2_signal` of native/include/ring2.h. */
  readonly signal: number
  /** Hook name, e.g. `resid_pre`. */
  readonly hook: string
  /** −1 for global hooks. */
  readonly layer: number
  readonly phase: Phase
  /** zeroCount + sum of buckets. */
  readonly count: number
  readonly zeroCount: number
  readonly sum: number
  /** Meaningless when count is 0. */
  readonly min: number
  readonly max: number
  readonly scale: number
  /** Index of buckets[0]. */
  readonly offset: number
  readonly buckets: readonly number[]
  readonly exemplar?: ExemplarPoint
}

/** Element counters of one (hook, layer) of one model. */
export interface ElementCounts {
  readonly hook: string
  readonly layer: number
  readonly elements: number
  readonly nan: number
  readonly positiveInfinity: number
  readonly negativeInfinity: number
  /** Rows whose statistics are undefined because they hold a value that is no number. */
  readonly invalidRows: number
  /** Rows that a statistic leaves out by definition (too few visible keys). */
  readonly skippedRows: number
}

/** Everything folded for one model. A snapshot has at most one entry per model name. */
export interface ModelPoints {
  /** `gen_ai.request.model`. */
  readonly model: string
  /** At most one per (signal, hook, layer, phase). */
  readonly histograms: readonly HistogramPoint[]
  /** At most one per (hook, layer). */
  readonly elements: readonly ElementCounts[]
}

/** Names of `ring2_loss`, in lower case; they become `error.type`. */
export type LossReason =
  | 'meta_full'
  | 'payload_full'
  | 'oversized'
  | 'step_lost'
  | 'aborted'
  | 'unsupported'
  | 'producer_died'
  | 'corrupt'
  | 'unattributed'

export interface LossPoint {
  readonly reason: LossReason
  readonly records: number
  readonly bytes: number
}

/**
 * One segment: its header's counters, both sides' losses. A segment that has ended stays in the
 * snapshots for a while, so that its last counts are exported.
 */
export interface SegmentPoints {
  /** File name without the `ring2.` prefix: unique, a moved-aside leftover keeps its `~boot`. */
  readonly segment: string
  /** When the segment was created; a new segment of the same name starts its counts anew. */
  readonly startedAtMicros: number
  readonly committedRecords: number
  readonly committedBytes: number
  /** Reasons that never occurred may be left out. */
  readonly losses: readonly LossPoint[]
  /** Claimed and not yet released: bytes of the payload ring, descriptors of the meta ring. */
  readonly payloadUsedBytes: number
  readonly payloadLimitBytes: number
  readonly metaUsedRecords: number
  readonly metaLimitRecords: number
  /** Age of the oldest record that is not yet released, in seconds; 0 when there is none. */
  readonly lagSeconds: number
}

/** Requests that have ended, by outcome. At most one per (model, verdict, completeness). */
export interface RequestCount {
  readonly model: string
  readonly verdict: Verdict
  readonly completeness: CompletenessState
  readonly count: number
}

/** The tensor store's side of the exporter. */
export interface StorePoints {
  readonly rows: number
  readonly bytes: number
  readonly files: number
  /** Flushes that failed and were, or will be, tried again. */
  readonly failures: number
  /** Whether the last flush of some segment failed: its data waits in the ring. */
  readonly failing: boolean
  /** Not yet written. */
  readonly pendingRows: number
  readonly pendingBytes: number
}

export interface MetricSnapshot {
  /** When counting began in this exporter process. */
  readonly startedAtMicros: number
  readonly takenAtMicros: number
  readonly models: readonly ModelPoints[]
  readonly segments: readonly SegmentPoints[]
  readonly requests: readonly RequestCount[]
  /** Requests in the registry that have not ended. */
  readonly activeRequests: number
  readonly store: StorePoints
}

/** A snapshot of nothing, for the time before the first one arrives. */
export function emptySnapshot(atMicros: number): MetricSnapshot {
  return {
    startedAtMicros: atMicros,
    takenAtMicros: atMicros,
    models: [],
    segments: [],
    requests: [],
    activeRequests: 0,
    store: { rows: 0, bytes: 0, files: 0, failures: 0, failing: false, pendingRows: 0, pendingBytes: 0 },
  }
}
