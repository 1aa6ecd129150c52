/**
 * The database that a rebuild fills beside the catalogue, and what is left of one whose rebuild was
 * killed: it holds what the files held then, also what has been deleted since.
 *
 *   {catalogue}.rebuild-{uuid}           the database, with SQLite's files beside it
 *   {catalogue}.rebuild-{uuid}.lock      held by the rebuild as long as it runs
 */

import { randomUUID } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { storeError, systemCode } from '../errors.ts'
import { removeDatabase } from './database.ts'
import { takeLock } from './process-lock.ts'

const BESIDE = '.rebuild-'
const LOCK = '.lock'
/** What SQLite puts behind a database's name. */
const SUFFIX = /(\.lock)?(-wal|-shm|-journal)?$/

export interface Beside {
  readonly path: string
  /** Removes the database. */
  remove(): void
}

export function createBeside(catalogPath: string): Beside {
  const path = `${catalogPath}${BESIDE}${randomUUID()}`
  const unlock = takeLock(path + LOCK, 0)
  return {
    path,
    remove() {
      removeDatabase(path)
      unlock?.()
      removeDatabase(path + LOCK)
    },
  }
}

/** Removes what killed rebuilds have left; those that run are left alone. Throws RING2_E_STORE. */
export function removeBesides(catalogPath: string): void {
  const folder = dirname(catalogPath)
  const names = namesIn(folder).filter((name) => name.startsWith(basename(catalogPath) + BESIDE))
  for (const name of new Set(names.map((one) => one.replace(SUFFIX, '')))) {
    const path = join(folder, name)
    const unlock = takeLock(path + LOCK, 0)
    if (unlock === null) continue
    try {
      for (const one of names) {
        if (one.startsWith(name)) rmSync(join(folder, one), { force: true })
      }
    } catch (error) {
      throw storeError('remove', path, error)
    } finally {
      unlock()
      removeDatabase(path + LOCK)
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('list', folder, error)
  }
}
