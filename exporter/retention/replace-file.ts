/**
 * Puts the rows of a file that stay into files of their own, in the store and in the catalogue, and
 * then removes it. What the file was to the catalogue, its own or another exporter's, they are too.
 *
 * Not here: which rows those are and how they are written (rewrite.ts).
 */

import { rmSync } from 'node:fs'
import { describeFile } from '../catalog/rebuild.ts'
import type { CatalogRemoval } from '../catalog/removal.ts'
import type { ParquetSource } from '../parquet/parquet-source.ts'
import { datasetOf } from '../store/keys.ts'
import { objectMissing } from '../store/object-store.ts'
import { moveIntoPlace, publishedPath } from '../tensors/spool.ts'
import type { DeletionContext } from './context.ts'
import { importTraces, publishIndexes } from './indexes.ts'
import { deletionFolder, type Journal, type JournalFile } from './journal.ts'
import { must, removeObject } from './remove-object.ts'
import { partKeys, planRewrite, writePart } from './rewrite.ts'

export interface Replacement {
  readonly context: DeletionContext
  readonly source: ParquetSource
  readonly removal: CatalogRemoval
  readonly journal: Journal
  readonly file: JournalFile
  /** Writes down what the file's entry says now. */
  readonly note: () => void
}

/** Each step is noted before the next one, and may be repeated. */
export async function replaceFile(replacement: Replacement): Promise<void> {
  const { context, source, file, note } = replacement
  const { store, catalog } = context
  if (!file.published) {
    await dropParts(context, file)
    if ((await store.size(file.key)) === null) {
      // Removed by someone else, or by a deletion whose journal was lost.
      catalog.remove(file.key)
      file.done = true
      note()
      return
    }
    if (!(await publishParts(replacement))) return
  }
  for (const key of file.parts ?? []) {
    const bytes = await store.size(key)
    if (bytes === null) throw objectMissing(key, 'the store')
    if (file.owner === 'unlisted') continue
    const description = await describeFile(source, { key, bytes })
    const imported = file.owner === 'other'
    // Their indexes are written again, and must be known whole for that.
    if (imported) {
      const traces = description.requests.map((one) => one.trace_id)
      await importTraces(context, traces)
    }
    catalog.add(description, imported)
  }
  catalog.remove(file.key)
  await publishIndexes(context)
  await removeObject(context, file.key)
  file.done = true
  note()
}

/** A directory has one catalogue; in a bucket each exporter's own describes its own files. */
function ownerOf({ context, removal }: Replacement, key: string): JournalFile['owner'] {
  if (context.bucket === null || removal.isOwn(key)) return 'self'
  // No index names what only lists requests: others' catalogues have nothing of it.
  return datasetOf(key) === 'tensors' ? 'other' : 'unlisted'
}

/** Parts of an attempt that was interrupted before they were all there. */
async function dropParts(context: DeletionContext, file: JournalFile): Promise<void> {
  for (const key of file.parts ?? []) {
    context.catalog.remove(key)
    await removeObject(context, key)
  }
}

/** False when the file has nothing to remove: it stays. */
async function publishParts(replacement: Replacement): Promise<boolean> {
  const { context, source, journal, file, note } = replacement
  const folder = deletionFolder(context.location)
  const plan = await planRewrite(source, file.key, journal.targets, context.partBytesMax)
  if (plan.removedRows === 0) {
    file.parts = null
    file.done = true
    note()
    return false
  }
  file.owner = ownerOf(replacement, file.key)
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
