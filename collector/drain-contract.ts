/** What a drain is given and what it offers; see drain.ts. Types alone. */
import type { DrainEvent } from './drain-event.ts'
import type { FoldBook } from './folds.ts'
import type { CapturePlan } from './policy.ts'
import type { RankJoin } from './rank-join.ts'
import type {
  ModelInfo,
  Outcome,
  ProducerInfo,
  RequestInfo,
  RequestSummary,
  TensorSink,
} from './records.ts'
import type { SegmentInfo } from './segments.ts'
import type { Slices } from './slices.ts'
import type { Verdicts } from './verdicts.ts'

export interface DrainOptions {
  readonly path: string
  readonly host: string
  /** What is wanted at first; see SegmentDrain.setPlan. */
  readonly plan: CapturePlan
  readonly sink: TensorSink
  /** Hooks whose rows are stored without their payload; left out, none. */
  readonly redacted?: ReadonlySet<string>
  readonly verdicts: Verdicts
  readonly folds: FoldBook
  /** Which statistics are computed, as ring2_group bits. */
  readonly groups: number
  /** Scratch for one batch; drains of one thread share it. */
  readonly slices: Slices
  readonly batchBytes: number
  /** Where checkpoints are kept. */
  readonly stateDirectory: string
  readonly fsync: boolean
  readonly flushMillis: number
  readonly flushBytes: number
  readonly requestsMax: number
  readonly requestIdleMicros: number
  /** Where requests of parallel models are put together; left out, each rank's is one of its own. */
  readonly ranks?: RankJoin
  /** Gives a request that begins the best trace context there is; without it, it keeps its own. */
  onBegin?(request: RequestInfo, producer: ProducerInfo): RequestInfo
  /** Before the summary is safe; after a crash it comes again, unless the sink has it. */
  onEnd(summary: RequestSummary): void
  /** A model has announced itself, or is known from a checkpoint. */
  onModel?(model: ModelInfo): void
  onEvent(event: DrainEvent): void
}

export interface Turn {
  /** Slices taken; 0 means there is nothing to do right now. */
  readonly slices: number
  /** The producer is gone and everything has been drained, stored and released. */
  readonly finished: boolean
  /** The counters of a segment that has finished in this turn, read last thing; else null. */
  readonly last: SegmentInfo | null
}

export interface SegmentDrain {
  readonly producer: ProducerInfo
  readonly path: string
  /** Takes one batch, and flushes when that is due. Throws for a segment that cannot be drained. */
  turn(): Turn
  /** Makes everything drained so far safe and releases it. */
  flush(): Outcome<void>
  /** What is wanted from now on; the producer's next steps are captured by it. */
  setPlan(plan: CapturePlan): void
  info(): SegmentInfo
  /** Seconds since the oldest record that is not yet released was captured. */
  lagSeconds(): number
  activeRequests(): number
  failures(): number
  /** Whether the last flush failed, so that data waits in the ring. */
  isFailing(): boolean
  /** Gives the segment back; what was not flushed stays in the ring for the next exporter. */
  close(): void
}
