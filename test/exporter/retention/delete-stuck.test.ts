/** Deletions that cannot be finished, what they hold up, and what a power cut may take. */

import fs, { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { expect, test, vi } from 'vitest'
import type { Catalog } from '../../../exporter/catalog/catalog.ts'
import { createLogger } from '../../../exporter/logging.ts'
import { startRetention } from '../../../exporter/retention/background.ts'
import type { DeletionContext } from '../../../exporter/retention/context.ts'
import { deleteTrace, resumeDeletions } from '../../../exporter/retention/delete-trace.ts'
import {
  clearLeftovers,
  deletionFolder,
  newJournal,
  noteFile,
  removeJournal,
  toDo,
  unfinishedJournals,
  writeJournal,
} from '../../../exporter/retention/journal.ts'
import type { ObjectStore } from '../../../exporter/store/object-store.ts'
import { watchDisk } from '../store/disk-model.ts'
import { model, otherModel, request, row, summary, traceA, traceB } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'
import { errorOf, filesWith } from './findings.ts'

const traceC = 'ccccccccccccccccccccccccccccccc3'
const requestB = request({ traceId: traceB, requestId: 'request-2' })
const requestC = request({ traceId: traceC, requestId: 'request-3' })

type Fixture = ReturnType<typeof openFixture>

function contextOf({ location, catalog, store }: Fixture): DeletionContext {
  return { location, catalog, store, bucket: null, fsync: false, settleMillis: 0 }
}

/** Traces with files of their own, of which the one that lists the first is damaged. */
function damaged(root: string) {
  const fixture = openFixture(root)
  fixture.flush([row()], [summary()])
  const listing = fixture.catalog.files().find(({ dataset }) => dataset === 'requests')
  const key = listing?.key ?? ''
  for (const one of [requestB, requestC]) {
    fixture.flush([row({ request: one })], [summary({ request: one })])
  }
  const whole = readFileSync(join(root, key))
  writeFileSync(join(root, key), whole.subarray(0, whole.length - 9))
  return { ...fixture, key, mend: () => writeFileSync(join(root, key), whole) }
}

test('a damaged file is named as what may hold the rest, and all else of the trace is deleted', async () => {
  const root = temporaryFolder()
  const fixture = damaged(root)
  const error = await errorOf(deleteTrace(contextOf(fixture), traceA, null))
  expect(error.code).toBe('RING2_E_DELETION')
  expect(error.actual).toContain('1 of 2 files are done')
  expect(error.actual).toContain(`may still hold some of it: ${fixture.key};`)
  expect(fixture.catalog.requests(traceA)).toEqual([])
  expect(fixture.catalog.series({ traceId: traceA })).toEqual([])
  // The same call says the same, and finishes when the file can be read.
  expect((await errorOf(deleteTrace(contextOf(fixture), traceA, null))).actual).toBe(error.actual)
  fixture.mend()
  const report = await deleteTrace(contextOf(fixture), traceA, null)
  expect(report).toMatchObject({ resumed: true, requests: 1, tensors: 1 })
  expect(filesWith(root, traceA)).toEqual([])
})

test('a deletion that is stuck holds up no other, and no retention', async () => {
  const fixture = damaged(temporaryFolder())
  const context = contextOf(fixture)
  await errorOf(deleteTrace(context, traceA, null))
  expect(await deleteTrace(context, traceB, null)).toMatchObject({ requests: 1, tensors: 1 })
  expect(await errorOf(deleteTrace(context, traceB, null))).toMatchObject({
    code: 'RING2_E_TRACE_UNKNOWN',
  })
  writeFileSync(join(deletionFolder(fixture.location), `${'0'.repeat(26)}.json`), 'no journal')
  const lines: string[] = []
  const logger = createLogger(
    { level: 'error', format: 'json' },
    { write: (line) => lines.push(line) },
  )
  const rules = { general: { ageMillis: 1, bytesMax: null }, models: [] }
  const retention = startRetention({ context, rules, logger, onRemoved: () => undefined })
  await vi.waitUntil(() => fixture.catalog.files().length === 0, { timeout: 30_000 })
  await retention.stop()
  const told = lines.filter((line) => line.includes('RING2_E_DELETION'))
  expect(told.some((line) => line.includes(fixture.key) && line.includes(traceA))).toBe(true)
  expect(told.some((line) => line.includes('a readable journal'))).toBe(true)
})

test('rows that another deletion carried into another file meanwhile are deleted there', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const all = [request(), requestB, requestC]
  fixture.flush(
    all.map((one) => row({ request: one })),
    all.map((one) => summary({ request: one })),
  )
  const context = contextOf(fixture)
  // The first can write nothing at all, the second everything.
  const refusing: ObjectStore = { ...context.store, size: () => Promise.reject(new Error('away')) }
  await errorOf(deleteTrace({ ...context, store: refusing }, traceA, null))
  const folder = deletionFolder(fixture.location)
  const [journal] = unfinishedJournals(folder).journals
  if (journal === undefined) throw new Error('no journal')
  removeJournal(folder, journal)
  await deleteTrace(context, traceB, null)
  writeJournal(folder, journal)
  const { reports, stuck } = await resumeDeletions(context)
  expect([reports.length, stuck]).toEqual([1, []])
  for (const trace of [traceA, traceB]) expect(filesWith(root, trace)).toEqual([])
  expect(fixture.catalog.requests(traceC)).toHaveLength(1)
})

test('a request that two files list, of two models and days, is deleted from both', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()], [summary({ model: otherModel })])
  const later = request({ startedAtMicros: request().startedAtMicros + 86_400_000_000 })
  fixture.flush([row({ layer: 1 })], [summary({ request: later, model })])
  expect(filesWith(root, traceA).filter((name) => name.startsWith('requests/'))).toHaveLength(2)
  await deleteTrace(contextOf(fixture), traceA, null)
  expect(filesWith(root, traceA)).toEqual([])
})

test('what lies beside the catalogue of killed rebuilds and damaged ones is removed', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()], [summary()])
  const { catalog } = fixture.location
  const left = ['.damaged', '.rebuild-killed', '.rebuild-killed-wal', '.rebuild-killed-shm']
  for (const suffix of left) writeFileSync(catalog + suffix, traceA)
  await deleteTrace(contextOf(fixture), traceA, null)
  expect(left.filter((suffix) => existsSync(catalog + suffix))).toEqual([])
})

test('a journal grows by what a file takes, and forgets a step that was cut off', () => {
  const folder = join(temporaryFolder(), 'deletions')
  const files = Array.from({ length: 300 }, (_, index) => toDo(`tensors/${index}`))
  const facts = { id: '0'.repeat(26), traceId: traceA, requestId: null, targets: [], requests: 1 }
  const journal = newJournal({ ...facts, traces: [traceA], files })
  writeJournal(folder, journal)
  const whole = statSync(join(folder, `${journal.id}.json`)).size
  const steps = join(folder, `${journal.id}.steps`)
  for (const [index, file] of files.entries()) {
    file.done = true
    noteFile(folder, journal, index)
  }
  expect(statSync(steps).size).toBeLessThan(2 * whole)
  expect(statSync(join(folder, `${journal.id}.json`)).size).toBe(whole)
  const text = readFileSync(steps, 'utf8')
  writeFileSync(steps, text.slice(0, -5))
  clearLeftovers(folder)
  const [read] = unfinishedJournals(folder).journals
  expect(read?.files.map((file) => file.done)).toEqual([...Array(299).fill(true), false])
  removeJournal(folder, journal)
  expect(readdirSync(folder)).toEqual([])
})

/** Whether each removal comes after what makes it harmless is on the disk. */
test('with store.fsync a power cut undoes no step that others build on', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row(), row({ request: requestB })], [summary(), summary({ request: requestB })])
  const context = { ...contextOf(fixture), fsync: true }
  const disk = watchDisk(root)
  const lost: string[] = []
  const added: string[] = []
  const catalog: Catalog = {
    ...fixture.catalog,
    add: (description, imported) => {
      added.push(join(root, description.key))
      fixture.catalog.add(description, imported)
    },
  }
  const store: ObjectStore = {
    ...fixture.store,
    delete: (key) => {
      lost.push(...added.filter((path) => !disk.keeps(path)))
      return fixture.store.delete(key)
    },
  }
  await deleteTrace({ ...context, catalog, store }, traceA, null)
  disk.stop()
  expect(added).toHaveLength(2)
  expect(lost).toEqual([])
})

test('with store.fsync the disk has a removal before the next step', async () => {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  fixture.flush([row()], [summary()])
  const folders = new Set(fixture.catalog.files().map(({ key }) => dirname(join(root, key))))
  const { openSync } = fs
  const opened: string[] = []
  const watched: typeof openSync = (path, ...rest) => {
    opened.push(String(path))
    return openSync(path, ...rest)
  }
  Object.assign(fs, { openSync: watched })
  syncBuiltinESMExports()
  try {
    await deleteTrace({ ...contextOf(fixture), fsync: true }, traceA, null)
  } finally {
    Object.assign(fs, { openSync })
    syncBuiltinESMExports()
  }
  expect(folders.size).toBe(2)
  expect([...folders].filter((folder) => !opened.includes(folder))).toEqual([])
})
