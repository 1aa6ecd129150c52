/**
 * Removes what a killed process has left of a copy into the store: rows that no catalogue knows, so no
 * deletion would find them.
 *
 * A copy that still runs is left alone: its source lies in the spool until it is done; one that has
 * several writers (partial.ts) is left until nothing has been written to it for a while.
 */

import { existsSync, readdirSync } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { storeError, systemCode } from '../errors.ts'
import { readFolder } from '../store/fs.ts'
import { datasets, flatName, isKey } from '../store/keys.ts'
import type { StoreLocation } from '../store/location.ts'
import { parsePartialName } from '../store/partial.ts'
import { deletionFolder } from './journal.ts'
import { leftoverLimits } from './limits.ts'

/** @returns how many were removed. Throws RING2_E_STORE. */
export async function removeLeftovers(location: StoreLocation, now = Date.now()): Promise<number> {
  const { target, queue } = location
  let removed = 0
  const pending =
    target.kind === 'directory' ? datasets.map((dataset) => join(target.root, dataset)) : [queue]
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    for (const entry of await readFolder(folder)) {
      const path = join(folder, entry.name)
      if (entry.isDirectory) pending.push(path)
      else if (await isLeftover(location, folder, entry.name, now)) {
        await removeOne(path)
        removed += 1
      }
    }
  }
  return removed
}

async function isLeftover(
  location: StoreLocation,
  folder: string,
  text: string,
  now: number,
): Promise<boolean> {
  const partial = parsePartialName(text)
  if (partial === null) return false
  const { target } = location
  const key =
    target.kind === 'directory'
      ? relative(target.root, join(folder, partial.name))
      : partial.name.replaceAll(',', '/')
  if (!isKey(key)) return false
  if (!partial.shared) return !hasSource(location, flatName(key))
  const written = await lastWritten(join(folder, text))
  return written !== null && now - written > leftoverLimits.quietMillis
}

/** Whether the file that is copied is there: a publisher, or a deletion, has it until it is done. */
function hasSource(location: StoreLocation, flat: string): boolean {
  const folders = foldersOf(location.spool).map((name) => join(location.spool, name))
  return [...folders, deletionFolder(location)].some((folder) => existsSync(join(folder, flat)))
}

function foldersOf(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('list', path, error)
  }
}

async function lastWritten(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mtimeMs
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw storeError('look at', path, error)
  }
}

async function removeOne(path: string): Promise<void> {
  try {
    await rm(path, { force: true })
  } catch (error) {
    throw storeError('remove', path, error)
  }
}
