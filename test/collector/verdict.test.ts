import { describe, expect, test } from 'vitest'
import type { LearntBounds, PhaseBounds } from '../../collector/baseline.ts'
import { learnQuantiles } from '../../collector/baseline-bounds.ts'
import type { Phase } from '../../collector/records.ts'
import { type StatisticGroup, statisticGroups } from '../../collector/statistic-groups.ts'
import {
  judge,
  type PhaseEvidence,
  type VerdictEvidence,
  type VerdictSettings,
} from '../../collector/verdict.ts'
import { type VerdictRule, verdictRules } from '../../collector/verdict-rules.ts'

const everything: VerdictSettings = {
  rules: new Set(verdictRules),
  groups: new Set(Object.keys(statisticGroups) as StatisticGroup[]),
}

function only(...rules: VerdictRule[]): VerdictSettings {
  return { ...everything, rules: new Set(rules) }
}

type Series = Record<string, (number | null)[]>
type Values = Record<string, number>

const series: Series = {
  'resid_pre.token_cosine_mean': [0.2, 0.6],
  'resid_pre.rank_residual': [0.9, 0.7],
  'resid_pre.l2_no_first_mean': [3, 50],
  'resid_pre.layer_growth_mean': [null, 16],
  'pattern.entropy_no_sink_mean': [0.8, 0.5],
  'pattern.sink_mass': [0.05, 0.6],
}

const streamEnd: Values = {
  'resid_final.token_cosine_mean': 0.5,
  'resid_final.rank_residual': 0.8,
  'resid_final.l2_no_first_mean': 60,
  'resid_final.layer_growth_mean': 1.2,
}

const generated: Values = {
  'final_logits.entropy_mean': 1.4,
  'token_ids.repetition': 0.05,
  'token_ids.loop_period': 0,
  'token_ids.tokens_tracked': 40,
}

const healthyPrefill: PhaseEvidence = {
  tokens: 20,
  logitRows: 1,
  layerSeries: series,
  globals: { ...streamEnd, 'final_logits.entropy_mean': 1.4 },
}

const healthyDecode: PhaseEvidence = {
  tokens: 40,
  logitRows: 40,
  layerSeries: series,
  globals: { ...streamEnd, ...generated },
}

/** A request of a model with two layers that all rules have evidence for, and none finds fault with. */
function healthy(change: Partial<VerdictEvidence> = {}): VerdictEvidence {
  return {
    phases: { prefill: healthyPrefill, decode: healthyDecode },
    measured: true,
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

function withPhase(phase: Phase, change: Partial<PhaseEvidence>): VerdictEvidence {
  const { prefill = healthyPrefill, decode = healthyDecode } = healthy().phases
  const phases = { prefill, decode }
  return healthy({ phases: { ...phases, [phase]: { ...phases[phase], ...change } } })
}

function withGlobals(globals: Values): VerdictEvidence {
  return withPhase('decode', { globals: { ...healthyDecode.globals, ...globals } })
}

function withSeries(change: Series): VerdictEvidence {
  return withPhase('decode', { layerSeries: { ...series, ...change } })
}

/** A request that generated so many tokens, all of them followed. */
function withGenerated(tokens: number, globals: Values = {}): VerdictEvidence {
  const tracked = { 'token_ids.tokens_tracked': tokens }
  const all = { ...healthyDecode.globals, ...tracked, ...globals }
  const decode = { ...healthyDecode, tokens, logitRows: tokens, globals: all }
  return healthy({ tokens: 20 + tokens, phases: { prefill: healthyPrefill, decode } })
}

/** The same with a third layer, where it has none yet. */
function withThird(phase: PhaseEvidence): PhaseEvidence {
  const layerSeries = Object.fromEntries(
    Object.entries(phase.layerSeries).map(([name, [first, second, third]]) => [
      name,
      [first ?? null, second ?? null, third ?? 0.6],
    ]),
  )
  return { ...phase, layerSeries }
}

function bounds(decode: PhaseBounds): LearntBounds {
  return { phases: { prefill: { globals: {}, layers: {} }, decode } }
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
    const judgement = of(healthy({ nonfinite: 1, phases: {}, measured: false }))
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
        phase: 'decode',
      },
    ])
    expect(of(withSeries({ 'resid_pre.rank_residual': [0.9, 0.001] })).verdict).toBe('collapsed')
    expect(of(withGlobals({ 'resid_final.layer_growth_mean': 9 })).verdict).toBe('collapsed')
  })

  test('may grow twentyfold where it leaves the embedding', () => {
    expect(of(withSeries({ 'resid_pre.layer_growth_mean': [null, 20] })).verdict).toBe('ok')
  })

  test('is not judged by the direction of its embeddings: they tell of the text alone', () => {
    const alike = {
      'resid_pre.token_cosine_mean': [0.9999, 0.5],
      'resid_pre.rank_residual': [0, 0.5],
    }
    expect(of(withSeries(alike)).verdict).toBe('ok')
  })

  test('is named by its worst finding', () => {
    const change = { 'final_logits.entropy_mean': 7, 'token_ids.loop_period': 2 }
    const judgement = of(
      withPhase('decode', {
        globals: { ...healthyDecode.globals, ...change },
        layerSeries: { ...series, 'pattern.entropy_no_sink_mean': [0.999, 0.5] },
      }),
    )
    expect(judgement.findings.map(({ verdict }) => verdict)).toEqual(['collapsed', 'high_entropy'])
    expect(judgement.verdict).toBe('collapsed')
  })
})

describe('what is missing', () => {
  test.each<[string, VerdictEvidence]>([
    [
      'a complete capture',
      healthy({ completeness: { ...healthy().completeness, state: 'unknown' } }),
    ],
    ['a layer', withSeries({ 'pattern.sink_mass': [0.05, null] })],
    ['a number', withGlobals({ 'final_logits.entropy_mean': Number.NaN })],
    ['logits of generated tokens', withPhase('decode', { logitRows: 3 })],
    ['tokens', withGlobals({ 'token_ids.tokens_tracked': 39 })],
    ['the answer', healthy({ tokens: 20, phases: { prefill: healthyPrefill } })],
    ['the number of layers', healthy({ layers: 0 })],
    ['layers enough', healthy({ layers: 1 })],
    ['everything', healthy({ capture: {}, phases: {}, measured: false })],
  ])('without %s: unknown, and said in words', (_what, evidence) => {
    // Only a learnt bound makes the mass on the sink evidence.
    const learnt = bounds({
      globals: {},
      layers: {
        'pattern.sink_mass': [0.05, 0.6].map((value) => learnQuantiles([value, value], 'share')),
      },
    })
    const judgement = judge(evidence, everything, learnt, null)
    expect(judgement.verdict).toBe('unknown')
    expect(judgement.findings).toEqual([])
    expect(judgement.missingEvidence.length).toBeGreaterThan(0)
  })

  test.each(['prefill', 'decode'] as const)('without any %s step: unknown', (phase) => {
    const { [phase]: _gone, ...phases } = healthy().phases
    const judgement = of(healthy({ phases }), only('collapsed'))
    expect(judgement.missingEvidence).toEqual([`no ${phase} step was seen`])
    expect(judgement.verdict).toBe('unknown')
  })

  test('the end of the stream is compared with the last layer, where that one is captured', () => {
    const { 'resid_final.layer_growth_mean': _growth, ...globals } = healthyDecode.globals
    const lacking = (resid_pre: number[], prefill: PhaseEvidence) => {
      const { capture } = healthy()
      const phases = { prefill, decode: { ...healthyDecode, globals } }
      return of(healthy({ phases, capture: { ...capture, resid_pre } }), only('collapsed'))
    }
    const both = { ...healthyPrefill, globals }
    expect(lacking([0, 1], both).missingEvidence).toEqual([
      'resid_final.layer_growth_mean has no value in one layer',
    ])
    expect(lacking([0], both).verdict).toBe('ok')
    // One phase's value is enough: the ring may be released between two layers.
    expect(lacking([0, 1], healthyPrefill).verdict).toBe('ok')
  })

  test('a prompt too short for a statistic is not asked for it, nor judged by it', () => {
    const short = (tokens: number) => {
      const layerSeries = { ...series, 'resid_pre.layer_growth_mean': [null, 16, 100] }
      const prefill = { ...healthyPrefill, tokens, layerSeries }
      const { pattern: _pattern, ...capture } = healthy().capture
      return healthy({
        layers: 3,
        capture: { ...capture, resid_pre: [0, 1, 2] },
        phases: { prefill: withThird(prefill), decode: withThird(healthyDecode) },
        promptTokens: tokens,
        tokens: tokens + 40,
      })
    }
    expect(of(short(15)).verdict).toBe('ok')
    expect(of(short(16)).findings).toMatchObject([{ value: 100, layer: 2, phase: 'prefill' }])
    const evidence = short(1)
    const { decode = healthyDecode } = evidence.phases
    const prefill = { tokens: 1, logitRows: 1, layerSeries: {}, globals: {} }
    expect(of({ ...evidence, phases: { prefill, decode } }).verdict).toBe('ok')
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
    const { 'final_logits.entropy_mean': _entropy, ...globals } = healthyDecode.globals
    const evidence = withPhase('decode', { globals })
    expect(of(evidence).verdict).toBe('unknown')
    expect(of(evidence, only('nonfinite', 'collapsed', 'looping')).verdict).toBe('ok')
    expect(of(healthy(), only()).verdict).toBe('unknown')
  })

  test('a hook that is not captured, or a statistic whose group is off, is not asked for', () => {
    const { pattern: _pattern, ...capture } = healthy().capture
    const part = (wanted: (name: string) => boolean) => {
      const layerSeries = Object.fromEntries(
        Object.entries(series).filter(([name]) => wanted(name)),
      )
      const prefill = { ...healthyPrefill, layerSeries }
      return { prefill, decode: { ...healthyDecode, layerSeries } }
    }
    const stream = part((name) => !name.startsWith('pattern'))
    expect(of(healthy({ capture, phases: stream })).verdict).toBe('ok')
    const attention = healthy({ phases: part((name) => name.startsWith('pattern')) })
    const groups = new Set<StatisticGroup>(['sequence'])
    expect(of(attention, { ...everything, groups }).verdict).toBe('ok')
  })

  test('loops need the group that finds them, or the rule is off', () => {
    const groups = new Set<StatisticGroup>(['representation', 'layers', 'outliers'])
    const judgement = of(healthy(), { ...everything, groups })
    expect(judgement.verdict).toBe('unknown')
    expect(judgement.missingEvidence.join()).toContain('sequence')
    const { rules } = only('nonfinite', 'collapsed', 'low_entropy', 'high_entropy')
    expect(of(healthy(), { rules, groups }).verdict).toBe('ok')
  })

  test('an answer too short for loops is judged by everything else', () => {
    const short = withGenerated(6, { 'token_ids.loop_period': 1, 'token_ids.repetition': 0.9 })
    expect(of(short).verdict).toBe('ok')
    const fifteen = { 'token_ids.loop_period': 1, 'token_ids.repetition': 0.9 }
    expect(of(withGenerated(15, fifteen)).verdict).toBe('ok')
    expect(of(withGenerated(16, fifteen)).verdict).toBe('looping')
    const tiny = of(withGenerated(2))
    expect(tiny.missingEvidence).toEqual([
      '2 generated tokens were processed: entropy is judged from 4 on',
    ])
  })

  test('windows of generated tokens are asked for once there is one', () => {
    const { 'resid_pre.rank_residual': _rank, ...layerSeries } = series
    const { 'resid_final.rank_residual': _final, ...globals } = healthyDecode.globals
    const of32 = (tokens: number) => {
      const evidence = withGenerated(tokens, globals)
      const { prefill = healthyPrefill, decode = healthyDecode } = evidence.phases
      const all = { ...globals, 'token_ids.tokens_tracked': tokens }
      return of({
        ...evidence,
        phases: { prefill, decode: { ...decode, layerSeries, globals: all } },
      })
    }
    expect(of32(31).verdict).toBe('ok')
    expect(of32(32).missingEvidence).toEqual([
      'resid_pre.rank_residual has no decode value in one layer',
      'resid_final.rank_residual has no decode value in one layer',
    ])
  })
})

describe('a prompt and an answer are judged apart', () => {
  test('a fault of one of them is not hidden by the other, and the worse one is named', () => {
    const name = 'pattern.entropy_no_sink_mean'
    for (const phase of ['prefill', 'decode'] as const) {
      const broken = withPhase(phase, { layerSeries: { ...series, [name]: [0.8, 0.02] } })
      expect(of(broken).findings).toMatchObject([{ statistic: name, value: 0.02, phase }])
    }
    const decode = { ...healthyDecode, layerSeries: { ...series, [name]: [0.8, 0.05] } }
    const prefill = { ...healthyPrefill, layerSeries: { ...series, [name]: [0.02, 0.8] } }
    const both = of(healthy({ phases: { prefill, decode } })).findings
    expect(both).toMatchObject([{ value: 0.02, phase: 'prefill', layer: 0 }])
  })

  test('each has its own learnt bounds', () => {
    const sink = [null, learnQuantiles([0.5, 0.6, 0.7], 'share')]
    const learnt = bounds({ globals: {}, layers: { 'pattern.sink_mass': sink } })
    const low = { ...series, 'pattern.sink_mass': [0.05, 0.01] }
    const verdict = (phase: Phase) =>
      judge(withPhase(phase, { layerSeries: low }), everything, learnt, null).verdict
    expect(verdict('decode')).toBe('collapsed')
    expect(verdict('prefill')).toBe('ok')
  })

  test('entropy is that of the generated tokens alone', () => {
    const prompt = (entropy: number) => ({
      globals: { ...healthyPrefill.globals, 'final_logits.entropy_mean': entropy },
      logitRows: 90,
    })
    expect(of(withPhase('prefill', prompt(9))).verdict).toBe('ok')
    expect(of(withPhase('prefill', prompt(0))).verdict).toBe('ok')
    const { prefill } = withPhase('prefill', prompt(4)).phases
    const sure = withGlobals({ 'final_logits.entropy_mean': 1e-28 })
    expect(of({ ...sure, phases: { ...sure.phases, ...(prefill && { prefill }) } }).verdict).toBe(
      'low_entropy',
    )
  })
})

/** Every way of taking one thing away from what is known of a phase. */
function phaseReductions(phase: PhaseEvidence): PhaseEvidence[] {
  const reduced: PhaseEvidence[] = [{ ...phase, logitRows: 0 }]
  const others = (name: string) => !name.endsWith('layer_growth_mean')
  for (const name of Object.keys(phase.globals).filter(others)) {
    const { [name]: _gone, ...globals } = phase.globals
    reduced.push({ ...phase, globals })
  }
  for (const [name, values] of Object.entries(phase.layerSeries)) {
    if (!others(name)) continue
    const { [name]: _gone, ...layerSeries } = phase.layerSeries
    reduced.push({ ...phase, layerSeries })
    for (const layer of values.keys()) {
      const holed = values.map((value, index) => (index === layer ? null : value))
      reduced.push({ ...phase, layerSeries: { ...phase.layerSeries, [name]: holed } })
    }
  }
  return reduced
}

/** Every way of taking one thing away from what is known. */
function reductions(evidence: VerdictEvidence): VerdictEvidence[] {
  const { phases } = evidence
  const completeness = { ...evidence.completeness, state: 'incomplete' as const }
  const reduced = [
    { ...evidence, completeness },
    { ...evidence, layers: 0 },
  ]
  for (const [phase, known] of Object.entries(phases)) {
    for (const less of phaseReductions(known)) {
      reduced.push({ ...evidence, phases: { ...phases, [phase]: less } })
    }
  }
  const { prefill = healthyPrefill, decode = healthyDecode } = phases
  return [
    ...reduced,
    { ...evidence, phases: { prefill: withoutGrowth(prefill), decode: withoutGrowth(decode) } },
  ]
}

/** Growth is taken from both phases at once: one phase's is evidence enough. */
function withoutGrowth(phase: PhaseEvidence): PhaseEvidence {
  const { 'resid_pre.layer_growth_mean': _layers, ...layerSeries } = phase.layerSeries
  const { 'resid_final.layer_growth_mean': _last, ...globals } = phase.globals
  return { ...phase, layerSeries, globals }
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
  const learnt = bounds({
    globals: { 'resid_final.l2_no_first_mean': learnQuantiles([55, 60, 65], 'log') },
    layers: { 'pattern.sink_mass': [null, learnQuantiles([0.5, 0.6, 0.7], 'share')] },
  })
  const wild = (value: number): number => (next() < 0.1 ? value * 10 ** (8 * next() - 4) : value)
  const shaken = (phase: PhaseEvidence): PhaseEvidence => ({
    ...phase,
    globals: Object.fromEntries(
      Object.entries(phase.globals).map(([name, value]) => [
        name,
        name === 'token_ids.tokens_tracked' ? value : wild(value),
      ]),
    ),
    layerSeries: Object.fromEntries(
      Object.entries(phase.layerSeries).map(([name, values]) => [
        name,
        values.map((value) => (value === null ? null : wild(value))),
      ]),
    ),
  })
  let compared = 0
  for (let round = 0; round < 500; round++) {
    const period = next() < 0.3 ? { 'token_ids.loop_period': 5 } : {}
    const known = withGenerated(1 + Math.floor(next() * 60), period)
    const { prefill = healthyPrefill, decode = healthyDecode } = known.phases
    const evidence = { ...known, phases: { prefill: shaken(prefill), decode: shaken(decode) } }
    const rules = verdictRules.filter(() => next() < 0.8)
    const settings = { ...everything, rules: new Set(rules) }
    const limits = next() < 0.5 ? learnt : null
    if (judge(evidence, settings, limits, null).verdict === 'ok') continue
    for (const less of reductions(evidence)) {
      expect(judge(less, settings, limits, null).verdict).not.toBe('ok')
      compared += 1
    }
  }
  expect(compared).toBeGreaterThan(5000)
})
