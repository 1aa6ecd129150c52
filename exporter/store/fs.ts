/**
 * The store in a directory: an object is a file at `{root}/{key}`.
 */

import { createReadStream, createWriteStream, type Dirent } from 'node:fs'
import { mkdir, open, opendir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Outcome } from '../../collector/records.ts'
import { retryable, storeError, success, systemCode } from '../errors.ts'
import { assertKey, isKey } from '../tensors/keys.ts'
import { type ObjectStore, objectMissing, type StoredObject } from './object-store.ts'

export function createDirectoryStore(root: string): ObjectStore {
  const pathOf = (key: string) => join(root, assertKey(key))
  return {
    put: (key, path) => putFile(path, pathOf(key)),
    getRange: (key, start, length) => readRange(root, key, pathOf(key), start, length),
    size: (key) => sizeOf(pathOf(key)),
    list: (prefix) => listFiles(root, prefix),
    delete: (key) => removeFile(pathOf(key)),
    close: () => undefined,
  }
}

async function putFile(from: string, to: string): Promise<Outcome<void>> {
  const partial = `${to}.partial`
  try {
    await mkdir(dirname(to), { recursive: true })
    await pipeline(createReadStream(from), createWriteStream(partial))
    await rename(partial, to)
    return success(undefined)
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined)
    return retryable(storeError('write', to, error))
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

async function* listFiles(root: string, prefix: string): AsyncIterable<StoredObject> {
  // A prefix ends at a folder, so that listing does not walk what lies beside it.
  const folder = join(root, prefix.slice(0, prefix.lastIndexOf('/') + 1))
  const pending = [folder]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const entry of await readFolder(next)) {
      const path = join(next, entry.name)
      if (entry.isDirectory) pending.push(path)
      const key = relative(root, path)
      if (entry.isDirectory || !key.startsWith(prefix) || !isKey(key)) continue
      const bytes = await sizeOf(path)
      if (bytes !== null) yield { key, bytes }
    }
  }
}

async function readFolder(path: string): Promise<{ name: string; isDirectory: boolean }[]> {
  try {
    const entries: { name: string; isDirectory: boolean }[] = []
    for await (const entry of await opendir(path)) {
      entries.push({ name: entry.name, isDirectory: await isFolder(path, entry) })
    }
    return entries
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw storeError('list', path, error)
  }
}

async function isFolder(path: string, entry: Dirent): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory()
  // A link may lead to another file system that holds part of the store, or nowhere.
  const target = await stat(join(path, entry.name)).catch(() => null)
  return target?.isDirectory() ?? false
}

async function removeFile(path: string): Promise<Outcome<void>> {
  try {
    await rm(path, { force: true })
    return success(undefined)
  } catch (error) {
    return retryable(storeError('remove', path, error))
  }
}
