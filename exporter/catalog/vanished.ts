/**
 * Takes files that have gone from the store out of a catalogue that was made from it, with the
 * requests that no file is left of. Only for a catalogue that knows nothing but what the files told.
 */

import { catalogError, openDatabase } from './database.ts'

export function forgetVanished(path: string, keys: readonly string[]): void {
  if (keys.length === 0) return
  const database = openDatabase(path)
  try {
    database.exec('BEGIN IMMEDIATE')
    const statement = database.prepare('DELETE FROM files WHERE key = ?')
    for (const key of keys) statement.run(key)
    database.exec(`
      DELETE FROM aliases WHERE NOT EXISTS (SELECT 1 FROM request_files f
        WHERE f.trace_id = aliases.stored_trace_id AND f.request_id = aliases.request_id);
      DELETE FROM requests WHERE NOT EXISTS (SELECT 1 FROM request_files f
        WHERE f.trace_id = requests.trace_id AND f.request_id = requests.request_id)
      AND NOT EXISTS (SELECT 1 FROM series s
        WHERE s.trace_id = requests.trace_id AND s.request_id = requests.request_id);
      COMMIT`)
  } catch (error) {
    throw catalogError('write', path, error)
  } finally {
    database.close()
  }
}
