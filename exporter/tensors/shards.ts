/**
 * Joins the shards of a tensor that tensor-parallel ranks hold: each rank's rows are stitched along
 * the token axis (stitch.ts), and the shards are put side by side along theirs, in the order of ranks.
 *
 * Pure. Only positions that every shard has are in the answer: a position of which one is missing is
 * a gap. The axis is that of heads, or the last one.
 */

import type { HookShape } from '../../collector/hooks.gen.ts'
import { Ring2Error } from '../errors.ts'
import { rangesText, subtract, unite } from './ranges.ts'
import type { StitchRecord } from './records.ts'
import {
  headsBeyond,
  planStitch,
  type Shard,
  type StitchPlan,
  type StitchRequest,
} from './stitch.ts'

/** The axis along which a sharded tensor is cut: the heads', else the last. */
export function shardAxis(shape: HookShape, headAxis: number | null, axes: number): number {
  if (shape === 'attention') return 0
  return headAxis ?? Math.max(0, axes - 1)
}

/**
 * @param ranks tensor-parallel ranks whose shards make the whole, each with rows among `records`
 * @throws Ring2Error RING2_E_INCOMPLETE when no position has all of its shards
 */
export function planShards(
  records: readonly StitchRecord[],
  ranks: readonly number[],
  request: StitchRequest,
): StitchPlan {
  const rowsOf = ranks.map((rank) =>
    records.flatMap((record, row) => (record.tp_rank === rank ? [row] : [])),
  )
  const own = rowsOf.map((rows) => rows.flatMap((row) => records[row] ?? []))
  const whole = { ...request, heads: null }
  const within = common(
    own.map((shard) => planStitch(shard, whole).tokens),
    ranks,
  )
  const plans = own.map((shard) => planStitch(shard, { ...whole, within }))
  const [first] = plans
  if (first === undefined) throw new Error('no shards to join')
  const axis = shardAxis(request.shape, request.headAxis, first.shape.length)
  for (const [index, plan] of plans.entries()) checkFits(first, plan, axis, ranks[index] ?? 0)
  const sizes = plans.map((plan) => plan.shape[axis] ?? 0)
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const { heads } = request
  if (heads !== null) headsBeyond(heads, request.headAxis === null ? undefined : total, records[0])
  const shards = shardsOf(sizes, heads)
  const shape = first.shape.map((size, index) => (index === axis ? (heads?.length ?? total) : size))
  if (request.shape === 'attention') shape[2] = Math.max(...plans.map((plan) => plan.shape[2] ?? 0))
  return {
    ...first,
    shape,
    bytes: shape.reduce((product, size) => product * size, first.dtype.bytes),
    segments: plans.flatMap((plan, shard) =>
      plan.segments.map((segment) => ({
        ...segment,
        row: rowsOf[shard]?.[segment.row] ?? 0,
        shard,
      })),
    ),
    heads,
    shards,
  }
}

/** Positions that all shards have. */
function common(
  held: readonly StitchPlan['tokens'][],
  ranks: readonly number[],
): StitchPlan['tokens'] {
  const [first = [], ...rest] = held
  let both = unite(first)
  for (const ranges of rest) both = subtract(both, subtract(both, ranges))
  if (both.length > 0) return both
  const texts = held.map((ranges, index) => `tp:${ranks[index]} ${rangesText(ranges)}`)
  throw new Ring2Error('RING2_E_INCOMPLETE', {
    expected: 'tokens of which every shard is there',
    actual: `none in common: ${texts.join('; ')}`,
    action: `Ask for one shard (rank=${ranks[0]}), or read the rows from Parquet directly.`,
  })
}

function checkFits(first: StitchPlan, plan: StitchPlan, axis: number, rank: number): void {
  const keys = plan.attention ? 2 : -1
  const same = plan.shape.every(
    (size, index) => index === axis || index === keys || size === first.shape[index],
  )
  if (same && plan.dtype.name === first.dtype.name) return
  throw new Ring2Error('RING2_E_STORE', {
    expected: `${first.dtype.name} [${first.shape}] but for axis ${axis}, as of the first shard`,
    actual: `${plan.dtype.name} [${plan.shape}] of rank ${rank}`,
    action: `Ask for one shard (rank=${rank}), or read the rows from Parquet directly.`,
  })
}

/** Where entries of each shard's axis go: all of them, or the heads asked for. */
function shardsOf(sizes: readonly number[], heads: readonly number[] | null): Shard[] {
  let offset = 0
  return sizes.map((size) => {
    const start = offset
    offset += size
    if (heads === null) return { runs: [{ from: 0, count: size, to: start }] }
    const runs = heads.flatMap((head, to) =>
      head >= start && head < start + size ? [{ from: head - start, count: 1, to }] : [],
    )
    return { runs }
  })
}
