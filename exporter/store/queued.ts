/**
 * A bucket with its upload queue in front: a file that is not uploaded yet is read from local disk,
 * so that a tensor can be fetched as soon as it is published.
 */

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { storeError, systemCode } from '../errors.ts'
import { flatName, isKey, keyOfFlatName } from '../tensors/keys.ts'
import { readFileRange } from './fs.ts'
import type { ObjectStore, StoredObject } from './object-store.ts'

export function createQueuedStore(remote: ObjectStore, queue: string): ObjectStore {
  const pathOf = (key: string) => join(queue, flatName(key))

  async function getRange(key: string, start: number, length: number): Promise<Uint8Array> {
    const local = await orAbsent(() => readFileRange(pathOf(key), start, length), pathOf(key))
    return local ?? remote.getRange(key, start, length)
  }

  async function size(key: string): Promise<number | null> {
    const local = await orAbsent(async () => (await stat(pathOf(key))).size, pathOf(key))
    return local ?? remote.size(key)
  }

  async function* list(prefix: string): AsyncIterable<StoredObject> {
    const waiting = new Set<string>()
    for (const object of await queuedObjects(queue)) {
      if (!object.key.startsWith(prefix)) continue
      waiting.add(object.key)
      yield object
    }
    for await (const object of remote.list(prefix)) {
      if (!waiting.has(object.key)) yield object
    }
  }

  return {
    put: remote.put,
    getRange,
    size,
    list,
    delete: remote.delete,
    close: remote.close,
  }
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
