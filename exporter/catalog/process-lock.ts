/**
 * A lock that one process (or one part of it) holds at a time, and that ends with its holder however
 * that ends: the operating system takes it back. It is SQLite's lock on a database of its own.
 */

import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { storeError } from '../errors.ts'

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
