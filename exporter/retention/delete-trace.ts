/**
 * Deletes a trace, or one request of it, so that nothing of it remains: tensor rows, the requests and
 * contexts datasets, the catalogue and the bytes of its file, the trace index of a bucket.
 *
 * A file that also holds rows of others is rewritten without these: the new one is put into the store
 * and the catalogue, then the old one is removed. Each step is written down before it is done, so a
 * crash anywhere leaves something to go on from: no other row is lost, and none stays doubled. One
 * deletion runs at a time on a store's state directory.
 *
 * Not here: what is still on its way into the store (settled.ts), how a file is rewritten (rewrite.ts).
 */

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { ulid } from 'ulid'
import type { Outcome } from '../../collector/records.ts'
import { compactCatalog } from '../catalog/compact.ts'
import { takeLock } from '../catalog/process-lock.ts'
import { describeFile } from '../catalog/rebuild.ts'
import { type CatalogRemoval, openCatalogRemoval } from '../catalog/removal.ts'
import { asRing2Error, Ring2Error } from '../errors.ts'
import { createParquetSource, type ParquetSource } from '../parquet/parquet-source.ts'
import type { StoreLocation } from '../store/location.ts'
import { objectMissing } from '../store/object-store.ts'
import { unknownTrace } from '../tensors/series-choice.ts'
import { moveIntoPlace, publishedPath } from '../tensors/spool.ts'
import type { DeletionContext } from './context.ts'
import { findDeletion } from './find.ts'
import { importTraces, publishIndexes, removeIndexes } from './indexes.ts'
import {
  clearLeftovers,
  deletionFolder,
  type Journal,
  type JournalFile,
  newJournal,
  removeJournal,
  unfinishedJournals,
  writeJournal,
} from './journal.ts'
import { removeLeftovers } from './leftovers.ts'
import { deletionLimits } from './limits.ts'
import { partKeys, planRewrite, writePart } from './rewrite.ts'
import { waitUntilSettled } from './settled.ts'

/** What was removed. */
export interface DeletionReport {
  readonly trace_id: string
  readonly request_id: string | null
  readonly requests: number
  readonly tensors: number
  /** Payload bytes of the tensors. */
  readonly bytes: number
  readonly files_removed: number
  /** Of these, files that held rows of others too, which were written again without these. */
  readonly files_rewritten: number
  /** It had been begun before, and was finished now. */
  readonly resumed: boolean
}

/** What a deletion would touch. */
export interface DeletionPreview {
  readonly requests: readonly { readonly trace_id: string; readonly request_id: string }[]
  readonly files: number
}

/**
 * @param traceId of the rows, or of the caller whose context came late: both delete the same.
 * @throws Ring2Error RING2_E_TRACE_UNKNOWN, RING2_E_UNSETTLED (nothing has been touched), or
 *   RING2_E_DELETION (begun, and not finished: the same call goes on).
 */
export async function deleteTrace(
  context: DeletionContext,
  traceId: string,
  requestId: string | null,
): Promise<DeletionReport> {
  return await locked(context, async () => {
    const resumed = await resumeAll(context)
    const own = resumed.find((one) => one.trace_id === traceId && one.request_id === requestId)
    const removal = openCatalogRemoval(context.location.catalog)
    try {
      const found = await findDeletion(context, removal, traceId, requestId)
      if (found === null) {
        if (own !== undefined) return own
        throw unknownTrace(traceId)
      }
      await waitUntilSettled(context.location, found.targets, found.files, context.settleMillis)
      const journal = newJournal({
        id: ulid(),
        traceId,
        requestId,
        ...found,
        files: found.files.map(toDo),
      })
      return await carryOut(context, removal, journal, false)
    } finally {
      removal.close()
    }
  })
}

/** What `deleteTrace` would remove, without touching anything. */
export async function previewDeletion(
  context: DeletionContext,
  traceId: string,
  requestId: string | null,
): Promise<DeletionPreview | null> {
  const removal = openCatalogRemoval(context.location.catalog)
  try {
    const found = await findDeletion(context, removal, traceId, requestId)
    if (found === null) return null
    const requests = removal
      .requests(found.targets)
      .map((one) => ({ trace_id: one.traceId, request_id: one.requestId }))
    return { requests, files: found.files.length }
  } finally {
    removal.close()
  }
}

/** Whether deletions were begun and not finished. */
export function hasUnfinished(location: StoreLocation): boolean {
  return unfinishedJournals(deletionFolder(location)).length > 0
}

/** Finishes what was interrupted. Throws RING2_E_DELETION when that fails again. */
export async function resumeDeletions(context: DeletionContext): Promise<DeletionReport[]> {
  if (!hasUnfinished(context.location)) return []
  return await locked(context, () => resumeAll(context))
}

/** Waits for another deletion without holding up the thread. */
async function locked<T>(context: DeletionContext, act: () => Promise<T>): Promise<T> {
  const path = join(deletionFolder(context.location), 'lock')
  const end = performance.now() + deletionLimits.lockMillisMax
  let unlock = takeLock(path, 0)
  while (unlock === null && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, deletionLimits.settlePollMillis))
    unlock = takeLock(path, 0)
  }
  if (unlock === null) {
    throw new Ring2Error('RING2_E_UNSETTLED', {
      expected: 'no other deletion at the same time',
      actual: `another holds ${path}`,
      action: 'Delete again when it is done.',
    })
  }
  try {
    return await act()
  } finally {
    unlock()
  }
}

async function resumeAll(context: DeletionContext): Promise<DeletionReport[]> {
  const reports: DeletionReport[] = []
  for (const journal of unfinishedJournals(deletionFolder(context.location))) {
    const removal = openCatalogRemoval(context.location.catalog)
    try {
      reports.push(await carryOut(context, removal, journal, true))
    } finally {
      removal.close()
    }
  }
  return reports
}

function toDo(key: string): JournalFile {
  return { key, parts: null, published: false, removedRows: 0, removedBytes: 0, done: false }
}

async function carryOut(
  context: DeletionContext,
  removal: CatalogRemoval,
  journal: Journal,
  resumed: boolean,
): Promise<DeletionReport> {
  const folder = deletionFolder(context.location)
  const source = createParquetSource(context.store)
  writeJournal(folder, journal)
  const failed: { key: string; error: Ring2Error }[] = []
  const trying = async (key: string, act: () => Promise<void>) => {
    try {
      await act()
    } catch (error) {
      failed.push({ key, error: asRing2Error(error) })
    }
  }
  // First here: from now on nobody is told of it.
  removal.forget(journal.targets)
  for (const file of journal.files) {
    if (file.done) continue
    await trying(file.key, () => replaceFile({ context, source, removal, journal, file }))
  }
  await trying('copies that were cut off', async () => {
    await removeLeftovers(context.location)
  })
  // Last: as long as a file is left, whoever deletes elsewhere finds it too.
  if (failed.length === 0) {
    await trying('the trace index', () => removeIndexes(context, removal, journal))
  }
  if (failed.length > 0) throw notFinished(journal, failed)
  // Once more: a catalogue may have been made again from files while they were still there.
  removal.forget(journal.targets)
  try {
    await compactCatalog(context.location.catalog)
  } catch (error) {
    throw notFinished(journal, [{ key: context.location.catalog, error: asRing2Error(error) }])
  }
  clearLeftovers(folder)
  removeJournal(folder, journal)
  return reportOf(journal, resumed)
}

interface Replacement {
  readonly context: DeletionContext
  readonly source: ParquetSource
  readonly removal: CatalogRemoval
  readonly journal: Journal
  readonly file: JournalFile
}

/** Each step is noted before the next one, and may be repeated. */
async function replaceFile(replacement: Replacement): Promise<void> {
  const { context, source, removal, journal, file } = replacement
  const { store, catalog, location } = context
  const note = () => writeJournal(deletionFolder(location), journal)
  if (!file.published) {
    await dropParts(context, file)
    if ((await store.size(file.key)) === null) {
      // Removed by someone else, or by a deletion whose journal was lost.
      catalog.remove(file.key)
      file.done = true
      note()
      return
    }
    if (!(await publishParts(replacement, note))) return
  }
  const foreign = removal.isForeign(file.key)
  for (const key of file.parts ?? []) {
    const bytes = await store.size(key)
    if (bytes === null) throw objectMissing(key, 'the store')
    const description = await describeFile(source, { key, bytes })
    // Their indexes are written again, and must be known whole for that.
    if (foreign)
      await importTraces(
        context,
        description.requests.map((one) => one.trace_id),
      )
    catalog.add(description)
  }
  catalog.remove(file.key)
  await publishIndexes(context)
  must(await store.delete(file.key))
  file.done = true
  note()
}

/** Parts of an attempt that was interrupted before they were all there. */
async function dropParts(context: DeletionContext, file: JournalFile): Promise<void> {
  for (const key of file.parts ?? []) {
    context.catalog.remove(key)
    must(await context.store.delete(key))
  }
}

/** False when the file has nothing to remove: it stays. */
async function publishParts(replacement: Replacement, note: () => void): Promise<boolean> {
  const { context, source, journal, file } = replacement
  const folder = deletionFolder(context.location)
  const plan = await planRewrite(source, file.key, journal.targets, context.partBytesMax)
  if (plan.removedRows === 0) {
    file.parts = null
    file.done = true
    note()
    return false
  }
  file.parts = partKeys(file.key, plan.parts.length)
  file.removedRows = plan.removedRows
  file.removedBytes = plan.removedBytes
  note()
  for (const [index, ranges] of plan.parts.entries()) {
    const to = file.parts[index] ?? ''
    const { fsync, store, location } = context
    const path = await writePart({ source, from: file.key, to, ranges, folder, fsync })
    if (location.target.kind === 'directory') {
      // One rename: a crash leaves no half of it beside the files.
      moveIntoPlace(path, publishedPath(location, to), fsync)
    } else {
      must(await store.put(to, path))
      rmSync(path, { force: true })
    }
  }
  file.published = true
  note()
  return true
}

function reportOf(journal: Journal, resumed: boolean): DeletionReport {
  const tensors = journal.files.filter((file) => file.key.startsWith('tensors/'))
  const changed = journal.files.filter((file) => file.removedRows > 0)
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)
  return {
    trace_id: journal.traceId,
    request_id: journal.requestId,
    requests: journal.requests,
    tensors: sum(tensors.map((file) => file.removedRows)),
    bytes: sum(tensors.map((file) => file.removedBytes)),
    files_removed: changed.length,
    files_rewritten: changed.filter((file) => (file.parts ?? []).length > 0).length,
    resumed,
  }
}

function notFinished(
  journal: Journal,
  failed: readonly { readonly key: string; readonly error: Ring2Error }[],
): Ring2Error {
  const [first] = failed
  const done = journal.files.filter((file) => file.done).length
  return new Ring2Error('RING2_E_DELETION', {
    expected: `nothing of trace ${journal.traceId} to be left in the store`,
    actual:
      `${done} of ${journal.files.length} files are done; ` +
      `${first?.key}: ${first?.error.expected}, but ${first?.error.actual}`,
    ...(first === undefined ? {} : { cause: first.error }),
  })
}

function must(outcome: Outcome<unknown>): void {
  if (outcome.status !== 'success') throw outcome.error
}
