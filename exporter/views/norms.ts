/**
 * The view of norms: for each layer, mean and largest L2 norm of the tokens that a cell covers.
 *
 * The norms of all layers are kept, so that zooming reads nothing; only where a hook's tensors are
 * larger than the bound are those of the tokens asked for computed alone.
 */

import { hooks, rowNorms } from '../../collector/index.ts'
import type { CatalogSeries } from '../catalog/catalog.ts'
import { Ring2Error } from '../errors.ts'
import { viewLimits } from '../limits.ts'
import type { OpenedTensor, TensorReader } from '../tensors/reader.ts'
import type { TokenRange } from '../tensors/selection.ts'
import type { ViewCache } from './cache.ts'
import { shownAll, tokensPerCell } from './numbers.ts'
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

const NORM_BYTES = Float64Array.BYTES_PER_ELEMENT

export interface NormsQuery {
  readonly hook: string
  readonly tokens: TokenRange | null
  /** Cells of a row, at most. */
  readonly columns: number
}

export interface NormsView {
  readonly hook: string
  readonly layers: readonly number[]
  readonly tokens: readonly [number, number]
  readonly tokens_per_cell: number
  readonly rows: readonly NormsRow[]
}

interface NormsRow {
  readonly layer: number
  readonly mean: readonly (number | null)[]
  readonly max: readonly (number | null)[]
}

export interface NormsSources {
  readonly reader: TensorReader
  readonly cache: ViewCache
}

/** The series that the view comes from. @throws Ring2Error for a hook that is not stored. */
export function normsSeries(scope: ViewScope, hook: string): CatalogSeries[] {
  const shape = hooks.find((one) => one.name === hook)?.shape
  if (shape === 'attention' || hook === 'token_ids' || hook === 'topk_ids') {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: 'a hook with a row of numbers for each token, such as resid_pre',
      actual: `hook=${hook}`,
    })
  }
  const series = seriesOf(scope, hook)
  if (series.length === 0) throw unknownTensor(scope, hook, null)
  return series
}

export async function normsView(
  sources: NormsSources,
  scope: ViewScope,
  query: NormsQuery,
): Promise<NormsView> {
  const series = normsSeries(scope, query.hook)
  const whole = { start: 0, end: tokenEnd(series) }
  const tokens = clampRange(query.tokens, whole.end, 'tokens')
  const bytes = (range: TokenRange) => series.reduce((sum, one) => sum + bytesIn(one, range), 0)
  const read = bytes(whole) <= viewLimits.sourceBytesMax ? whole : tokens
  if (bytes(read) > viewLimits.sourceBytesMax) {
    throw new Ring2Error('RING2_E_TOO_LARGE', {
      expected: `at most ${viewLimits.sourceBytesMax} bytes of tensors for one view`,
      actual: `some ${Math.round(bytes(read))} bytes`,
      action: 'Ask for fewer tokens (tokens=a:b).',
    })
  }
  const size = tokensPerCell(tokens.end - tokens.start, query.columns)
  const layers = [...new Set(series.map((one) => one.layer))].sort((left, right) => left - right)
  const norms = await allNorms(sources, scope, query.hook, read)
  const rows = layers.map((layer) => {
    const part = norms.get(layer)?.subarray(tokens.start - read.start, tokens.end - read.start)
    return { layer, ...poolNorms(part ?? missingNorms(tokens), size) }
  })
  return {
    hook: query.hook,
    layers,
    tokens: [tokens.start, tokens.end],
    tokens_per_cell: size,
    rows,
  }
}

/** Bytes of a series within the range, as if its tokens were of one size. */
function bytesIn(series: CatalogSeries, range: TokenRange): number {
  const tokens = Math.max(1, series.token_end - series.token_start)
  const start = Math.max(series.token_start, range.start)
  const covered = Math.max(0, Math.min(series.token_end, range.end) - start)
  return (series.bytes * covered) / tokens
}

function missingNorms({ start, end }: TokenRange): Float64Array {
  return new Float64Array(end - start).fill(Number.NaN)
}

/** Norms of the tokens of the range, of each layer that has any; NaN where nothing is stored. */
async function allNorms(
  { reader, cache }: NormsSources,
  scope: ViewScope,
  hook: string,
  range: TokenRange,
): Promise<ReadonlyMap<number, Float64Array>> {
  const near = seriesOf(scope, hook).filter((one) => overlaps(one, range))
  const layers = [...new Set(near.map((one) => one.layer))]
  return await cache.get(`norms ${fingerprintOf(near, range)}`, async () => {
    const all = new Map<number, Float64Array>()
    const { layer: _, ...query } = tensorQuery(scope, hook, 0, range)
    for await (const opened of reader.openLayers(query, layers)) {
      all.set(opened.layer, await normsOf(opened, range))
    }
    return { value: all, bytes: all.size * (range.end - range.start) * NORM_BYTES }
  })
}

async function normsOf(opened: OpenedTensor, range: TokenRange): Promise<Float64Array> {
  const { shape, dtype, tokens } = opened.plan
  const rows = shape[0] ?? 0
  const width = shape.slice(1).reduce((product, one) => product * one, 1)
  const values = await rowNorms({ dtype: dtype.name, data: await opened.read() }, rows, width)
  const norms = missingNorms(range)
  let from = 0
  for (const { start, end } of tokens) {
    norms.set(values.subarray(from, from + end - start), start - range.start)
    from += end - start
  }
  return norms
}

/** Mean and maximum of each run of `size` values; values of NaN count for nothing. */
export function poolNorms(norms: Float64Array, size: number): Omit<NormsRow, 'layer'> {
  const cells = Math.ceil(norms.length / size)
  const mean = new Float64Array(cells).fill(Number.NaN)
  const max = new Float64Array(cells).fill(Number.NaN)
  for (let cell = 0; cell < cells; cell += 1) {
    let sum = 0
    let count = 0
    let largest = Number.NEGATIVE_INFINITY
    for (const norm of norms.subarray(cell * size, (cell + 1) * size)) {
      if (Number.isNaN(norm)) continue
      sum += norm
      count += 1
      largest = Math.max(largest, norm)
    }
    if (count === 0) continue
    mean[cell] = sum / count
    max[cell] = largest
  }
  return { mean: shownAll(mean), max: shownAll(max) }
}
