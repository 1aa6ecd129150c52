/**
 * What the collector hands to the exporter: models, requests, tensor rows, request summaries.
 *
 * These types are the whole seam. They know nothing of OpenTelemetry, Parquet or HTTP.
 * Times are microseconds since the Unix epoch (a double holds them exactly until the year 2255).
 */

/** Parallel ranks of the process that captured a tensor; 0 when not parallel. */
export interface Ranks {
  readonly tp: number
  readonly pp: number
  readonly dp: number
  readonly ep: number
}

/** Body of a MODEL record. */
export interface ModelInfo {
  readonly name: string
  readonly revision: string
  /** `transformers`, `vllm`, `llama.cpp`, … */
  readonly engine: string
  readonly dtype: string
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly hidden: number
  readonly vocabulary: number
  /** Names the texts of its token ids; left out while the producer has not sent it. */
  readonly vocabularyFingerprint?: string
  /** Hook name → layers that the producer captures; `[-1]` for a global hook. */
  readonly hooks: Readonly<Record<string, readonly number[]>>
  /** Hooks whose tensors were computed beside the engine, not taken from it. */
  readonly computed?: readonly string[]
  /** Of the process that announces it; left out when it does not say, and where ranks are joined. */
  readonly ranks?: Ranks
  /** How many ranks there are along each axis; left out when the model runs in one process. */
  readonly world?: Ranks
  /** Tensor-parallel ranks whose shards this one producer brings; left out when it is one. */
  readonly shards?: number
}

/** Body of a VOCABULARY record: texts of ids that follow each other. */
export interface VocabularyPart {
  readonly model: string
  /** SHA-256 over all texts, 64 hexadecimal digits. */
  readonly fingerprint: string
  /** How many parts make the vocabulary; this is one of them, counted from 0. */
  readonly parts: number
  readonly part: number
  readonly firstId: number
  /** Null for an id without text. */
  readonly texts: readonly (string | null)[]
}

/** Which segment a record came from. `boot` tells two segments of one name apart. */
export interface ProducerInfo {
  readonly segment: string
  /** Hexadecimal. */
  readonly boot: string
  readonly host: string
  readonly pid: number
}

export type Phase = 'prefill' | 'decode'

export type AttributeValue = string | number | boolean

/**
 * Where a request's trace id came from, best first: its REQUEST record, a span that names it (the
 * tap), the form of its id, or its id's hash.
 */
export type TraceOrigin = 'request' | 'tap' | 'request_id' | 'derived'

export const traceOrigins: readonly TraceOrigin[] = ['request', 'tap', 'request_id', 'derived']

/** Why a trace context was not taken: of a REQUEST record, or of a span that names a request. */
export const contextFaults = [
  'traceparent_malformed',
  'traceparent_version',
  'traceparent_zero_id',
  'span_trace_id',
  'span_id',
  'span_request_id',
  'span_time',
  'spans_undecodable',
] as const

export type ContextFault = (typeof contextFaults)[number]

export interface TimeWindow {
  readonly startedAtMicros: number
  readonly endedAtMicros: number
}

/** A request as the registry knows it from its REQUEST record. */
export interface RequestInfo {
  /** The producer's handle, unique in its segment. */
  readonly key: number
  readonly requestId: string
  readonly traceId: string
  /** Deterministic id of the `ring2 request` span. */
  readonly spanId: string
  readonly parentSpanId: string | null
  readonly traceFlags: number
  readonly traceState: string | null
  readonly traceOrigin: TraceOrigin
  readonly attributes: Readonly<Record<string, AttributeValue>>
  readonly startedAtMicros: number
  /** Why the `traceparent` it came with was not taken; left out when there is nothing to say. */
  readonly contextFault?: ContextFault
  /** When the parent span ran, by the clock of its process; left out while that is not known. */
  readonly parentWindow?: TimeWindow
  /** Trace id of its rows in the store, where its context came too late for them. */
  readonly storedTraceId?: string
  /** The `ring2 request` span that was sent before the context came. */
  readonly earlierSpan?: { readonly traceId: string; readonly spanId: string }
}

/** Statistics of one slice; a missing field is undefined for it, never zero by default. */
export interface SliceStatistics {
  readonly l2Mean?: number
  readonly l2Max?: number
  readonly rmsMean?: number
  readonly rmsMax?: number
  readonly absMax?: number
  readonly mean?: number
  readonly variance?: number
  readonly entropyMean?: number
  readonly entropyMin?: number
  readonly entropyMax?: number
  readonly lseMean?: number
  readonly top1ProbabilityMean?: number
  readonly marginMean?: number
  readonly entropyNormalizedMean?: number
  readonly entropyNoSinkMean?: number
  readonly sinkMass?: number
  readonly sinkScore?: number
  readonly logitMaxMean?: number
  readonly kurtosisMean?: number
  readonly kurtosisMax?: number
  readonly absMedian?: number
  readonly outlierRatio?: number
  readonly massiveCount?: number
  readonly nearZeroShare?: number
  readonly zeroShare?: number
  readonly l2NoFirstMean?: number
  readonly headEntropyMin?: number
  readonly collapsedHeadShare?: number
  readonly rowSumError?: number
  readonly sinkMass4?: number
  readonly topKeyMass?: number
  readonly previousTokenMass?: number
  readonly selfMass?: number
  readonly recencyMass?: number
  readonly lookbackRatio?: number
  readonly varentropyMean?: number
  readonly marginProbabilityMean?: number
  readonly surprisalMean?: number
  readonly repetition?: number
  readonly loopPeriod?: number
  readonly tokensTracked?: number
  readonly layerCosineMean?: number
  readonly layerCosineMin?: number
  readonly layerGrowthMean?: number
  readonly contributionMean?: number
  readonly tokenCosineMean?: number
  readonly rankResidual?: number
  readonly participationRatio?: number
  readonly routerEntropyMean?: number
  readonly expertEntropyMean?: number
  readonly tokenOutlier?: number
  readonly channelOutlier?: number
  readonly firstTokenRatio?: number
}

/** Encoding of a row whose payload was left out: it has no bytes, and its checksum is 0. */
export const REDACTED_ENCODING = 'redacted'

/** One row of the tensor store: one (request, hook, layer, rank, step). */
export interface TensorRow {
  readonly request: RequestInfo
  readonly model: ModelInfo
  readonly producer: ProducerInfo
  readonly hook: string
  /** −1 for global hooks. */
  readonly layer: number
  readonly step: number
  readonly phase: Phase
  readonly tokenStart: number
  readonly tokenEnd: number
  readonly kvOffset: number
  readonly ranks: Ranks
  readonly capturedAtMicros: number
  readonly dtype: string
  /** Row-major, without the batch axis. */
  readonly shape: readonly number[]
  readonly statistics: SliceStatistics
  readonly nonfinite: number
  readonly crc32c: number
  /** Little-endian elements, borrowed from the ring: valid until the sink's flush has returned. */
  readonly data: Uint8Array
  /** How `data` is encoded, name and version; left out for raw elements. */
  readonly encoding?: string
  /** Bytes of the elements themselves, where `data` is encoded. `crc32c` is of those. */
  readonly decodedBytes?: number
}

/**
 * `unknown` is never reported as `complete`. `sampled`: everything that the policy wanted came, and it
 * did not want all of the request.
 */
export const completenessStates = ['complete', 'sampled', 'incomplete', 'unknown'] as const
export type CompletenessState = (typeof completenessStates)[number]

export interface Completeness {
  readonly state: CompletenessState
  /** Records (hook × layer × step) that the request's steps called for, and those that came. */
  readonly expected: number
  readonly seen: number
  /** In words, e.g. `pattern: 3 of 60 records missing (payload_full)`; empty when complete. */
  readonly reasons: readonly string[]
  /** When sampled: the tokens that were captured, half-open ranges; many ranges are cut short. */
  readonly kept?: readonly TokenRange[]
}

export type TokenRange = readonly [start: number, end: number]

/**
 * What the statistics say of a request. `ok` needs evidence for every rule; without it, and without
 * a finding, the verdict is `unknown`.
 */
export type Verdict =
  | 'ok'
  | 'low_entropy'
  | 'high_entropy'
  | 'collapsed'
  | 'looping'
  | 'nonfinite'
  | 'unknown'

/** Every verdict, worst first; the worst finding names the request's. */
export const verdicts: readonly Verdict[] = [
  'nonfinite',
  'collapsed',
  'looping',
  'low_entropy',
  'high_entropy',
  'unknown',
  'ok',
]

/** A rule that a request broke. */
export interface Finding {
  readonly verdict: Exclude<Verdict, 'ok' | 'unknown'>
  /** `<hook>.<statistic>`. */
  readonly statistic: string
  readonly value: number
  /** The bound that the value passed. */
  readonly bound: number
  readonly direction: 'above' | 'below'
  /** Null when the statistic is not of one layer. */
  readonly layer: number | null
  /** Left out when the value is over the whole request. */
  readonly phase?: Phase
}

/** Which bounds a request was judged by: learnt from healthy traffic, or the built-in ones. */
export type BaselineKind = 'calibrated' | 'default'

export interface PhaseSummary {
  readonly phase: Phase
  readonly startedAtMicros: number
  readonly endedAtMicros: number
  readonly tokenStart: number
  readonly tokenEnd: number
  readonly steps: number
}

/** The statistics that rules read, over the tokens of one phase alone. */
export interface PhaseStatistics {
  /** Rows of logits whose entropy was measured. */
  readonly logitRows: number
  readonly layerSeries: Readonly<Record<string, readonly (number | null)[]>>
  readonly globals: Readonly<Record<string, number>>
}

/** What one process of a parallel model saw of a request. */
export interface RankPart {
  readonly producer: ProducerInfo
  readonly ranks: Ranks
  readonly steps: number
  readonly completeness: CompletenessState
}

/** The processes that ran a request together. */
export interface ParallelInfo {
  readonly world: Ranks
  /** Those that came, by stage and shard; the first one is the summary's producer. */
  readonly parts: readonly RankPart[]
}

/** Everything known of a request once it has ended (or was given up). */
export interface RequestSummary {
  readonly request: RequestInfo
  readonly model: ModelInfo
  readonly producer: ProducerInfo
  readonly endedAtMicros: number
  /** Tokens the model processed: [0, tokens). */
  readonly tokens: number
  readonly promptTokens: number
  readonly steps: number
  readonly phases: readonly PhaseSummary[]
  readonly verdict: Verdict
  /** Empty for `ok` and `unknown`. */
  readonly findings: readonly Finding[]
  /** In words, what evidence was missing; empty unless some was. */
  readonly missingEvidence: readonly string[]
  readonly baseline: BaselineKind
  readonly completeness: Completeness
  /** `<hook>.<statistic>` → one value per layer, null where no value exists. */
  readonly layerSeries: Readonly<Record<string, readonly (number | null)[]>>
  /** `<hook>.<statistic>` of global hooks. */
  readonly globals: Readonly<Record<string, number>>
  /** What the verdict was made of; summaries of older stores have none. */
  readonly phaseStatistics?: Readonly<Partial<Record<Phase, PhaseStatistics>>>
  readonly nan: number
  readonly posInf: number
  readonly negInf: number
  readonly tensorsStored: number
  readonly bytesStored: number
  /** Left out when one process ran the model. */
  readonly parallel?: ParallelInfo
}

/**
 * A notable sample of a series: the largest one since the snapshot before. A series without a new
 * sample keeps its last exemplar, so that a reader who comes less often still finds one.
 */
export interface ExemplarPoint {
  readonly value: number
  /** Lower-case hexadecimal, 32 and 16 digits. */
  readonly traceId: string
  readonly spanId: string
  readonly requestId: string
  /** Whether the request's trace is sampled: only then can it be opened somewhere. */
  readonly sampled: boolean
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
  /** Massive activations (docs/statistics.md). */
  readonly massive: number
}

/**
 * Everything folded for one model. A snapshot has at most one entry per model name; models beyond
 * `collectorLimits.modelsMax` share one.
 */
export interface ModelPoints {
  /** `gen_ai.request.model`. */
  readonly model: string
  /** Samples and counts that found no room, because the model has too many series. */
  readonly refused: number
  /** At most one per (signal, hook, layer, phase). */
  readonly histograms: readonly HistogramPoint[]
  /** At most one per (hook, layer). */
  readonly elements: readonly ElementCounts[]
}

/** Receives rows and summaries inside the drain loop; a sink never throws into it. */
export interface TensorSink {
  /** Keeps a row until the next flush. The bytes stay borrowed from the ring. */
  append(row: TensorRow): void
  /** Keeps the summary of a request that has ended. */
  finish(summary: RequestSummary): void
  /** Keeps a part of a vocabulary until the next flush; a sink without it keeps none. */
  vocabulary?(part: VocabularyPart, producer: ProducerInfo, atMicros: number): void
  /** Bytes and rows that wait for the next flush. */
  pending(): { readonly rows: number; readonly bytes: number; readonly summaries: number }
  /**
   * Writes everything pending as complete files that are not yet visible, and returns their names.
   * They become visible by `publish`, after the caller has recorded the names (see checkpoint.ts).
   */
  prepare(producer: ProducerInfo): Outcome<readonly string[]>
  /** Makes prepared files visible; publishing one twice is harmless. */
  publish(files: readonly string[]): Outcome<void>
  /** Removes prepared files that no checkpoint names: leftovers of a crash. */
  discardExcept(producer: ProducerInfo, files: readonly string[]): Outcome<void>
}

/** I/O never throws into the drain loop: it succeeded, may be tried again, or cannot succeed. */
export type Outcome<T> =
  | { readonly status: 'success'; readonly value: T }
  | { readonly status: 'retryable'; readonly error: Error }
  | { readonly status: 'failure'; readonly error: Error }
