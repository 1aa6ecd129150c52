/**
 * What the catalogue has to do when files are removed because they are old or too many: forget the
 * file, then the requests of which nothing is left, and have their indexes in a bucket written again.
 *
 * Its own connection, so that the others go on. Calls are synchronous and throw RING2_E_STORE.
 */

import type { DatabaseSync } from 'node:sqlite'
import { catalogError, openDatabase } from './database.ts'

export interface CatalogExpiry {
  /** Forgets a file that the store has no more. */
  removeFile(key: string): void
  /** Names of the models that requests have. */
  models(): string[]
  /** Forgets requests of the model that began before, and have no tensors; how many there were. */
  forgetRequests(model: string, beforeMicros: number): number
  close(): void
}

const withoutTensors = `model = ? AND started_at < ? AND NOT EXISTS (SELECT 1 FROM series s
  WHERE s.trace_id = requests.trace_id AND s.request_id = requests.request_id
  AND s.producer = requests.producer)`

/** @param indexed whether requests have an index in a bucket. */
export function openCatalogExpiry(path: string, indexed: boolean): CatalogExpiry {
  const database = openDatabase(path)

  function guard<T>(doing: string, act: () => T): T {
    try {
      return act()
    } catch (error) {
      throw catalogError(doing, path, error)
    }
  }

  return {
    removeFile: (key) =>
      guard('write', () => transaction(database, () => removeFile(database, key, indexed))),
    models: () =>
      guard('read', () =>
        database
          .prepare('SELECT DISTINCT model FROM requests')
          .all()
          .map((row) => String(row.model)),
      ),
    forgetRequests: (model, beforeMicros) =>
      guard('write', () =>
        transaction(database, () => forgetRequests(database, model, beforeMicros, indexed)),
      ),
    close: () => database.close(),
  }
}

function transaction<T>(database: DatabaseSync, act: () => T): T {
  database.exec('BEGIN IMMEDIATE')
  try {
    const value = act()
    database.exec('COMMIT')
    return value
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

function removeFile(database: DatabaseSync, key: string, indexed: boolean): void {
  if (indexed) {
    database
      .prepare(
        `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
         SELECT DISTINCT r.trace_id, r.request_id, r.producer FROM files f
         JOIN series s ON s.file_id = f.id
         JOIN requests r ON r.trace_id = s.trace_id AND r.request_id = s.request_id
           AND r.producer = s.producer
         WHERE f.key = ? AND r.summary IS NOT NULL`,
      )
      .run(key)
  }
  database.prepare('DELETE FROM files WHERE key = ?').run(key)
}

function forgetRequests(
  database: DatabaseSync,
  model: string,
  beforeMicros: number,
  indexed: boolean,
): number {
  const values = [model, beforeMicros]
  if (indexed) {
    database
      .prepare(
        `INSERT OR REPLACE INTO index_due (trace_id, request_id, producer)
         SELECT trace_id, request_id, producer FROM requests WHERE ${withoutTensors}`,
      )
      .run(...values)
  }
  const chosen = `SELECT 1 FROM requests WHERE ${withoutTensors}`
  for (const [table, trace] of [
    ['aliases', 'stored_trace_id'],
    ['spans_sent', 'trace_id'],
  ]) {
    database
      .prepare(
        `DELETE FROM ${table} WHERE EXISTS (${chosen} AND requests.trace_id = ${table}.${trace}
         AND requests.request_id = ${table}.request_id AND requests.producer = ${table}.producer)`,
      )
      .run(...values)
  }
  return Number(
    database.prepare(`DELETE FROM requests WHERE ${withoutTensors}`).run(...values).changes,
  )
}
