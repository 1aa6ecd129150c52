/**
 * A bucket with its upload queue in front: a file that is not uploaded yet is read from local disk,
 * so that a tensor can be fetched as soon as it is published.
 *
 *   {queue}/{key with "," for "/"}              a file that waits
 *   {queue}/.{key with "," for "/"}.removed     it was removed, perhaps while it was uploaded
 */

import { existsSync } from 'node:fs'
import { readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Outcome } from '../../collector/records.ts'
import { retryable, storeError, success, systemCode } from '../errors.ts'
import { readFileRange, readWhole, removeFile } from './fs.ts'
import { flatName, isKey, keyOfFlatName } from './keys.ts'
import type { ListOptions, ObjectStore, StoredObject } from './object-store.ts'

export function createQueuedStore(remote: ObjectStore, queue: string): ObjectStore {
  const pathOf = (key: string) => join(queue, flatName(key))

  async function getRange(key: string, start: number, length: number): Promise<Uint8Array> {
    const local = await orAbsent(() => readFileRange(pathOf(key), start, length), pathOf(key))
    return local ?? remote.getRange(key, start, length)
  }

  async function read(key: string, bytesMax: number): Promise<Uint8Array | null> {
    return (await readWhole(key, pathOf(key), bytesMax)) ?? remote.read(key, bytesMax)
  }

  async function removeBoth(key: string): Promise<Outcome<void>> {
    // First here: otherwise it would be uploaded after it was removed there.
    if (existsSync(pathOf(key))) {
      const marked = await markRemoved(queue, key)
      if (marked.status !== 'success') return marked
    }
    const removed = await removeFile(pathOf(key))
    return removed.status === 'success' ? remote.delete(key) : removed
  }

  async function size(key: string): Promise<number | null> {
    const local = await orAbsent(async () => (await stat(pathOf(key))).size, pathOf(key))
    return local ?? remote.size(key)
  }

  async function* list(
    prefix: string,
    { limit = Number.POSITIVE_INFINITY }: ListOptions = {},
  ): AsyncIterable<StoredObject> {
    const waiting = new Set<string>()
    for (const object of await queuedObjects(queue)) {
      if (!object.key.startsWith(prefix)) continue
      if (waiting.size >= limit) return
      waiting.add(object.key)
      yield object
    }
    let left = limit - waiting.size
    if (left <= 0) return
    // A file that is uploaded meanwhile is in both, so as many more may have to be passed over.
    const rest = limit === Number.POSITIVE_INFINITY ? {} : { limit }
    for await (const object of remote.list(prefix, rest)) {
      if (waiting.has(object.key)) continue
      yield object
      left -= 1
      if (left <= 0) return
    }
  }

  return {
    ...remote,
    // Small objects are never queued.
    getRange: (key, start, length) =>
      isKey(key) ? getRange(key, start, length) : remote.getRange(key, start, length),
    read: (key, bytesMax) => (isKey(key) ? read(key, bytesMax) : remote.read(key, bytesMax)),
    size: (key) => (isKey(key) ? size(key) : remote.size(key)),
    list,
    delete: (key) => (isKey(key) ? removeBoth(key) : remote.delete(key)),
  }
}

const REMOVED_SUFFIX = '.removed'

/** An empty file that tells whoever uploads the object at this moment to remove it again. */
function removedPath(queue: string, key: string): string {
  return join(queue, `.${flatName(key)}${REMOVED_SUFFIX}`)
}

async function markRemoved(queue: string, key: string): Promise<Outcome<void>> {
  const path = removedPath(queue, key)
  try {
    await writeFile(path, '')
    return success(undefined)
  } catch (error) {
    return retryable(storeError('write', path, error))
  }
}

/** Whether the file was removed from the queue to be removed from the bucket, too. */
export function isRemoved(queue: string, key: string): boolean {
  return existsSync(removedPath(queue, key))
}

/** Keys of files that were removed from the queue so long ago that nobody still uploads them. */
export async function removedKeys(queue: string, quietMillis: number): Promise<string[]> {
  const names = (await orAbsent(() => readdir(queue), queue)) ?? []
  const keys: string[] = []
  for (const name of names) {
    if (!name.startsWith('.') || !name.endsWith(REMOVED_SUFFIX)) continue
    const key = name.slice(1, -REMOVED_SUFFIX.length).replaceAll(',', '/')
    const marked = await orAbsent(async () => (await stat(join(queue, name))).mtimeMs, queue)
    if (isKey(key) && marked !== null && Date.now() - marked > quietMillis) keys.push(key)
  }
  return keys
}

export async function forgetRemoved(queue: string, key: string): Promise<void> {
  await rm(removedPath(queue, key), { force: true })
}

/** Null when there is no such file: it has been uploaded, perhaps a moment ago. */
async function orAbsent<T>(read: () => Promise<T>, path: string): Promise<T | null> {
  try {
    return await read()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw storeError('read', path, error)
  }
}

/** Files of the queue, oldest first by the ULID at the end of their name. */
export async function queuedObjects(queue: string): Promise<StoredObject[]> {
  const names = (await orAbsent(() => readdir(queue), queue)) ?? []
  const objects: StoredObject[] = []
  for (const name of names) {
    const key = name.replaceAll(',', '/')
    if (!isKey(key)) continue
    const bytes = await orAbsent(async () => (await stat(join(queue, name))).size, queue)
    if (bytes !== null) objects.push({ key: keyOfFlatName(name), bytes })
  }
  return objects.sort((left, right) => compare(ulidOf(left.key), ulidOf(right.key)))
}

const ULID_CHARACTERS = 26

/** A ULID sorts as the time it was made at. */
export function ulidOf(key: string): string {
  return key.slice(0, -'.parquet'.length).slice(-ULID_CHARACTERS)
}

function compare(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}
