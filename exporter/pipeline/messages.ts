/** What the main thread and the drain worker say to each other: plain data, by structured clone. */
import type {
  BaselineBook,
  CallerContext,
  CapturePolicy,
  ContextFault,
  DrainEvent,
  RequestSummary,
  StatisticGroup,
  VerdictRule,
} from '../../collector/index.ts'
import type { StoreLocation } from '../store/location.ts'
import type { MetricSnapshot } from '../telemetry/metric-points.ts'

export interface WorkerOptions extends CapturePolicy {
  readonly segmentsDirectory: string
  readonly segmentNames: readonly string[]
  /** Left out: nothing is redacted. */
  readonly redactHooks?: readonly string[]
  readonly redactAttributes?: readonly string[]
  readonly statistics: readonly (StatisticGroup | 'all')[]
  readonly verdictRules: readonly (VerdictRule | 'all')[]
  readonly baselines: BaselineBook
  readonly location: StoreLocation
  readonly fsync: boolean
  /** Bytes that may wait for upload; left out: `uploadLimits.queueBytesMax`. */
  readonly queueBytesMax?: number
  /** Left out: every row is stored as it is. */
  readonly codecs?: readonly string[]
  readonly host: string
  readonly flushMillis: number
  readonly flushBytes: number
  readonly intervalMillis: number
  readonly batchSlices: number
  readonly batchBytes: number
  readonly requestsMax: number
  readonly requestIdleMicros: number
  /** How long spans of an ended request wait for a trace context; 0 when none come. */
  readonly contextWaitMillis: number
}

/** Trace contexts that a sender named, and how many it named wrongly. */
export interface ContextBatch {
  readonly contexts: readonly CallerContext[]
  readonly faults: Readonly<Partial<Record<ContextFault, number>>>
}

/** To the worker. */
export type WorkerCommand =
  | { readonly type: 'snapshot'; readonly id: number }
  | { readonly type: 'baselines'; readonly book: BaselineBook }
  | { readonly type: 'contexts'; readonly batch: ContextBatch }
  | { readonly type: 'policy'; readonly policy: CapturePolicy }
  | { readonly type: 'stop'; readonly flushMillis: number }

/** From the worker. */
export type WorkerReport =
  | { readonly type: 'ready' }
  | { readonly type: 'request_end'; readonly summary: RequestSummary }
  | { readonly type: 'snapshot'; readonly id: number; readonly snapshot: MetricSnapshot }
  | { readonly type: 'event'; readonly event: DrainEvent }
  | { readonly type: 'stopped'; readonly unflushed: readonly string[] }
