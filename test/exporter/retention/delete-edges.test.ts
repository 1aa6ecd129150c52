/** Where a deletion has to look, and what it has to wait for, beyond what the catalogue says at once. */

import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { openCatalogRemoval } from '../../../exporter/catalog/removal.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import {
  deletionFolder,
  newJournal,
  toDo,
  writeJournal,
} from '../../../exporter/retention/journal.ts'
import { waitUntilSettled } from '../../../exporter/retention/settled.ts'
import { locateStore } from '../../../exporter/store/location.ts'
import { request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

const requestB = request({ traceId: traceB, requestId: 'request-2' })

function contextOf({ location, catalog, store }: ReturnType<typeof openFixture>) {
  return { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
}

function filesWith(folder: string, text: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((entry) => {
    const path = join(folder, entry)
    return statSync(path).isFile() && readFileSync(path).includes(text)
  })
}

test('parts of an attempt that was interrupted are gone from the store and the catalogue', async () => {
  const fixture = openFixture(temporaryFolder())
  const tensors = () => fixture.catalog.files().filter(({ dataset }) => dataset === 'tensors')
  const second = row({ request: requestB })
  fixture.flush([row(), second], [summary(), summary({ request: requestB })])
  const [file] = tensors()
  // What such an attempt leaves: a file with the rows that stay, beside the one that has them still.
  fixture.flush([second])
  const part = tensors().find(({ key }) => key !== file?.key)?.key ?? ''
  const target = { traceId: traceA, requestId: null }
  const facts = { id: '0'.repeat(26), ...target, targets: [target], requests: 1, traces: [traceA] }
  const files = fixture.catalog.files().filter(({ key }) => key !== part)
  const entries = files.map(({ key }) => ({
    ...toDo(key),
    parts: key === file?.key ? [part] : null,
  }))
  writeJournal(deletionFolder(fixture.location), newJournal({ ...facts, files: entries }))
  expect(await deleteTrace(contextOf(fixture), traceA, null)).toMatchObject({ resumed: true })
  expect(await fixture.store.size(part)).toBeNull()
  expect(fixture.catalog.file(part)).toBeNull()
  expect(tensors().map(({ rows }) => rows)).toEqual([1])
})

test('files in the folders of earlier versions that no catalogue describes are found', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()], [summary()])
  const listing = fixture.catalog.files().find(({ dataset }) => dataset === 'requests')
  const key = listing?.key ?? ''
  const earlier = join(root, key.replace('model_slug=', 'model='))
  mkdirSync(dirname(earlier), { recursive: true })
  renameSync(join(root, key), earlier)
  fixture.catalog.remove(key)
  await deleteTrace(contextOf(fixture), traceA, null)
  expect(filesWith(root, traceA)).toEqual([])
})

test('no index of a deleted request stays due', () => {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row(), row({ request: requestB })], [summary(), summary({ request: requestB })])
  const { catalog: path } = fixture.location
  const catalog = openCatalog(path, { indexed: true })
  catalog.indexes.allDue()
  expect(catalog.indexes.dueCount()).toBe(2)
  const removal = openCatalogRemoval(path)
  removal.forget([{ traceId: traceA, requestId: null }])
  removal.close()
  expect(catalog.indexes.due(9).map(({ key }) => key.traceId)).toEqual([traceB])
  catalog.close()
})

describe('A deletion waits', () => {
  const nothing = { key: 'k', bytes: 1, rows: 1, series: [], requests: [] }
  const late = { trace_id: traceB, stored_trace_id: traceA, request_id: 'request-1' }
  const open = { requests: [{ info: { traceId: traceB, storedTraceId: traceA, requestId: 'r' } }] }

  test.each([
    ['a file of which nothing is known', 'chat-1/one.parquet', 'rows'],
    ['a file that is being written', 'chat-1/one.parquet.partial', 'rows'],
    ['an open request known late', 'chat-1.checkpoint.json', { version: 1, registry: open }],
    ['a caller known late', 'chat-1/one.parquet.json', { ...nothing, aliases: [late] }],
    [
      'a listed request',
      'chat-1/one.parquet.json',
      { ...nothing, requests: [{ trace_id: traceA }] },
    ],
    ['a tensor', 'chat-1/one.parquet.json', { ...nothing, series: [{ trace_id: traceA }] }],
  ])('for %s in the spool, and for none of another trace', async (_what, name, content) => {
    const location = locateStore(temporaryFolder(), null)
    const path = join(location.spool, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
    const waits = (traceId: string) =>
      waitUntilSettled(location, [{ traceId, requestId: null }], [], 0)
    await expect(waits(traceA)).rejects.toMatchObject({ code: 'RING2_E_UNSETTLED' })
    // Another trace waits only for what might be its own.
    if (typeof content === 'string') await expect(waits(traceB)).rejects.toThrow(path)
    else await waits(traceB)
  })
})
