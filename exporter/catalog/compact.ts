/**
 * Leaves none of the bytes of removed rows in the catalogue's file. It takes as long as the catalogue
 * is large, so a large one is done in a thread of its own (compact-worker.ts): whoever reads goes on,
 * whoever writes waits.
 */

import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import { Ring2Error } from '../errors.ts'
import { catalogLimits } from '../limits.ts'
import { catalogError, openDatabase } from './database.ts'

/** What the thread says at its end: null when it is done. */
export type CompactReport = Pick<Ring2Error, 'code' | 'expected' | 'actual' | 'action'> | null

/**
 * Makes the database's file again without what was removed, and empties its journal.
 *
 * @throws Ring2Error RING2_E_STORE, and then it may be done again.
 */
export async function compactCatalog(
  path: string,
  hereBytesMax: number = catalogLimits.compactHereBytesMax,
): Promise<void> {
  const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  if (bytes <= hereBytesMax) compactNow(path)
  else await compactBeside(path)
}

async function compactBeside(path: string): Promise<void> {
  const worker = new Worker(join(import.meta.dirname, 'compact-worker.ts'), {
    workerData: path,
    name: 'ring2-compact',
  })
  const report = await new Promise<CompactReport>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', (error) => reject(catalogError('compact', path, error)))
    worker.once('exit', (code) =>
      reject(catalogError('compact', path, new Error(`its thread ended with ${code}`))),
    )
  })
  if (report !== null) throw new Ring2Error(report.code, report)
}

/** The same on this thread. */
export function compactNow(path: string): void {
  const database = openDatabase(path)
  try {
    compact(database, path)
  } catch (error) {
    throw catalogError('compact', path, error)
  } finally {
    database.close()
  }
}

/**
 * Pages that were split or freed before may hold bytes of removed rows: only a database that is made
 * again has none. Its journal has older pages, so it is emptied too.
 */
function compact(database: DatabaseSync, path: string): void {
  database.exec('VACUUM')
  const done = database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get()
  const journalBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0
  if (Number(done?.busy) !== 0 || journalBytes > 0) {
    throw new Ring2Error('RING2_E_STORE', {
      expected: `to empty the journal of the catalogue ${path}`,
      actual: 'another process reads it all the time',
      action: 'Delete again: it goes on where it stopped.',
    })
  }
  // What was moved aside as damaged holds nothing that the files do not hold, but may hold this.
  rmSync(`${path}.damaged`, { force: true })
}
