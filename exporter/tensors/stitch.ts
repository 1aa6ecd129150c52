/**
 * Stitches the rows of one series, one per step, into one tensor along the token axis.
 *
 * Pure: `planStitch` decides from the rows' places alone what the answer is, how large, and what is
 * missing; `copySegment` then copies one row's payload into it. Rules:
 *
 * - The token axis is axis 0, or axis 1 (queries) of attention [heads, queries, keys].
 * - A row of n entries for the tokens [a, b) holds the last n of them: all of them for most hooks,
 *   fewer for logits. More than b − a is a contradiction and an error.
 * - A position that several steps computed is taken from the latest.
 * - Attention rows of fewer keys than the longest are filled with zeros at the end.
 * - Positions that are missing are gaps of the plan; they are never joined silently.
 */

import type { HookShape } from '../../collector/hooks.gen.ts'
import { encodings } from '../codecs/plan.ts'
import { Ring2Error } from '../errors.ts'
import { type Dtype, dtypeOf } from './dtypes.ts'
import { clip, rangesText, subtract, unite } from './ranges.ts'
import type { StitchRecord } from './records.ts'
import type { TokenRange } from './selection.ts'

export interface StitchRequest {
  readonly shape: HookShape
  /** Axis of heads, or null for hooks that have none. */
  readonly headAxis: number | null
  /** Heads wanted, in the order of the answer; null for all. */
  readonly heads: readonly number[] | null
  readonly tokens: TokenRange | null
  /** Positions the request's steps computed, or null when that is not known. */
  readonly expected: readonly TokenRange[] | null
  /** Only these positions, of those that came; left out, all of them. */
  readonly within?: readonly TokenRange[]
}

/** Entries [from, from + count) of a row's token axis, placed at `out` of the answer's. */
export interface StitchSegment {
  readonly row: number
  readonly from: number
  readonly count: number
  readonly out: number
  /** Index into the plan's shards; left out where it has none. */
  readonly shard?: number
}

/** Where entries of a shard's own axis are placed on the answer's. */
export interface Shard {
  readonly runs: readonly { readonly from: number; readonly count: number; readonly to: number }[]
}

export interface StitchPlan {
  readonly dtype: Dtype
  readonly shape: readonly number[]
  readonly bytes: number
  readonly segments: readonly StitchSegment[]
  /** Positions of the token axis, in order. */
  readonly tokens: readonly TokenRange[]
  readonly gaps: readonly TokenRange[]
  readonly completeness: 'complete' | 'incomplete' | 'unknown'
  readonly attention: boolean
  readonly heads: readonly number[] | null
  /** Of a tensor that is put together from shards (shards.ts). */
  readonly shards?: readonly Shard[]
}

/** A run of positions that one row supplies. */
interface Piece extends TokenRange {
  readonly row: number
}

/** @param records of one series, without duplicates; a segment's `row` is an index into it. */
export function planStitch(records: readonly StitchRecord[], request: StitchRequest): StitchPlan {
  const [first] = records
  if (first === undefined) throw new Error('nothing to stitch')
  const dtype = dtypeOf(first.dtype)
  const axis = request.shape === 'attention' ? 1 : 0
  for (const record of records) checkRecord(record, first, axis, dtype)
  const chosen = choosePieces(records, axis, request.tokens)
  const { within } = request
  const pieces = within === undefined ? chosen : cutOut(chosen, subtract(unite(chosen), within))
  if (pieces.length === 0) throw nothingSelected(records, axis, request.tokens)
  const heads = checkHeads(first, request)
  const shape = answerShape(records, pieces, request, heads)
  const covered = unite(request.shape === 'request' ? stepRanges(records) : pieces)
  const wanted = wantedRanges(covered, request)
  const gaps = subtract(wanted, covered)
  const unknown = request.expected === null ? 'unknown' : 'complete'
  return {
    dtype,
    shape,
    bytes: shape.reduce((product, size) => product * size, dtype.bytes),
    segments: segmentsOf(records, pieces, axis),
    tokens: unite(pieces),
    gaps,
    completeness: gaps.length > 0 ? 'incomplete' : unknown,
    attention: request.shape === 'attention',
    heads,
  }
}

/** Copies a segment from its row's payload, whose shape is `shape`, into the answer. */
export function copySegment(
  plan: StitchPlan,
  segment: StitchSegment,
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  const shard = segment.shard === undefined ? undefined : plan.shards?.[segment.shard]
  if (shard !== undefined && plan.attention) copyShardHeads(plan, segment, shard, shape, data, out)
  else if (shard !== undefined) copyShardTokens(plan, segment, shard, shape, data, out)
  else if (plan.attention) copyAttention(plan, segment, shape, data, out)
  else copyTokens(plan, segment, shape, data, out)
}

function copyTokens(
  plan: StitchPlan,
  segment: StitchSegment,
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  const entryBytes = product(shape.slice(1)) * plan.dtype.bytes
  if (plan.heads === null) {
    const from = segment.from * entryBytes
    const part = data.subarray(from, from + segment.count * entryBytes)
    out.set(part, segment.out * entryBytes)
    return
  }
  const headBytes = entryBytes / (shape[1] ?? 1)
  let at = segment.out * plan.heads.length * headBytes
  for (let entry = segment.from; entry < segment.from + segment.count; entry += 1) {
    for (const head of plan.heads) {
      const from = entry * entryBytes + head * headBytes
      out.set(data.subarray(from, from + headBytes), at)
      at += headBytes
    }
  }
}

function copyAttention(
  plan: StitchPlan,
  segment: StitchSegment,
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  const chosen = plan.heads ?? Array.from({ length: shape[0] ?? 0 }, (_, head) => head)
  for (const [outHead, head] of chosen.entries()) {
    copyHead(plan, segment, [head, outHead], shape, data, out)
  }
}

function copyHead(
  plan: StitchPlan,
  segment: StitchSegment,
  [head, outHead]: readonly [number, number],
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  const [, queries = 0, keys = 0] = shape
  const [, outQueries = 0, outKeys = 0] = plan.shape
  const size = plan.dtype.bytes
  // Rows as long as those of the answer lie side by side in both.
  const together = keys === outKeys ? segment.count : 1
  for (let query = 0; query < segment.count; query += together) {
    const from = (head * queries + segment.from + query) * keys * size
    const to = (outHead * outQueries + segment.out + query) * outKeys * size
    out.set(data.subarray(from, from + together * keys * size), to)
  }
}

/** The shard's part of each entry: its axis is the one behind the tokens'. */
function copyShardTokens(
  plan: StitchPlan,
  segment: StitchSegment,
  { runs }: Shard,
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  const unit = product(shape.slice(2)) * plan.dtype.bytes
  const [, width = 0] = shape
  const [, outWidth = 0] = plan.shape
  for (let entry = 0; entry < segment.count; entry += 1) {
    for (const { from, count, to } of runs) {
      const source = ((segment.from + entry) * width + from) * unit
      const place = ((segment.out + entry) * outWidth + to) * unit
      out.set(data.subarray(source, source + count * unit), place)
    }
  }
}

function copyShardHeads(
  plan: StitchPlan,
  segment: StitchSegment,
  { runs }: Shard,
  shape: readonly number[],
  data: Uint8Array,
  out: Uint8Array,
): void {
  for (const { from, count, to } of runs) {
    for (let head = 0; head < count; head += 1) {
      copyHead(plan, segment, [from + head, to + head], shape, data, out)
    }
  }
}

/** Whether the answer is the payload of this one segment as it is, with nothing left out or moved. */
export function isWhole(
  plan: StitchPlan,
  segment: StitchSegment,
  shape: readonly number[],
): boolean {
  const same = plan.shape.every((size, axis) => size === shape[axis])
  const ordered = plan.heads === null || plan.heads.every((head, index) => head === index)
  return (
    plan.shards === undefined && plan.segments.length === 1 && segment.from === 0 && same && ordered
  )
}

function checkRecord(record: StitchRecord, first: StitchRecord, axis: number, dtype: Dtype): void {
  const { shape } = record
  const rank = axis === 1 ? 3 : Math.max(1, first.shape.length)
  if (shape.length !== rank) throw contradiction(record, `${rank} axes`, `shape [${shape}]`)
  if (record.dtype !== first.dtype) {
    throw contradiction(record, `${first.dtype} as in the other rows`, record.dtype)
  }
  if (!encodings.includes(record.encoding)) {
    throw contradiction(record, `one of the encodings ${encodings.join(', ')}`, record.encoding)
  }
  const bytes = product(shape) * dtype.bytes
  if (bytes !== record.data_bytes) {
    throw contradiction(record, `${bytes} bytes for [${shape}]`, `${record.data_bytes}`)
  }
  const fixed = axis === 1 ? [0] : shape.map((_, index) => index).slice(1)
  if (fixed.some((index) => shape[index] !== first.shape[index])) {
    throw contradiction(record, `[${first.shape}] but for its tokens`, `[${shape}]`)
  }
  const tokens = record.token_end - record.token_start
  if ((shape[axis] ?? 0) > tokens) {
    throw contradiction(record, `at most ${tokens} entries on axis ${axis}`, `[${shape}]`)
  }
}

/** The positions of each row, later steps over earlier ones, cut to what is asked. */
function choosePieces(
  records: readonly StitchRecord[],
  axis: number,
  tokens: TokenRange | null,
): Piece[] {
  const order = records.map((_, row) => row)
  order.sort((left, right) => stepOf(records, left) - stepOf(records, right))
  let pieces: Piece[] = []
  for (const row of order) {
    const record = records[row]
    if (record === undefined) continue
    const start = record.token_end - (record.shape[axis] ?? 0)
    const [piece] =
      tokens === null ? [{ start, end: record.token_end }] : clipOne(record, start, tokens)
    if (piece === undefined || piece.start >= piece.end) continue
    const last = pieces.at(-1)
    if (last !== undefined && piece.start < last.end) pieces = cutOut(pieces, [piece])
    pieces.push({ ...piece, row })
    const before = pieces.at(-2)
    if (before !== undefined && before.start > piece.start) {
      pieces.sort((left, right) => left.start - right.start)
    }
  }
  return pieces
}

function clipOne(record: StitchRecord, start: number, tokens: TokenRange): TokenRange[] {
  return clip([{ start, end: record.token_end }], tokens)
}

function stepOf(records: readonly StitchRecord[], row: number): number {
  return records[row]?.step ?? 0
}

function cutOut(pieces: readonly Piece[], holes: readonly TokenRange[]): Piece[] {
  return pieces.flatMap((piece) =>
    subtract([piece], holes).map((range) => ({ ...range, row: piece.row })),
  )
}

function segmentsOf(
  records: readonly StitchRecord[],
  pieces: readonly Piece[],
  axis: number,
): StitchSegment[] {
  let out = 0
  return pieces.map((piece) => {
    const record = records[piece.row]
    const first = (record?.token_end ?? 0) - (record?.shape[axis] ?? 0)
    const count = piece.end - piece.start
    const segment = { row: piece.row, from: piece.start - first, count, out }
    out += count
    return segment
  })
}

function answerShape(
  records: readonly StitchRecord[],
  pieces: readonly Piece[],
  request: StitchRequest,
  heads: readonly number[] | null,
): number[] {
  const entries = pieces.reduce((sum, piece) => sum + piece.end - piece.start, 0)
  const shape = [...(records[0]?.shape ?? [])]
  if (request.shape === 'attention') {
    const keys = pieces.map((piece) => records[piece.row]?.shape[2] ?? 0)
    shape[1] = entries
    shape[2] = keys.reduce((longest, count) => Math.max(longest, count), 0)
  } else {
    shape[0] = entries
  }
  if (heads !== null && request.headAxis !== null) shape[request.headAxis] = heads.length
  return shape
}

function checkHeads(first: StitchRecord, request: StitchRequest): readonly number[] | null {
  if (request.heads === null) return null
  const count = request.headAxis === null ? undefined : first.shape[request.headAxis]
  headsBeyond(request.heads, count, first)
  return request.heads
}

/** Throws for heads of a tensor that has none (no count), or not so many. */
export function headsBeyond(
  heads: readonly number[],
  count: number | undefined,
  record: StitchRecord | undefined,
): void {
  if (count === undefined) {
    throw new Ring2Error('RING2_E_QUERY', {
      expected: `no heads for ${record?.hook}, which has none`,
      actual: `heads=${heads.join(',')}`,
    })
  }
  const beyond = heads.find((head) => head >= count)
  if (beyond === undefined) return
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `heads from 0 to ${count - 1}`,
    actual: `head ${beyond}`,
  })
}

/** What must be there: the request's positions, or what lies between those that came. */
function wantedRanges(covered: readonly TokenRange[], request: StitchRequest): TokenRange[] {
  const start = covered[0]?.start ?? 0
  const end = covered.at(-1)?.end ?? 0
  const wanted = request.expected === null ? [{ start, end }] : unite(request.expected)
  return request.tokens === null ? wanted : clip(wanted, request.tokens)
}

function stepRanges(records: readonly StitchRecord[]): TokenRange[] {
  return records.map((record) => ({ start: record.token_start, end: record.token_end }))
}

function nothingSelected(
  records: readonly StitchRecord[],
  axis: number,
  tokens: TokenRange | null,
): Ring2Error {
  const held = unite(
    records.map((record) => ({
      start: record.token_end - (record.shape[axis] ?? 0),
      end: record.token_end,
    })),
  )
  return new Ring2Error('RING2_E_QUERY', {
    expected: `tokens within ${rangesText(held) || 'nothing: no row of this tensor has a token'}`,
    actual: tokens === null ? 'all tokens' : `tokens=${tokens.start}:${tokens.end}`,
  })
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((result, size) => result * size, 1)
}

function contradiction(record: StitchRecord, expected: string, actual: string): Ring2Error {
  const place = `${record.hook}, layer ${record.layer}, step ${record.step}`
  return new Ring2Error('RING2_E_STORE', {
    expected: `${expected} (${place})`,
    actual,
    action: 'Ask for a token range without this step, or read the rows from Parquet directly.',
  })
}
