import { expect, test } from 'vitest'
import { requestKey } from '../../../exporter/catalog/sent.ts'
import { catalogLimits } from '../../../exporter/limits.ts'
import { noonMicros, request, summary, traceB } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const second = 1_000_000
const ended = (id: string, offset: number) =>
  summary({
    request: request({ requestId: id, startedAtMicros: noonMicros + offset }),
    endedAtMicros: noonMicros + offset + second,
  })

test('requests that ended since tracking began and were not marked are told of, oldest first', () => {
  const { catalog, flush } = openFixture(temporaryFolder())
  flush([], [ended('before', 0)])
  expect(catalog.unsent(noonMicros + 10 * second)).toEqual({ keys: [], beyond: 0 })
  flush([], [ended('second', 30 * second), ended('first', 20 * second), ended('sent', 25 * second)])
  catalog.markSent([requestKey(ended('sent', 0))], noonMicros + 26 * second)
  // What was sent before it was stored is not told of either.
  catalog.markSent([requestKey(ended('early', 0))], noonMicros + 31 * second)
  flush([], [ended('early', 31 * second)])
  const { keys } = catalog.unsent(noonMicros + 60 * second)
  expect(keys.map((key) => key.requestId)).toEqual(['first', 'second'])
  expect(keys.map((key) => catalog.summary(key)?.endedAtMicros)).toEqual([
    noonMicros + 21 * second,
    noonMicros + 31 * second,
  ])
  catalog.markSent(keys, noonMicros + 61 * second)
  expect(catalog.unsent(noonMicros + 62 * second).keys).toEqual([])
})

test('what ran since before tracking began counts by its end; an open request is not told of', () => {
  const { catalog, flush } = openFixture(temporaryFolder())
  catalog.unsent(noonMicros)
  const long = summary({
    request: request({ requestId: 'long', startedAtMicros: noonMicros - 3600 * second }),
    endedAtMicros: noonMicros + second,
  })
  flush([], [long])
  const found = catalog.unsent(noonMicros + 2 * second).keys
  expect(found.map((key) => key.requestId)).toEqual(['long'])
  expect(catalog.summary({ ...requestKey(long), requestId: 'deleted' })).toBe(null)
})

test('a day later nothing is told of, and a stop of tracking forgets what was open', () => {
  const { catalog, flush } = openFixture(temporaryFolder())
  catalog.unsent(noonMicros)
  flush([], [ended('late', 0)])
  expect(catalog.unsent(noonMicros + catalogLimits.unsentMicrosMax + 2 * second).keys).toEqual([])
  expect(catalog.unsent(noonMicros + 5 * second).keys).toHaveLength(1)
  catalog.stopTracking()
  expect(catalog.unsent(noonMicros + 6 * second).keys).toEqual([])
})

test('a request that moved to its caller is marked by the trace of its rows', () => {
  const moved = summary({ request: request({ traceId: traceB, storedTraceId: 'd'.repeat(32) }) })
  expect(requestKey(moved).traceId).toBe('d'.repeat(32))
})
