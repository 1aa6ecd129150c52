/**
 * Deletes a trace, or one request of it, so that nothing of it remains: tensor rows, the requests and
 * contexts datasets, the catalogue and the bytes of its file, the trace index of a bucket.
 *
 * A file that also holds rows of others is rewritten without these: the new one is put into the store
 * and the catalogue, then the old one is removed. Each step is written down before it is done, so a
 * crash anywhere leaves something to go on from: no other row is lost, and none stays doubled. One
 * deletion runs at a time on a store's state directory.
 *
 * A deletion that cannot be finished, as a damaged file lets none of its rows be found, keeps its
 * journal, holds up no other deletion, and says which files may still hold something.
 *
 * Not here: what is still on its way into the store (settled.ts), how one file is replaced (replace-file.ts).
 */

import { ulid } from 'ulid'
import { removeBesides } from '../catalog/beside.ts'
import { compactCatalog } from '../catalog/compact.ts'
import { removalLock, waitForLock } from '../catalog/process-lock.ts'
import { type CatalogRemoval, openCatalogRemoval } from '../catalog/removal.ts'
import { asRing2Error, Ring2Error } from '../errors.ts'
import { createParquetSource } from '../parquet/parquet-source.ts'
import type { StoreLocation } from '../store/location.ts'
import { unknownTrace } from '../tensors/series-choice.ts'
import type { DeletionContext } from './context.ts'
import { findDeletion } from './find.ts'
import { removeIndexes } from './indexes.ts'
import {
  clearLeftovers,
  deletionFolder,
  hasJournals,
  type Journal,
  newJournal,
  noteFile,
  removeJournal,
  toDo,
  unfinishedJournals,
  writeJournal,
} from './journal.ts'
import { removeLeftovers } from './leftovers.ts'
import { deletionLimits } from './limits.ts'
import { replaceFile } from './replace-file.ts'
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
    const { reports, stuck } = await resumeAll(context)
    const own = reports.find((one) => one.trace_id === traceId && one.request_id === requestId)
    const removal = openRemoval(context)
    try {
      const found = await findDeletion(context, removal, traceId, requestId)
      if (found === null) {
        const left = stuck.find((one) => one.traces.includes(traceId))
        if (left !== undefined) throw left.error
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
  const removal = openRemoval(context)
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
  return hasJournals(deletionFolder(location))
}

/** A deletion that could not be finished this time either. */
export interface StuckDeletion {
  /** Ids of the traces; none where its journal cannot be read. */
  readonly traces: readonly string[]
  readonly error: Ring2Error
}

export interface Resumed {
  readonly reports: readonly DeletionReport[]
  readonly stuck: readonly StuckDeletion[]
}

/** Finishes what was interrupted, as far as that can be done. */
export async function resumeDeletions(context: DeletionContext): Promise<Resumed> {
  if (!hasUnfinished(context.location)) return { reports: [], stuck: [] }
  return await locked(context, () => resumeAll(context))
}

function openRemoval({ location, fsync }: DeletionContext): CatalogRemoval {
  return openCatalogRemoval(location.catalog, fsync)
}

/** Waits for another deletion without holding up the thread. */
async function locked<T>(context: DeletionContext, act: () => Promise<T>): Promise<T> {
  const { catalog } = context.location
  const unlock = await waitForLock(removalLock(catalog), deletionLimits.lockMillisMax)
  try {
    return await act()
  } finally {
    unlock()
  }
}

async function resumeAll(context: DeletionContext): Promise<Resumed> {
  const { journals, unreadable } = unfinishedJournals(deletionFolder(context.location))
  const reports: DeletionReport[] = []
  const stuck: StuckDeletion[] = unreadable.map((error) => ({ traces: [], error }))
  for (const journal of journals) {
    const removal = openRemoval(context)
    try {
      noteOthers(removal, journal)
      reports.push(await carryOut(context, removal, journal, true))
    } catch (error) {
      const traces = [journal.traceId, ...journal.traces]
      stuck.push({ traces, error: asRing2Error(error) })
    } finally {
      removal.close()
    }
  }
  return { reports, stuck }
}

/** Files that another deletion has put into the place of one of these have its rows too. */
function noteOthers(removal: CatalogRemoval, { targets, files }: Journal): void {
  const known = new Set(files.map((file) => file.key))
  for (const key of [...removal.tensorFiles(targets), ...removal.listingFiles(targets)]) {
    if (!known.has(key)) files.push(toDo(key))
  }
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
  for (const [index, file] of journal.files.entries()) {
    if (file.done) continue
    const note = () => noteFile(folder, journal, index)
    await trying(file.key, () => replaceFile({ context, source, removal, journal, file, note }))
  }
  await trying('copies that were cut off', async () => {
    await removeLeftovers(context.location)
    removeBesides(context.location.catalog)
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
  const named = failed.slice(0, deletionLimits.filesNamedMax).map(({ key }) => key)
  const more = failed.length > named.length ? ` and ${failed.length - named.length} more` : ''
  return new Ring2Error('RING2_E_DELETION', {
    expected: `nothing of trace ${journal.traceId} to be left in the store`,
    actual:
      `${done} of ${journal.files.length} files are done; what may still hold some of it: ` +
      `${named.join(', ')}${more}; ${first?.key}: ${first?.error.expected}, ` +
      `but ${first?.error.actual}`,
    ...(first === undefined ? {} : { cause: first.error }),
  })
}
