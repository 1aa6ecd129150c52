import { describe, expect, test } from 'vitest'
import {
  type Baseline,
  type BaselineDocument,
  chooseBaseline,
  parseBaselines,
} from '../../collector/baseline.ts'
import { boundsOf, learnQuantiles } from '../../collector/baseline-bounds.ts'
import { unknownModel } from '../../collector/bodies.ts'
import { Ring2Error } from '../../collector/errors.ts'
import type { ModelInfo } from '../../collector/records.ts'
import { judgedStatistics } from '../../collector/verdict-rules.ts'

const quantiles = { n: 3, p0_1: 1, p1: 1, p50: 2, p99: 3, p99_9: 3 }

function entry(change: Partial<Baseline> = {}): Baseline {
  return {
    model: 'm',
    revision: 'r1',
    dtype: 'float32',
    engine: 'transformers',
    requests: 30,
    learnt_at: '2026-11-22T00:00:00.000Z',
    first_request_at: '2026-11-21T00:00:00.000Z',
    last_request_at: '2026-11-21T01:00:00.000Z',
    phases: {
      prefill: { globals: {}, layers: { 'resid_pre.l2_no_first_mean': [null, quantiles] } },
      decode: {
        globals: { 'final_logits.entropy_mean': quantiles },
        layers: { 'resid_pre.l2_no_first_mean': [null, quantiles] },
      },
    },
    ...change,
  }
}

const empty = { globals: {}, layers: {} }

/** A document whose only entry holds these parts, in decoding unless a test says otherwise. */
function holding(globals: object, layers: object = {}, phase = 'decode'): string {
  const phases = { prefill: empty, decode: empty, [phase]: { globals, layers } }
  return document([{ ...entry(), phases }])
}

const entropy = (change: object) =>
  holding({ 'final_logits.entropy_mean': { ...quantiles, ...change } })

function document(baselines: unknown[], change: Record<string, unknown> = {}): string {
  const whole: BaselineDocument = { format: 'ring2-baselines', version: 2, baselines: [] }
  return JSON.stringify({ ...whole, baselines, ...change })
}

const model: ModelInfo = {
  ...unknownModel,
  ...{ name: 'm', revision: 'r1', dtype: 'float32', engine: 'transformers' },
}

function statistic(name: string) {
  const found = judgedStatistics.find((one) => `${one.hook}.${one.statistic}` === name)
  if (found === undefined) throw new Error(name)
  return found
}

describe('a document of baselines', () => {
  test('is read back as it was', () => {
    expect(parseBaselines(document([entry(), entry({ dtype: 'bfloat16' })]), 'f')).toEqual([
      entry(),
      entry({ dtype: 'bfloat16' }),
    ])
  })

  test.each([
    ['is no JSON', '{"format": NaN}'],
    ['is cut short', document([entry()]).slice(0, 200)],
    ['is a list', '[]'],
    ['is another format', document([], { format: 'other' })],
    ['is of another version', document([], { version: 1 })],
    ['has no list', document([], { baselines: {} })],
    ['has an entry without a revision', document([{ ...entry(), revision: undefined }])],
    ['has a count of nothing', document([entry({ requests: 0 })])],
    ['has a text for a number', entropy({ p1: '1' })],
    ['has null for a number', entropy({ p50: null })],
    ['has falling quantiles', entropy({ p99: 0 })],
    ['has an entropy below 0', entropy({ p0_1: -0.1 })],
    ['has an entropy beyond any vocabulary', entropy({ p99_9: 17 })],
    ['has a statistic that no rule reads', holding({ 'final_logits.entropy_median': quantiles })],
    [
      'has entropies of prompts',
      holding({ 'final_logits.entropy_mean': quantiles }, {}, 'prefill'),
    ],
    ['has one value for all layers', holding({ 'resid_pre.l2_no_first_mean': quantiles })],
    ['has layers of what has none', holding({}, { 'final_logits.entropy_mean': [quantiles] })],
    ['has a share above 1', holding({}, { 'pattern.sink_mass': [quantiles] })],
    ['has a norm of 0', holding({}, { 'resid_pre.l2_no_first_mean': [{ ...quantiles, p0_1: 0 }] })],
    ['has layers that are no list', holding({}, { 'resid_pre.l2_no_first_mean': quantiles })],
    ['has no bound at all', holding({}, { 'pattern.sink_mass': [null, null] })],
    ['has one phase only', document([{ ...entry(), phases: { decode: entry().phases.decode } }])],
    ['has a model twice', document([entry(), entry()])],
  ])('that %s is refused, with its name and the place', (_what, text) => {
    try {
      parseBaselines(text, '/etc/baselines.json')
    } catch (error) {
      expect(error).toBeInstanceOf(Ring2Error)
      expect((error as Ring2Error).code).toBe('RING2_E_BASELINE')
      expect((error as Ring2Error).message).toContain('/etc/baselines.json')
      return
    }
    throw new Error('it was taken')
  })
})

describe('the baseline of a model', () => {
  test('fits in name, revision, dtype and engine, and says in what it does not', () => {
    const miss = (...baselines: Baseline[]) => {
      const choice = chooseBaseline(baselines, model)
      return choice.found ? choice.baseline : choice.miss
    }
    expect(miss(entry({ revision: 'r0' }), entry())).toEqual(entry())
    expect(miss()).toBe('no_entry')
    expect(miss(entry({ model: 'other' }))).toBe('no_entry')
    expect(miss(entry({ revision: 'r0' }))).toBe('other_revision')
    expect(miss(entry({ dtype: 'bfloat16' }))).toBe('other_dtype')
    expect(miss(entry({ engine: 'vllm' }))).toBe('other_engine')
    expect(miss(entry({ revision: 'r0' }), entry({ engine: 'vllm' }))).toBe('other_engine')
  })
})

describe('learnt quantiles', () => {
  test('lie between the values that there are', () => {
    const values = Array.from({ length: 10_001 }, (_, index) => index)
    const learnt = learnQuantiles(values, 'linear')
    expect(learnt).toMatchObject({ n: 10_001, p0_1: 10, p1: 100, p50: 5000, p99: 9900 })
    expect(learnt.p99_9).toBeCloseTo(9990, 6)
  })

  test('beyond 1/n are the extremes, widened by a quarter of the range per decade', () => {
    const values = Array.from({ length: 11 }, (_, index) => 100 + index)
    const learnt = learnQuantiles(values, 'linear')
    const out = (share: number) => 0.25 * 10 * Math.log10(1 / (share * 11))
    expect(learnt.p1).toBeCloseTo(100 - out(0.01), 9)
    expect(learnt.p0_1).toBeCloseTo(100 - out(0.001), 9)
    expect(learnt.p99).toBeCloseTo(110 + out(0.01), 9)
    expect(learnt.p99_9).toBeCloseTo(110 + out(0.001), 9)
    expect(learnt.p50).toBe(105)
    expect(learnQuantiles([0, 1], 'linear').p0_1).toBe(0)
  })

  test('are fewer decades out, and no further than the extremes, with more requests', () => {
    const learn = (n: number) =>
      learnQuantiles(
        Array.from({ length: n }, (_, index) => index / (n - 1)),
        'linear',
      )
    expect(learn(30).p99_9).toBeGreaterThan(learn(100).p99_9)
    expect(learn(100).p99_9).toBeGreaterThan(learn(1000).p99_9)
    expect(learn(1001).p99_9).toBeLessThanOrEqual(1)
  })

  test('may be on one scale below the median and on another above it', () => {
    const values = [0.4, 1, 1.5, 2, 2.7]
    const both = learnQuantiles(values, 'log', 'linear')
    expect(both.p0_1).toBe(learnQuantiles(values, 'log').p0_1)
    expect(both.p99_9).toBe(learnQuantiles(values, 'linear').p99_9)
  })

  test('of shares stay shares, and of what is positive positive', () => {
    const share = learnQuantiles([0.001, 0.5, 0.999], 'share')
    expect(share.p0_1).toBeGreaterThan(0)
    expect(share.p99_9).toBeLessThan(1)
    expect(learnQuantiles([1e-4, 1, 1e4], 'log').p0_1).toBeGreaterThan(0)
  })

  test("give bounds at least the stated margin away, on the rule's own side only", () => {
    const same = learnQuantiles([100, 100, 100], 'log')
    const norms = boundsOf(same, statistic('resid_pre.l2_no_first_mean'))
    expect(norms.low).toBeCloseTo(80, 6)
    expect(norms.high).toBeCloseTo(125, 6)
    const cosine = boundsOf(
      learnQuantiles([0.9, 0.9], 'share'),
      statistic('resid_pre.token_cosine_mean'),
    )
    expect(cosine.low).toBeNull()
    expect(cosine.high).toBeGreaterThan(0.9)
    expect(cosine.high).toBeLessThan(1)
  })
})
