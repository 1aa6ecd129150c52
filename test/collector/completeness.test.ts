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
    steps: 3,
    stepsAnnounced: 3,
    seen: seen({ resid_pre: { 0: 3, 1: 3 }, final_logits: { '-1': 3 } }),
    unwanted: new Set(),
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
    evidence({ unwanted: new Set(['resid_pre']), seen: seen({ final_logits: { '-1': 3 } }) }),
  )
  expect(verdict).toEqual({ state: 'complete', expected: 3, seen: 3, reasons: [] })
})

test('steps that never came make it incomplete, however many records of the others did', () => {
  const verdict = judgeCompleteness(evidence({ stepsAnnounced: 5 }))
  expect(verdict.state).toBe('incomplete')
  expect(verdict.reasons).toContain('2 of 5 steps missing')
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
    const verdict = judgeCompleteness(evidence({ steps: 0, stepsAnnounced: null, seen: new Map() }))
    expect(verdict.state).toBe('unknown')
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
