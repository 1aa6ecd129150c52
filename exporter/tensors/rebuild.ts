/**
 * Makes the catalogue again from the Parquet files alone: every dataset, in the order in which the
 * files were written. A file that cannot be read is named and passed over; the others are
 * catalogued.
 */

import type { RequestSummary } from '../../collector/records.ts'
import { asRing2Error, Ring2Error } from '../errors.ts'
import type { ObjectStore, StoredObject } from '../store/object-store.ts'
import { ulidOf } from '../store/queued.ts'
import { type Catalog, openCatalog } from './catalog.ts'
import { setDatabaseAside } from './catalog-database.ts'
import {
  type AliasEntry,
  describeContexts,
  describeRequests,
  describeTensors,
  type FileDescription,
  placeColumns,
  type TensorPlace,
} from './description.ts'
import { datasetOf, datasets } from './keys.ts'
import { createParquetSource, type ParquetSource } from './parquet-source.ts'
import { optionalInteger, optionalText, placeFrom, text } from './records.ts'
import { SCHEMA_VERSION } from './schema.ts'

export interface RebuildReport {
  readonly files: number
  readonly rows: number
  /** Files that were passed over, each with its error. */
  readonly damaged: readonly DamagedFile[]
  /** Where a database that could not be opened was moved; null when it could. */
  readonly setAside: string | null
}

/** Rows read at once, so that memory does not grow with the file. */
const ROWS_AT_ONCE = 65_536

/**
 * Replaces the catalogue at `path`. Files that a running exporter publishes meanwhile are kept:
 * they are looked for once more at the end, and later ones add themselves.
 *
 * @param onFile called after each file, for a progress line.
 */
export async function rebuildCatalog(
  store: ObjectStore,
  path: string,
  onFile: (done: number, total: number) => void = () => undefined,
): Promise<RebuildReport> {
  const source = createParquetSource(store)
  const first = await describeAll(source, await listObjects(store), onFile)
  const { catalog, setAside } = openOrReplace(path)
  try {
    catalog.replaceAll(first.descriptions)
    const known = new Set([...first.descriptions, ...first.damaged].map((one) => one.key))
    const late = (await listObjects(store)).filter((one) => !known.has(one.key))
    const second = await describeAll(source, late, () => undefined)
    for (const description of second.descriptions) catalog.add(description)
    const descriptions = [...first.descriptions, ...second.descriptions]
    const rows = descriptions.reduce((sum, file) => sum + file.rows, 0)
    const damaged = [...first.damaged, ...second.damaged]
    return { files: descriptions.length, rows, damaged, setAside }
  } finally {
    catalog.close()
  }
}

async function listObjects(store: ObjectStore): Promise<StoredObject[]> {
  const objects: StoredObject[] = []
  for (const dataset of datasets) {
    for await (const object of store.list(`${dataset}/`)) objects.push(object)
  }
  // Requests that ended twice keep the later summary, as they did when the files were published.
  return objects.sort((left, right) => (ulidOf(left.key) < ulidOf(right.key) ? -1 : 1))
}

interface DamagedFile {
  readonly key: string
  readonly error: Ring2Error
}

async function describeAll(
  source: ParquetSource,
  objects: readonly StoredObject[],
  onFile: (done: number, total: number) => void,
): Promise<{ descriptions: FileDescription[]; damaged: DamagedFile[] }> {
  const descriptions: FileDescription[] = []
  const damaged: DamagedFile[] = []
  for (const [index, object] of objects.entries()) {
    try {
      descriptions.push(await describe(source, object))
    } catch (error) {
      damaged.push({ key: object.key, error: asRing2Error(error) })
    }
    onFile(index + 1, objects.length)
  }
  return { descriptions, damaged }
}

function openOrReplace(path: string): { catalog: Catalog; setAside: string | null } {
  try {
    return { catalog: openCatalog(path), setAside: null }
  } catch {
    // Whatever is wrong with it, a new one is about to be made; the old one stays beside it.
    const setAside = setDatabaseAside(path)
    return { catalog: openCatalog(path), setAside }
  }
}

async function describe(source: ParquetSource, object: StoredObject): Promise<FileDescription> {
  const version = (await source.metadata(object.key)).get('ring2.schema')
  if (version !== SCHEMA_VERSION) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `ring2.schema = ${SCHEMA_VERSION} in ${object.key}`,
      actual: version ?? 'no such entry in its footer',
      action: 'Use an exporter of the version that wrote it, or move the file out of the store.',
    })
  }
  const rows = await source.rows(object.key)
  switch (datasetOf(object.key)) {
    case 'requests':
      return describeRequests(object, await readSummaries(source, object.key, rows))
    case 'contexts':
      return describeContexts(object, await readAliases(source, object.key, rows))
    case 'tensors':
      return describeTensors(object, await readPlaces(source, object.key, rows))
    case 'vocabularies':
      return { ...object, dataset: 'vocabularies', rows, series: [], requests: [] }
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

async function readPlaces(
  source: ParquetSource,
  key: string,
  rows: number,
): Promise<TensorPlace[]> {
  const places: TensorPlace[] = []
  for (let start = 0; start < rows; start += ROWS_AT_ONCE) {
    const read = await source.read(key, placeColumns, start, Math.min(rows, start + ROWS_AT_ONCE))
    for (const row of read) places.push(placeFrom(row))
  }
  return places
}

async function readSummaries(
  source: ParquetSource,
  key: string,
  rows: number,
): Promise<RequestSummary[]> {
  const read = await source.read(key, ['summary'], 0, rows)
  return read.map((row) => JSON.parse(text(row, 'summary')))
}
