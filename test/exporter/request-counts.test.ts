import { expect, test } from 'vitest'
import { OTHER_MODELS } from '../../collector/folds.ts'
import { collectorLimits } from '../../collector/limits.ts'
import { verdicts } from '../../collector/records.ts'
import { createRequestCounts } from '../../exporter/pipeline/request-counts.ts'
import { requestSummary } from './telemetry/fixtures.ts'

test('a model that is known has a count of 0 for every verdict', () => {
  const counts = createRequestCounts()
  counts.know('m')
  counts.know('m')
  const list = counts.list()
  expect(new Set(list.map(({ verdict }) => verdict))).toEqual(new Set(verdicts))
  expect(list.every(({ model, count }) => model === 'm' && count === 0)).toBe(true)
  expect(list.filter(({ verdict }) => verdict === 'ok').map((one) => one.completeness)).toEqual([
    'complete',
  ])
  expect(new Set(list.map((one) => JSON.stringify(one))).size).toBe(list.length)
})

test('a request adds one to a count that is there already', () => {
  const counts = createRequestCounts()
  const summary = requestSummary({ verdict: 'looping' })
  counts.know(summary.model.name)
  const before = counts.list().length
  counts.count(summary)
  expect(counts.list()).toHaveLength(before)
  expect(counts.list().filter(({ count }) => count > 0)).toEqual([
    { model: summary.model.name, verdict: 'looping', completeness: 'complete', count: 1 },
  ])
})

test('models beyond the bound share one name', () => {
  const counts = createRequestCounts()
  for (let model = 0; model < 2 * collectorLimits.modelsMax; model++) {
    const summary = requestSummary()
    counts.count({ ...summary, model: { ...summary.model, name: `model-${model}` } })
  }
  const list = counts.list()
  expect(new Set(list.map(({ model }) => model)).size).toBe(collectorLimits.modelsMax + 1)
  const shared = list.filter(({ model }) => model === OTHER_MODELS)
  expect(shared.reduce((sum, { count }) => sum + count, 0)).toBe(collectorLimits.modelsMax)
})
