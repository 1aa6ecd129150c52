/** Requests of several ranks in the catalogue: one row of the lists, which has what all of them stored. */
import { expect, test } from 'vitest'
import {
  parallelOf,
  producersMeant,
  producersOf,
  requestOf,
} from '../../../exporter/catalog/parallel.ts'
import { producerLabel } from '../../../exporter/parquet/schema.ts'
import { floats, otherProducer, producer, row, summary, traceA } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const ranks = { tp: 0, pp: 0, dp: 0, ep: 0 }
const other = { ...ranks, tp: 1 }
const [first, second] = [producerLabel(producer), producerLabel(otherProducer)]
const told = summary({
  parallel: {
    world: { tp: 2, pp: 1, dp: 1, ep: 1 },
    parts: [
      { producer, ranks, steps: 2, completeness: 'complete' },
      { producer: otherProducer, ranks: other, steps: 2, completeness: 'complete' },
    ],
  },
})

/** What two ranks stored of one request, each in a flush of its own; the first one tells of it. */
function fill(summaries: readonly (typeof told)[]) {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row({ producer: otherProducer, ranks: other })], [], otherProducer)
  fixture.flush([row({ data: floats(5, 6, 7, 8) })], summaries)
  return fixture.catalog
}

test('a request of two ranks is listed once, with the bytes and rows of both', () => {
  const [request, ...more] = fill([told]).requests(traceA)
  expect(more).toEqual([])
  expect(request).toMatchObject({ producer: first, bytes_stored: 32, tensors_stored: 2 })
})

test('while it goes on, and where nobody names the other, each producer has its own', () => {
  for (const summaries of [[], [summary()]]) {
    const requests = fill(summaries).requests(traceA)
    expect(requests.map((one) => one.producer).sort()).toEqual([first, second].sort())
    expect(requests.map((one) => one.bytes_stored)).toEqual([16, 16])
  }
})

test('the name of the one that told means all of them, and that of another itself alone', () => {
  const requests = fill([told]).requests(traceA)
  expect([...producersMeant(requests, first)].sort()).toEqual([first, second].sort())
  expect([...producersMeant(requests, second)]).toEqual([second])
  expect([...producersMeant(requests, 'nobody')]).toEqual(['nobody'])
})

test('a request is found by each producer of it, and says which ranks there were', () => {
  const requests = fill([told]).requests(traceA)
  const [request] = requests
  if (request === undefined) throw new Error('no request')
  expect(requestOf(requests, 'request-1', first)).toBe(request)
  expect(requestOf(requests, 'request-1', second)).toBe(request)
  expect(requestOf(requests, 'request-1', 'nobody')).toBeUndefined()
  expect(requestOf(requests, 'request-2', first)).toBeUndefined()
  expect([...producersOf(request)].sort()).toEqual([first, second].sort())
  expect(parallelOf(request)).toEqual(told.parallel)
  expect(parallelOf({ summary: null })).toBeNull()
  expect(parallelOf({ summary: JSON.stringify(summary()) })).toBeNull()
})
