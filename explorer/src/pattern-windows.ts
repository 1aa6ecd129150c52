/**
 * Windows of attention patterns: for any part in view one answer with a bounded number of cells. The whole
 * pattern, coarse, lies below until the part has come.
 */
import type { Answer, Api } from './api.ts'
import { limits } from './limits.ts'
import type { Area, Patch } from './picture.ts'
import { spanText } from './picture.ts'
import { createRecent } from './recent.ts'
import type { PatternWindow, TracedRequest } from './shapes.ts'

export interface PatternPart {
  readonly window: PatternWindow
  readonly patch: Patch
}

export interface PatternChoice {
  readonly layer: number
  /** A number, or `mean` over the heads. */
  readonly head: string
}

export interface PatternWindows {
  ask(
    choice: PatternChoice,
    area: Area,
    size: number,
    signal: AbortSignal,
  ): Promise<Answer<PatternPart>>
  known(choice: PatternChoice, area: Area, size: number): PatternPart | undefined
}

export function createPatternWindows(
  api: Api,
  traceId: string,
  { request_id, producer }: TracedRequest,
): PatternWindows {
  const kept = createRecent<PatternPart>(limits.answersKept + limits.headsMax)
  const keyOf = ({ layer, head }: PatternChoice, { x, y }: Area, size: number): string =>
    `${layer} ${head} ${spanText(y)} ${spanText(x)} ${size}`

  async function ask(choice: PatternChoice, area: Area, size: number, signal: AbortSignal) {
    const key = keyOf(choice, area, size)
    const known = kept.get(key)
    if (known !== undefined) return { status: 'success' as const, value: known }
    const answer = await api.get<PatternWindow>(
      `/v1/traces/${traceId}/views/pattern/${choice.layer}`,
      {
        request_id,
        producer,
        head: choice.head,
        queries: spanText(area.y),
        keys: spanText(area.x),
        size,
      },
      signal,
    )
    if (answer.status !== 'success') return answer
    const value = { window: answer.value, patch: patchOf(answer.value) }
    kept.set(key, value)
    return { status: 'success' as const, value }
  }

  return { ask, known: (choice, area, size) => kept.get(keyOf(choice, area, size)) }
}

function patchOf({ keys, queries, tokens_per_cell, columns, rows, cells }: PatternWindow): Patch {
  return {
    x: keys[0],
    y: queries[0],
    cellWidth: tokens_per_cell,
    cellHeight: tokens_per_cell,
    columns,
    rows,
    values: cells,
  }
}
