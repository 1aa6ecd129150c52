import { describe, expect, test } from 'vitest'
import type { LearntBounds } from '../../collector/baseline.ts'
import { learnQuantiles } from '../../collector/baseline-bounds.ts'
import { type StatisticGroup, statisticGroups } from '../../collector/statistic-groups.ts'
import { judge, type VerdictEvidence, type VerdictSettings } from '../../collector/verdict.ts'
import { type VerdictRule, verdictRules } from '../../collector/verdict-rules.ts'

const everything: VerdictSettings = {
  rules: new Set(verdictRules),
  groups: new Set(Object.keys(statisticGroups) as StatisticGroup[]),
}

function only(...rules: VerdictRule[]): VerdictSettings {
  return { ...everything, rules: new Set(rules) }
}

/** A request of a model with two layers that all rules have evidence for, and none finds fault with. */
function healthy(change: Partial<VerdictEvidence> = {}): VerdictEvidence {
  return {
    layerSeries: {
      'resid_pre.token_cosine_mean': [0.2, 0.6],
      'resid_pre.rank_residual': [0.9, 0.7],
      'resid_pre.l2_no_first_mean': [3, 50],
      'resid_pre.layer_growth_mean': [null, 16],
      'pattern.entropy_no_sink_mean': [0.8, 0.5],
      'pattern.sink_mass': [0.05, 0.6],
    },
    globals: {
      'final_logits.entropy_mean': 1.4,
      'resid_final.token_cosine_mean': 0.5,
      'resid_final.rank_residual': 0.8,
      'resid_final.l2_no_first_mean': 60,
      'resid_final.layer_growth_mean': 1.2,
      'token_ids.repetition': 0.05,
      'token_ids.loop_period': 0,
      'token_ids.tokens_tracked': 40,
    },
    nonfinite: 0,
    completeness: { state: 'complete', expected: 10, seen: 10, reasons: [] },
    tokens: 60,
    promptTokens: 20,
    capture: {
      resid_pre: [0, 1],
      resid_final: [-1],
      pattern: [0, 1],
      final_logits: [-1],
      token_ids: [-1],
    },
    layers: 2,
    ...change,
  }
}

function withGlobals(globals: Record<string, number>): VerdictEvidence {
  return healthy({ globals: { ...healthy().globals, ...globals } })
}

function withSeries(series: Record<string, (number | null)[]>): VerdictEvidence {
  return healthy({ layerSeries: { ...healthy().layerSeries, ...series } })
}

const of = (evidence: VerdictEvidence, settings = everything, learnt: LearntBounds | null = null) =>
  judge(evidence, settings, learnt, null)

describe('a request', () => {
  test('is ok when every rule has its evidence and none is broken', () => {
    expect(of(healthy())).toEqual({
      verdict: 'ok',
      findings: [],
      missingEvidence: [],
      baseline: 'default',
    })
  })

  test('is nonfinite with one NaN, whatever else is missing', () => {
    const judgement = of(healthy({ nonfinite: 1, globals: {}, layerSeries: {} }))
    expect(judgement.verdict).toBe('nonfinite')
    expect(judgement.findings[0]).toMatchObject({ statistic: 'tensor.nonfinite', value: 1 })
  })

  test.each([
    ['low_entropy', { 'final_logits.entropy_mean': 0.0005 }, 'below', 0.001],
    ['high_entropy', { 'final_logits.entropy_mean': 7 }, 'above', 3.5],
  ] as const)('is %s beyond the built-in bounds', (verdict, globals, direction, bound) => {
    const judgement = of(withGlobals(globals))
    expect(judgement.verdict).toBe(verdict)
    expect(judgement.findings).toMatchObject([{ direction, bound, layer: null }])
    expect(of(withGlobals(globals), only('nonfinite', 'looping')).verdict).toBe('ok')
  })

  test('is looping when a period ends it and its 4-grams came before', () => {
    const loop = { 'token_ids.loop_period': 3, 'token_ids.repetition': 0.6 }
    expect(of(withGlobals(loop)).verdict).toBe('looping')
    const dots = { 'token_ids.loop_period': 1, 'token_ids.repetition': 0.02 }
    expect(of(withGlobals(dots)).verdict).toBe('ok')
  })

  test('is looping when much repeats without a period, and the model was sure of it', () => {
    const repeating = { 'token_ids.repetition': 0.7, 'final_logits.entropy_mean': 0.4 }
    expect(of(withGlobals(repeating)).findings).toMatchObject([
      { verdict: 'looping', statistic: 'token_ids.repetition', value: 0.7, bound: 0.5 },
    ])
    expect(of(withGlobals({ ...repeating, 'final_logits.entropy_mean': 3 })).verdict).toBe('ok')
  })

  test('is collapsed when a layer leaves the bounds, named by the layer furthest out', () => {
    const judgement = of(withSeries({ 'pattern.entropy_no_sink_mean': [0.05, 0.01] }))
    expect(judgement.verdict).toBe('collapsed')
    expect(judgement.findings).toEqual([
      {
        verdict: 'collapsed',
        statistic: 'pattern.entropy_no_sink_mean',
        value: 0.01,
        bound: 0.1,
        direction: 'below',
        layer: 1,
      },
    ])
    expect(of(withSeries({ 'resid_pre.rank_residual': [0.9, 0.001] })).verdict).toBe('collapsed')
    expect(of(withGlobals({ 'resid_final.layer_growth_mean': 9 })).verdict).toBe('collapsed')
  })

  test('may grow twentyfold where it leaves the embedding', () => {
    expect(of(withSeries({ 'resid_pre.layer_growth_mean': [null, 20] })).verdict).toBe('ok')
  })

  test('is not judged by the direction of its embeddings: they tell of the text alone', () => {
    const series = {
      'resid_pre.token_cosine_mean': [0.9999, 0.5],
      'resid_pre.rank_residual': [0, 0.5],
    }
    expect(of(withSeries(series)).verdict).toBe('ok')
  })

  test('is named by its worst finding', () => {
    const judgement = of({
      ...withGlobals({ 'final_logits.entropy_mean': 7, 'token_ids.loop_period': 2 }),
      ...{
        layerSeries: { ...healthy().layerSeries, 'pattern.entropy_no_sink_mean': [0.999, 0.5] },
      },
    })
    expect(judgement.findings.map(({ verdict }) => verdict)).toEqual(['collapsed', 'high_entropy'])
    expect(judgement.verdict).toBe('collapsed')
  })
})

describe('what is missing', () => {
  test.each<[string, Partial<VerdictEvidence>]>([
    ['a complete capture', { completeness: { ...healthy().completeness, state: 'unknown' } }],
    ['a layer', { layerSeries: { ...healthy().layerSeries, 'pattern.sink_mass': [0.05, null] } }],
    ['a number', { globals: { ...healthy().globals, 'final_logits.entropy_mean': Number.NaN } }],
    ['tokens', { globals: { ...healthy().globals, 'token_ids.tokens_tracked': 39 } }],
    ['the answer', { tokens: 20 }],
    ['everything', { capture: {}, globals: {}, layerSeries: {} }],
  ])('without %s: unknown, and said in words', (_what, change) => {
    // Only a learnt bound makes the mass on the sink evidence.
    const learnt: LearntBounds = {
      globals: {},
      layers: {
        'pattern.sink_mass': [0.05, 0.6].map((value) => learnQuantiles([value, value], 'share')),
      },
    }
    const judgement = judge(healthy(change), everything, learnt, null)
    expect(judgement.verdict).toBe('unknown')
    expect(judgement.findings).toEqual([])
    expect(judgement.missingEvidence.length).toBeGreaterThan(0)
  })

  test('a baseline that cannot be read leaves nothing ok, and finds no less', () => {
    const reason = 'RING2_E_BASELINE: damaged'
    expect(judge(healthy(), everything, null, reason)).toMatchObject({
      verdict: 'unknown',
      missingEvidence: [reason],
    })
    const high = withGlobals({ 'final_logits.entropy_mean': 7 })
    expect(judge(high, everything, null, reason).verdict).toBe('high_entropy')
  })

  test('a rule that is off needs nothing', () => {
    const { 'final_logits.entropy_mean': _entropy, ...globals } = healthy().globals
    const evidence = healthy({ globals })
    expect(of(evidence).verdict).toBe('unknown')
    expect(of(evidence, only('nonfinite', 'collapsed', 'looping')).verdict).toBe('ok')
    expect(of(healthy(), only()).verdict).toBe('unknown')
  })

  test('a hook that is not captured, or a group that is off, is not asked for', () => {
    const { pattern: _pattern, ...capture } = healthy().capture
    const layerSeries = Object.fromEntries(
      Object.entries(healthy().layerSeries).filter(([name]) => !name.startsWith('pattern')),
    )
    expect(of(healthy({ capture, layerSeries })).verdict).toBe('ok')
    const groups = new Set<StatisticGroup>(['sequence'])
    const attention = Object.fromEntries(
      Object.entries(healthy().layerSeries).filter(([name]) => name.startsWith('pattern')),
    )
    expect(of(healthy({ layerSeries: attention }), { ...everything, groups }).verdict).toBe('ok')
  })

  test('an answer too short for loops is judged by everything else', () => {
    const short = { tokens: 26, 'token_ids.tokens_tracked': 6 }
    const globals = { ...healthy().globals, ...short, 'token_ids.loop_period': 1 }
    expect(of(healthy({ tokens: 26, globals })).verdict).toBe('ok')
    const tiny = of(healthy({ tokens: 22, globals: { ...globals, 'token_ids.tokens_tracked': 2 } }))
    expect(tiny.missingEvidence).toEqual([
      '2 generated tokens were processed: entropy is judged from 4 on',
    ])
  })
})

/** Every way of taking one thing away from what is known. */
function reductions(evidence: VerdictEvidence): VerdictEvidence[] {
  const reduced: VerdictEvidence[] = []
  for (const name of Object.keys(evidence.globals)) {
    const { [name]: _gone, ...globals } = evidence.globals
    reduced.push({ ...evidence, globals })
  }
  for (const [name, series] of Object.entries(evidence.layerSeries)) {
    const { [name]: _gone, ...layerSeries } = evidence.layerSeries
    reduced.push({ ...evidence, layerSeries })
    for (const layer of series.keys()) {
      const holed = series.map((value, index) => (index === layer ? null : value))
      reduced.push({ ...evidence, layerSeries: { ...evidence.layerSeries, [name]: holed } })
    }
  }
  const completeness = { ...evidence.completeness, state: 'incomplete' as const }
  return [...reduced, { ...evidence, completeness }]
}

/** A sequence of numbers in [0, 1) that is the same every time (Numerical Recipes' generator). */
function numbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

test('taking evidence away never turns a verdict into ok', () => {
  const next = numbers(7)
  const learnt: LearntBounds = {
    globals: { 'resid_final.l2_no_first_mean': learnQuantiles([55, 60, 65], 'log') },
    layers: { 'pattern.sink_mass': [null, learnQuantiles([0.5, 0.6, 0.7], 'share')] },
  }
  let compared = 0
  for (let round = 0; round < 1000; round++) {
    let evidence = healthy({ tokens: 20 + Math.floor(next() * 60) })
    const globals: Record<string, number> = { ...evidence.globals }
    globals['token_ids.tokens_tracked'] = evidence.tokens - 20
    const wild = (value: number): number => (next() < 0.15 ? value * 10 ** (8 * next() - 4) : value)
    for (const name of Object.keys(globals)) {
      if (name !== 'token_ids.tokens_tracked') globals[name] = wild(globals[name] ?? 0)
    }
    if (next() < 0.3) globals['token_ids.loop_period'] = 5
    const layerSeries = Object.fromEntries(
      Object.entries(evidence.layerSeries).map(([name, series]) => [
        name,
        series.map((value) => (value === null ? null : wild(value))),
      ]),
    )
    evidence = { ...evidence, globals, layerSeries }
    const rules = verdictRules.filter(() => next() < 0.8)
    const settings = { ...everything, rules: new Set(rules) }
    const bounds = next() < 0.5 ? learnt : null
    if (judge(evidence, settings, bounds, null).verdict === 'ok') continue
    for (const less of reductions(evidence)) {
      expect(judge(less, settings, bounds, null).verdict).not.toBe('ok')
      compared += 1
    }
  }
  expect(compared).toBeGreaterThan(5000)
})
