/**
 * Parts of requests that a segment's registry holds until all ranks of a parallel model have theirs
 * (rank-join.ts). They are in the segment's checkpoint, so that a restarted exporter joins them too.
 */
import type { ActiveRequest } from './active-request.ts'
import type { RequestEnd } from './bodies.ts'
import type { Expectation } from './control-book.ts'
import { groupName, type PartHolder, type RankJoin } from './rank-join.ts'
import { isParallel } from './ranks.ts'
import type { ProducerInfo, RequestSummary } from './records.ts'
import { restoreStatistics, type StoredStatistics, storeStatistics } from './request-statistics.ts'
import { type RequestPart, summarizeParts } from './request-summary.ts'
import type { Verdicts } from './verdicts.ts'

/** An active request as a checkpoint has it. */
type Added = 'captured' | 'leftOut' | 'gaps' | 'kept'

export type StoredRequest = Omit<ActiveRequest, 'statistics' | Added> & {
  readonly statistics: StoredStatistics
} & Partial<Pick<ActiveRequest, Added>> // left out by older exporters

export interface StoredParts {
  readonly parts: readonly {
    readonly request: StoredRequest
    readonly end: RequestEnd | null
    readonly endedAtMicros: number
  }[]
  /** Names of requests that this segment has told of, and parts of which others may still hold. */
  readonly told: readonly string[]
}

export interface HeldParts {
  /** A request has ended in this segment: it is told of now, or with the parts of other ranks. */
  finish(request: ActiveRequest, end: RequestEnd | null, endedAtMicros: number): void
  /** How many requests keep the segment from being given back. */
  unsettled(): number
  /** Whether a part was dropped since `saved`, so that the checkpoint says too much. */
  changed(): boolean
  saved(): void
  store(): StoredParts
  restore(stored: StoredParts): void
}

export interface HeldPartsOptions {
  readonly producer: ProducerInfo
  readonly expected: Expectation
  readonly verdicts: Verdicts
  /** Left out, every part is told of as a request. */
  readonly ranks?: RankJoin
  onEnd(summary: RequestSummary): void
}

export function createHeldParts(options: HeldPartsOptions): HeldParts {
  const { producer, expected, verdicts, ranks } = options
  const held = new Map<string, RequestPart>()
  const told = new Set<string>()
  let changed = false

  const holder: PartHolder = {
    tell(summary, name) {
      held.delete(name)
      told.add(name)
      options.onEnd(summary)
    },
    drop(name) {
      changed = held.delete(name) || changed
    },
    settled(name) {
      told.delete(name)
    },
  }

  function finish(request: ActiveRequest, end: RequestEnd | null, endedAtMicros: number): void {
    const part = { request, producer, end, endedAtMicros, expected }
    if (ranks === undefined || !isParallel(request.model)) {
      options.onEnd(summarizeParts([part], verdicts))
      return
    }
    held.set(groupName(request.info, request.model), part)
    ranks.offer(part, holder)
  }

  return {
    finish,
    unsettled: () => held.size + told.size,
    changed: () => changed,
    saved() {
      changed = false
    },
    store: () => ({
      parts: Array.from(held.values(), ({ request, end, endedAtMicros }) => ({
        request: storeRequest(request),
        end,
        endedAtMicros,
      })),
      told: [...told],
    }),
    restore(stored) {
      for (const name of stored.told) told.add(name)
      ranks?.restoreTold(stored.told, producer, holder)
      for (const { request, end, endedAtMicros } of stored.parts) {
        finish(restoreRequest(request), end, endedAtMicros)
      }
    },
  }
}

export function storeRequest(request: ActiveRequest): StoredRequest {
  return { ...request, statistics: storeStatistics(request.statistics) }
}

export function restoreRequest(stored: StoredRequest): ActiveRequest {
  return {
    captured: [[0, stored.steps]],
    leftOut: 0,
    gaps: [],
    kept: [[0, stored.tokens]],
    ...stored,
    statistics: restoreStatistics(stored.statistics),
  }
}
