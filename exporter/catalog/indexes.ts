/**
 * Trace indexes, as the catalogue's database knows them: which requests' indexes are due in the
 * bucket, which index objects are known, and what was read from those of other exporters. Not here:
 * what an index looks like (trace-index.ts), and the bucket.
 *
 * A due index stays due until it was written, so a crash loses none: whatever makes it due is
 * written in the transaction of the change that it must tell of, and has a number of its own, so
 * that a change that comes while an index is being written makes it due again.
 */

import type { DatabaseSync } from 'node:sqlite'
import type { FileDescription } from './description.ts'
import { isPartSql } from './parallel.ts'
import { integerOf, textOf, type WholeRequest } from './rows.ts'
import { markSent, type RequestKey } from './sent.ts'
import { insertAliases, insertRequests, insertSeries, insertVocabularies } from './write.ts'

export const indexTables = `
CREATE TABLE IF NOT EXISTS index_due (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  producer TEXT NOT NULL,
  UNIQUE (trace_id, request_id, producer)
) STRICT;
CREATE TABLE IF NOT EXISTS trace_indexes (
  key TEXT PRIMARY KEY,
  trace_id TEXT NOT NULL,
  stored_trace_id TEXT NOT NULL,
  request_id TEXT NOT NULL,
  producer TEXT NOT NULL,
  imported INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trace_indexes_by_trace ON trace_indexes (trace_id);
CREATE INDEX IF NOT EXISTS trace_indexes_by_request
  ON trace_indexes (stored_trace_id, request_id, producer);
`

/** Makes the index of every ended request due. */
export const endedDueSql = `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
  SELECT trace_id, request_id, producer FROM requests WHERE summary IS NOT NULL`

/** A request whose index is due; `id` names this time that it became due. */
export interface DueIndex {
  readonly id: number
  readonly key: RequestKey
}

/** An object in the bucket that tells of a request. */
export interface KnownIndex {
  readonly key: string
  /** Read from the bucket, and not written by this exporter. */
  readonly imported: boolean
}

const ofRequest = 'stored_trace_id = ? AND request_id = ? AND producer = ?'

/** Makes the indexes of those requests of the file due that have ended. */
export function noteDue(database: DatabaseSync, file: FileDescription): void {
  const statement = database.prepare(
    `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
     SELECT trace_id, request_id, producer FROM requests
     WHERE trace_id = ? AND request_id = ? AND producer = ? AND summary IS NOT NULL`,
  )
  const parts = database.prepare(
    `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
     SELECT r.trace_id, r.request_id, r.producer FROM requests r
     WHERE r.trace_id = ? AND r.request_id = ? AND ${isPartSql('r')}`,
  )
  for (const { trace_id, request_id, producer } of file.requests) {
    statement.run(trace_id, request_id, producer)
    // Ranks of one request have indexes of their own, all due once it has ended.
    parts.run(trace_id, request_id)
  }
  for (const { stored_trace_id, request_id, producer } of file.aliases ?? []) {
    statement.run(stored_trace_id, request_id, producer)
  }
}

/** Makes every index due that the store's own files give, also those of requests that never ended. */
export function noteAllDue(database: DatabaseSync): void {
  database.exec(`INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
    SELECT trace_id, request_id, producer FROM requests`)
}

/** The first that are due, in the order in which they became due. */
export function readDue(database: DatabaseSync, limit: number): DueIndex[] {
  const rows = database.prepare('SELECT * FROM index_due ORDER BY id LIMIT ?').all(limit)
  return rows.map((row) => ({
    id: integerOf(row, 'id'),
    key: {
      traceId: textOf(row, 'trace_id'),
      requestId: textOf(row, 'request_id'),
      producer: textOf(row, 'producer'),
    },
  }))
}

export function countDue(database: DatabaseSync): number {
  return Number(database.prepare('SELECT count(*) AS n FROM index_due').get()?.n ?? 0)
}

/** Puts them behind all others, so that what cannot be written yet holds up nothing. */
export function postponeDue(database: DatabaseSync, due: readonly DueIndex[]): void {
  const statement = database.prepare(
    `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
     SELECT trace_id, request_id, producer FROM index_due WHERE id = ?`,
  )
  for (const { id } of due) statement.run(id)
}

/** Objects of the request that are known, whatever trace they are filed under. */
export function readKnown(database: DatabaseSync, key: RequestKey): KnownIndex[] {
  const rows = database
    .prepare(`SELECT key, imported FROM trace_indexes WHERE ${ofRequest}`)
    .all(key.traceId, key.requestId, key.producer)
  return rows.map((row) => ({
    key: textOf(row, 'key'),
    imported: integerOf(row, 'imported') !== 0,
  }))
}

/** Objects filed under the trace that are known. */
export function readKnownOfTrace(database: DatabaseSync, traceId: string): KnownIndex[] {
  const rows = database
    .prepare('SELECT key, imported FROM trace_indexes WHERE trace_id = ?')
    .all(traceId)
  return rows.map((row) => ({
    key: textOf(row, 'key'),
    imported: integerOf(row, 'imported') !== 0,
  }))
}

export function isKnown(database: DatabaseSync, key: string): boolean {
  return database.prepare('SELECT 1 FROM trace_indexes WHERE key = ?').get(key) !== undefined
}

/**
 * The index was written: these objects are all that there is of it. Where its request was deleted
 * meanwhile, by another process perhaps, they must go again: the index becomes due as one of nothing.
 */
export function settleDue(database: DatabaseSync, due: DueIndex, keys: readonly string[]): void {
  const { traceId, requestId, producer } = due.key
  const values = [traceId, requestId, producer]
  database.prepare(`DELETE FROM trace_indexes WHERE ${ofRequest}`).run(...values)
  for (const key of keys) insertIndex(database, key, due.key, false)
  database.prepare('DELETE FROM index_due WHERE id = ?').run(due.id)
  if (keys.length === 0) return
  database
    .prepare(
      `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
       SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM requests
         WHERE trace_id = ?1 AND request_id = ?2 AND producer = ?3)`,
    )
    .run(...values)
}

function insertIndex(
  database: DatabaseSync,
  key: string,
  { traceId, requestId, producer }: RequestKey,
  imported: boolean,
): void {
  const filedUnder = key.split('/')[2] ?? ''
  database
    .prepare(
      `INSERT OR REPLACE INTO trace_indexes
       (key, trace_id, stored_trace_id, request_id, producer, imported) VALUES (?, ?, ?, ?, ?, ?)`,
    )
    .run(key, filedUnder, traceId, requestId, producer, imported ? 1 : 0)
}

/**
 * Takes what another exporter's index tells. It adds to what is known of the request, and marks its
 * spans as sent: whoever stored it sends them.
 */
export function importIndex(
  database: DatabaseSync,
  indexKey: string,
  whole: WholeRequest,
  atMicros: number,
): void {
  const { request, series } = whole
  const { trace_id: traceId, request_id: requestId, producer } = request
  const insertFile = database.prepare(
    `INSERT OR IGNORE INTO files (key, dataset, bytes, rows, tail_start, imported)
     VALUES (?, ?, ?, ?, ?, 1)`,
  )
  const fileId = database.prepare('SELECT id FROM files WHERE key = ?')
  const fingerprint = request.summary?.model.vocabularyFingerprint
  const bySeries = Map.groupBy(series, (one) => one.key)
  for (const file of whole.files) {
    insertFile.run(file.key, file.dataset, file.bytes, file.rows, file.tail_start)
    const id = Number(fileId.get(file.key)?.id ?? 0)
    insertSeries(database, id, bySeries.get(file.key) ?? [])
    if (fingerprint === undefined) continue
    const parts = whole.vocabulary.filter((part) => part.key === file.key)
    insertVocabularies(
      database,
      id,
      parts.map((part) => ({ ...part, fingerprint })),
    )
  }
  insertRequests(database, [request])
  insertAliases(database, whole.aliases)
  const key = { traceId, requestId, producer }
  insertIndex(database, indexKey, key, true)
  markSent(database, [key], atMicros)
}

/** Forgets what was read from an index that is gone, unless another index tells of the request. */
export function dropImported(database: DatabaseSync, indexKey: string): void {
  const row = database
    .prepare('SELECT * FROM trace_indexes WHERE key = ? AND imported = 1')
    .get(indexKey)
  if (row === undefined) return
  database.prepare('DELETE FROM trace_indexes WHERE key = ?').run(indexKey)
  const stored = textOf(row, 'stored_trace_id')
  const values = [stored, textOf(row, 'request_id'), textOf(row, 'producer')]
  const other = `SELECT 1 FROM trace_indexes WHERE ${ofRequest} LIMIT 1`
  if (database.prepare(other).get(...values) !== undefined) return
  const series = 'trace_id = ? AND request_id = ? AND producer = ?'
  const files = database
    .prepare(
      `SELECT DISTINCT file_id FROM series WHERE ${series}
       AND file_id IN (SELECT id FROM files WHERE imported = 1)`,
    )
    .all(...values)
  for (const { file_id: id } of files) {
    const fileId = Number(id)
    database.prepare(`DELETE FROM series WHERE ${series} AND file_id = ?`).run(...values, fileId)
    database
      .prepare(
        'DELETE FROM files WHERE id = ? AND NOT EXISTS (SELECT 1 FROM series WHERE file_id = ?)',
      )
      .run(fileId, fileId)
  }
  const left = database.prepare(`SELECT 1 FROM series WHERE ${series} LIMIT 1`).get(...values)
  if (left !== undefined) return
  database.prepare(`DELETE FROM requests WHERE ${series}`).run(...values)
  database.prepare(`DELETE FROM aliases WHERE ${ofRequest}`).run(...values)
}
