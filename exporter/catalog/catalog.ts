/**
 * The catalogue: which file and which of its rows hold a trace's tensors, and which requests there
 * are, newest first. It never lists the store and never opens a Parquet file (see rebuild.ts).
 *
 * A trace is found by the id that its rows have, and by that of a caller whose context came late.
 *
 * Invariants: adding a description twice leaves one; an open request becomes an ended one when its
 * summary comes, in whatever order files are added. Calls are synchronous and throw RING2_E_STORE.
 * A database found damaged is opened anew at the next call, so that one that was mended meanwhile is
 * used without a restart.
 */

import { statSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import type { RequestSummary } from '../../collector/records.ts'
import type { KnownFile } from '../parquet/parquet-file.ts'
import type { StoreLocation } from '../store/location.ts'
import type { CatalogRequest } from './catalog-request.ts'
import { catalogError, isDamage, openDatabase } from './database.ts'
import type { FileDescription } from './description.ts'
import {
  countDue,
  type DueIndex,
  dropImported,
  importIndex,
  isKnown,
  type KnownIndex,
  noteAllDue,
  noteDue,
  postponeDue,
  readDue,
  readKnown,
  readKnownOfTrace,
  settleDue,
} from './indexes.ts'
import type { ListFilter, RequestPage } from './list.ts'
import { replaceContents } from './replace.ts'
import { dropReplaced, filesOfIndex } from './replaced-indexes.ts'
import {
  type CatalogFile,
  type CatalogSeries,
  type CatalogVocabularyPart,
  hasNothing,
  readFile,
  readFiles,
  readPage,
  readRequests,
  readSeries,
  readVocabulary,
  readWhole,
  type SeriesFilter,
  type WholeRequest,
} from './rows.ts'
import {
  markSent,
  type RequestKey,
  readSummary,
  readUnsent,
  stopTracking,
  type Unsent,
} from './sent.ts'
import { writeDescription } from './write.ts'

export type {
  CatalogFile,
  CatalogSeries,
  CatalogVocabularyPart,
  SeriesFilter,
  WholeRequest,
} from './rows.ts'

export interface Catalog {
  /** @param imported it is another exporter's file, as what an index told of; false by default. */
  add(description: FileDescription, imported?: boolean): void
  has(key: string): boolean
  remove(key: string): void
  /** Replaces everything by the contents of another catalogue's database, in one transaction. */
  replaceBy(path: string): void
  file(key: string): CatalogFile | null
  /** Files that it describes whole: those of this exporter, or after a rebuild all of the store. */
  files(): CatalogFile[]
  /** Whether it names no file at all, as one that was just made. */
  isEmpty(): boolean
  requests(traceId: string): CatalogRequest[]
  series(filter: SeriesFilter): CatalogSeries[]
  /** Where the parts of a vocabulary are, in their order. */
  vocabulary(fingerprint: string): CatalogVocabularyPart[]
  list(filter: ListFilter): RequestPage
  readonly indexes: CatalogIndexes
  /** The spans of these requests need not be sent again. */
  markSent(keys: readonly RequestKey[], atMicros: number): void
  /** Requests whose spans were never sent; from now on they are tracked. */
  unsent(atMicros: number): Unsent
  /** Spans are not sent: nothing is tracked. */
  stopTracking(): void
  /** An ended request as its spans are sent: in the caller's trace, where that came later. */
  summary(key: RequestKey): RequestSummary | null
  close(): void
}

/** What the catalogue knows of trace indexes in a bucket. */
export interface CatalogIndexes {
  due(limit: number): DueIndex[]
  dueCount(): number
  /** Puts them behind all others that are due. */
  postpone(due: readonly DueIndex[]): void
  /** Every index of what the files hold becomes due, as after a rebuild. */
  allDue(): void
  whole(key: RequestKey): WholeRequest | null
  /** A due index was written as these objects; without any, its request is gone. */
  settle(due: DueIndex, keys: readonly string[]): void
  known(key: RequestKey): KnownIndex[]
  knownOfTrace(traceId: string): KnownIndex[]
  isKnown(indexKey: string): boolean
  import(indexKey: string, whole: WholeRequest, atMicros: number): void
  dropImported(indexKey: string): void
  /** Files of the request that an index of this exporter's tells of; none while it is due. */
  filesOfIndex(indexKey: string): string[]
  /** The index has gone from the bucket, and so have these files of its request. */
  dropReplaced(indexKey: string, missing: readonly string[]): void
}

export interface CatalogOptions {
  /** Whether ended requests get an index in a bucket; what is added makes theirs due. */
  readonly indexed?: boolean
  /** Whether what is added outlives a power cut. */
  readonly durable?: boolean
}

/** The catalogue of a store: with a bucket, ended requests get their indexes. */
export function openCatalogOf(location: StoreLocation, durable = false): Catalog {
  return openCatalog(location.catalog, { indexed: location.target.kind === 's3', durable })
}

/** What a reader of Parquet asks the catalogue, so that it need not ask the store. */
export function knownFileOf(catalog: Catalog): (key: string) => KnownFile | null {
  return (key) => {
    const file = catalog.file(key)
    return file === null ? null : { bytes: file.bytes, tailStart: file.tail_start }
  }
}

/** Opens the catalogue and creates it when it is not there. */
export function openCatalog(path: string, options: CatalogOptions = {}): Catalog {
  const { access, close } = createAccess(path, options.durable ?? false)
  const read = <T>(act: (database: DatabaseSync) => T): T => access('read', act)
  const write = (act: (database: DatabaseSync) => void): void =>
    access('write', (database) => transaction(database, () => act(database)))

  function add(description: FileDescription, imported = false): void {
    write((database) => {
      writeDescription(database, description, imported)
      if (options.indexed === true) noteDue(database, description)
    })
  }

  return {
    add,
    has: (key) => read((database) => readFile(database, key)) !== null,
    remove: (key) =>
      write((database) => void database.prepare('DELETE FROM files WHERE key = ?').run(key)),
    replaceBy: (other) => access('write', (database) => replaceContents(database, other)),
    file: (key) => read((database) => readFile(database, key)),
    files: () => read(readFiles),
    isEmpty: () => read(hasNothing),
    requests: (traceId) => read((database) => readRequests(database, traceId)),
    series: (filter) => read((database) => readSeries(database, filter)),
    vocabulary: (fingerprint) => read((database) => readVocabulary(database, fingerprint)),
    list: (filter) => read((database) => readPage(database, filter)),
    indexes: {
      due: (limit) => read((database) => readDue(database, limit)),
      dueCount: () => read(countDue),
      postpone: (due) => write((database) => postponeDue(database, due)),
      allDue: () => write(noteAllDue),
      whole: (key) => read((database) => readWhole(database, key)),
      settle: (due, keys) => write((database) => settleDue(database, due, keys)),
      known: (key) => read((database) => readKnown(database, key)),
      knownOfTrace: (traceId) => read((database) => readKnownOfTrace(database, traceId)),
      isKnown: (key) => read((database) => isKnown(database, key)),
      import: (key, whole, at) => write((database) => importIndex(database, key, whole, at)),
      dropImported: (key) => write((database) => dropImported(database, key)),
      filesOfIndex: (key) => read((database) => filesOfIndex(database, key)),
      dropReplaced: (key, missing) => write((database) => dropReplaced(database, key, missing)),
    },
    markSent: (keys, atMicros) => write((database) => markSent(database, keys, atMicros)),
    unsent: (atMicros) => access('write', (database) => readUnsent(database, atMicros)),
    stopTracking: () => access('write', stopTracking),
    summary: (key) => read((database) => readSummary(database, key)),
    close,
  }
}

/** The open database. A file that took its place, as a rebuild may put there, is opened instead. */
function createAccess(path: string, durable: boolean) {
  let open: { database: DatabaseSync; inode: number } | null = openNow()
  let closed = false

  function openNow() {
    return { database: openDatabase(path, durable), inode: inodeOf(path) }
  }

  function leave(): void {
    open?.database.close()
    open = null
  }

  function access<T>(doing: string, act: (database: DatabaseSync) => T): T {
    try {
      if (closed) throw new Error('it has been closed')
      if (open !== null && open.inode !== inodeOf(path)) leave()
      open ??= openNow()
      return act(open.database)
    } catch (error) {
      if (isDamage(error)) leave()
      throw catalogError(doing, path, error)
    }
  }

  function close(): void {
    closed = true
    leave()
  }

  return { access, close }
}

/** 0 where there is no file. */
function inodeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.ino ?? 0
}

function transaction(database: DatabaseSync, act: () => void): void {
  database.exec('BEGIN IMMEDIATE')
  try {
    act()
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}
