/** Requests whose trace context came after their rows: found by the caller's trace too. */
import { rmSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/tensors/catalog.ts'
import { rebuildCatalog } from '../../../exporter/tensors/rebuild.ts'
import { floats, request, row, summary, traceA, traceB } from './rows.ts'
import { asFloats, openFixture, query } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

const callersTrace = 'c'.repeat(32)

/** A request stored under trace A that belongs to the caller's trace, and a stranger to it. */
function fill(root: string) {
  const fixture = openFixture(root)
  const other = request({ requestId: 'other' })
  fixture.flush(
    [
      row({ shape: [1, 4], data: floats(1, 2, 3, 4), tokenEnd: 1 }),
      row({ request: other, data: floats(5, 6, 7, 8) }),
      row({ request: request({ traceId: traceB, requestId: 'native' }) }),
    ],
    [summary(), summary({ request: other })],
  )
  const moved = request({ traceId: callersTrace, spanId: '5'.repeat(16), storedTraceId: traceA })
  fixture.sink.moved(summary({ request: moved }))
  fixture.flush([])
  return fixture
}

test("tensors are found and read by the caller's trace, and only those of the request", async () => {
  const fixture = fill(temporaryFolder())
  const requests = fixture.catalog.requests(callersTrace)
  expect(requests).toMatchObject([
    { request_id: 'request-1', trace_id: traceA, caller_trace_id: callersTrace, verdict: 'ok' },
  ])
  expect(fixture.catalog.series({ traceId: callersTrace })).toHaveLength(1)
  expect(fixture.catalog.series({ traceId: callersTrace, requestId: 'other' })).toEqual([])
  const opened = await fixture.reader().open(query({ traceId: callersTrace }))
  expect(opened.requestId).toBe('request-1')
  expect(asFloats(await opened.read())).toEqual([1, 2, 3, 4])
  const rows = await fixture.reader().list({
    traceId: callersTrace,
    requestId: null,
    hook: null,
    layer: null,
  })
  expect(rows.map((one) => one.request_id)).toEqual(['request-1'])
  // By its own trace as before, and others are not touched.
  expect(fixture.catalog.requests(traceA).map((one) => one.request_id)).toEqual([
    'other',
    'request-1',
  ])
  expect(fixture.catalog.requests(traceB)).toMatchObject([{ caller_trace_id: null }])
})

test('a request is listed once, with both traces', () => {
  const fixture = fill(temporaryFolder())
  const listed = fixture.catalog.list({}).requests
  expect(listed.map((one) => [one.request_id, one.caller_trace_id]).sort()).toEqual([
    ['native', null],
    ['other', null],
    ['request-1', callersTrace],
  ])
})

test('written twice it is one, and it outlives the catalogue', async () => {
  const root = temporaryFolder()
  const fixture = fill(root)
  const moved = request({ traceId: callersTrace, spanId: '5'.repeat(16), storedTraceId: traceA })
  fixture.sink.moved(summary({ request: moved }))
  fixture.flush([])
  const before = fixture.catalog.requests(callersTrace)
  expect(before).toHaveLength(1)
  fixture.catalog.close()
  fixture.sink.close()
  rmSync(fixture.location.catalog)
  const report = await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(report.damaged).toEqual([])
  const catalog = openCatalog(fixture.location.catalog)
  expect(catalog.requests(callersTrace)).toEqual(before)
  // A rebuild without the files forgets it.
  rmSync(`${root}/contexts`, { recursive: true })
  catalog.close()
  await rebuildCatalog(fixture.store, fixture.location.catalog)
  const rebuilt = openCatalog(fixture.location.catalog)
  expect(rebuilt.requests(callersTrace)).toEqual([])
  rebuilt.close()
})

test('a catalogue of the version before is taken over as it is', () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()], [summary()])
  const before = fixture.catalog.requests(traceA)
  fixture.catalog.close()
  fixture.sink.close()
  const database = new DatabaseSync(fixture.location.catalog)
  database.exec('DROP TABLE aliases; PRAGMA user_version = 1')
  database.close()
  const catalog = openCatalog(fixture.location.catalog)
  expect(catalog.requests(traceA)).toEqual(before)
  expect(catalog.requests(callersTrace)).toEqual([])
  catalog.close()
})

test('a lookup by trace uses an index, also by that of a caller', () => {
  const fixture = fill(temporaryFolder())
  const database = new DatabaseSync(fixture.location.catalog)
  const plan = database
    .prepare(
      `EXPLAIN QUERY PLAN SELECT * FROM series s WHERE s.trace_id IN
         (SELECT ?1 UNION SELECT stored_trace_id FROM aliases WHERE trace_id = ?1)`,
    )
    .all(callersTrace)
    .map((step) => String(step.detail))
  database.close()
  expect(plan.filter((step) => step.startsWith('SCAN') && !step.includes('CONSTANT'))).toEqual([])
})
