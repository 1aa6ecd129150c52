/**
 * The spool: complete files that are not yet visible, and how they become visible.
 *
 *   {spool}/{producer}/{key with "," for "/"}            the Parquet file
 *   {spool}/{producer}/{…}.json                          its description, for the catalogue
 *
 * A name in the spool tells its key, so a name written down by a checkpoint is enough to publish
 * the file after a crash. Publishing is a rename (a copy and a rename where the store lies on
 * another file system) and leaves a published file alone, so doing it twice is harmless.
 */

import {
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { ProducerInfo } from '../../collector/records.ts'
import type { FileDescription } from '../catalog/description.ts'
import { Ring2Error, storeError, systemCode } from '../errors.ts'
import { PARTIAL_SUFFIX } from '../parquet/file-writer.ts'
import { flatName, keyOfFlatName, producerSlug } from '../store/keys.ts'
import type { StoreLocation } from '../store/location.ts'
import { partialPath } from '../store/partial.ts'

const DESCRIPTION_SUFFIX = '.json'

/** Name of a prepared file, relative to the spool. */
export function spoolName(producer: ProducerInfo, key: string): string {
  return `${producerSlug(producer)}/${flatName(key)}`
}

export interface SpoolName {
  readonly folder: string
  readonly file: string
  readonly key: string
}

/** Throws RING2_E_STORE for a name that `spoolName` did not make. */
export function parseSpoolName(name: string): SpoolName {
  const [folder, file, ...rest] = name.split('/')
  const safe = folder !== undefined && /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(folder)
  if (safe && file !== undefined && rest.length === 0) {
    return { folder, file, key: keyOfFlatName(file) }
  }
  throw new Ring2Error('RING2_E_STORE', {
    expected: 'the name of a prepared file: {producer}/{key with "," for "/"}',
    actual: JSON.stringify(name.slice(0, 300)),
    action: 'Remove the checkpoint that names it if the exporter did not write it.',
  })
}

export function writeDescription(path: string, description: FileDescription, fsync: boolean): void {
  const text = JSON.stringify(description)
  writeFileSync(path + DESCRIPTION_SUFFIX, text, { mode: 0o640, flush: fsync })
}

/** The description beside a prepared file; null when it has been published and removed. */
export function readDescription(path: string): FileDescription | null {
  try {
    return JSON.parse(readFileSync(path + DESCRIPTION_SUFFIX, 'utf8'))
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error instanceof SyntaxError ? cutDescription(path, error) : error
  }
}

/** As a power cut leaves it where `store.fsync` is off. */
function cutDescription(path: string, cause: SyntaxError): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a whole description of a prepared file in ${path}${DESCRIPTION_SUFFIX}`,
    actual: cause.message,
    action:
      'Move the file beside it to its place in the store (its name, with "/" for ","), remove the ' +
      'description, start the exporter and run `ring2-exporter catalog rebuild`.',
    cause,
  })
}

/** Name of the file that an entry of the spool describes; null when it is no description. */
export function describedFile(entry: string): string | null {
  return entry.endsWith(DESCRIPTION_SUFFIX) ? entry.slice(0, -DESCRIPTION_SUFFIX.length) : null
}

/** Whether a readable description lies beside the file: then the file is complete. */
export function hasDescription(path: string): boolean {
  try {
    return readDescription(path) !== null
  } catch (error) {
    if (error instanceof Ring2Error) return false
    throw error
  }
}

export function removeDescription(path: string): void {
  rmSync(path + DESCRIPTION_SUFFIX, { force: true })
}

export function removePrepared(path: string): void {
  for (const suffix of ['', PARTIAL_SUFFIX, DESCRIPTION_SUFFIX]) {
    rmSync(path + suffix, { force: true })
  }
}

/** Where publishing puts a key: the store's directory, or the queue of uploads. */
export function publishedPath(location: StoreLocation, key: string): string {
  return location.target.kind === 'directory'
    ? join(location.target.root, key)
    : join(location.queue, flatName(key))
}

/** Moves a prepared file to its place. `absent` when it is neither here nor there. */
export function moveIntoPlace(from: string, to: string, fsync: boolean): 'moved' | 'absent' {
  if (!existsSync(from)) return existsSync(to) ? 'moved' : 'absent'
  makeFolder(dirname(to), fsync)
  try {
    renameSync(from, to)
  } catch (error) {
    if (systemCode(error) !== 'EXDEV') throw error
    moveAcross(from, to, fsync)
  }
  if (fsync) syncPath(dirname(to))
  return 'moved'
}

function moveAcross(from: string, to: string, fsync: boolean): void {
  const partial = partialPath(to)
  try {
    copyFileSync(from, partial)
    if (fsync) syncPath(partial)
    renameSync(partial, to)
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  }
  rmSync(from, { force: true })
}

/** Makes a folder and those above it; with `fsync` a power cut does not take them away again. */
export function makeFolder(folder: string, fsync: boolean, mode = 0o777): void {
  const first = mkdirSync(folder, { recursive: true, mode })
  if (!fsync || first === undefined) return
  // Each folder is an entry of the one above it, up to the first that was there before.
  const top = dirname(first)
  for (let above = dirname(folder); above.length >= top.length; above = dirname(above)) {
    syncPath(above)
    if (above === top) break
  }
}

/** Waits until the disk has a file's bytes, or a folder's entries. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Removes everything of a producer's spool except the named files and their descriptions. */
export function discardPrepared(
  spool: string,
  producer: ProducerInfo,
  names: readonly string[],
): void {
  const folder = join(spool, producerSlug(producer))
  if (!existsSync(folder)) return
  const kept = new Set(names.map((name) => parseSpoolName(name).file))
  for (const entry of readdirSync(folder)) {
    if (!kept.has(describedFile(entry) ?? entry)) rmSync(join(folder, entry), { force: true })
  }
  if (kept.size === 0) removeFolderIfEmpty(folder)
}

export function removeFolderIfEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch (error) {
    const code = systemCode(error)
    if (code !== 'ENOTEMPTY' && code !== 'ENOENT') throw storeError('remove', folder, error)
  }
}

/** Bytes of the files in a folder; 0 when there is no folder. */
export function folderBytes(folder: string): number {
  if (!existsSync(folder)) return 0
  let bytes = 0
  for (const entry of readdirSync(folder)) {
    bytes += statSync(join(folder, entry), { throwIfNoEntry: false })?.size ?? 0
  }
  return bytes
}
