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
import { sentTable } from './catalog-sent.ts'

const CATALOG_VERSION = 3
const REBUILD_ACTION = 'Run `ring2-exporter catalog rebuild`; the Parquet files hold everything.'

const tables = `
CREATE TABLE IF NOT EXISTS files (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  dataset TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  rows INTEGER NOT NULL
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
${sentTable}`

/** What version 2 lacks. */
const aliasColumns = `
ALTER TABLE aliases ADD COLUMN parent_span_id TEXT;
ALTER TABLE aliases ADD COLUMN trace_state TEXT;
ALTER TABLE aliases ADD COLUMN parent_started_at INTEGER;
ALTER TABLE aliases ADD COLUMN parent_ended_at INTEGER;`

/** Opens the database, and creates it with its folder when it is not there. */
export function openDatabase(path: string): DatabaseSync {
  let database: DatabaseSync | null = null
  try {
    mkdirSync(dirname(path), { recursive: true })
    database = new DatabaseSync(path, { timeout: catalogLimits.busyMillisMax })
    prepareDatabase(database, path)
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
  // Version 1 lacks two tables and is else the same.
  const statements = version === 2 ? aliasColumns : tables
  if (version !== CATALOG_VERSION) {
    database.exec(`${statements} PRAGMA user_version = ${CATALOG_VERSION}`)
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
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true })
  return aside
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
