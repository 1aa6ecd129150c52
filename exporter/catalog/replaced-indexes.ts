/**
 * What the catalogue does when an index that this exporter wrote has gone from the bucket: another
 * exporter has deleted the request, or others with rows in the same files, which it wrote again.
 *
 * The files that took the place of this exporter's own are its own: their names have the same folder
 * and the same time. So retention goes on with them here, and nowhere else.
 */

import type { DatabaseSync } from 'node:sqlite'
import { textOf } from './rows.ts'

/** The random part of a ULID, and what follows it. */
const TAIL_CHARACTERS = 16 + '.parquet'.length

const ofRequest = 'trace_id = ? AND request_id = ? AND producer = ?'
const ofStored = 'stored_trace_id = ? AND request_id = ? AND producer = ?'

/** Its trace id, request id and producer; null while the index is due, as it may just be replaced. */
function requestOf(database: DatabaseSync, indexKey: string): string[] | null {
  const row = database
    .prepare('SELECT * FROM trace_indexes WHERE key = ? AND imported = 0')
    .get(indexKey)
  if (row === undefined) return null
  const values = [
    textOf(row, 'stored_trace_id'),
    textOf(row, 'request_id'),
    textOf(row, 'producer'),
  ]
  const due = database.prepare(`SELECT 1 FROM index_due WHERE ${ofRequest}`).get(...values)
  return due === undefined ? values : null
}

export function filesOfIndex(database: DatabaseSync, indexKey: string): string[] {
  const values = requestOf(database, indexKey)
  if (values === null) return []
  return database
    .prepare(
      `SELECT DISTINCT f.key FROM series s JOIN files f ON f.id = s.file_id WHERE ${ofRequest}`,
    )
    .all(...values)
    .map((row) => textOf(row, 'key'))
}

export function dropReplaced(
  database: DatabaseSync,
  indexKey: string,
  missing: readonly string[],
): void {
  const values = requestOf(database, indexKey)
  if (values === null || missing.length === 0) return
  for (const key of missing) {
    database
      .prepare(
        `DELETE FROM series WHERE ${ofRequest} AND file_id = (SELECT id FROM files WHERE key = ?)`,
      )
      .run(...values, key)
    adopt(database, key)
  }
  database.prepare('DELETE FROM trace_indexes WHERE key = ?').run(indexKey)
  const left =
    database.prepare(`SELECT 1 FROM series WHERE ${ofRequest} LIMIT 1`).get(...values) ??
    database.prepare(`SELECT 1 FROM trace_indexes WHERE ${ofStored} LIMIT 1`).get(...values)
  if (left !== undefined) return
  database.prepare(`DELETE FROM requests WHERE ${ofRequest}`).run(...values)
  database.prepare(`DELETE FROM aliases WHERE ${ofStored}`).run(...values)
}

/** Takes over what was put into the place of an own file. */
function adopt(database: DatabaseSync, key: string): void {
  const own = database.prepare('SELECT 1 FROM files WHERE key = ? AND imported = 0').get(key)
  if (own === undefined) return
  const head = key.slice(0, -TAIL_CHARACTERS)
  database
    .prepare('UPDATE files SET imported = 0 WHERE imported = 1 AND key >= ? AND key < ?')
    .run(head, `${head}~`)
}
