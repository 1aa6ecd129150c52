/**
 * Replaces what the catalogue holds of the files by the contents of another catalogue's database,
 * which a rebuild has made beside it. Row by row inside SQLite, so memory does not grow with it.
 *
 * What the files do not hold stays: whose spans were sent, and which index objects are known.
 */

import type { DatabaseSync } from 'node:sqlite'

/** In the order in which rows refer to each other. */
const replaced = [
  'files',
  'series',
  'requests',
  'aliases',
  'vocabularies',
  'request_files',
] as const

export function replaceContents(database: DatabaseSync, path: string): void {
  database.prepare('ATTACH DATABASE ? AS rebuilt').run(path)
  try {
    database.exec('BEGIN IMMEDIATE')
    // Imported indexes are read again when their trace is asked for.
    database.exec('DELETE FROM trace_indexes WHERE imported = 1')
    for (const table of replaced.toReversed()) database.exec(`DELETE FROM main.${table}`)
    for (const table of replaced) {
      database.exec(`INSERT INTO main.${table} SELECT * FROM rebuilt.${table}`)
    }
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  } finally {
    database.exec('DETACH DATABASE rebuilt')
  }
}
