/** What is known of a request that has not ended. Types alone. */
import type { ModelInfo, Phase, RequestInfo } from './records.ts'
import type { RequestStatistics } from './request-statistics.ts'

export interface PhaseState {
  startedAtMicros: number
  endedAtMicros: number
  tokenStart: number
  tokenEnd: number
  steps: number
}

/** A request that has not ended. */
export interface ActiveRequest {
  info: RequestInfo
  model: ModelInfo
  readonly phases: Partial<Record<Phase, PhaseState>>
  readonly statistics: RequestStatistics
  steps: number
  tokens: number
  lastSeenMicros: number
  tensorsStored: number
  bytesStored: number
  readonly losses: string[]
  readonly doubts: string[]
  /** Its steps by the control words they were captured by. */
  readonly captured: [sequence: number, steps: number][]
  /** Steps whose tokens are left out here, because the producer does not ask what is wanted. */
  leftOut: number
  /** Tokens that no step covered, in words: doubts, unless the policy left steps out. */
  readonly gaps: string[]
  /** Tokens of its steps, half-open ranges. */
  readonly kept: [start: number, end: number][]
}
