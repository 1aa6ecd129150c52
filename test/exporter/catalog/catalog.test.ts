import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { noonMicros, request, row, summary } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

function trace(index: number): string {
  return `${index}`.padStart(32, 'a')
}

test('requests are listed newest first, page by page, while others are added', () => {
  const fixture = openFixture(temporaryFolder())
  const add = (index: number) =>
    fixture.flush(
      [],
      [
        summary({
          request: request({
            traceId: trace(index),
            requestId: `r${index}`,
            startedAtMicros: noonMicros + Math.floor(index / 2),
          }),
        }),
      ],
    )
  for (let index = 0; index < 7; index += 1) add(index)
  const seen: string[] = []
  let cursor: string | null = null
  do {
    const page = fixture.catalog.list({ limit: 3, ...(cursor === null ? {} : { cursor }) })
    seen.push(...page.requests.map((one) => one.request_id))
    cursor = page.nextCursor
    // A newer request does not shift the pages that follow.
    if (seen.length === 3) add(100)
  } while (cursor !== null)
  expect(seen).toEqual(['r6', 'r4', 'r5', 'r2', 'r3', 'r0', 'r1'])
})

test('the list is filtered by time, model and verdict', () => {
  const fixture = openFixture(temporaryFolder())
  const model = { ...row().model, name: 'other' }
  const late = request({ traceId: trace(2), requestId: 'late', startedAtMicros: noonMicros + 10 })
  fixture.flush([], [summary(), summary({ request: late, model, verdict: 'nonfinite' })])
  const ids = (filter: Parameters<typeof fixture.catalog.list>[0]) =>
    fixture.catalog.list(filter).requests.map((one) => one.request_id)
  expect(ids({})).toEqual(['late', 'request-1'])
  expect(ids({ sinceMicros: noonMicros + 1 })).toEqual(['late'])
  expect(ids({ model: 'other' })).toEqual(['late'])
  expect(ids({ verdict: 'ok' })).toEqual(['request-1'])
  expect(ids({ verdict: 'ok', model: 'other' })).toEqual([])
  expect(ids({ bad: true })).toEqual(ids({ verdict: 'nonfinite' }))
  expect(ids({ bad: true, model: 'tiny' })).toEqual([])
})

test('a cursor that is not ours is refused', () => {
  const fixture = openFixture(temporaryFolder())
  for (const cursor of ['', 'x', 'W10', 'WzEsMiwzLDRd', '../../etc/passwd']) {
    expect(() => fixture.catalog.list({ cursor })).toThrow(/RING2_E_QUERY.*next_cursor/)
  }
})

test('a request is open and unknown until its summary comes', () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row({ capturedAtMicros: noonMicros + 7 })])
  const [open] = fixture.catalog.requests(row().request.traceId)
  expect(open).toMatchObject({
    ended_at: null,
    verdict: 'unknown',
    completeness: 'unknown',
    summary: null,
    started_at: noonMicros + 7,
    bytes_stored: 16,
    tensors_stored: 1,
  })
  fixture.flush([], [summary()])
  const [ended] = fixture.catalog.requests(row().request.traceId)
  expect(ended).toMatchObject({ verdict: 'ok', completeness: 'complete', started_at: noonMicros })
  // Rows that come after the summary do not open the request again.
  fixture.flush([row({ step: 9, capturedAtMicros: noonMicros - 5 })])
  const [after] = fixture.catalog.requests(row().request.traceId)
  expect(after).toMatchObject({ verdict: 'ok', started_at: noonMicros, tensors_stored: 2 })
})

test('a catalogue of another version asks for a rebuild', () => {
  const path = join(temporaryFolder(), 'catalog.sqlite')
  openCatalog(path).close()
  const database = new DatabaseSync(path)
  database.exec('PRAGMA user_version = 99')
  database.close()
  expect(() => openCatalog(path)).toThrow(/catalogue version 5.*version 99/)
})

test('a catalogue of version 3 is taken over, and its ended requests get their indexes', () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row()], [summary()])
  fixture.flush([row({ request: request({ requestId: 'open' }) })])
  const traceId = row().request.traceId
  const before = { requests: fixture.catalog.requests(traceId), page: fixture.catalog.list({}) }
  const files = fixture.catalog.files().map((file) => ({ ...file, tail_start: null }))
  fixture.catalog.close()
  fixture.sink.close()
  const database = new DatabaseSync(fixture.location.catalog)
  for (const table of ['index_due', 'trace_indexes', 'vocabularies']) {
    database.exec(`DROP TABLE ${table}`)
  }
  for (const column of ['tail_start', 'imported']) {
    database.exec(`ALTER TABLE files DROP COLUMN ${column}`)
  }
  database.exec('PRAGMA user_version = 3')
  database.close()
  const catalog = openCatalog(fixture.location.catalog)
  expect({ requests: catalog.requests(traceId), page: catalog.list({}) }).toEqual(before)
  expect(catalog.files()).toEqual(files)
  expect(catalog.indexes.due(10).map(({ key }) => key.requestId)).toEqual(['request-1'])
  catalog.close()
})

test('several processes create and fill one catalogue at the same time', async () => {
  const root = temporaryFolder()
  const child = join(import.meta.dirname, 'catalog.child.ts')
  const workers = Array.from({ length: 4 }, (_, index) => runChild(child, [root, `${index}`]))
  expect(await Promise.all(workers)).toEqual(['ok', 'ok', 'ok', 'ok'])
  const fixture = openFixture(root)
  expect(fixture.catalog.files()).toHaveLength(40)
  expect(fixture.catalog.list({ limit: 100 }).requests).toHaveLength(40)
})

function runChild(script: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args])
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
    })
    child.stderr.on('data', (chunk) => {
      output += chunk
    })
    child.on('close', () => resolve(output))
  })
}
