/**
 * Makes the catalogue again from the Parquet files alone: every dataset, in the order in which the
 * files were written. A file that cannot be read is named and passed over; the others are
 * catalogued.
 */

import type { RequestSummary } from '../../collector/records.ts'
import { asRing2Error, Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import { createParquetSource, type ParquetSource } from '../parquet/parquet-source.ts'
import { SCHEMA_VERSION } from '../parquet/schema.ts'
import { datasetOf, datasets } from '../store/keys.ts'
import type { ObjectStore, StoredObject } from '../store/object-store.ts'
import { ulidOf } from '../store/queued.ts'
import { optionalInteger, optionalText, placeFrom, text } from '../tensors/records.ts'
import { describeVocabularies, readVocabularyEntries } from '../tensors/vocabularies.ts'
import { createBeside, removeBesides } from './beside.ts'
import { type Catalog, openCatalog } from './catalog.ts'
import { isDamage, isTemporary, setDatabaseAside } from './database.ts'
import {
  type AliasEntry,
  createTensorDescriber,
  describeContexts,
  describeRequests,
  type FileDescription,
  type FileFacts,
  placeColumns,
} from './description.ts'
import { removalLock, waitForLock } from './process-lock.ts'
import { summaryFrom } from './summary-shape.ts'
import { forgetVanished } from './vanished.ts'

export interface RebuildReport {
  readonly files: number
  readonly rows: number
  /** Files that were passed over, each with its error. */
  readonly damaged: readonly DamagedFile[]
  /** Where a database that could not be used was moved; null when it could. */
  readonly setAside: string | null
}

export interface DamagedFile {
  readonly key: string
  readonly error: Ring2Error
}

/** Rows read at once, so that memory does not grow with the file. */
const ROWS_AT_ONCE = 65_536
/**
 * Replaces the catalogue at `path`. Files that a running exporter publishes meanwhile are kept:
 * they are looked for once more at the end, and later ones add themselves. What a deletion or
 * retention removes meanwhile stays removed: none of them runs while the contents are replaced, and
 * files that are gone by then are left out. The new contents grow in a database of their own, beside
 * the old one, which is used until they are whole: memory grows with the number of files alone, by
 * their keys.
 *
 * @param onFile called after each file, for a progress line.
 * @throws Ring2Error RING2_E_UNSETTLED when a deletion holds the lock all the time; nothing is changed.
 */
export async function rebuildCatalog(
  store: ObjectStore,
  path: string,
  onFile: (done: number, total: number) => void = () => undefined,
  lockMillis: number = catalogLimits.rebuildLockMillisMax,
): Promise<RebuildReport> {
  const source = createParquetSource(store)
  removeBesides(path)
  const beside = createBeside(path)
  const seen = new Set<string>()
  const tally = createTally()
  try {
    const { objects } = await listObjects(store, seen)
    await describeInto(source, objects, beside.path, tally, onFile)
    const unlock = await waitForLock(removalLock(path), lockMillis)
    try {
      const now = await listObjects(store, seen)
      await describeInto(source, now.objects, beside.path, tally)
      forgetVanished(
        beside.path,
        [...seen].filter((key) => !now.present.has(key)),
      )
      const { catalog, setAside } = replaceBy(path, beside.path)
      catalog.close()
      // Published after that list and before the contents were replaced: its entry was replaced too.
      const late = await listObjects(store, seen)
      await describeInto(source, late.objects, path, tally)
      return { ...tally, setAside }
    } finally {
      unlock()
    }
  } finally {
    beside.remove()
  }
}

interface Tally {
  files: number
  rows: number
  readonly damaged: DamagedFile[]
}

function createTally(): Tally {
  return { files: 0, rows: 0, damaged: [] }
}

/** Objects that were not seen before, which they are then, and the keys of all that there are. */
async function listObjects(
  store: ObjectStore,
  seen: Set<string>,
): Promise<{ objects: StoredObject[]; present: Set<string> }> {
  const objects: StoredObject[] = []
  const present = new Set<string>()
  for (const dataset of datasets) {
    for await (const object of store.list(`${dataset}/`)) {
      present.add(object.key)
      if (seen.has(object.key)) continue
      seen.add(object.key)
      objects.push(object)
    }
  }
  // Requests that ended twice keep the later summary, as they did when the files were published.
  objects.sort((left, right) => (ulidOf(left.key) < ulidOf(right.key) ? -1 : 1))
  return { objects, present }
}

async function describeInto(
  source: ParquetSource,
  objects: readonly StoredObject[],
  path: string,
  tally: Tally,
  onFile: (done: number, total: number) => void = () => undefined,
): Promise<void> {
  const catalog = openCatalog(path)
  try {
    for (const [index, object] of objects.entries()) {
      const description = await describeOr(source, object, tally.damaged)
      if (description !== null && addOr(catalog, description, tally.damaged)) {
        tally.files += 1
        tally.rows += description.rows
      }
      onFile(index + 1, objects.length)
    }
  } finally {
    catalog.close()
  }
}

async function describeOr(
  source: ParquetSource,
  object: StoredObject,
  damaged: DamagedFile[],
): Promise<FileDescription | null> {
  try {
    return await describeFile(source, object)
  } catch (error) {
    damaged.push({ key: object.key, error: asRing2Error(error) })
    return null
  }
}

/** A description that the catalogue cannot hold is the file's fault; a full disk is not. */
function addOr(catalog: Catalog, description: FileDescription, damaged: DamagedFile[]): boolean {
  try {
    catalog.add(description)
    return true
  } catch (error) {
    if (isTemporary(error) || isDamage(error)) throw error
    damaged.push({ key: description.key, error: asRing2Error(error) })
    return false
  }
}

/**
 * An old database that is damaged, or of another version, makes room for the new one and stays
 * beside it. One that is locked, or on a full disk, is left alone: that passes.
 */
function replaceBy(path: string, beside: string): { catalog: Catalog; setAside: string | null } {
  try {
    return { catalog: openReplaced(path, beside), setAside: null }
  } catch (error) {
    if (isTemporary(error)) throw error
  }
  try {
    // Another rebuild may have mended it at this moment; its work is not to be set aside.
    return { catalog: openReplaced(path, beside), setAside: null }
  } catch (error) {
    if (isTemporary(error)) throw error
    const setAside = setDatabaseAside(path)
    return { catalog: openReplaced(path, beside), setAside }
  }
}

function openReplaced(path: string, beside: string): Catalog {
  const catalog = openCatalog(path)
  try {
    catalog.replaceBy(beside)
    return catalog
  } catch (error) {
    catalog.close()
    throw error
  }
}

/** Describes a file from its columns, as it was described when it was written. */
export async function describeFile(
  source: ParquetSource,
  object: StoredObject,
): Promise<FileDescription> {
  const version = (await source.metadata(object.key)).get('ring2.schema')
  if (version !== SCHEMA_VERSION) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `ring2.schema = ${SCHEMA_VERSION} in ${object.key}`,
      actual: version ?? 'no such entry in its footer',
      action: 'Use an exporter of the version that wrote it, or move the file out of the store.',
    })
  }
  const rows = await source.rows(object.key)
  const tailStart = await source.tailStart(object.key)
  const { key, bytes } = object
  const file = { key, bytes, ...(tailStart === null ? {} : { tail_start: tailStart }) }
  switch (datasetOf(key)) {
    case 'requests':
      return describeRequests(file, await readSummaries(source, key, rows))
    case 'contexts':
      return describeContexts(file, await readAliases(source, key, rows))
    case 'tensors':
      return describeTensorFile(source, file, rows)
    case 'vocabularies':
      return describeVocabularies(file, await readVocabularyEntries(source, key, rows))
  }
}

const aliasColumns = [
  ...['trace_id', 'span_id', 'stored_trace_id', 'request_id', 'producer', 'parent_span_id'],
  ...['trace_state', 'parent_started_at', 'parent_ended_at'],
]

/** Files of earlier versions lack them. */
const laterColumns = new Set(['trace_state', 'parent_started_at', 'parent_ended_at'])

async function readAliases(
  source: ParquetSource,
  key: string,
  rows: number,
): Promise<AliasEntry[]> {
  const present = await source.columns(key)
  const columns = aliasColumns.filter((name) => present.has(name) || !laterColumns.has(name))
  const read = await source.read(key, columns, 0, rows)
  return read.map((row) => ({
    trace_id: text(row, 'trace_id'),
    span_id: text(row, 'span_id'),
    stored_trace_id: text(row, 'stored_trace_id'),
    request_id: text(row, 'request_id'),
    producer: text(row, 'producer'),
    parent_span_id: optionalText(row, 'parent_span_id'),
    trace_state: optionalText(row, 'trace_state'),
    parent_started_at: optionalInteger(row, 'parent_started_at'),
    parent_ended_at: optionalInteger(row, 'parent_ended_at'),
  }))
}

async function describeTensorFile(
  source: ParquetSource,
  file: FileFacts,
  rows: number,
): Promise<FileDescription> {
  const describer = createTensorDescriber()
  for (let start = 0; start < rows; start += ROWS_AT_ONCE) {
    const end = Math.min(rows, start + ROWS_AT_ONCE)
    const read = await source.read(file.key, placeColumns, start, end)
    for (const row of read) describer.add(placeFrom(row))
  }
  return describer.finish(file)
}

async function readSummaries(
  source: ParquetSource,
  key: string,
  rows: number,
): Promise<RequestSummary[]> {
  const read = await source.read(key, ['summary'], 0, rows)
  return read.map((row) => summaryFrom(text(row, 'summary'), key))
}
