/** Shards of tensor-parallel ranks, put side by side; rows here, files and HTTP in test/pipeline. */
import { expect, test } from 'vitest'
import type { StitchRecord } from '../../../exporter/tensors/records.ts'
import { planShards, shardAxis } from '../../../exporter/tensors/shards.ts'
import { copySegment, type StitchRequest } from '../../../exporter/tensors/stitch.ts'
import { crc32c } from './crc32c.ts'

const heads: StitchRequest = {
  shape: 'token',
  headAxis: 1,
  heads: null,
  tokens: null,
  expected: null,
}
const pattern: StitchRequest = { ...heads, shape: 'attention', headAxis: 0 }

interface Piece {
  readonly record: StitchRecord
  readonly data: Uint8Array
}

/** A float32 row of one rank whose element i is `first + i`. */
function piece(tp: number, tokens: [number, number], shape: number[], first: number): Piece {
  const count = shape.reduce((product, size) => product * size, 1)
  const data = new Uint8Array(Float32Array.from({ length: count }, (_, i) => first + i).buffer)
  const place = { trace_id: 'a'.repeat(32), request_id: 'r', producer: `p${tp}`, hook: 'q' }
  const ranks = { tp_rank: tp, pp_rank: 0, dp_rank: 0, ep_rank: 0 }
  const record: StitchRecord = {
    ...place,
    ...ranks,
    layer: 0,
    step: tokens[0],
    token_start: tokens[0],
    token_end: tokens[1],
    dtype: 'float32',
    shape,
    encoding: 'raw',
    data_bytes: data.byteLength,
    data_crc32c: crc32c(data),
  }
  return { record, data }
}

function join(pieces: readonly Piece[], request: StitchRequest, ranks: readonly number[] = [0, 1]) {
  const plan = planShards(
    pieces.map(({ record }) => record),
    ranks,
    request,
  )
  const out = new Uint8Array(plan.bytes)
  for (const segment of plan.segments) {
    const source = pieces[segment.row]
    if (source === undefined) throw new Error('a segment names no row')
    copySegment(plan, segment, source.record.shape, source.data, out)
  }
  return { plan, values: [...new Float32Array(out.buffer)] }
}

test('heads of two ranks lie side by side, whatever order their rows come in', () => {
  const { plan, values } = join(
    [
      piece(1, [2, 3], [1, 1, 2], 120),
      piece(0, [0, 2], [2, 1, 2], 0),
      piece(1, [0, 2], [2, 1, 2], 100),
      piece(0, [2, 3], [1, 1, 2], 20),
    ],
    heads,
  )
  expect(plan.shape).toEqual([3, 2, 2])
  expect(values).toEqual([0, 1, 100, 101, 2, 3, 102, 103, 20, 21, 120, 121])
  expect(plan.gaps).toEqual([])
})

test('heads are chosen over ranks, in the order that is asked for', () => {
  const pieces = [piece(0, [0, 2], [2, 2, 1], 0), piece(1, [0, 2], [2, 2, 1], 100)]
  const { plan, values } = join(pieces, { ...heads, heads: [3, 0] })
  expect(plan.shape).toEqual([2, 2, 1])
  expect(values).toEqual([101, 0, 103, 2])
  expect(() => join(pieces, { ...heads, heads: [4] })).toThrow(/heads from 0 to 3/)
})

test('ranks are those that are named: a copy of key heads is left out', () => {
  const pieces = [0, 1, 2].map((tp) => piece(tp, [0, 1], [1, 1, 1], tp))
  expect(join(pieces, heads, [0, 2]).values).toEqual([0, 2])
})

test('a tensor without heads is cut along its last axis, and attention along its heads', () => {
  expect(shardAxis('token', null, 2)).toBe(1)
  expect(shardAxis('attention', 0, 3)).toBe(0)
  const inner = [piece(0, [0, 2], [2, 2], 0), piece(1, [0, 2], [2, 1], 100)]
  const { plan, values } = join(inner, { ...heads, headAxis: null })
  expect(plan.shape).toEqual([2, 3])
  expect(values).toEqual([0, 1, 100, 2, 3, 101])
})

test('attention of ranks with fewer keys is filled with zeros at the end', () => {
  const { plan, values } = join(
    [
      piece(0, [0, 1], [1, 1, 1], 1),
      piece(0, [1, 2], [1, 1, 2], 2),
      piece(1, [0, 2], [1, 2, 2], 100),
    ],
    pattern,
  )
  expect(plan.shape).toEqual([2, 2, 2])
  expect(values).toEqual([1, 0, 2, 3, 100, 101, 102, 103])
})

test('a position of which one shard is missing is a gap, and never half of a tensor', () => {
  const pieces = [piece(0, [0, 3], [3, 1, 1], 0), piece(1, [1, 3], [2, 1, 1], 101)]
  const { plan, values } = join(pieces, { ...heads, expected: [{ start: 0, end: 3 }] })
  expect(plan.tokens).toEqual([{ start: 1, end: 3 }])
  expect(plan.gaps).toEqual([{ start: 0, end: 1 }])
  expect(plan.completeness).toBe('incomplete')
  expect(values).toEqual([1, 101, 2, 102])
})

test('shards without a position in common, or that do not fit, are errors that say so', () => {
  const apart = [piece(0, [0, 1], [1, 1, 1], 0), piece(1, [1, 2], [1, 1, 1], 1)]
  expect(() => join(apart, heads)).toThrow(/^RING2_E_INCOMPLETE: .*tp:0 0:1; tp:1 1:2/)
  const wide = [piece(0, [0, 1], [1, 1, 1], 0), piece(1, [0, 1], [1, 1, 2], 1)]
  expect(() => join(wide, heads)).toThrow(/RING2_E_STORE/)
})
