import { describe, expect, test } from 'vitest'
import { unknownModel } from '../../collector/bodies.ts'
import { type Evidence, judgeCompleteness } from '../../collector/completeness.ts'
import { collectorLimits } from '../../collector/limits.ts'
import type { ModelInfo } from '../../collector/records.ts'

const model: ModelInfo = {
  ...unknownModel,
  name: 'tiny',
  hooks: { resid_pre: [0, 1], final_logits: [-1] },
}

function seen(counts: Record<string, Record<number, number>>) {
  return new Map(
    Object.entries(counts).map(([hook, layers]) => [
      hook,
      new Map(Object.entries(layers).map(([layer, count]) => [Number(layer), count])),
    ]),
  )
}

function evidence(change: Partial<Evidence> = {}): Evidence {
  return {
    model,
    captured: [[4, 3]],
    stepsAnnounced: 3,
    stepsLeftOut: 0,
    seen: seen({ resid_pre: { 0: 3, 1: 3 }, final_logits: { '-1': 3 } }),
    expected: { wantsOf: () => () => true },
    kept: [[0, 7]],
    losses: [],
    doubts: [],
    ...change,
  }
}

test('every layer of every hook in every step is complete, and needs no reason', () => {
  expect(judgeCompleteness(evidence())).toEqual({
    state: 'complete',
    expected: 9,
    seen: 9,
    reasons: [],
  })
})

test('one missing record is incomplete, and counted by hook', () => {
  const verdict = judgeCompleteness(
    evidence({ seen: seen({ resid_pre: { 0: 3, 1: 2 }, final_logits: { '-1': 3 } }) }),
  )
  expect(verdict).toEqual({
    state: 'incomplete',
    expected: 9,
    seen: 8,
    reasons: ['resid_pre: 1 of 6 records missing'],
  })
})

test('a hook of which nothing came is incomplete', () => {
  const verdict = judgeCompleteness(evidence({ seen: seen({ resid_pre: { 0: 3, 1: 3 } }) }))
  expect(verdict.state).toBe('incomplete')
  expect(verdict.reasons).toEqual(['final_logits: 3 of 3 records missing'])
})

test('more records of one layer do not make up for those of another', () => {
  const verdict = judgeCompleteness(
    evidence({ seen: seen({ resid_pre: { 0: 6, 1: 0 }, final_logits: { '-1': 3 } }) }),
  )
  expect(verdict).toMatchObject({ state: 'incomplete', seen: 6 })
})

test('a hook that policy switched off is not expected', () => {
  const verdict = judgeCompleteness(
    evidence({
      expected: { wantsOf: () => (hook) => hook !== 'resid_pre' },
      seen: seen({ final_logits: { '-1': 3 } }),
    }),
  )
  expect(verdict).toEqual({ state: 'complete', expected: 3, seen: 3, reasons: [] })
})

test('steps that never came make it incomplete, however many records of the others did', () => {
  const verdict = judgeCompleteness(evidence({ stepsAnnounced: 5 }))
  expect(verdict.state).toBe('incomplete')
  expect(verdict.reasons).toContain('2 of 5 steps missing')
})

test('of a sharded hook every shard that the producer brings is due in every step', () => {
  const sharded = { ...model, hooks: { resid_pre: [0], q: [0] }, shards: 2 }
  const of = (q: number) =>
    judgeCompleteness(
      evidence({ model: sharded, seen: seen({ resid_pre: { 0: 3 }, q: { 0: q } }) }),
    )
  expect(of(6)).toEqual({ state: 'complete', expected: 9, seen: 9, reasons: [] })
  expect(of(5)).toMatchObject({
    state: 'incomplete',
    reasons: ['q: 1 of 6 records missing'],
  })
})

test('losses of the producer are named only when something of the request is missing', () => {
  const losses = ['the producer lost 4 records (payload_full)']
  expect(judgeCompleteness(evidence({ losses }))).toMatchObject({ state: 'complete', reasons: [] })
  const missing = seen({ resid_pre: { 0: 3 }, final_logits: { '-1': 3 } })
  const verdict = judgeCompleteness(evidence({ losses, seen: missing }))
  expect(verdict.reasons).toEqual(['resid_pre: 3 of 6 records missing', ...losses])
})

describe('what cannot be known is unknown, never complete', () => {
  test.each<[string, Partial<Evidence>, string]>([
    ['without a MODEL record', { model: unknownModel }, 'the MODEL record never came'],
    [
      'without the number of steps',
      { stepsAnnounced: null },
      'the producer never said how many steps it ran',
    ],
    [
      'with a doubt',
      { doubts: ['its REQUEST record never came'] },
      'its REQUEST record never came',
    ],
  ])('%s', (_, change, reason) => {
    const verdict = judgeCompleteness(evidence(change))
    expect(verdict.state).toBe('unknown')
    expect(verdict.reasons).toContain(reason)
  })

  test('a request of which no step came and no step was announced', () => {
    const verdict = judgeCompleteness(
      evidence({ captured: [], stepsAnnounced: null, seen: new Map() }),
    )
    expect(verdict.state).toBe('unknown')
  })
})

test('a hook that is computed for samples owes no record, unless some may be lost', () => {
  const computed = { ...model, hooks: { ...model.hooks, pattern: [0] }, computed: ['pattern'] }
  expect(judgeCompleteness(evidence({ model: computed })).state).toBe('complete')
  const losses = ['the producer lost 1 records (payload_full)']
  expect(judgeCompleteness(evidence({ model: computed, losses })).state).toBe('unknown')
  const some = seen({
    ...{ resid_pre: { 0: 3, 1: 3 }, final_logits: { '-1': 3 } },
    pattern: { 0: 2 },
  })
  expect(judgeCompleteness(evidence({ model: computed, seen: some })).state).toBe('incomplete')
})

describe('a policy that changed within the request', () => {
  /** Until sequence 4 everything, under 6 no residual stream, 8 is nobody's. */
  const expected = {
    wantsOf: (sequence: number) => {
      if (sequence === 8) return null
      return (hook: string) => sequence === 4 || hook !== 'resid_pre'
    },
  }
  const captured = [
    [4, 1],
    [6, 2],
  ] as const
  const enough = seen({ resid_pre: { 0: 1, 1: 1 }, final_logits: { '-1': 3 } })

  test('asks of each step what was wanted then, and says what was wanted in part', () => {
    expect(judgeCompleteness(evidence({ captured, expected, seen: enough }))).toEqual({
      state: 'sampled',
      expected: 5,
      seen: 5,
      reasons: ['resid_pre: wanted in 1 of 3 steps'],
    })
  })

  test('still misses what was wanted and did not come', () => {
    const less = seen({ resid_pre: { 0: 1 }, final_logits: { '-1': 3 } })
    const verdict = judgeCompleteness(evidence({ captured, expected, seen: less }))
    expect(verdict).toMatchObject({ state: 'incomplete', expected: 5, seen: 4 })
    expect(verdict.reasons[0]).toBe('resid_pre: 1 of 2 records missing')
  })

  test('is a doubt where nobody knows what was wanted', () => {
    const verdict = judgeCompleteness(
      evidence({ captured: [...captured, [8, 1]], stepsAnnounced: 4, expected, seen: enough }),
    )
    expect(verdict.state).toBe('unknown')
    expect(verdict.reasons[0]).toBe('1 of 4 steps were captured by a policy not known here')
  })

  test('names the tokens that are kept when steps were left out', () => {
    const kept = [
      [0, 5],
      [8, 9],
    ] as const
    expect(judgeCompleteness(evidence({ stepsLeftOut: 3, kept }))).toMatchObject({
      state: 'sampled',
      reasons: ['tokens 0:5, 8:9 are kept, others were not wanted'],
      kept,
    })
  })
})

test('missing records win over doubts: incomplete, with both reasons', () => {
  const verdict = judgeCompleteness(
    evidence({ seen: seen({}), stepsAnnounced: null, doubts: ['the producer ended'] }),
  )
  expect(verdict.state).toBe('incomplete')
  expect(verdict.reasons).toContain('the producer ended')
  expect(verdict.reasons).toContain('the producer never said how many steps it ran')
})

test('the list of reasons is bounded', () => {
  const losses = Array.from({ length: 100 }, (_, index) => `loss ${index}`)
  const verdict = judgeCompleteness(evidence({ seen: seen({}), losses }))
  expect(verdict.reasons).toHaveLength(collectorLimits.reasonsMax)
})
