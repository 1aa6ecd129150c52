import { expect, test } from 'vitest'
import {
  addSlice,
  createStatistics,
  type MeasuredSlice,
  type RequestStatistics,
  restoreStatistics,
  storeStatistics,
  summarize,
  summarizePhase,
} from '../../collector/request-statistics.ts'

type Values = MeasuredSlice['statistics']

/** Adds tokens of a prompt, or of an answer: what begins at token 0 is a prompt. */
function add(
  statistics: RequestStatistics,
  hook: string,
  layer: number,
  [tokenStart, tokenEnd]: readonly [number, number],
  values: Values,
): void {
  const phase = tokenStart === 0 ? ('prefill' as const) : ('decode' as const)
  addSlice(statistics, { hook, layer, phase, tokenStart, tokenEnd, statistics: values })
}

test('means are weighted by the rows they are over, and maxima are not', () => {
  const statistics = createStatistics()
  add(statistics, 'resid_pre', 1, [0, 9], { l2Mean: 1, l2Max: 5 })
  add(statistics, 'resid_pre', 1, [9, 10], { l2Mean: 11, l2Max: 2 })
  expect(summarize(statistics).layerSeries).toEqual({
    'resid_pre.l2_mean': [null, 2],
    'resid_pre.l2_max': [null, 5],
  })
})

test('a query that sees too few keys has no weight in the attention means', () => {
  const statistics = createStatistics()
  // A prefill of 4 tokens: 3 queries see two keys or more, 2 see three or more.
  add(statistics, 'pattern', 0, [0, 4], { sinkMass: 0.6, entropyNoSinkMean: 0.5 })
  add(statistics, 'pattern', 0, [4, 5], { sinkMass: 0.2, entropyNoSinkMean: 0.2 })
  const { layerSeries } = summarize(statistics)
  expect(layerSeries['pattern.sink_mass']?.[0]).toBeCloseTo((3 * 0.6 + 0.2) / 4, 12)
  expect(layerSeries['pattern.entropy_no_sink_mean']?.[0]).toBeCloseTo((2 * 0.5 + 0.2) / 3, 12)
})

test('the state survives a checkpoint', () => {
  const statistics = createStatistics()
  add(statistics, 'final_logits', -1, [0, 3], { entropyMean: 2, entropyMin: 0 })
  const restored = restoreStatistics(JSON.parse(JSON.stringify(storeStatistics(statistics))))
  add(restored, 'final_logits', -1, [3, 4], { entropyMean: 6, entropyMin: 1 })
  expect(summarize(restored)).toEqual({
    layerSeries: {},
    globals: { 'final_logits.entropy_mean': 3, 'final_logits.entropy_min': 0 },
  })
  expect(summarizePhase(restored, 'prefill').globals).toEqual({ 'final_logits.entropy_mean': 2 })
  expect(summarizePhase(restored, 'decode')).toEqual({
    logitRows: 1,
    layerSeries: {},
    globals: { 'final_logits.entropy_mean': 6 },
  })
})

test('recency has the weight of the queries that see 17 keys or more', () => {
  const statistics = createStatistics()
  // Of 18 queries two see that many: those at 16 and 17.
  add(statistics, 'pattern', 0, [0, 18], { recencyMass: 0.9 })
  add(statistics, 'pattern', 0, [18, 19], { recencyMass: 0.3 })
  const { layerSeries } = summarize(statistics)
  expect(layerSeries['pattern.recency_mass']?.[0]).toBeCloseTo((2 * 0.9 + 0.3) / 3, 12)
})

test('the likeness of tokens is that of the slice where they are most alike', () => {
  const statistics = createStatistics()
  add(statistics, 'resid_pre', 1, [0, 9], { tokenCosineMean: 0.2, rankResidual: 0.9 })
  add(statistics, 'resid_pre', 1, [9, 41], { tokenCosineMean: 0.8, rankResidual: 0.3 })
  add(statistics, 'resid_pre', 1, [41, 73], { tokenCosineMean: 0.5, rankResidual: 0.6 })
  expect(summarize(statistics).layerSeries).toEqual({
    'resid_pre.token_cosine_mean': [null, 0.8],
    'resid_pre.rank_residual': [null, 0.3],
  })
})

test('what rules read is kept per phase, and nothing else is', () => {
  const statistics = createStatistics()
  add(statistics, 'resid_pre', 2, [0, 99], { layerGrowthMean: 1, l2Mean: 4 })
  add(statistics, 'resid_pre', 2, [99, 100], { layerGrowthMean: 33, l2Mean: 4 })
  add(statistics, 'final_logits', -1, [0, 99], { entropyMean: 4 })
  const name = 'resid_pre.layer_growth_mean'
  expect(summarize(statistics).layerSeries[name]?.[2]).toBeCloseTo(1.32, 12)
  expect(summarizePhase(statistics, 'prefill')).toEqual({
    logitRows: 99,
    layerSeries: { [name]: [null, null, 1] },
    globals: { 'final_logits.entropy_mean': 4 },
  })
  expect(summarizePhase(statistics, 'decode')).toEqual({
    logitRows: 0,
    layerSeries: { [name]: [null, null, 33] },
    globals: {},
  })
})
