import { expect, test } from 'vitest'
import { collectorLimits } from '../../collector/limits.ts'
import { createRecentRequests } from '../../collector/recent-requests.ts'
import { request, summary } from '../exporter/tensors/rows.ts'

const named = (index: number) => summary({ request: request({ key: index }) })

test('what ended lately is listed, and what is older is not', () => {
  let millis = 0
  const recent = createRecentRequests(() => millis)
  recent.add(named(1))
  millis = collectorLimits.checkpointEndedMillis
  recent.add(named(2))
  expect(recent.list().map(({ request: { key } }) => key)).toEqual([1, 2])
  millis += 1
  expect(recent.list().map(({ request: { key } }) => key)).toEqual([2])
})

test('no more than the bound are kept, the latest ones', () => {
  const recent = createRecentRequests(() => 0)
  const count = collectorLimits.checkpointEndedMax + 3
  for (let index = 1; index <= count; index++) recent.add(named(index))
  expect(recent.list()).toHaveLength(collectorLimits.checkpointEndedMax)
  expect(recent.list().at(0)?.request.key).toBe(4)
})
