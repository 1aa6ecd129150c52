import { expect, test } from 'vitest'
import { clip, subtract, unite } from '../../../exporter/tensors/ranges.ts'
import type { TensorRecord } from '../../../exporter/tensors/records.ts'
import {
  copySegment,
  isWhole,
  planStitch,
  type StitchPlan,
  type StitchRequest,
} from '../../../exporter/tensors/stitch.ts'

const everything: StitchRequest = {
  shape: 'token',
  headAxis: null,
  heads: null,
  tokens: null,
  expected: null,
}

interface Piece {
  readonly record: TensorRecord
  readonly data: Uint8Array
}

/** A float32 row whose element i is `first + i`. */
function piece(tokens: [number, number], step: number, shape: number[], first: number): Piece {
  const count = shape.reduce((result, size) => result * size, 1)
  const data = new Uint8Array(Float32Array.from({ length: count }, (_, i) => first + i).buffer)
  const record: TensorRecord = {
    trace_id: `${'0'.repeat(31)}1`,
    span_id: null,
    request_id: 'r',
    model: 'm',
    model_revision: '',
    engine: 'e',
    hook: 'resid_pre',
    layer: 0,
    step,
    token_start: tokens[0],
    token_end: tokens[1],
    tp_rank: 0,
    pp_rank: 0,
    dp_rank: 0,
    ep_rank: 0,
    captured_at: 0,
    dtype: 'float32',
    data_bytes: data.byteLength,
    producer: 'p',
    host: 'h',
    phase: 'prefill',
    kv_offset: 0,
    shape,
    encoding: 'raw',
    data_crc32c: 0,
    l2_mean: null,
    l2_max: null,
    abs_max: null,
    mean: null,
    std: null,
    entropy_mean: null,
    sink_mass: null,
    top1_probability_mean: null,
    margin_mean: null,
    surprisal_mean: null,
    nonfinite: 0,
  }
  return { record, data }
}

function stitch(pieces: readonly Piece[], change: Partial<StitchRequest> = {}) {
  const records = pieces.map((one) => one.record)
  const plan = planStitch(records, { ...everything, ...change })
  return { plan, values: fill(plan, pieces) }
}

function fill(plan: StitchPlan, pieces: readonly Piece[]): number[] {
  const out = new Uint8Array(plan.bytes)
  for (const segment of plan.segments) {
    const source = pieces[segment.row]
    if (source === undefined) throw new Error('a segment names no row')
    copySegment(plan, segment, source.record.shape, source.data, out)
  }
  return [...new Float32Array(out.buffer)]
}

test('prefill and decode rows become one tensor along the token axis', () => {
  const { plan, values } = stitch([
    piece([0, 2], 0, [2, 2], 0),
    piece([3, 4], 2, [1, 2], 30),
    piece([2, 3], 1, [1, 2], 20),
  ])
  expect(plan.shape).toEqual([4, 2])
  expect(values).toEqual([0, 1, 2, 3, 20, 21, 30, 31])
  expect(plan.tokens).toEqual([{ start: 0, end: 4 }])
  expect(plan.gaps).toEqual([])
  expect(plan.completeness).toBe('unknown')
})

test('a hole between steps is a gap and is not closed silently', () => {
  const { plan, values } = stitch([piece([0, 1], 0, [1, 1], 0), piece([3, 4], 3, [1, 1], 3)])
  expect(values).toEqual([0, 3])
  expect(plan.tokens).toEqual([
    { start: 0, end: 1 },
    { start: 3, end: 4 },
  ])
  expect(plan.gaps).toEqual([{ start: 1, end: 3 }])
  expect(plan.completeness).toBe('incomplete')
})

test('tokens that the request had and the tensor has not are gaps at the ends too', () => {
  const rows = [piece([2, 4], 0, [2, 1], 0)]
  const known = stitch(rows, { expected: [{ start: 0, end: 6 }] })
  expect(known.plan.gaps).toEqual([
    { start: 0, end: 2 },
    { start: 4, end: 6 },
  ])
  const complete = stitch(rows, { expected: [{ start: 2, end: 4 }] })
  expect(complete.plan.completeness).toBe('complete')
  const part = stitch(rows, { expected: [{ start: 0, end: 6 }], tokens: { start: 3, end: 5 } })
  expect(part.plan.gaps).toEqual([{ start: 4, end: 5 }])
  expect(part.values).toEqual([1])
})

test('a token range cuts rows of several tokens', () => {
  const rows = [piece([0, 4], 0, [4, 2], 0), piece([4, 5], 1, [1, 2], 100)]
  const { plan, values } = stitch(rows, { tokens: { start: 2, end: 5 } })
  expect(plan.shape).toEqual([3, 2])
  expect(values).toEqual([4, 5, 6, 7, 100, 101])
})

test('a position computed twice comes from the later step', () => {
  const { plan, values } = stitch([
    piece([0, 4], 0, [4, 1], 0),
    piece([1, 3], 5, [2, 1], 50),
    piece([4, 5], 1, [1, 1], 10),
  ])
  expect(values).toEqual([0, 50, 51, 3, 10])
  expect(plan.gaps).toEqual([])
})

test('logits of fewer rows than tokens belong to the last positions of their step', () => {
  const rows = [piece([0, 5], 0, [1, 3], 0), piece([5, 6], 1, [1, 3], 10)]
  const { plan, values } = stitch(rows, {
    shape: 'request',
    expected: [{ start: 0, end: 6 }],
  })
  expect(values).toEqual([0, 1, 2, 10, 11, 12])
  expect(plan.tokens).toEqual([{ start: 4, end: 6 }])
  // The steps tile the request, so nothing is missing although most positions have no logits.
  expect(plan.completeness).toBe('complete')
})

test('attention is stitched along queries and filled with zeros to the longest keys', () => {
  const rows = [piece([0, 2], 0, [2, 2, 2], 1), piece([2, 3], 1, [2, 1, 3], 101)]
  const { plan, values } = stitch(rows, { shape: 'attention', headAxis: 0 })
  expect(plan.shape).toEqual([2, 3, 3])
  expect(values).toEqual([
    ...[1, 2, 0, 3, 4, 0, 101, 102, 103],
    ...[5, 6, 0, 7, 8, 0, 104, 105, 106],
  ])
})

test('heads are chosen in the order asked for, of attention and of q, k and v', () => {
  const attention = [piece([0, 2], 0, [3, 2, 2], 0)]
  const chosen = stitch(attention, { shape: 'attention', headAxis: 0, heads: [2, 0] })
  expect(chosen.plan.shape).toEqual([2, 2, 2])
  expect(chosen.values).toEqual([8, 9, 10, 11, 0, 1, 2, 3])
  const queries = [piece([0, 2], 0, [2, 3, 2], 0)]
  const one = stitch(queries, { headAxis: 1, heads: [1] })
  expect(one.plan.shape).toEqual([2, 1, 2])
  expect(one.values).toEqual([2, 3, 8, 9])
})

test('a head that does not exist, and heads of a tensor without, are refused', () => {
  const rows = [piece([0, 1], 0, [1, 3, 2], 0)]
  expect(() => stitch(rows, { headAxis: 1, heads: [3] })).toThrow(/heads from 0 to 2/)
  expect(() => stitch(rows, { heads: [0] })).toThrow(/no heads for resid_pre/)
})

test('rows that contradict each other or themselves are an error', () => {
  const fine = piece([0, 1], 0, [1, 2], 0)
  const wide = piece([1, 2], 1, [1, 3], 0)
  expect(() => stitch([fine, wide])).toThrow(/RING2_E_STORE/)
  const short = { ...fine, record: { ...fine.record, data_bytes: 4 } }
  expect(() => stitch([short])).toThrow(/8 bytes/)
  const many = piece([0, 1], 0, [2, 2], 0)
  expect(() => stitch([many])).toThrow(/at most 1 entries/)
  const half = { ...fine, record: { ...fine.record, step: 1, dtype: 'float16' } }
  expect(() => stitch([fine, half])).toThrow(/float32 as in the other rows/)
  const coded = { ...fine, record: { ...fine.record, encoding: 'split-1' } }
  expect(() => stitch([coded])).toThrow(/encodings raw, /)
})

test('a token range beside the tensor names what there is', () => {
  const rows = [piece([2, 4], 0, [2, 1], 0)]
  expect(() => stitch(rows, { tokens: { start: 9, end: 10 } })).toThrow(/tokens within 2:4/)
})

test('ranges unite, clip and subtract as sets of positions do', () => {
  type Ranges = readonly { readonly start: number; readonly end: number }[]
  const positions = (ranges: Ranges) =>
    new Set(ranges.flatMap((r) => Array.from({ length: r.end - r.start }, (_, i) => r.start + i)))
  const has = (ranges: Ranges) => (position: number) => positions(ranges).has(position)
  let seed = 7
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return seed % below
  }
  const some = () =>
    Array.from({ length: random(5) }, () => {
      const start = random(30)
      return { start, end: start + random(8) }
    })
  for (let round = 0; round < 200; round += 1) {
    const left = unite(some())
    const right = unite(some())
    const bounds = { start: random(20), end: 20 + random(20) }
    const united = unite([...left, ...right])
    for (let position = 0; position < 50; position += 1) {
      const [inLeft, inRight] = [has(left)(position), has(right)(position)]
      expect(has(united)(position)).toBe(inLeft || inRight)
      expect(has(subtract(left, right))(position)).toBe(inLeft && !inRight)
      expect(has(clip(left, bounds))(position)).toBe(inLeft && has([bounds])(position))
    }
    for (const [index, range] of united.entries()) {
      expect(range.start).toBeLessThan(range.end)
      expect(range.start).toBeGreaterThan(united[index - 1]?.end ?? -1)
    }
  }
})

test('an answer is a payload as it is only when nothing of it is left out or moved', () => {
  const one = piece([0, 2], 0, [3, 2, 2], 0)
  const whole = (change: Partial<Parameters<typeof planStitch>[1]>, pieces = [one]) => {
    const records = pieces.map(({ record }) => record)
    const request = { heads: null, tokens: null, expected: null, ...change }
    const plan = planStitch(records, { shape: 'attention', headAxis: 0, ...request })
    const [segment] = plan.segments
    return segment !== undefined && isWhole(plan, segment, one.record.shape)
  }
  expect(whole({})).toBe(true)
  expect(whole({ heads: [0, 1, 2] })).toBe(true)
  expect(whole({ heads: [0, 2, 1] })).toBe(false)
  expect(whole({ heads: [0, 1] })).toBe(false)
  expect(whole({ tokens: { start: 1, end: 2 } })).toBe(false)
  expect(whole({}, [one, piece([2, 3], 1, [3, 1, 3], 50)])).toBe(false)
})
