/**
 * A lock that one process (or one part of it) holds at a time, and that ends with its holder however
 * that ends: the operating system takes it back. It is SQLite's lock on a database of its own.
 */

import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Ring2Error, storeError } from '../errors.ts'

const POLL_MILLIS = 100

/** The lock of whoever removes files of a store, or takes a catalogue's place, by the catalogue's path. */
export function removalLock(catalogPath: string): string {
  return join(dirname(catalogPath), 'deletions', 'lock')
}

/**
 * Takes the lock without holding up the thread, waiting at most so long.
 *
 * @throws Ring2Error RING2_E_UNSETTLED when another holds it all that time.
 */
export async function waitForLock(path: string, waitMillis: number): Promise<() => void> {
  const end = performance.now() + waitMillis
  for (;;) {
    const unlock = takeLock(path, 0)
    if (unlock !== null) return unlock
    if (performance.now() >= end) {
      throw new Ring2Error('RING2_E_UNSETTLED', {
        expected: 'no deletion, retention or rebuild of the catalogue at the same time',
        actual: `another holds ${path}`,
        action: 'Do it again when that is done.',
      })
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLIS))
  }
}

/**
 * Takes the lock, waiting at most so long.
 *
 * @returns what gives it back, or null when another holds it all that time.
 * @throws Ring2Error RING2_E_STORE when its file cannot be made.
 */
export function takeLock(path: string, waitMillis: number): (() => void) | null {
  let database: DatabaseSync | null = null
  try {
    mkdirSync(dirname(path), { recursive: true })
    database = new DatabaseSync(path, { timeout: waitMillis })
    database.exec('BEGIN EXCLUSIVE')
    const held = database
    return () => held.close()
  } catch (error) {
    database?.close()
    if (isHeld(error)) return null
    throw storeError('lock', path, error)
  }
}

/** SQLite's primary result code BUSY. */
function isHeld(error: unknown): boolean {
  if (typeof error !== 'object' || error === null || !('errcode' in error)) return false
  return (Number(error.errcode) & 0xff) === 5
}
