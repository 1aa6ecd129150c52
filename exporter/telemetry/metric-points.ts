/**
 * What the drain loop tells the telemetry side: one snapshot of everything counted so far.
 *
 * Plain data that structured clone carries from the worker to the main thread; it knows nothing of
 * OpenTelemetry. Every count is cumulative: since `startedAtMicros` of the snapshot, or, for a
 * segment, since the segment's own start, because its counters live in its header and outlast the
 * exporter. A count never falls while its start stays the same.
 */

import type { ContextCounts, UnusedBaselines } from '../../collector/index.ts'
import type { CompletenessState, ModelPoints, Verdict } from '../../collector/records.ts'
import type { UploadFailure } from '../store/upload-failure.ts'
import type { removalReasons } from './metric-definition.ts'

/** Names of `ring2_loss`, in lower case; they become `error.type`. */
export type LossReason =
  | 'meta_full'
  | 'payload_full'
  | 'oversized'
  | 'step_lost'
  | 'aborted'
  | 'unsupported'
  | 'leftover'
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

/** What was sent to a bucket, and what waits for it. */
export interface UploadPoints {
  readonly files: number
  readonly bytes: number
  readonly failures: Readonly<Partial<Record<UploadFailure, number>>>
  readonly waitingFiles: number
  readonly waitingBytes: number
  readonly waitingBytesMax: number
}

/** Files that retention has removed, by reason. */
export type RemovedPoints = Readonly<
  Record<(typeof removalReasons)[number], { readonly files: number; readonly bytes: number }>
>

export interface MetricSnapshot {
  /** When counting began in this exporter process. */
  readonly startedAtMicros: number
  readonly takenAtMicros: number
  readonly models: readonly ModelPoints[]
  readonly segments: readonly SegmentPoints[]
  readonly requests: readonly RequestCount[]
  /** Requests judged by the built-in bounds, per model and reason. */
  readonly uncalibrated: readonly UnusedBaselines[]
  /** Requests in the registry that have not ended. */
  readonly activeRequests: number
  readonly contexts: ContextCounts
  readonly store: StorePoints
  /** Left out where the store is no bucket. */
  readonly uploads?: UploadPoints
  /** Left out where retention does not run. */
  readonly removed?: RemovedPoints
  /** Times that the capture policy was replaced; the service adds it to what the drain counts. */
  readonly policyChanges?: number
}

export const noContexts: ContextCounts = {
  requests: { request: 0, tap: 0, request_id: 0, derived: 0 },
  received: 0,
  faults: {},
  late: 0,
  skewed: 0,
  waiting: 0,
}

/** A snapshot of nothing, for the time before the first one arrives. */
export function emptySnapshot(atMicros: number): MetricSnapshot {
  return {
    startedAtMicros: atMicros,
    takenAtMicros: atMicros,
    models: [],
    segments: [],
    requests: [],
    uncalibrated: [],
    activeRequests: 0,
    contexts: noContexts,
    store: {
      rows: 0,
      bytes: 0,
      files: 0,
      failures: 0,
      failing: false,
      pendingRows: 0,
      pendingBytes: 0,
    },
  }
}
