/**
 * Joins the statistics that several ranks measured of one request. Pure.
 *
 * - Of a hook that is not sharded every rank has the same tensor: one rank's values are taken, that of
 *   the first rank that has the layer. Stages of a pipeline have different layers.
 * - Of a sharded hook the shards are joined where that is exact: means over heads (the shards have as
 *   many heads each), largest and smallest values, counts. A copy of key and value heads counts once.
 * - What shards cannot tell of the whole has no value: a norm of a vector that is cut in pieces, and a
 *   share of heads whose largest was taken over several steps.
 */
import type { ActiveRequest } from './active-request.ts'
import { compareRanks, isParallel, isReplica, isSharded, noRanks } from './ranks.ts'
import {
  type Cell,
  type Cells,
  combinationOf,
  createStatistics,
  type RequestStatistics,
} from './request-statistics.ts'

/** Norms along an axis that is sharded: of each shard there is one, of the whole there is none. */
const cutAlongTheirRows = new Set(['l2_mean', 'l2_max', 'rms_mean', 'l2_no_first_mean'])
/** Hooks whose rows (the last axis) are what is sharded. */
const cutHooks = new Set(['mlp_post'])
/** Shares of heads of which a request has the largest of its steps. */
const shareOfHeads = 'collapsed_head_share'

export function mergeStatistics(requests: readonly ActiveRequest[]): RequestStatistics {
  const [only] = requests
  if (only !== undefined && !isParallel(only.model)) return only.statistics
  const parts = requests.toSorted((left, right) =>
    compareRanks(left.model.ranks, right.model.ranks),
  )
  const merged = createStatistics()
  mergeCells(
    merged.cells,
    parts.map((part) => [part, part.statistics.cells]),
  )
  for (const phase of ['prefill', 'decode'] as const) {
    mergeCells(
      merged.phases[phase],
      parts.map((part) => [part, part.statistics.phases[phase]]),
    )
  }
  for (const { statistics } of parts) {
    merged.nan += statistics.nan
    merged.posInf += statistics.posInf
    merged.negInf += statistics.negInf
  }
  return merged
}

function mergeCells(into: Cells, parts: readonly (readonly [ActiveRequest, Cells])[]): void {
  const names = new Set(parts.flatMap(([, cells]) => [...cells.keys()]))
  for (const name of names) {
    const hook = name.slice(0, name.indexOf('.'))
    const layers = new Set(parts.flatMap(([, cells]) => [...(cells.get(name)?.keys() ?? [])]))
    const merged = new Map<number, Cell>()
    for (const layer of layers) {
      const held = parts.filter(([, cells]) => cells.get(name)?.has(layer))
      const cell = mergeLayer(name, hook, layer, held)
      if (cell !== null) merged.set(layer, cell)
    }
    if (merged.size > 0) into.set(name, merged)
  }
}

type Held = readonly (readonly [ActiveRequest, Cells])[]

function mergeLayer(name: string, hook: string, layer: number, held: Held): Cell | null {
  const cellOf = ([, cells]: Held[number]): Cell | undefined => cells.get(name)?.get(layer)
  const shards = isSharded(hook) ? held.filter(([{ model }]) => isOwn(hook, model)) : held
  const [first] = shards
  const cell = first === undefined ? undefined : cellOf(first)
  if (first === undefined || cell === undefined) return null
  if (!isSharded(hook)) return { ...cell }
  const world = first[0].model.world?.tp ?? 1
  const expected = Array.from({ length: world }, (_, tp) => tp).filter(
    (tp) => !isReplica(hook, tp, world, first[0].model.kvHeads),
  )
  // Less than the whole has no value of the whole.
  if (shards.length !== expected.length) return null
  const statistic = name.slice(hook.length + 1)
  const cells = shards.flatMap((shard) => cellOf(shard) ?? [])
  if (cells.length === 1) return { ...cell }
  if (cutHooks.has(hook) && cutAlongTheirRows.has(statistic)) return null
  if (statistic === shareOfHeads) {
    const once = shards.every(([{ statistics }]) => statistics.seen.get(hook)?.get(layer) === 1)
    return mergedShare(cells, once)
  }
  return mergeAll(statistic, cells)
}

function isOwn(hook: string, model: ActiveRequest['model']): boolean {
  const { tp } = model.ranks ?? noRanks
  return !isReplica(hook, tp, model.world?.tp ?? 1, model.kvHeads)
}

function mergeAll(statistic: string, cells: readonly Cell[]): Cell | null {
  const values = cells.map(({ value }) => value)
  const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)
  const weight = sum(cells.map((cell) => cell.weight))
  switch (combinationOf(statistic)) {
    case 'mean':
    case 'sum':
      return { value: sum(values), weight }
    case 'max':
      return { value: Math.max(...values), weight }
    case 'min':
      return { value: Math.min(...values), weight }
    default:
      return null
  }
}

/** Of one slice the mean of the shards' shares; of several only none at all is certain. */
function mergedShare(cells: readonly Cell[], once: boolean): Cell | null {
  const weight = cells[0]?.weight ?? 0
  const total = cells.reduce((sum, { value }) => sum + value, 0)
  return once || total === 0 ? { value: total / cells.length, weight } : null
}
