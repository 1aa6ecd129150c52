/** Requests whose trace context came after their rows: found by the caller's trace too. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { requestKey } from '../../../exporter/catalog/sent.ts'
import { writeParquetFile } from '../../../exporter/parquet/file-writer.ts'
import { contextColumns, SCHEMA_VERSION } from '../../../exporter/parquet/schema.ts'
import { floats, noonMicros, request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { asFloats, openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

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

const parent = {
  traceId: callersTrace,
  spanId: '5'.repeat(16),
  parentSpanId: '6'.repeat(16),
  traceState: 'vendor=1',
  traceOrigin: 'tap',
  storedTraceId: traceA,
  parentWindow: { startedAtMicros: noonMicros - 1000, endedAtMicros: noonMicros + 9000 },
} as const
const derived = request({ parentSpanId: null, traceOrigin: 'derived' })
const key = requestKey(summary({ request: derived }))

/** A request whose summary was stored before its context came. */
function fillMoved(root: string) {
  const fixture = openFixture(root)
  fixture.flush([row()], [summary({ request: derived })])
  expect(fixture.catalog.summary(key)?.request).toEqual(derived)
  fixture.sink.moved(summary({ request: { ...derived, ...parent } }))
  fixture.flush([])
  return fixture
}

test("a summary is told in the caller's trace, below the parent, and after a rebuild too", async () => {
  const fixture = fillMoved(temporaryFolder())
  const moved = { ...derived, ...parent }
  expect(fixture.catalog.summary(key)).toEqual(summary({ request: moved }))
  // Whoever sends it marks the rows it has.
  expect(requestKey(summary({ request: moved }))).toEqual(key)
  fixture.catalog.close()
  fixture.sink.close()
  rmSync(fixture.location.catalog)
  await rebuildCatalog(fixture.store, fixture.location.catalog)
  const catalog = openCatalog(fixture.location.catalog)
  expect(catalog.summary(key)?.request).toEqual(moved)
  catalog.close()
})

test('rows of earlier versions, which lack the parent, are read: the trace is right', async () => {
  const root = temporaryFolder()
  const fixture = fillMoved(root)
  const { storedTraceId, traceId, spanId } = parent
  const expected = { ...derived, traceId, spanId, storedTraceId, traceOrigin: 'tap' }
  // A catalogue of the version before.
  fixture.catalog.close()
  fixture.sink.close()
  const database = new DatabaseSync(fixture.location.catalog)
  for (const column of ['trace_state', 'parent_span_id', 'parent_started_at', 'parent_ended_at']) {
    database.exec(`ALTER TABLE aliases DROP COLUMN ${column}`)
  }
  database.exec('PRAGMA user_version = 2')
  database.close()
  const catalog = openCatalog(fixture.location.catalog)
  expect(catalog.summary(key)?.request).toEqual(expected)
  catalog.close()
  // A file of the version before, which has the parent's id alone.
  const [file] = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.startsWith('contexts') && name.endsWith('.parquet'),
  )
  writeParquetFile({
    path: join(root, file ?? ''),
    columns: contextColumns.slice(0, 9),
    payload: null,
    rows: [summary({ request: { ...derived, ...parent } })],
    metadata: { 'ring2.schema': SCHEMA_VERSION },
    fsync: false,
  })
  const report = await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(report.damaged).toEqual([])
  const rebuilt = openCatalog(fixture.location.catalog)
  expect(rebuilt.summary(key)?.request).toEqual({ ...expected, parentSpanId: parent.parentSpanId })
  rebuilt.close()
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
