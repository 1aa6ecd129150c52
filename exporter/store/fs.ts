/**
 * The store in a directory: an object is a file at `{root}/{key}`.
 */

import type { Stats } from 'node:fs'
import {
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  opendir,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import type { Outcome } from '../../collector/records.ts'
import { failure, Ring2Error, retryable, storeError, success, systemCode } from '../errors.ts'
import {
  assertObjectKey,
  isObjectKey,
  type ListOptions,
  type ObjectStore,
  objectDiffers,
  objectMissing,
  objectTooLarge,
  type PutResult,
  type StoredObject,
} from './object-store.ts'
import { ownPartialPath } from './partial.ts'

export function createDirectoryStore(root: string): ObjectStore {
  const pathOf = (key: string) => join(root, assertObjectKey(key))
  return {
    put: (key, path) => putFile(key, path, pathOf(key)),
    putBytes: (key, bytes, options) => putBytes(bytes, pathOf(key), options?.ifAbsent ?? false),
    getRange: (key, start, length) => readRange(root, key, pathOf(key), start, length),
    read: (key, bytesMax) => readWhole(key, pathOf(key), bytesMax),
    size: (key) => sizeOf(pathOf(key)),
    list: (prefix, options) => listFiles(root, prefix, options),
    delete: (key) => removeFile(pathOf(key)),
    close: () => undefined,
  }
}

async function putFile(key: string, from: string, to: string): Promise<Outcome<PutResult>> {
  const placed = await place(to, true, (partial) => copyFile(from, partial))
  if (placed.status !== 'success' || placed.value === 'stored') return placed
  try {
    const [bytes, there] = await Promise.all([stat(from), sizeOf(to)])
    return there === bytes.size ? placed : failure(objectDiffers(key, bytes.size, there))
  } catch (error) {
    return retryable(asStoreError('look at', to, error))
  }
}

function putBytes(bytes: Uint8Array, to: string, ifAbsent: boolean): Promise<Outcome<PutResult>> {
  return place(to, ifAbsent, (partial) => writeFile(partial, bytes))
}

/** Writes beside the place and moves it there, so that it is visible whole or not at all. */
async function place(
  to: string,
  ifAbsent: boolean,
  write: (partial: string) => Promise<void>,
): Promise<Outcome<PutResult>> {
  const partial = ownPartialPath(to)
  try {
    await mkdir(dirname(to), { recursive: true })
    await write(partial)
    if (!ifAbsent) {
      await rename(partial, to)
      return success('stored')
    }
    // Unlike a rename, a link does not replace what came there a moment ago.
    const linked = await link(partial, to).catch(existsAlready)
    await rm(partial, { force: true })
    return success(linked === 'present' ? 'present' : 'stored')
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined)
    return retryable(storeError('write', to, error))
  }
}

function existsAlready(error: unknown): 'present' {
  if (systemCode(error) === 'EEXIST') return 'present'
  throw error
}

function asStoreError(doing: string, path: string, error: unknown): Error {
  return error instanceof Ring2Error ? error : storeError(doing, path, error)
}

/** A whole file; null when there is none. Throws RING2_E_STORE. */
export async function readWhole(
  key: string,
  path: string,
  bytesMax: number,
): Promise<Uint8Array | null> {
  try {
    const { size } = await stat(path)
    if (size > bytesMax) throw objectTooLarge(key, size, bytesMax)
    return await readFileRange(path, 0, size)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw asStoreError('read', path, error)
  }
}

async function readRange(
  root: string,
  key: string,
  path: string,
  start: number,
  length: number,
): Promise<Uint8Array> {
  try {
    return await readFileRange(path, start, length)
  } catch (error) {
    throw systemCode(error) === 'ENOENT'
      ? objectMissing(key, root)
      : storeError('read', path, error)
  }
}

/** Bytes of a local file; throws the system's error. */
export async function readFileRange(
  path: string,
  start: number,
  length: number,
): Promise<Uint8Array> {
  const handle = await open(path, 'r')
  try {
    const bytes = new Uint8Array(length)
    let filled = 0
    while (filled < length) {
      const { bytesRead } = await handle.read(bytes, filled, length - filled, start + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return bytes.subarray(0, filled)
  } finally {
    await handle.close()
  }
}

async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw storeError('look at', path, error)
  }
}

async function* listFiles(
  root: string,
  prefix: string,
  { limit = Number.POSITIVE_INFINITY }: ListOptions = {},
): AsyncIterable<StoredObject> {
  let left = limit
  // A prefix ends at a folder, so that listing does not walk what lies beside it.
  const folder = join(root, prefix.slice(0, prefix.lastIndexOf('/') + 1))
  const pending = [folder]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const entry of await readFolder(next)) {
      const path = join(next, entry.name)
      if (entry.isDirectory) pending.push(path)
      const key = relative(root, path)
      if (entry.isDirectory || !key.startsWith(prefix) || !isObjectKey(key)) continue
      if (left <= 0) return
      const bytes = await sizeOf(path)
      if (bytes === null) continue
      left -= 1
      yield { key, bytes }
    }
  }
}

/**
 * Entries of a folder, none when there is no folder. Links are passed over: they may lead in a circle,
 * or to what is not the store's. The folder itself may be one. Throws RING2_E_STORE.
 */
export async function readFolder(path: string): Promise<{ name: string; isDirectory: boolean }[]> {
  try {
    const entries: { name: string; isDirectory: boolean }[] = []
    for await (const entry of await opendir(path)) {
      if (entry.isSymbolicLink()) continue
      entries.push({ name: entry.name, isDirectory: entry.isDirectory() })
    }
    return entries
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('list', path, error)
  }
}

/** One that is not there counts as removed. What a link leads to would stay: that is refused. */
export async function removeFile(path: string): Promise<Outcome<void>> {
  try {
    const linked = (await lstatOr(path))?.isSymbolicLink() === true && (await sizeOf(path)) !== null
    if (linked) return failure(linkRefused(path))
    await rm(path, { force: true })
    return success(undefined)
  } catch (error) {
    return retryable(storeError('remove', path, error))
  }
}

async function lstatOr(path: string): Promise<Stats | null> {
  try {
    return await lstat(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}

function linkRefused(path: string): Ring2Error {
  return new Ring2Error('RING2_E_STORE', {
    expected: `a file of the store to remove at ${path}`,
    actual: 'a symbolic link, whose target would stay',
    action: 'Move the target to the place of the link, or remove both by hand.',
  })
}
