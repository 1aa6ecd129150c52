/** What a deletion reads, and that it does not keep the process from hearing others. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { compactCatalog } from '../../../exporter/catalog/compact.ts'
import type { DeletionContext } from '../../../exporter/retention/context.ts'
import { deleteTrace, previewDeletion } from '../../../exporter/retention/delete-trace.ts'
import { request, row, summary } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const REQUESTS = 12
const traceOf = (index: number) => `${index}`.padStart(32, 'a')

function contextOf({ location, catalog, store }: ReturnType<typeof openFixture>): DeletionContext {
  return { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
}

/** Requests of one day, each with files of its own. */
function storeMany(root: string) {
  const fixture = openFixture(root)
  for (let index = 0; index < REQUESTS; index += 1) {
    const owner = request({ traceId: traceOf(index), requestId: `request-${index}` })
    fixture.flush([row({ request: owner })], [summary({ request: owner })])
  }
  return fixture
}

test('a deletion reads the files that list the request, and no others of its day', async () => {
  const fixture = storeMany(temporaryFolder())
  const context = contextOf(fixture)
  expect(await previewDeletion(context, traceOf(3), null)).toMatchObject({ files: 2 })
  expect(await deleteTrace(context, traceOf(3), null)).toMatchObject({ requests: 1, tensors: 1 })
  expect(fixture.catalog.files()).toHaveLength(2 * (REQUESTS - 1))
})

test('what a catalogue of the version before has not described is read, and nothing is left', async () => {
  const root = temporaryFolder()
  const before = storeMany(root)
  const path = before.location.catalog
  before.catalog.close()
  before.sink.close()
  const database = new DatabaseSync(path)
  database.exec('DROP TABLE request_files; PRAGMA user_version = 4')
  database.close()
  const fixture = openFixture(root)
  const context = contextOf(fixture)
  expect(await previewDeletion(context, traceOf(3), null)).toMatchObject({ files: 1 + REQUESTS })
  await deleteTrace(context, traceOf(3), null)
  expect(fixture.catalog.files()).toHaveLength(2 * (REQUESTS - 1))
  expect(fixture.catalog.requests(traceOf(4))).toHaveLength(1)
  // A catalogue that is taken over makes no index due that was written already.
  expect(fixture.catalog.indexes.dueCount()).toBe(0)
})

test('the catalogue is made again beside the event loop, and stays what it is', async () => {
  const fixture = storeMany(temporaryFolder())
  const held = () => [fixture.catalog.files(), fixture.catalog.list({}).requests]
  const before = held()
  let turns = 0
  let done = false
  const turn = () => {
    if (done) return
    turns += 1
    setImmediate(turn)
  }
  setImmediate(turn)
  await compactCatalog(fixture.location.catalog, 0)
  done = true
  expect(turns).toBeGreaterThan(0)
  expect(held()).toEqual(before)
})

test('a catalogue that cannot be made again says why', async () => {
  const path = join(temporaryFolder(), 'catalog.sqlite')
  writeFileSync(path, 'no database at all, but long enough to be read as one. '.repeat(40))
  for (const hereBytesMax of [0, 1_000_000]) {
    await expect(compactCatalog(path, hereBytesMax)).rejects.toMatchObject({
      code: 'RING2_E_STORE',
      actual: expect.stringContaining('not a database'),
    })
  }
})
