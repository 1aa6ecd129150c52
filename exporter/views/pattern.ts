/**
 * The view of one layer's attention: a tile of its pattern, of one head or the mean over heads, in
 * which a cell is the largest probability that it covers; and where the mass goes.
 *
 * The pattern [queries, keys] of a head is kept as float32, so that zooming reads nothing; only where
 * it is larger than the bound is it read for the queries asked for alone.
 */

import { addPattern, patternCells } from '../../collector/index.ts'
import type { CatalogSeries } from '../catalog/catalog.ts'
import { Ring2Error } from '../errors.ts'
import { viewLimits } from '../limits.ts'
import type { TensorReader } from '../tensors/reader.ts'
import type { TokenRange } from '../tensors/selection.ts'
import type { ViewCache } from './cache.ts'
import { shown, shownAll, tokensPerCell } from './numbers.ts'
import {
  clampRange,
  fingerprintOf,
  overlaps,
  seriesOf,
  tensorQuery,
  tokenEnd,
  unknownTensor,
  type ViewScope,
} from './scope.ts'

const HOOK = 'pattern'

export interface PatternQuery {
  readonly layer: number
  readonly head: number | 'mean'
  readonly queries: TokenRange | null
  readonly keys: TokenRange | null
  /** Rows and columns of cells, at most. */
  readonly size: number
}

export interface PatternView {
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
    readonly key_mass: readonly (number | null)[]
    readonly first_key: number | null
  }
  readonly lookback: readonly (number | null)[]
}

export interface PatternSources {
  readonly reader: TensorReader
  readonly cache: ViewCache
  /** Bytes of heads read at once for their mean. */
  readonly headGroupBytesMax: number
}

/** What is stored of the layer: its heads, and the longest row of keys. */
interface PatternFacts {
  readonly heads: number
  readonly keys: number
  readonly elementBytes: number
}

/** The series that the view comes from. @throws Ring2Error for a layer that is not stored. */
export function patternSeries(scope: ViewScope, layer: number): CatalogSeries[] {
  const series = seriesOf(scope, HOOK, layer)
  if (series.length === 0) throw unknownTensor(scope, HOOK, layer)
  return series
}

export async function patternView(
  sources: PatternSources,
  scope: ViewScope,
  query: PatternQuery,
): Promise<PatternView> {
  const { layer, head } = query
  const series = patternSeries(scope, layer)
  const facts = await patternFacts(sources, scope, layer, series)
  if (head !== 'mean' && head >= facts.heads) {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: `head from 0 to ${facts.heads - 1}, or mean`,
      actual: `head=${head}`,
    })
  }
  const whole = { start: 0, end: tokenEnd(series) }
  const queries = clampRange(query.queries, whole.end, 'queries')
  const keys = clampRange(query.keys, facts.keys, 'keys')
  const read = fits(whole, facts) ? whole : queries
  if (!fits(read, facts)) throw tooLarge(read, facts)
  const matrix = await headMatrix(sources, scope, query, facts, read)
  const cell = tokensPerCell(
    Math.max(queries.end - queries.start, keys.end - keys.start),
    query.size,
  )
  const tile = await patternCells(matrix, {
    queries: read.end - read.start,
    keys: facts.keys,
    firstQuery: read.start,
    queryStart: queries.start - read.start,
    queryEnd: queries.end - read.start,
    keyStart: keys.start,
    keyEnd: keys.end,
    cell,
    promptTokens: scope.request.prompt_tokens,
  })
  return {
    layer,
    head,
    heads: facts.heads,
    queries: [queries.start, queries.end],
    keys: [keys.start, keys.end],
    tokens_per_cell: cell,
    rows: tile.rows,
    columns: tile.columns,
    cells: shownAll(tile.cells),
    sink: { key_mass: shownAll(tile.keyMass), first_key: shown(tile.firstKey) },
    lookback: shownAll(tile.lookback),
  }
}

function fits(queries: TokenRange, facts: PatternFacts): boolean {
  return (queries.end - queries.start) * facts.keys <= viewLimits.patternElementsMax
}

function tooLarge(queries: TokenRange, facts: PatternFacts): Ring2Error {
  const most = Math.max(1, Math.floor(viewLimits.patternElementsMax / facts.keys))
  return new Ring2Error('RING2_E_TOO_LARGE', {
    expected: `at most ${viewLimits.patternElementsMax} elements of one head`,
    actual: `${queries.end - queries.start} queries of ${facts.keys} keys`,
    action: `Ask for at most ${most} queries (queries=a:b).`,
  })
}

async function patternFacts(
  { reader, cache }: PatternSources,
  scope: ViewScope,
  layer: number,
  series: readonly CatalogSeries[],
): Promise<PatternFacts> {
  return await cache.get(`facts ${fingerprintOf(series)}`, async () => {
    const { traceId, requestId, producer } = scope.query
    const rows = await reader.list({ traceId, requestId, producer, hook: HOOK, layer })
    const [heads = 1, queries = 1, keys = 1] = rows[0]?.shape ?? []
    // Tensor-parallel ranks have heads of their own.
    const shards = new Map(rows.map((row) => [row.tp_rank, row.shape[0] ?? 0]))
    const value = {
      heads: [...shards.values()].reduce((sum, count) => sum + count, 0) || heads,
      keys: rows.reduce((longest, row) => Math.max(longest, row.shape[2] ?? 0), 0),
      elementBytes: (rows[0]?.data_bytes ?? 0) / (heads * queries * keys),
    }
    return { value, bytes: viewLimits.entryBytes }
  })
}

/** The pattern of a head, or the mean over heads, of the queries [read]; NaN rows where none is. */
async function headMatrix(
  { reader, cache, headGroupBytesMax }: PatternSources,
  scope: ViewScope,
  { layer, head }: PatternQuery,
  facts: PatternFacts,
  read: TokenRange,
): Promise<Float32Array> {
  const near = seriesOf(scope, HOOK, layer).filter((one) => overlaps(one, read))
  return await cache.get(`pattern ${fingerprintOf(near, head, read)}`, async () => {
    const queries = read.end - read.start
    const matrix = new Float32Array(queries * facts.keys).fill(Number.NaN)
    const placed = new Set<number>()
    for (const heads of near.length === 0
      ? []
      : headGroups(head, facts, queries, headGroupBytesMax)) {
      const opened = await reader.open(tensorQuery(scope, HOOK, layer, read, heads))
      const [count = 0, rows = 0, keys = 0] = opened.plan.shape
      const sums = new Float32Array(rows * keys)
      const elements = { dtype: opened.plan.dtype.name, data: await opened.read() }
      const scale = head === 'mean' ? 1 / facts.heads : 1
      await addPattern(elements, [count, rows, keys], scale, sums)
      const tokens = opened.plan.tokens
      let row = 0
      for (const position of tokens.flatMap((range) => positions(range))) {
        const to = (position - read.start) * facts.keys
        const values = sums.subarray(row * keys, (row + 1) * keys)
        if (placed.has(position)) addRow(values, matrix, to)
        else {
          matrix.set(values, to)
          matrix.fill(0, to + keys, to + facts.keys)
          placed.add(position)
        }
        row += 1
      }
    }
    return { value: matrix, bytes: matrix.byteLength }
  })
}

/** Heads to read at once, so that what is in memory stays within a bound. */
function headGroups(
  head: number | 'mean',
  facts: PatternFacts,
  queries: number,
  bytesMax: number,
): readonly (readonly number[])[] {
  if (head !== 'mean') return [[head]]
  const headBytes = Math.max(1, queries * facts.keys * facts.elementBytes)
  const size = Math.max(1, Math.floor(bytesMax / headBytes))
  const groups: number[][] = []
  for (let first = 0; first < facts.heads; first += size) {
    const count = Math.min(size, facts.heads - first)
    groups.push(Array.from({ length: count }, (_, index) => first + index))
  }
  return groups
}

function positions({ start, end }: TokenRange): number[] {
  return Array.from({ length: end - start }, (_, index) => start + index)
}

function addRow(row: Float32Array, matrix: Float32Array, to: number): void {
  for (let key = 0; key < row.length; key += 1) {
    matrix[to + key] = (matrix[to + key] ?? 0) + (row[key] ?? 0)
  }
}
