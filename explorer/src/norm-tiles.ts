/**
 * Tiles of a norms view by level of detail: at level n a cell covers 2^n tokens and a tile a fixed number
 * of cells, so a view needs a few tiles whatever the length of the request.
 */
import type { Answer, Api, Problem } from './api.ts'
import { limits } from './limits.ts'
import type { Patch, Span } from './picture.ts'
import { createRecent } from './recent.ts'
import type { NormsTile, TracedRequest } from './shapes.ts'

export type CellKind = 'mean' | 'max'

export interface LayerTile {
  readonly tile: NormsTile
  readonly patches: Readonly<Record<CellKind, Patch>>
}

export interface NormTiles {
  /** Tiles here that show the span, coarse ones first, and asks for those that are missing. */
  covering(hook: string, span: Span): readonly LayerTile[]
  /** Everything here of the hook. */
  all(hook: string): readonly LayerTile[]
}

/** The finest level whose cells across the span are few enough. */
export function levelOf(span: Span): number {
  return Math.max(0, Math.ceil(Math.log2((span.end - span.start) / limits.viewCells)))
}

/** @param onTile one more has come; a problem is told instead of a tile. */
export function createNormTiles(
  api: Api,
  path: string,
  request: TracedRequest,
  total: (hook: string) => number,
  signal: AbortSignal,
  onTile: (problem: Problem | null) => void,
): NormTiles {
  const kept = createRecent<LayerTile>(limits.answersKept)
  const asked = new Set<string>()

  async function ask(hook: string, key: string, tokens: Span): Promise<void> {
    if (asked.has(key)) return
    asked.add(key)
    const answer: Answer<NormsTile> = await api.get(
      path,
      {
        request_id: request.request_id,
        producer: request.producer,
        hook,
        tokens: `${tokens.start}:${tokens.end}`,
        columns: limits.tileCells,
      },
      signal,
    )
    asked.delete(key)
    if (answer.status === 'aborted') return
    if (answer.status === 'success')
      kept.set(key, { tile: answer.value, patches: patchesOf(answer.value) })
    onTile(answer.status === 'problem' ? answer.problem : null)
  }

  function at(hook: string, span: Span, level: number): LayerTile[] {
    const length = limits.tileCells * 2 ** level
    const found: LayerTile[] = []
    for (let start = Math.floor(span.start / length) * length; start < span.end; start += length) {
      const key = JSON.stringify([hook, level, start])
      const tile = kept.get(key)
      if (tile !== undefined) found.push(tile)
      else void ask(hook, key, { start, end: Math.min(total(hook), start + length) })
    }
    return found
  }

  return {
    covering(hook, span) {
      const whole = { start: 0, end: total(hook) }
      const coarsest = levelOf(whole)
      const level = levelOf(span)
      const under = at(hook, coarsest === level ? span : whole, coarsest)
      return coarsest === level ? under : [...under, ...at(hook, span, level)]
    },
    all: (hook) => [...kept.values()].filter((one) => one.tile.hook === hook),
  }
}

function patchesOf(tile: NormsTile): Record<CellKind, Patch> {
  const of = (kind: CellKind): Patch => ({
    x: tile.tokens[0],
    y: 0,
    cellWidth: tile.tokens_per_cell,
    cellHeight: 1,
    columns: tile.rows[0]?.[kind].length ?? 0,
    rows: tile.rows.length,
    values: tile.rows.flatMap((row) => row[kind]),
  })
  return { mean: of('mean'), max: of('max') }
}
