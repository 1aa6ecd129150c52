/**
 * The native kernels of views, as promises: norms, softmaxes and attention tiles of memory that was
 * read back from the store. They run beside the event loop and keep no state.
 *
 * Arrays are dense and row-major, elements little-endian; an undefined value is NaN.
 */
import { dtypes } from './layout.gen.ts'
import { nativeTask } from './native.ts'

/** Elements of a tensor; `dtype` by its name. */
export interface Elements {
  readonly dtype: string
  readonly data: Uint8Array
}

/** One row of logits, in nats and logits. */
export interface SoftmaxFacts {
  readonly entropy: number
  readonly top1Probability: number
  /** The largest logit less the second largest. */
  readonly margin: number
  /** −ln of the label's probability. */
  readonly surprisal: number
}

export interface TopToken {
  readonly id: number
  readonly probability: number
  readonly logit: number
}

export interface TopTokens {
  readonly entropy: number
  readonly tokens: readonly TopToken[]
  /** How many ids come before the label; −1 without a label. */
  readonly rank: number
}

/** Part of a matrix [queries, keys] of probabilities, and how many tokens a side of a cell covers. */
export interface PatternTile {
  readonly queries: number
  readonly keys: number
  /** Position of the matrix' first query. */
  readonly firstQuery: number
  /** Indices into the matrix, half open. */
  readonly queryStart: number
  readonly queryEnd: number
  readonly keyStart: number
  readonly keyEnd: number
  readonly cell: number
  /** Null when the prompt's length is not known. */
  readonly promptTokens: number | null
}

export interface PatternCells {
  readonly rows: number
  readonly columns: number
  /** [rows, columns], the largest probability covered. */
  readonly cells: Float32Array
  readonly keyMass: Float64Array
  readonly lookback: Float64Array
  readonly firstKey: number
}

type Task = ReturnType<typeof nativeTask>

const data = 'const void *data, uint64_t data_bytes, uint32_t dtype'
const declarations = {
  norms: `int ring2_view_norms(${data}, uint64_t rows, uint64_t width, double *norms)`,
  logits: `int ring2_view_logits(${data}, uint64_t rows, uint64_t width, const double *labels, void *out)`,
  top: `int ring2_view_top(${data}, uint64_t width, int64_t label, uint64_t count, void *out, void *facts)`,
  add: `int ring2_view_pattern_add(${data}, uint64_t heads, uint64_t queries, uint64_t keys, float scale, float *sums)`,
  tile:
    'int ring2_view_pattern_tile(const float *matrix, uint64_t floats, const void *what, ' +
    'float *cells, double *key_mass, double *lookback, double *first_key)',
}
const tasks = new Map<keyof typeof declarations, Task>()

function task(name: keyof typeof declarations): Task {
  const known = tasks.get(name) ?? nativeTask(declarations[name])
  tasks.set(name, known)
  return known
}

const dtypeIds = new Map([...dtypes].map(([id, name]) => [name, id]))

/** Doubles of one ring2_view_softmax and one ring2_view_token. */
const SOFTMAX_DOUBLES = 4
const TOKEN_DOUBLES = 3

/** L2 norm of each of `rows` rows over its finite elements. */
export async function rowNorms(
  { dtype, data }: Elements,
  rows: number,
  width: number,
): Promise<Float64Array> {
  const norms = new Float64Array(rows)
  await task('norms')(data, data.byteLength, idOf(dtype), rows, width, norms)
  return norms
}

/** @param labels a token id for each row, below 0 for none. */
export async function rowSoftmaxes(
  { dtype, data }: Elements,
  labels: Float64Array,
  width: number,
): Promise<SoftmaxFacts[]> {
  const out = new Float64Array(labels.length * SOFTMAX_DOUBLES)
  const rows = labels.length
  await task('logits')(data, data.byteLength, idOf(dtype), rows, width, labels, out)
  return Array.from(labels, (_, row) => {
    const [entropy = Number.NaN, top1Probability = Number.NaN] = out.subarray(row * SOFTMAX_DOUBLES)
    const [margin = Number.NaN, surprisal = Number.NaN] = out.subarray(row * SOFTMAX_DOUBLES + 2)
    return { entropy, top1Probability, margin, surprisal }
  })
}

/** The `count` most probable ids of one row of logits; null when it has no softmax. */
export async function topTokens(
  { dtype, data }: Elements,
  width: number,
  count: number,
  label: number | null,
): Promise<TopTokens | null> {
  const out = new Float64Array(count * TOKEN_DOUBLES)
  const facts = new Float64Array(2)
  const id = idOf(dtype)
  await task('top')(data, data.byteLength, id, width, label ?? -1, count, out, facts)
  const [entropy = Number.NaN, rank = -1] = facts
  if (Number.isNaN(entropy)) return null
  const tokens = Array.from({ length: count }, (_, index) => {
    const [id = 0, probability = 0, logit = 0] = out.subarray(index * TOKEN_DOUBLES)
    return { id, probability, logit }
  })
  return { entropy, tokens, rank }
}

/** Adds a pattern [heads, queries, keys], times `scale`, to sums [queries, keys]. */
export async function addPattern(
  { dtype, data }: Elements,
  shape: readonly [heads: number, queries: number, keys: number],
  scale: number,
  sums: Float32Array,
): Promise<void> {
  await task('add')(data, data.byteLength, idOf(dtype), ...shape, scale, sums)
}

/** @param matrix [queries, keys]; a row of NaN is a query that is not stored. */
export async function patternCells(matrix: Float32Array, tile: PatternTile): Promise<PatternCells> {
  const rows = Math.ceil((tile.queryEnd - tile.queryStart) / tile.cell)
  const columns = Math.ceil((tile.keyEnd - tile.keyStart) / tile.cell)
  const { queries, keys, firstQuery, queryStart, queryEnd, keyStart, keyEnd, cell } = tile
  const sizes = [queries, keys, firstQuery, queryStart, queryEnd, keyStart, keyEnd, cell]
  // The fields of ring2_view_tile, in order.
  const what = BigInt64Array.from([...sizes, tile.promptTokens ?? -1], (value) => BigInt(value))
  const cells = new Float32Array(rows * columns)
  const keyMass = new Float64Array(columns)
  const lookback = new Float64Array(rows)
  const firstKey = new Float64Array(1)
  await task('tile')(matrix, matrix.length, what, cells, keyMass, lookback, firstKey)
  return { rows, columns, cells, keyMass, lookback, firstKey: firstKey[0] ?? Number.NaN }
}

function idOf(dtype: string): number {
  // The library refuses 0, and every type that is no float.
  return dtypeIds.get(dtype) ?? 0
}
