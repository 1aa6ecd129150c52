/**
 * The API's answers as the explorer reads them. /openapi.json is their definition; fields that the
 * explorer does not show are left out.
 */
import type { Finding } from '../../collector/records.ts'

export interface RequestEntry {
  readonly trace_id: string
  readonly caller_trace_id: string | null
  readonly request_id: string
  readonly model: string
  readonly model_revision: string
  readonly engine: string
  readonly producer: string
  readonly host: string
  readonly started_at: string
  readonly ended_at: string | null
  readonly tokens: number | null
  readonly prompt_tokens: number | null
  readonly steps: number | null
  readonly verdict: string
  readonly completeness: string
  readonly tensors_stored: number
  readonly bytes_stored: number
}

export interface TraceList {
  readonly traces: readonly RequestEntry[]
  readonly next_cursor: string | null
}

export interface HeldTensor {
  readonly hook: string
  /** −1 for hooks without layers. */
  readonly layer: number
  readonly dtype: string
  readonly token_start: number
  readonly token_end: number
  readonly rows: number
  readonly bytes: number
}

export interface RequestDetails {
  readonly completeness: {
    readonly state: string
    readonly expected: number
    readonly seen: number
    readonly reasons: readonly string[]
  }
  readonly findings: readonly Finding[]
  readonly missing_evidence: readonly string[]
  readonly baseline: string
  /** When the request ended; fewer now where some were removed since. */
  readonly tensors_stored: number
}

export interface TracedRequest extends RequestEntry {
  /** Null until the request has ended. */
  readonly details: RequestDetails | null
  readonly tensors: readonly HeldTensor[]
}

export interface Trace {
  readonly trace_id: string
  readonly requests: readonly TracedRequest[]
}

export interface Token {
  readonly position: number
  readonly id: number | null
  readonly text: string | null
  readonly phase: 'prefill' | 'decode'
  /** Nats. */
  readonly entropy: number | null
  /** Nats. */
  readonly surprisal: number | null
  readonly confidence: number | null
  /** Between the two largest logits. */
  readonly margin: number | null
  readonly has_alternatives: boolean
}

export interface TokenPage {
  readonly prompt_tokens: number | null
  readonly total: number
  readonly start: number
  readonly vocabulary: 'known' | 'unknown'
  /** In words, what is not there and why. */
  readonly missing: readonly string[]
  readonly tokens: readonly Token[]
}

export interface Alternatives {
  readonly position: number
  readonly alternatives: readonly {
    readonly id: number
    readonly text: string | null
    readonly probability: number
    readonly logit: number
  }[]
  /** Place of the token that was chosen among all, 0 for the likeliest. */
  readonly chosen_rank: number | null
}

export interface NormsTile {
  readonly hook: string
  readonly tokens: readonly [number, number]
  readonly tokens_per_cell: number
  readonly rows: readonly {
    readonly layer: number
    readonly mean: readonly (number | null)[]
    readonly max: readonly (number | null)[]
  }[]
}

export interface PatternWindow {
  readonly layer: number
  readonly head: number | 'mean'
  readonly heads: number
  readonly queries: readonly [number, number]
  readonly keys: readonly [number, number]
  readonly tokens_per_cell: number
  readonly rows: number
  readonly columns: number
  readonly cells: readonly (number | null)[]
  readonly sink: {
    /** Mean mass on the keys of each column, over the queries shown. */
    readonly key_mass: readonly (number | null)[]
    /** Mean mass on the first key. */
    readonly first_key: number | null
  }
  /** For each row the share of mass on keys of the prompt; null for queries of the prompt. */
  readonly lookback: readonly (number | null)[]
}

/** Where the exporter keeps the tensors. */
export interface StoreFacts {
  readonly url: string
}
