import { expect, test } from 'vitest'
import {
  addSlice,
  createStatistics,
  restoreStatistics,
  storeStatistics,
  summarize,
} from '../../collector/request-statistics.ts'

test('means are weighted by the rows they are over, and maxima are not', () => {
  const statistics = createStatistics()
  addSlice(statistics, 'resid_pre', 1, 0, 9, { l2Mean: 1, l2Max: 5 })
  addSlice(statistics, 'resid_pre', 1, 9, 10, { l2Mean: 11, l2Max: 2 })
  expect(summarize(statistics).layerSeries).toEqual({
    'resid_pre.l2_mean': [null, 2],
    'resid_pre.l2_max': [null, 5],
  })
})

test('a query that sees too few keys has no weight in the attention means', () => {
  const statistics = createStatistics()
  // A prefill of 4 tokens: 3 queries see two keys or more, 2 see three or more.
  addSlice(statistics, 'pattern', 0, 0, 4, { sinkMass: 0.6, entropyNoSinkMean: 0.5 })
  addSlice(statistics, 'pattern', 0, 4, 5, { sinkMass: 0.2, entropyNoSinkMean: 0.2 })
  const { layerSeries } = summarize(statistics)
  expect(layerSeries['pattern.sink_mass']?.[0]).toBeCloseTo((3 * 0.6 + 0.2) / 4, 12)
  expect(layerSeries['pattern.entropy_no_sink_mean']?.[0]).toBeCloseTo((2 * 0.5 + 0.2) / 3, 12)
})

test('the state survives a checkpoint', () => {
  const statistics = createStatistics()
  addSlice(statistics, 'final_logits', -1, 0, 3, { entropyMean: 2, entropyMin: 0 })
  const restored = restoreStatistics(JSON.parse(JSON.stringify(storeStatistics(statistics))))
  addSlice(restored, 'final_logits', -1, 3, 4, { entropyMean: 6, entropyMin: 1 })
  expect(summarize(restored)).toEqual({
    layerSeries: {},
    globals: { 'final_logits.entropy_mean': 3, 'final_logits.entropy_min': 0 },
  })
})
