/**
 * The catalogue's database: its tables, how it is opened, and how its errors read.
 *
 * SQLite in WAL mode: a drain worker and the main thread open it at the same time, one writes while
 * others read, and a second writer waits for the first. It holds nothing that the Parquet files do
 * not hold, but for what catalog-sent.ts says, so losing it costs a rebuild and no data.
 */

import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { errorText, Ring2Error, systemCode } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import { endedDueSql, indexTables } from './indexes.ts'
import { sentTable } from './sent.ts'

const CATALOG_VERSION = 5
/** The first version that had trace indexes. */
const FIRST_WITH_INDEXES = 4
const REBUILD_ACTION = 'Run `ring2-exporter catalog rebuild`; the Parquet files hold everything.'

/** Files that SQLite keeps beside the database. */
const journals = ['-wal', '-shm'] as const

const tables = `
CREATE TABLE IF NOT EXISTS files (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  dataset TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  tail_start INTEGER,
  imported INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS series (
  trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  hook TEXT NOT NULL,
  layer INTEGER NOT NULL,
  tp_rank INTEGER NOT NULL,
  pp_rank INTEGER NOT NULL,
  dp_rank INTEGER NOT NULL,
  ep_rank INTEGER NOT NULL,
  file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  row_start INTEGER NOT NULL,
  row_end INTEGER NOT NULL,
  token_start INTEGER NOT NULL,
  token_end INTEGER NOT NULL,
  dtype TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  producer TEXT NOT NULL,
  PRIMARY KEY (trace_id, request_id, hook, layer, tp_rank, pp_rank, dp_rank, ep_rank,
    file_id, row_start)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS series_by_file ON series (file_id);
CREATE TABLE IF NOT EXISTS requests (
  trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  producer TEXT NOT NULL,
  span_id TEXT,
  model TEXT NOT NULL,
  model_revision TEXT NOT NULL,
  engine TEXT NOT NULL,
  host TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  tokens INTEGER,
  prompt_tokens INTEGER,
  steps INTEGER,
  verdict TEXT NOT NULL,
  completeness TEXT NOT NULL,
  summary TEXT,
  PRIMARY KEY (trace_id, request_id, producer)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_time
  ON requests (started_at DESC, trace_id, request_id, producer);
CREATE INDEX IF NOT EXISTS requests_by_model
  ON requests (model, started_at DESC, trace_id, request_id, producer);
CREATE INDEX IF NOT EXISTS requests_by_verdict
  ON requests (verdict, started_at DESC, trace_id, request_id, producer);
CREATE INDEX IF NOT EXISTS requests_with_finding
  ON requests (started_at DESC, trace_id, request_id, producer)
  WHERE verdict NOT IN ('ok', 'unknown');
CREATE TABLE IF NOT EXISTS aliases (
  trace_id TEXT NOT NULL,
  stored_trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  producer TEXT NOT NULL,
  span_id TEXT NOT NULL,
  parent_span_id TEXT,
  trace_state TEXT,
  parent_started_at INTEGER,
  parent_ended_at INTEGER,
  PRIMARY KEY (trace_id, stored_trace_id, request_id, producer)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS aliases_by_request
  ON aliases (stored_trace_id, request_id, producer);
CREATE TABLE IF NOT EXISTS request_files (
  trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  PRIMARY KEY (trace_id, request_id, file_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS request_files_by_file ON request_files (file_id);
CREATE TABLE IF NOT EXISTS vocabularies (
  fingerprint TEXT NOT NULL,
  part INTEGER NOT NULL,
  parts INTEGER NOT NULL,
  model TEXT NOT NULL,
  file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  row INTEGER NOT NULL,
  PRIMARY KEY (fingerprint, part, file_id, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vocabularies_by_file ON vocabularies (file_id);
${sentTable}${indexTables}`

/** What tables of earlier versions lack. */
const laterColumns: readonly (readonly [table: string, column: string, type: string])[] = [
  ['aliases', 'parent_span_id', 'TEXT'],
  ['aliases', 'trace_state', 'TEXT'],
  ['aliases', 'parent_started_at', 'INTEGER'],
  ['aliases', 'parent_ended_at', 'INTEGER'],
  ['files', 'tail_start', 'INTEGER'],
  ['files', 'imported', 'INTEGER NOT NULL DEFAULT 0'],
]

/**
 * Opens the database, and creates it with its folder when it is not there.
 *
 * @param durable whether each write waits for the disk, so that a power cut takes none of them.
 */
export function openDatabase(path: string, durable = false): DatabaseSync {
  let database: DatabaseSync | null = null
  try {
    mkdirSync(dirname(path), { recursive: true })
    database = new DatabaseSync(path, { timeout: catalogLimits.busyMillisMax })
    prepareDatabase(database, path)
    if (durable) database.exec('PRAGMA synchronous = FULL')
    return database
  } catch (error) {
    database?.close()
    throw catalogError('open', path, error)
  }
}

function prepareDatabase(database: DatabaseSync, path: string): void {
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON')
  if (versionOf(database) === CATALOG_VERSION) return
  // A second thread may do the same at this moment; whoever comes second finds it done.
  database.exec('BEGIN IMMEDIATE')
  const version = versionOf(database)
  if (version < 0 || version > CATALOG_VERSION) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `catalogue version ${CATALOG_VERSION} in ${path}`,
      actual: `version ${version}`,
      action: REBUILD_ACTION,
    })
  }
  if (version !== CATALOG_VERSION) {
    database.exec(tables)
    for (const [table, column, type] of laterColumns) {
      const held = database.prepare('SELECT 1 FROM pragma_table_info(?) WHERE name = ?')
      if (held.get(table, column) !== undefined) continue
      database.exec(`ALTER TABLE ${table} ADD COLUMN ${column} ${type}`)
    }
    // Requests that ended before there were trace indexes get theirs.
    if (version < FIRST_WITH_INDEXES) database.exec(endedDueSql)
    database.exec(`PRAGMA user_version = ${CATALOG_VERSION}`)
  }
  database.exec('COMMIT')
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.user_version ?? 0)
}

/** Moves a database that cannot be read aside, with its journal, so that a new one can be made. */
export function setDatabaseAside(path: string): string {
  const aside = `${path}.damaged`
  renameSync(path, aside)
  for (const suffix of journals) rmSync(path + suffix, { force: true })
  return aside
}

/** Removes a database with its journal. */
export function removeDatabase(path: string): void {
  for (const suffix of ['', ...journals]) rmSync(path + suffix, { force: true })
}

/** Whether SQLite says that the file is damaged, or no database: only a rebuild mends it. */
export function isDamage(error: unknown): boolean {
  // SQLite's primary result codes CORRUPT and NOTADB.
  return [11, 26].includes(resultCode(error))
}

/** Whether it may succeed later: the file is locked, may not be written, or the disk is full. */
export function isTemporary(error: unknown): boolean {
  const cause = error instanceof Ring2Error ? error.cause : error
  // SQLite's primary result codes BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
  return systemCode(cause) !== null || [5, 6, 8, 10, 13, 14].includes(resultCode(error))
}

function resultCode(error: unknown): number {
  const cause = error instanceof Ring2Error ? error.cause : error
  if (typeof cause !== 'object' || cause === null || !('errcode' in cause)) return 0
  return Number(cause.errcode) & 0xff
}

/** RING2_E_STORE of the catalogue; what already is a Ring2Error stays as it is. */
export function catalogError(doing: string, path: string, cause: unknown): Ring2Error {
  if (cause instanceof Ring2Error) return cause
  const errno = systemCode(cause)
  const full = /database or disk is full/.test(errorText(cause))
  return new Ring2Error('RING2_E_STORE', {
    expected: `to ${doing} the catalogue ${path}`,
    actual: errno === null ? errorText(cause) : `${errno} (${errorText(cause)})`,
    action: full ? 'Free space; captured data waits in the ring meanwhile.' : REBUILD_ACTION,
    cause,
  })
}
